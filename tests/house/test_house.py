"""The house: include direction, vendor fences, sizes, names, and documents that agree with the code."""
import os
import pathlib
import re
import statistics
import subprocess

import pytest

ROOT = pathlib.Path(os.environ.get("MUSTER_SOURCE_ROOT", pathlib.Path(__file__).resolve().parents[2]))
SERVER = ROOT / "server"
SOURCES = sorted(SERVER.rglob("*.[ch]"))
SWARM = sorted((ROOT / "loadtest").rglob("*.[ch]"))

# folder: the folders whose headers it may include, besides its own
LEFT_OF = {
    "base": set(),
    "model": {"base"},
    "pki": {"base", "model"},
    "store": {"base", "model"},
    "enroll": {"base", "model", "pki", "store"},
    "proto": {"base", "model", "pki", "store", "enroll"},
    "http": {"base", "model", "pki", "store", "enroll", "proto"},
    "mqtt": {"base", "model", "pki", "store", "enroll", "proto"},
    "ops": {"base", "model", "pki", "store", "enroll", "proto"},
    "main": {"base", "model", "pki", "store", "enroll", "proto", "http", "mqtt", "ops"},
    "cli": {"base", "model", "pki"},
    "broker": {"base", "model"},
}

# vendor header: where it may be included
FENCES = {
    r"openssl/": {"pki", "base/secret.c", "broker"},
    r"mosquitto|mqtt_protocol\.h": {"broker"},
    r"libpq-fe\.h": {"store"},
    r"jansson\.h": {"enroll", "proto", "cli"},
    r"cbor\.h": {"proto/fleet/cbor.c"},
    r"MQTTAsync\.h": {"mqtt"},
    r"microhttpd\.h": {"http"},
    r"gnutls/": {"http"},
    r"ini\.h": {"ops"},
    r"systemd/": {"ops", "main"},
    r"curl/": {"cli", "enroll/hook_call.c"},
    r"png\.h": {"cli/qr_draw.c"},
    r"qrencode\.h": {"cli/qr_draw.c"},
}


def relative(file):
    return file.relative_to(SERVER).as_posix()


