"""Large allowlists: a report of every line, and runs that break and go on."""
import csv
import os
import re
import signal
import subprocess
import time

import pytest

from client import unique
from stack import MUSTER

PIECE = 50000
LINES = 3 * PIECE + 1000


@pytest.fixture
def rows(tmp_path):
    """A file of many serials; every 1000th line is none, every 1001st was there before."""
    prefix = unique()
    text = "".join("not a serial!\n" if n % 1000 == 0 else f"{prefix}-1\n" if n % 1001 == 0 else f"{prefix}-{n}\n" for n in range(1, LINES + 1))
    (tmp_path / "serials.csv").write_text(text)
    return tmp_path / "serials.csv", prefix


def start(stack, *args):
    env = {**os.environ, "MUSTER_ADMIN_URL": f"https://127.0.0.1:{stack.admin_port}", "MUSTER_ADMIN_TOKEN": stack.token, "MUSTER_CACERT": str(stack.cafile)}
    return subprocess.Popen([MUSTER, "allowlist", "import", *map(str, args), "--product", "pump"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_done(report, lines):
    end = time.monotonic() + 60
    while f"#done {lines} " not in (report.read_text() if report.exists() else ""):
        assert time.monotonic() < end
        time.sleep(0.002)


def lines_of(report):
    text = report.read_text()
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def whole(stack, report, prefix, lost=0):
    """Every line once, in order, and the registry as the report says. lost: lines whose answer was lost."""
    found = lines_of(report)
    assert [int(r["line"]) for r in found] == list(range(1, LINES + 1))
    for r in found:
        n = int(r["line"])
        assert r["result"] == ("rejected" if n % 1000 == 0 else "duplicate" if n % 1001 == 0 else "imported") or lost and r["result"] == "duplicate", r
        assert (r["reason"] != "") == (r["result"] == "rejected")
    assert stack.one("SELECT count(*) FROM allowlist WHERE serial LIKE %s", prefix + "-%") == sum(1 for n in range(1, LINES + 1) if n % 1000 and n % 1001)


def test_a_report_says_what_became_of_each_line(stack, rows, tmp_path):
    file, prefix = rows
    done = start(stack, file, "--report", tmp_path / "r.csv")
    out, err = done.communicate(timeout=120)
    assert done.returncode == 1 and re.search(r"\d+ imported, \d+ duplicate, 151 rejected", out) and err == ""
    whole(stack, tmp_path / "r.csv", prefix)
    again = start(stack, file, "--report", tmp_path / "r.csv", "--resume")
    assert again.communicate(timeout=120)[0] == out and again.returncode == 1
    whole(stack, tmp_path / "r.csv", prefix)


@pytest.mark.parametrize("torn", ["", "150", "100001,imported,x-1,\n100002,impor"])
def test_a_run_that_was_killed_goes_on(stack, rows, tmp_path, torn):
    file, prefix = rows
    report = tmp_path / "r.csv"
    run = start(stack, file, "--report", report)
    wait_done(report, PIECE)
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.communicate()
    with report.open("a") as f:
        f.write(torn)
    end = start(stack, file, "--report", report, "--resume")
    out, err = end.communicate(timeout=120)
    assert end.returncode == 1, err
    whole(stack, report, prefix, lost=1)
    assert "151 rejected" in out


def test_a_server_that_is_stopped_and_started(fresh, rows, tmp_path):
    file, prefix = rows
    report = tmp_path / "r.csv"
    run = start(fresh, file, "--report", report)
    wait_done(report, PIECE)
    fresh.stop()
    _, err = run.communicate(timeout=120)
    fresh.start()
    assert run.returncode in (1, 3), err
    end = start(fresh, file, "--report", report, "--resume")
    assert end.communicate(timeout=120)[1] == "" and end.returncode == 1
    whole(fresh, report, prefix, lost=1)


def test_another_file_is_refused(stack, rows, tmp_path):
    file, prefix = rows
    report = tmp_path / "r.csv"
    text = file.read_text()
    file.write_text("\n".join(text.splitlines()[:PIECE]) + "\n")
    assert start(stack, file, "--report", report).wait(60) == 1
    before = report.read_text()
    for other in (text.replace(f"{prefix}-77\n", f"{prefix}-7x\n"), "\n".join(text.splitlines()[:500])):
        file.write_text(other)
        done = start(stack, file, "--report", report, "--resume")
        assert "not the one of the report" in done.communicate(timeout=60)[1] and done.returncode == 2
    assert report.read_text() == before


def test_what_is_no_report(stack, tmp_path):
    (tmp_path / "s").write_text("x-1\n")
    (tmp_path / "r").write_text("mine\n")
    for args, why in [(["--report", tmp_path / "r"], "File exists"), (["--report", tmp_path / "r", "--resume"], "no report"),
                      (["--report", tmp_path / "none", "--resume"], "No such file"), (["--resume"], "--report")]:
        done = start(stack, tmp_path / "s", *args)
        assert why in done.communicate(timeout=60)[1] and done.returncode == 2
    assert (tmp_path / "r").read_text() == "mine\n"


def test_a_cell_is_one_cell(stack, tmp_path):
    name = unique()
    (tmp_path / "s").write_text('{"serial": "a,\\"b\\n#done 1 x"}\n{"serial": "' + name + '"}\n')
    done = start(stack, tmp_path / "s", "--report", tmp_path / "r.csv")
    done.communicate(timeout=60)
    first, second = lines_of(tmp_path / "r.csv")
    assert (first["result"], second["result"], second["serial"]) == ("rejected", "imported", name)
