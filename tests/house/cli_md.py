"""Prints docs/cli.md from the program's own help:  tests/house/cli_md.py build/server/muster > docs/cli.md"""
import re
import subprocess
import sys

OBJECTS = [("product", "Product lines"), ("template", "Templates"), ("allowlist", "Allowlists"), ("manifest", "Manifests of secure elements"), ("token", "Bootstrap tokens"),
           ("claim", "Claims"), ("ca", "CAs"), ("device", "Devices"), ("cert", "Certificates"), ("crl", "CRLs"), ("factory", "The factory"), ("enrollment", "Enrollments of devices"), ("enrollment-group", "Enrollment groups"), ("endpoint", "Brokers that devices are assigned to"), ("webhook", "Receivers of events"), ("event", "Events"), ("explain", "Explaining an attempt"),
           ("registry", "After the registry was lost"), ("audit", "The audit"), ("admin-token", "Admin tokens"), ("status", "The server"), ("doctor", "Checking the installation"), ("whoami", "Whose token this is"), ("completion", "Completion")]

HEAD = """# The `muster` command

The operator's command. It speaks only the admin API, over HTTPS, so it works from any machine that reaches the admin
listener. This page is printed by `tests/house/cli_md.py` from the program's own help.

## Before the first command

| | |
|---|---|
| `MUSTER_ADMIN_URL` or `--url` | `https://HOST:PORT` of the admin listener |
| `MUSTER_ADMIN_TOKEN` or `--token-file FILE` | the admin token; never an argument, which every process of the machine could read |
| `MUSTER_CACERT` or `--cacert FILE` | CA of the server's certificate; without it the system's |

After the quickstart: `. .dev/env`.

## What it prints

For people: tables, `name value` lines, and for `device show` and `explain` a story. With `--json` exactly what the API
returns: an array for a list (its pages joined), an object for one thing. Text that came from devices is printed with
control characters escaped. `token create` prints `id token serial`, one token a line, for `cut` and `awk`.
With `--out FILE` the tokens go into a new file of mode 0600, synced after every 5000: when a long run breaks, the file
holds every token that the server answered with. A file that exists is refused before anything is minted; when the file
cannot be written any more, the last tokens are printed on standard output and the run ends.

`claim create` and `claim rotate` print the certificate, the CAs above it and, where it was made, the private key, all in PEM.
With `--out FILE` the certificates go into `FILE.pem` and the key into `FILE.key`, of mode 0600; neither may exist.

Exit codes: 0 done, 1 refused by the server or lines rejected, 2 wrong usage, 3 the server cannot be reached.
A refusal is one line on standard error, `muster: CODE: what it means: the detail (request ID)`; the codes are in
[errors.md](errors.md).

Manual pages, `muster.1` and `musterd.8`, and bash's completion are installed by `meson install`; `muster completion zsh`
prints zsh's. All of them are made from the tables that this page and `--help` come from.

`--limit N` bounds a list; without it all pages are fetched. `--timeout SECONDS` bounds one request.
"""

TAIL = """
## Importing allowlists

`muster allowlist import FILE|-` takes CSV, `serial[,pin[,batch]]`, or JSON lines, `{"serial", "spki_pin", "batch"}`. A bare
line is a serial; `#` begins a comment; blank lines and a header line that begins with `serial` are left out. The pin is the
SHA-256 of the only public key (SubjectPublicKeyInfo, DER) the serial may enrol with, in hexadecimal. Files of any length are
sent in pieces; the report numbers lines as the file does. Each rejected line is printed with its reason, and the exit code
is then 1. Importing again changes nothing: lines that are there count as duplicate. On a terminal a bar shows how far it is.

With `--report FILE` every line's fate goes into a new file of CSV, `line,result,serial,reason`; the result is `imported`,
`duplicate` or `rejected`. After each piece, of at most 50,000 lines, a line `#done LINES HASH` says that everything above it is in
the registry. When the run breaks, whatever broke it, the same command with `--resume` goes on behind the last `#done`: it cuts
off what stands after it, checks by the hash that the file is still the same up to there, and sends the rest. Of the
piece that was under way the lines may then count as duplicate, because the registry took them and only the answer was
lost. Exit code 2 says that the file is another one, or the report none.

A million lines took 8 s on two cores, with at most 13 MiB of memory of `muster` (57 with a report) and 35 of `musterd`.
"""


def section(program, name):
    text = subprocess.run([program, name, "--help"], capture_output=True, text=True, check=True).stdout
    for line in text.split("\nEvery command:")[0].splitlines():
        if line.startswith("      e.g. "):
            yield f"\n```sh\n{line[11:]}\n```"
        elif line.startswith("      --"):
            option, text = re.match(r"\s+(\S+(?: \S+)?)\s{2,}(.*)", line).groups()
            yield f"* `{option}`: {text}"
        elif line.strip():
            command, text = re.match(r"  (\S.*?)\s{2,}(.*)", line).groups()
            yield f"\n### `muster {command}`\n\n{text[0].upper() + text[1:]}.\n"


def main(program):
    print(HEAD)
    for name, title in OBJECTS:
        print(f"## {title}")
        print("\n".join(section(program, name)))
        print()
    print(TAIL.strip())


main(sys.argv[1])