def includes(file):
    return re.findall(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', file.read_text(), re.M)


@pytest.mark.parametrize("file", SOURCES, ids=relative)
def test_include_direction(file):
    folder = relative(file).split("/")[0]
    for kind, name in includes(file):
        if kind == "<":
            continue
        target = name.split("/")[0]
        assert (SERVER / name).exists(), f"{name}: includes are relative to server/"
        assert target == folder or target in LEFT_OF[folder], f"{relative(file)} includes {name}"
        if folder == "proto" and name.count("/") == 2:
            assert name.split("/")[1] == relative(file).split("/")[1], f"adapters do not include one another: {name}"


@pytest.mark.parametrize("file", SOURCES, ids=relative)
def test_vendor_fences(file):
    for kind, name in includes(file):
        for vendor, allowed in FENCES.items():
            if kind == "<" and re.match(vendor, name):
                assert any(relative(file) == a or relative(file).startswith(a + "/") for a in allowed), f"{relative(file)} includes <{name}>"


def test_every_folder_is_known():
    assert {relative(f).split("/")[0] for f in SOURCES} == set(LEFT_OF)


def functions(file):
    """(name, lines) of each function of a formatted file."""
    lines = file.read_text().splitlines()
    found, start = [], None
    for n, line in enumerate(lines):
        if line == "{":
            start = n
            while start > 0 and lines[start - 1] and not lines[start - 1].startswith((" ", "}", "#", "/", "*")) or lines[start - 1].startswith("    ") and not lines[start - 1].rstrip().endswith(";"):
                start -= 1
        elif line == "}" and start is not None:
            found.append((lines[start], n - start + 1))
            start = None
    return found


def test_functions_are_short():
    lengths = [(length, f.name, name) for f in SOURCES + SWARM for name, length in functions(f)]
    assert len(lengths) > 400
    assert statistics.median(length for length, *_ in lengths) <= 15
    assert [x for x in lengths if x[0] > 80] == []


def test_files_and_headers_are_short():
    every = SOURCES + SWARM + sorted((ROOT / "tests").rglob("*.[ch]")) + sorted((ROOT / "tests").rglob("*.py"))
    lengths = [(len(f.read_text().splitlines()), f.relative_to(ROOT).as_posix()) for f in every]
    assert [x for x in lengths if x[0] > 600] == []
    assert [x for x in lengths if x[1].endswith(".h") and not x[1].endswith("_table.h") and x[0] > 150] == []  # a table has a row for each thing there is


@pytest.mark.parametrize("file", [f for f in SOURCES if f.suffix == ".c"], ids=relative)
def test_nesting_is_three_levels(file):
    for n, line in enumerate(file.read_text().splitlines(), 1):
        if re.match(r" {13,}(if|for|while|switch|do)\b", line):
            pytest.fail(f"{relative(file)}:{n}: nested deeper than three levels")


@pytest.mark.parametrize("file", [f for f in SOURCES + SWARM if f.suffix == ".h"], ids=lambda f: f.relative_to(ROOT).as_posix())
def test_headers_begin_with_what_they_are_for(file):
    text = file.read_text()
    assert text.startswith("/*") and "#pragma once" in text
    assert "typedef struct" not in text and not re.search(r"typedef .*_t;", text)


def test_no_unfinished_business():
    word = "TO" + "DO"
    bad = []
    for f in SOURCES + SWARM + sorted((ROOT / "schema").glob("*.sql")) + sorted(f for f in (ROOT / "deploy").rglob("*") if f.is_file() and "state" not in f.parts):
        for n, line in enumerate(f.read_text().splitlines(), 1):
            if re.search(rf"\b({word}|FIX" + r"ME|XXX|HACK)\b", line) or re.search(r"issue #?\d", line, re.I):
                bad.append(f"{f.name}:{n}")
    assert bad == []


def test_formatted():
    files = [str(f) for f in SOURCES + SWARM + sorted((ROOT / "tests").rglob("*.[ch]"))]
    done = subprocess.run(["clang-format", "--dry-run", "--Werror", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]


# documents

def faults():
    text = (SERVER / "model" / "fault_table.h").read_text()
    return re.findall(r'FAULT\(\w+,\s*"([^"]+)",\s*(\d+),\s*(\d),\s*(\d),\s*(\w+),\s*"([^"]+)",\s*"([^"]+)"\)', text)


def test_errors_md_is_the_registry():
    text = (ROOT / "docs" / "errors.md").read_text()
    rows = re.findall(r"^\| `([a-z_.]+)` \| (\d+) \| (\w+) \| (\w+) \| (\w+) \| (.+?) \| (.+?) \|$", text, re.M)
    expected = [(code, http, "yes" if retry == "1" else "no", "yes" if counts == "1" else "no", seen.lower(), title, remedy)
                for code, http, retry, counts, seen, title, remedy in faults()]
    assert len(expected) > 50
    assert rows == expected


def routes(file):
    """(method, path) of a route table in C."""
    found = set()
    for method, pattern in re.findall(r'\{\s*HTTP_(\w+),\s*(?:V1 )?"([^"]+)"', file.read_text()):
        found.add((method, pattern))
    for macro, pattern in re.findall(r'\b(GET|POST|ACT)\(\s*"([^"]+)"', file.read_text()):
        found.add(("POST" if macro == "ACT" else macro, pattern))
    for pattern in re.findall(r'^    PATH\("([^"]+)"\),', file.read_text(), re.M):  # of SCEP: both methods
        found |= {("GET", pattern), ("POST", pattern)}
    return found


def test_openapi_has_every_route():
    text = (ROOT / "docs" / "openapi.yaml").read_text()
    documented = set()
    path = None
    for line in text.splitlines():
        if m := re.match(r"  (/\S*):\s*$", line):
            path = m.group(1)
        elif m := re.match(r"    (get|post|put|delete):", line):
            documented.add((m.group(1).upper(), re.sub(r"\{[^}]+\}", "{}", path)))
    implemented = {(m, p if p.startswith("/admin/v1") or p == "/metrics" else "/admin/v1" + p) for m, p in routes(SERVER / "proto/admin/routes.c")}
    for file in ("proto/est/est.c", "proto/device/device.c", "proto/fleet/routes.c", "proto/health/health.c", "proto/station/station.c", "proto/dps/dps.c", "proto/scep/scep.c"):
        implemented |= routes(SERVER / file)
    assert len(implemented) > 50
    assert implemented == documented


def test_every_configuration_key_is_documented():
    text = (ROOT / "docs" / "operations.md").read_text()
    for section, key in re.findall(r"^(?:TEXT|NUMBER)\((\w+), (\w+)", (SERVER / "ops/config_table.h").read_text(), re.M):
        assert f"`{section}.{key}`" in text, f"{section}.{key}"


def test_every_command_is_documented():
    text = (ROOT / "docs" / "cli.md").read_text()
    found = re.findall(r'\{\s*"([a-z-]+)",\s*(?:"([a-z-]+)"|NULL),', (SERVER / "cli/command_table.c").read_text())
    assert len(found) > 35
    for name, verb in found:
        assert f"muster {name} {verb}".strip() in text, (name, verb)


def test_links_of_the_documents_lead_somewhere():
    for doc in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", doc.read_text()):
            assert (doc.parent / target).exists(), f"{doc.name}: {target}"


def test_every_alert_is_complete_and_its_runbook_is_a_section():
    rules = (ROOT / "deploy" / "prometheus" / "muster.rules.yml").read_text()
    tests = (ROOT / "tests" / "alerts" / "muster_test.yml").read_text()
    sections = set(re.findall(r"^#### ([a-z-]+)$", (ROOT / "docs" / "operations.md").read_text(), re.M))
    found = rules.split("- alert: ")[1:]
    assert len(found) >= 12
    named = set()
    for rule in found:
        name = rule.split("\n")[0]
        assert re.search(r"severity: (warning|critical)\n", rule) and 'summary: "' in rule, name
        (runbook,) = re.findall(r"runbook: docs/operations\.md#([a-z-]+)\n", rule)
        assert runbook in sections, (name, runbook)
        named.add(runbook)
        assert re.search(rf"alertname: {name}\n +exp_alerts", tests), f"no test in which {name} fires"
        assert f"{{eval_time: 26h, alertname: {name}}}" in tests, f"no test in which {name} is silent"
    assert sections == named


def test_every_scenario_key_is_documented():
    text = (ROOT / "docs" / "loadtest.md").read_text()
    keys = re.findall(r"^NUMBER\((\w+),", (ROOT / "loadtest/swarm/scenario.h").read_text(), re.M)
    assert len(keys) > 15
    for key in keys:
        assert f"`{key}`" in text, key


def test_each_claim_of_the_threat_model_names_tests_that_exist():
    text = (ROOT / "docs" / "security.md").read_text()
    named = set(re.findall(r"`(test_\w+)::(test_\w+)`", text))
    assert len(named) > 40
    for file, name in sorted(named):
        source = ROOT / "tests" / "integration" / f"{file}.py"
        assert source.exists() and f"\ndef {name}(" in source.read_text(), f"{file}::{name}"
