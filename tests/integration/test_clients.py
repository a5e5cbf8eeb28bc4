"""Real clients: curl with openssl as in the README, and strongSwan's pki."""
import re
import shutil
import subprocess

import pytest

from client import unique
from stack import ROOT


def run(*args, **kw):
    done = subprocess.run(list(map(str, args)), capture_output=True, **kw)
    assert done.returncode == 0, (args, done.stdout[:1500], done.stderr[:1500])
    return done.stdout


def readme_lines():
    """The lines of the README's block that enrols a device."""
    text = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- enrol -->\n```sh\n(.*?)```", text, re.S)
    return block.group(1)


def test_curl_and_openssl_as_the_readme_says(stack, tmp_path):
    script = readme_lines()
    assert "curl" in script and "openssl" in script
    env = {"PATH": f"{ROOT / 'build' / 'server'}:/usr/bin:/bin", "MUSTER_URL": f"https://127.0.0.1:{stack.port}", "MUSTER_CACERT": str(stack.cafile),
           "MUSTER_TOKEN": stack.mint("open", uses=5), "HOME": str(tmp_path)}
    script = "\n".join(line for line in script.splitlines() if not line.startswith(". ") and not line.startswith("muster "))
    out = subprocess.run(["bash", "-eu", "-o", "pipefail", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert '"state":"PROVISIONED"' in out.stdout
    serial = re.search(r'"serial":"([^"]+)"', out.stdout).group(1)
    assert stack.state(serial) == "PROVISIONED"


@pytest.fixture
def pki():
    program = shutil.which("pki") or "/usr/bin/pki"
    assert shutil.which(program), "strongSwan's pki is missing (package strongswan-pki)"
    return program


def test_strongswan_estca(stack, tmp_path, pki):
    run(pki, "--estca", "--url", f"https://127.0.0.1:{stack.port}", "--cacert", stack.cafile,
        "--caout", tmp_path / "ca", "--outform", "pem", "--force")
    files = sorted(tmp_path.glob("ca*"))
    assert files and all(b"BEGIN CERTIFICATE" in f.read_bytes() for f in files)


def test_strongswan_est_enrols_and_renews(stack, tmp_path, pki):
    serial = unique("swan")
    issuing = tmp_path / "issuing.pem"
    issuing.write_text(stack.v1("GET", "/cas/issuing-1")["pem"])
    key, request = tmp_path / "key.pem", tmp_path / "req.der"
    key.write_bytes(run(pki, "--gen", "--type", "ecdsa", "--size", "256", "--outform", "pem"))
    request.write_bytes(run(pki, "--req", "--type", "priv", "--in", key, "--dn", f"CN={serial}"))
    common = ["--url", f"https://127.0.0.1:{stack.port}", "--cacert", stack.cafile, "--cacert", issuing]
    cert = tmp_path / "cert.pem"
    cert.write_bytes(run(pki, "--est", "--in", request, *common, "--userpass", f"{serial}:{stack.mint('open')}", "--outform", "pem"))
    assert f"CN = {serial}" in run("openssl", "x509", "-in", cert, "-noout", "-subject").decode()
    run("openssl", "verify", "-CAfile", stack.cafile, "-untrusted", issuing, cert)
    new_key, new_request = tmp_path / "new.pem", tmp_path / "new.der"
    new_key.write_bytes(run(pki, "--gen", "--type", "ecdsa", "--size", "384", "--outform", "pem"))
    new_request.write_bytes(run(pki, "--req", "--type", "priv", "--in", new_key, "--dn", f"CN={serial}"))
    renewed = tmp_path / "renewed.pem"
    renewed.write_bytes(run(pki, "--est", "--in", new_request, *common, "--cert", cert, "--key", key, "--outform", "pem"))
    assert run("openssl", "x509", "-in", renewed, "-noout", "-pubkey") != run("openssl", "x509", "-in", cert, "-noout", "-pubkey")
    assert stack.state(serial) == "PROVISIONED"
