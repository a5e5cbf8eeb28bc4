"""What the programs give to shells and readers: completion and manual pages, both made from the tables of commands."""
import re
import subprocess

import pytest

from stack import BUILD, MUSTER, MUSTERD, ROOT

COMMANDS = [(o, v or None) for o, v in re.findall(r'\{\s*"([a-z-]+)",\s*(?:"([a-z-]+)"|NULL),', (ROOT / "server/cli/command_table.c").read_text())]


def told(program, *args):
    return subprocess.run([program, *args], capture_output=True, text=True, check=True).stdout


def completed(shell_line, folder):
    """What bash offers at the end of a line."""
    script = f"""source <({MUSTER} completion bash)
COMP_WORDS=({shell_line}); [ "${{COMP_WORDS[-1]}}" != @ ] || COMP_WORDS[-1]=
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); compopt() {{ COMPREPLY=($(compgen -f -- "${{COMP_WORDS[COMP_CWORD]}}")); }}
_muster; printf '%s\\n' "${{COMPREPLY[@]}}\""""
    return set(subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=folder).stdout.split())


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "serials.csv").touch()
    return tmp_path


def test_every_object_and_verb_is_offered(folder):
    assert completed("muster @", folder) == {o for o, _ in COMMANDS} | {"help"}
    for name in {o for o, v in COMMANDS if v}:
        assert completed(f"muster {name} @", folder) == {v for o, v in COMMANDS if o == name and v}


@pytest.mark.parametrize("name,verb", COMMANDS)
def test_every_option_of_a_command_is_offered(folder, name, verb):
    own, every = told(MUSTER, name, "--help").split("\nEvery command:\n")
    (block,) = [b for b in re.split(r"\n(?=  \S)", "\n" + own) if re.match(rf"  {name} {verb + ' ' if verb else '(?![a-z]+ )'}", b)]
    wanted = set(re.findall(r"^ {6}(--[a-z-]+)", block + "\n" + every, re.M))
    assert completed(" ".join(filter(None, ["muster", name, verb, "--"])), folder) == wanted


@pytest.mark.parametrize("line,offered", [
    ("muster to", {"token"}), ("muster token cre", {"create"}), ("muster --json device sh", {"show"}), ("muster --product token device sh", {"show"}),
    ("muster token create --serials ser", {"serials.csv"}), ("muster allowlist import ser", {"serials.csv"}), ("muster token create --template @", set()),
    ("muster token create --csv --cou", {"--count"}), ("muster nothing --he", {"--help"}),
])
def test_lines(folder, line, offered):
    assert completed(line, folder) == offered


def test_a_shell_without_a_completion_is_told(tmp_path):
    done = subprocess.run([MUSTER, "completion", "fish"], capture_output=True, text=True)
    assert done.returncode == 2 and "bash and zsh" in done.stderr and done.stdout == ""


def test_zsh_takes_it(tmp_path):
    (tmp_path / "_muster").write_text(told(MUSTER, "completion", "zsh"))
    done = subprocess.run(["zsh", "-fc", "autoload -U compinit && compinit -u -d $1/dump && source $1/_muster && print -r -- $_comps[muster]", "zsh", tmp_path],
                          capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "" and "_muster" in done.stdout, done


@pytest.mark.parametrize("page", ["muster.1", "musterd.8"])
def test_a_manual_page_has_no_warnings(page):
    file = BUILD / "server" / page
    for command in (["man", "--warnings", "-E", "UTF-8", "-l", file], ["groff", "-ww", "-man", "-Tutf8", file]):
        done = subprocess.run(command, capture_output=True, text=True, env={"LC_ALL": "C.UTF-8", "MANWIDTH": "200", "MAN_KEEP_FORMATTING": "0", "PATH": "/usr/bin:/bin"})
        assert done.returncode == 0 and done.stderr == "" and len(done.stdout) > 2000, done.stderr


def shown(page):
    text = subprocess.run(["man", "-E", "UTF-8", "-l", BUILD / "server" / page], capture_output=True, text=True, check=True,
                          env={"LC_ALL": "C.UTF-8", "MANWIDTH": "300", "PATH": "/usr/bin:/bin"}).stdout
    return re.sub(".\b", "", text)


def test_the_manual_has_every_command_option_and_key():
    page = shown("muster.1")
    for name, verb in COMMANDS:
        assert re.search(rf"^   {name}{' ' + verb if verb else ''}( |$)", page, re.M), (name, verb)
    for option in re.findall(r"^ {6}(--[a-z-]+)", "".join(told(MUSTER, o, "--help") for o in dict(COMMANDS)), re.M):
        assert re.search(rf"^ +{option}\b", page, re.M), option
    daemon, usage = shown("musterd.8"), told(MUSTERD, "--help")
    for line in usage.splitlines()[1:]:
        if line.startswith("The configuration file"):
            continue
        assert " ".join(line.split()) in " ".join(daemon.split()), line
