#!/usr/bin/env python3
"""Prints a manual page from a program's own help, so that both say the same:  man.py muster|musterd PROGRAM"""
import re
import subprocess
import sys


def told(program, *args):
    return subprocess.run([program, *args], capture_output=True, text=True, check=True).stdout


def safe(text):
    """Text as roff takes it: no escapes, no requests, hyphens that can be copied."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text


def head(name, section, what, synopsis):
    version = told(sys.argv[2], "--version").split()[1]
    yield f'.TH {name.upper()} {section} "" "Muster {version}" "Muster"'
    yield f".SH NAME\n{name} \\- {safe(what)}\n.SH SYNOPSIS"
    yield from (f".B {safe(line)}\n.br" for line in synopsis)


def options(lines):
    for line in lines:
        if match := re.match(r"\s+(--\S+(?: [^ ]+)?)\s{2,}(.*)", line):
            yield f".TP\n.B {safe(match[1])}\n{safe(match[2])}"


def command(lines):
    """One command of muster: its line, options and example, as command_help prints them."""
    name, text = re.match(r"  (.{34}\S*) (.*)", lines[0]).groups()
    yield f".SS {safe(name.rstrip())}\n{safe(text)}."
    yield from options(lines[1:])
    for line in lines[1:]:
        if line.startswith("      e.g. "):
            yield f".PP\n.EX\n{safe(line[11:])}\n.EE"


def muster(program):
    overview, every = told(program, "--help").split("\nEvery command:\n")
    objects = dict.fromkeys(line.split()[0] for line in overview.splitlines()[1:] if line.startswith("  "))
    yield from head("muster", 1, "the operator's command of the Muster provisioning server", ["muster COMMAND [ARGUMENTS] [OPTIONS]"])
    yield ".SH DESCRIPTION\nIt speaks only the admin API of musterd(8), over HTTPS, so it works from any machine that reaches the admin listener."
    yield ".SH OPTIONS\nEvery command takes:"
    yield from options(every.splitlines())
    yield ".SH COMMANDS"
    for name in objects:
        block = []
        for line in told(program, name, "--help").split("\nEvery command:\n")[0].splitlines():
            if re.match(r"  \S", line) and block:
                yield from command(block)
                block = []
            block.append(line)
        yield from command(block)
    yield ".SH EXIT STATUS\n" + safe(re.search(r"Exit codes: (.*)", every)[1])
    yield ".SH ENVIRONMENT\nMUSTER_ADMIN_URL, MUSTER_ADMIN_TOKEN, MUSTER_CACERT and MUSTER_URL stand for the options that name them."
    yield ".SH SEE ALSO\nmusterd(8)"


def musterd(program):
    usage, table = told(program, "--help").split("\nThe configuration file, with the defaults:\n\n")
    yield from head("musterd", 8, "device provisioning server", ["musterd COMMAND \\-\\-config FILE [OPTIONS]".replace("\\-", "-")])
    yield ".SH COMMANDS\n.EX"
    yield from (safe(line) for line in usage.split("\n\n", 1)[1].splitlines())
    yield ".EE\n.SH CONFIGURATION\nAn INI file. Unknown sections and keys are errors."
    for line in table.splitlines():
        if line.startswith("["):
            yield f".SS {safe(line)}"
        elif line.startswith("      "):
            yield safe(line.strip())
        else:
            yield f".TP\n.B {safe(line.strip())}"
    yield ".SH SEE ALSO\nmuster(1)"


if __name__ == "__main__":
    print("\n".join({"muster": muster, "musterd": musterd}[sys.argv[1]](sys.argv[2])))
