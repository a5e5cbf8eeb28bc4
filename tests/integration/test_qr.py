"""Codes for a camera: what they carry is read back by another program, and a device enrols with it."""
import hashlib
import re
import stat
import subprocess
import urllib.parse

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from client import Device, unique
from stack import MUSTER


def scan(png):
    return subprocess.run(["zbarimg", "-q", "--raw", png], capture_output=True, text=True, check=True).stdout.strip()


def pixels(drawing, file):
    """A PGM picture of what the terminal shows: two rows of modules a line, light where a block is."""
    lines = [re.sub("\033\\[[0-9;]*m", "", line) for line in drawing.splitlines()]
    rows = [[c in above for c in line] for line in lines for above in ("\u2580\u2588", "\u2584\u2588")]
    width = max(map(len, rows))
    scaled = [[255 if x else 0 for x in row for _ in range(6)] for row in rows for _ in range(6)]
    file.write_bytes(f"P5 {width * 6} {len(scaled)} 255\n".encode() + bytes(x for row in scaled for x in row))
    return file


def qr(stack, text, *args, check=True):
    return stack.cli("token", "qr", "-", "--server", f"127.0.0.1:{stack.port}", *args, stdin=text, check=check)


def read_back(stack, payload):
    url = urllib.parse.urlsplit(payload)
    assert (url.scheme, url.netloc, url.path) == ("muster", f"127.0.0.1:{stack.port}", "/")
    said = urllib.parse.parse_qs(url.query, strict_parsing=True)
    assert set(said) == {"v", "token", "ca"} and said["v"] == ["1"]
    root = x509.load_pem_x509_certificate(stack.cafile.read_bytes())
    assert said["ca"] == [hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest()]
    return said["token"][0]


def test_a_device_enrols_with_what_the_picture_says(stack, tmp_path):
    serial = unique()
    minted = stack.cli("token", "create", "--template", "open", "--serial", serial).stdout
    png = tmp_path / "code.png"
    qr(stack, minted, "--png", png)
    assert stat.S_IMODE(png.stat().st_mode) == 0o600
    Device(stack, serial, "open", read_back(stack, scan(png))).enrol()


@pytest.mark.parametrize("args", [("--csv",), ()])
def test_the_terminal_shows_the_same(stack, tmp_path, args):
    minted = stack.cli("token", "create", "--template", "open", *args).stdout
    drawing = qr(stack, minted).stdout
    token = read_back(stack, scan(pixels(drawing, tmp_path / "drawn.pgm")))
    assert token in minted and token not in drawing


def test_no_server_and_no_admin_token_are_needed(stack, tmp_path):
    (tmp_path / "token").write_text("mst_" + "a" * 43 + "\n")
    done = subprocess.run([MUSTER, "token", "qr", tmp_path / "token", "--cacert", stack.cafile, "--png", tmp_path / "x.png"],
                          env={"MUSTER_URL": f"https://127.0.0.1:{stack.port}/"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_back(stack, scan(tmp_path / "x.png")) == "mst_" + "a" * 43


def test_a_file_that_is_there_stays(stack, tmp_path):
    (tmp_path / "x.png").write_text("mine")
    done = qr(stack, "mst_abc", "--png", tmp_path / "x.png", check=False)
    assert done.returncode == 2 and "File exists" in done.stderr and (tmp_path / "x.png").read_text() == "mine"


@pytest.mark.parametrize("text,args,why", [
    ("", (), "there is no token"), ("17 none SN-1", (), "there is no token"), ("mst_a&ca=0", (), "there is no token"),
    ("mst_aaa\nmst_bbb", (), "more than one token"), ("mst_" + "a" * 600, (), "too long"), ("x" * 5000, (), "too long"),
    ("mst_abc", ("--server", "host"), "HOST:PORT"), ("mst_abc", ("--server", ":8443"), "HOST:PORT"), ("mst_abc", ("--server", "host:"), "HOST:PORT"),
    ("mst_abc", ("--server", "a b:1"), "HOST:PORT"), ("mst_abc", ("--server", "h/x?token=y:1"), "HOST:PORT"), ("mst_abc", ("--server", "h" * 300 + ":1"), "HOST:PORT"),
    ("mst_abc", ("--cacert", "/dev/null"), "no PEM certificate"), ("mst_abc", ("--cacert", "/nowhere"), "No such file"),
])
def test_what_makes_no_code(stack, tmp_path, text, args, why):
    done = qr(stack, text, "--png", tmp_path / "x.png", *args, check=False)
    assert done.returncode == 2 and why in done.stderr, done.stderr
    assert not (tmp_path / "x.png").exists()
