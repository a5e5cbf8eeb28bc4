"""SCEP by clients of others, unmodified: strongSwan's pki, and certmonger."""
import os
import pathlib
import subprocess
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from client import spki_sha256, unique
from scep import Scep
from stack import wait_for

SUBMIT = pathlib.Path("/usr/lib/certmonger/scep-submit")


def run(*args, cwd=None, check=True, env=None, **kw):
    done = subprocess.run([str(a) for a in args], capture_output=True, timeout=120, cwd=cwd, env={**os.environ, **(env or {})}, **kw)
    assert not check or done.returncode == 0, (args, done.returncode, done.stderr.decode(errors="replace")[-1500:], done.stdout[-500:])
    return done


class StrongSwan:
    def __init__(self, stack, folder, label="open"):
        self.folder, self.url = folder, f"http://127.0.0.1:{stack.scep_port}/scep/{label}"
        run("pki", "--scepca", "--url", self.url, "--caout", "ca.pem", "--raout", "ra.pem", "--outform", "pem", cwd=folder)
        cas = sorted(p.name for p in folder.glob("ca*.pem"))
        self.ra = sorted(p.name for p in folder.glob("ra*.pem"))[0]
        self.trust = [arg for name in cas for arg in ("--cacert", name)]
        self.sign = cas[0]

    def key(self, name):
        (self.folder / name).write_bytes(run("pki", "--gen", "--type", "rsa", "--size", "2048", "--outform", "pem").stdout)
        return name

    def scep(self, key, cn, *more, check=True):
        return run("pki", "--scep", "--url", self.url, "--in", key, "--dn", f"CN={cn}", "--cacert-enc", self.ra, "--cacert-sig", self.ra, *self.trust,
                   "--outform", "pem", *more, cwd=self.folder, check=check)

    def enrol(self, key, cn, token, *more):
        cert = self.scep(key, cn, "--password", token, *more).stdout
        (self.folder / f"{cn}.pem").write_bytes(cert)
        return x509.load_pem_x509_certificate(cert)


def test_strongswan_enrols_and_renews(stack, tmp_path):
    client, serial = StrongSwan(stack, tmp_path), unique("swan")
    key = client.key("key.pem")
    cert = client.enrol(key, serial, stack.mint("open"))
    private = serialization.load_pem_private_key((tmp_path / key).read_bytes(), None)
    assert spki_sha256(cert) == spki_sha256(private) and stack.device(serial)["trail"][0]["protocol"] == "scep"
    new = client.key("new.pem")
    renewed = x509.load_pem_x509_certificate(client.scep(new, serial, "--cert", f"{serial}.pem", "--key", key).stdout)
    assert spki_sha256(renewed) != spki_sha256(cert) and stack.device(serial)["trail"][0]["operation"] == "RenewalReq"


def test_strongswan_is_told_no(stack, tmp_path):
    client, serial = StrongSwan(stack, tmp_path), unique("swan")
    done = client.scep(client.key("key.pem"), serial, "--password", "mst_wrong", check=False)
    assert done.returncode != 0 and done.stdout == b"" and stack.sql("SELECT 1 FROM device WHERE serial = %s AND state <> 'BOOTSTRAP'", serial) == []


def test_strongswan_waits_for_an_operator(stack, tmp_path):
    client, serial, token = StrongSwan(stack, tmp_path, "waiting"), unique("swan"), stack.mint("waiting")
    key = client.key("key.pem")
    process = subprocess.Popen(["pki", "--scep", "--url", client.url, "--in", key, "--dn", f"CN={serial}", "--password", token, "--cacert-enc", client.ra,
                                "--cacert-sig", client.ra, *client.trust, "--outform", "pem", "--interval", "1", "--maxpolltime", "60"],
                               cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        wait_for("the device to wait", lambda: stack.sql("SELECT 1 FROM device d JOIN approval a ON a.device_id = d.id WHERE d.serial = %s", serial))
        stack.v1("POST", f"/devices/{serial}/approve")
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0 and x509.load_pem_x509_certificate(out).subject.rfc4514_string() == f"CN={serial}"


# certmonger's helper is what its daemon runs for each step: the same program with the same variables


class Certmonger:
    """scep-submit in the steps of certmonger's daemon: requests are made by certmonger itself, in a session of its own."""

    def __init__(self, stack, folder):
        self.stack, self.folder = stack, folder
        self.url = f"http://127.0.0.1:{stack.scep_port}/scep/open"
        self.bus = subprocess.Popen(["dbus-daemon", "--session", "--print-address=1", "--nofork"], stdout=subprocess.PIPE, text=True)
        self.env = {"DBUS_SESSION_BUS_ADDRESS": self.bus.stdout.readline().strip(), "HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "config"),
                    "CERTMONGER_CONFIG_DIR": str(folder)}
        self.daemon = subprocess.Popen(["/usr/lib/certmonger/certmonger-session", "-n", "-d", "2"], env={**os.environ, **self.env}, cwd=folder,
                                       stdout=subprocess.DEVNULL, stderr=open(folder / "certmonger.log", "wb"))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for p in (self.daemon, self.bus):
            p.terminate()
            p.wait(20)

    def getcert(self, *args, check=True):
        return run("getcert", *args, "-s", env=self.env, cwd=self.folder, check=check).stdout.decode()

    def log(self):
        return (self.folder / "certmonger.log").read_text(errors="replace")[-3000:]


def test_certmonger_enrols_and_renews(stack, tmp_path):
    serial = unique("monger")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    with Certmonger(stack, tmp_path) as monger:
        wait_for("certmonger", lambda: subprocess.run(["getcert", "list-cas", "-s"], env={**os.environ, **monger.env}, capture_output=True).returncode == 0)
        monger.getcert("add-scep-ca", "-c", "muster", "-u", monger.url)
        wait_for("the CA's capabilities", lambda: "muster" in monger.getcert("list-cas"))
        monger.getcert("request", "-c", "muster", "-k", key, "-f", cert, "-N", f"CN={serial}", "-G", "RSA", "-g", "2048", "-L", stack.mint("open"), "-I", "dev")
        done = lambda: "status: MONITORING" in monger.getcert("list", "-i", "dev")  # noqa: E731
        try:
            wait_for("the certificate", done, 60)
        except AssertionError:
            raise AssertionError(monger.getcert("list", "-i", "dev") + monger.log()) from None
        first = x509.load_pem_x509_certificate(cert.read_bytes())
        assert spki_sha256(first) == spki_sha256(serialization.load_pem_private_key(key.read_bytes(), None))
        monger.getcert("resubmit", "-i", "dev")
        fresh = lambda: done() and x509.load_pem_x509_certificate(cert.read_bytes()).serial_number != first.serial_number  # noqa: E731
        try:
            wait_for("the renewal", fresh, 60)
        except AssertionError:
            raise AssertionError(monger.getcert("list", "-i", "dev") + str(stack.device(serial)["trail"][:2]) + monger.log()) from None
    newest = stack.device(serial)["trail"][0]  # by the certificate it renews, not by the token
    assert newest["credential"] == "device", newest
