"""Setting up: init, imported and several CAs, private files, TLS reload, and connections that say nothing."""
import contextlib
import ipaddress
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import psycopg2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from client import EST, Device, certs_of, key_pem, cert_pem, new_key, request
from factory import Authority
from stack import MUSTERD, ROOT, Refused, Stack, wait_for


@pytest.fixture
def empty(tmp_path):
    """A migrated registry without init."""
    stack = Stack(tmp_path)
    stack.pg_start()
    stack.configure()
    stack.migrate()
    yield stack
    stack.stop()
    stack.pg_stop("immediate")


def test_init_makes_p256_cas_and_prints_the_token_once(empty):
    done = empty.musterd("init", "--organization", "Acme")
    assert done.stdout.startswith("mat_") and done.stdout.count("\n") == 1
    root = x509.load_pem_x509_certificate((empty.folder / "ca/root.pem").read_bytes())
    issuing = x509.load_pem_x509_certificate((empty.folder / "ca/issuing-1.pem").read_bytes())
    assert root.public_key().curve.name == issuing.public_key().curve.name == "secp256r1"
    assert issuing.issuer == root.subject and issuing.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    for key in ("ca/root.key", "ca/issuing-1.key", "server.key"):
        assert (empty.folder / key).stat().st_mode & 0o777 == 0o600
    again = empty.musterd("init", check=False)
    assert again.returncode == 1 and "already" in again.stderr and again.stdout == ""
    lost = empty.musterd("admin-token", "--admin", "second")
    empty.start()
    empty.token = lost.stdout.strip()
    assert empty.v1("GET", "/whoami")["name"] == "second"


def test_init_never_overwrites_a_file(empty):
    (empty.folder / "ca").mkdir(mode=0o700)
    (empty.folder / "ca/root.key").write_text("precious")
    done = empty.musterd("init", check=False)
    assert done.returncode == 1 and "not overwritten" in done.stderr
    assert (empty.folder / "ca/root.key").read_text() == "precious"
    assert not (empty.folder / "ca/issuing-1.key").exists()
    assert empty.one("SELECT count(*) FROM ca") == 0


def test_an_imported_ca(empty):
    root = Authority("My Root")
    issuing = Authority("My Issuing", parent=root)
    for name, content in (("r.pem", cert_pem(root.cert)), ("i.pem", cert_pem(issuing.cert)), ("i.key", key_pem(issuing.key))):
        (empty.folder / name).write_bytes(content)
    args = ("init", "--import-root", empty.folder / "r.pem", "--import-issuing", empty.folder / "i.pem", "--import-key", empty.folder / "i.key")
    os.chmod(empty.folder / "i.key", 0o644)
    done = empty.musterd(*args, check=False)
    assert done.returncode == 1 and "0600" in done.stderr
    os.chmod(empty.folder / "i.key", 0o600)
    (empty.folder / "other.key").write_bytes(key_pem(new_key()))
    os.chmod(empty.folder / "other.key", 0o600)
    done = empty.musterd(*args[:-1], empty.folder / "other.key", check=False)
    assert done.returncode == 1 and "another's" in done.stderr
    empty.token = empty.musterd(*args).stdout.strip()
    empty.start()
    empty.seed()
    cert = Device(empty, token=empty.mint("open")).enrol()
    assert cert.issuer == issuing.cert.subject
    assert set(certs_of(request(empty, "GET", EST + "/cacerts")[2])) == {root.cert, issuing.cert}


def test_several_issuing_cas(fresh):
    fresh.musterd("add-issuer", "--name", "second")
    done = fresh.musterd("add-issuer", "--name", "../evil", check=False)
    assert done.returncode == 1 and "name is" in done.stderr
    fresh.v1("PUT", "/templates/pinned?product=pump", {"Muster": {"Allowlist": "optional", "Issuer": "second"}})
    cert = Device(fresh, template="pinned", token=fresh.mint("pinned")).enrol()
    assert "second" in cert.issuer.rfc4514_string()
    before = Device(fresh, token=fresh.mint("open"))
    before.enrol()
    fresh.cli("ca", "deactivate", "second")
    with pytest.raises(Refused) as e:
        Device(fresh, template="pinned", token=fresh.mint("pinned")).enrol()
    assert (e.value.status, e.value.code) == (503, "ca.no_issuer")
    assert "issuing-1" in Device(fresh, token=fresh.mint("open")).enrol().issuer.rfc4514_string()
    # what it signed stays valid, and is still among the CAs
    assert len(certs_of(request(fresh, "GET", EST + "/cacerts")[2])) == 3
    before.renew()


def test_an_issuing_key_that_others_can_read_is_not_used(fresh):
    os.chmod(fresh.folder / "ca/issuing-1.key", 0o644)
    fresh.stop()
    fresh.start()
    assert request(fresh, "GET", "/readyz")[0] == 503
    assert any(r["event"] == "catalog.issuer_unusable" and "0600" in r["reason"] for r in fresh.log_records())


def test_a_server_key_that_others_can_read_ends_the_start(fresh):
    fresh.stop()
    os.chmod(fresh.folder / "server.key", 0o640)
    done = fresh.musterd("serve", check=False)
    assert done.returncode == 1 and "0600" in done.stderr


def test_sighup_loads_the_server_certificate_again(fresh):
    def served():
        return ssl.get_server_certificate(("127.0.0.1", fresh.port), timeout=10)

    before = served()
    other = fresh.folder / "other"
    other.mkdir()
    for name in ("server.pem", "server.key"):
        shutil.copy(fresh.folder / name, other)
    (fresh.folder / "server.pem").write_text("broken")
    fresh.process.send_signal(signal.SIGHUP)
    wait_for("the refusal", lambda: any(r["event"] == "tls.reload" and r["result"] != "ok" for r in fresh.log_records()))
    assert served() == before
    root = x509.load_pem_x509_certificate((fresh.folder / "ca/root.pem").read_bytes())
    ca = Authority.__new__(Authority)
    ca.key, ca.name, ca.cert = load_pem_private_key((fresh.folder / "ca/root.key").read_bytes(), None), root.subject, root
    key = new_key()
    cert = ca.sign(root.subject, key.public_key(), eku=x509.oid.ExtendedKeyUsageOID.SERVER_AUTH, san=[x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    (fresh.folder / "server.pem").write_bytes(cert_pem(cert))
    (fresh.folder / "server.key").write_bytes(key_pem(key))
    fresh.process.send_signal(signal.SIGHUP)
    wait_for("the new certificate", lambda: served() != before)


def test_configuration_errors_name_the_line(tmp_path):
    file = tmp_path / "c.conf"
    for text, says in (("[listen]\nnonsense = 1\n", "no key [listen] nonsense"), ("[tls]\n", "[tls] certificate must be given"), ("", "must be given")):
        file.write_text(text)
        done = subprocess.run([MUSTERD, "check-config", "--config", file], capture_output=True, text=True)
        assert done.returncode == 1 and says in done.stderr
    assert subprocess.run([MUSTERD, "serve"], capture_output=True).returncode == 2
    assert subprocess.run([MUSTERD, "dance", "--config", file], capture_output=True).returncode == 2
    text = subprocess.run([MUSTERD, "--help"], capture_output=True, text=True).stdout
    assert "device_port = 8443" in text and "musterd migrate" in text


def test_check_config_finds_every_problem(fresh):
    assert fresh.musterd("check-config").stdout == "the configuration is right\n"
    assert fresh.musterd("check-config", "--database").returncode == 0
    (fresh.folder / "password").write_text("x")
    os.chmod(fresh.folder / "password", 0o644)
    os.chmod(fresh.folder / "ca/issuing-1.key", 0o640)
    (fresh.folder / "other.key").write_bytes(key_pem(new_key()))
    os.chmod(fresh.folder / "other.key", 0o600)
    good = fresh.config.read_text()
    fresh.config.write_text(good.replace("server.key", "other.key").replace("device_address = 127.0.0.1", "device_address = localhost")
                            .replace("[database]\n", f"[database]\nsslmode = maybe\npassword_file = {fresh.folder}/password\n"))
    done = fresh.musterd("check-config", check=False)
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and done.stdout == ""
    for key, why in (("tls.certificate", "pair"), ("ca.directory", "0600"), ("listen.device_address", "no IPv4"), ("database.sslmode", "no mode"),
                     ("MUSTER_DATABASE_PASSWORD", "0600")):
        assert len([line for line in lines if line.startswith(key + ": ") and why in line]) == 1, (key, lines)
    assert len(lines) == 5
    fresh.config.write_text(good.replace("server.key", "missing.key").replace(f"{fresh.folder}/ca", f"{fresh.folder}/nowhere"))
    lines = fresh.musterd("check-config", check=False).stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["tls.key", "ca.directory"]
    assert all("No such file" in line for line in lines)
    os.chmod(fresh.folder / "ca/issuing-1.key", 0o600)
    (fresh.folder / "no.pem").write_text("none")
    fresh.configure(listen__proxy_protocol_from="10.0.0.0/33", proxy__address="127.0.0.1", proxy__client_ca=fresh.folder / "no.pem",
                    admin__client_ca=fresh.folder / "missing.pem")
    lines = fresh.musterd("check-config", check=False).stderr.splitlines()
    assert [(line.split(":")[0], line.rsplit(" ", 2)[-1]) for line in lines] == [
        ("listen.proxy_protocol_from", "ranges"), ("proxy.client_ca", "proxy.address"), ("proxy.client_ca", "trusted"), ("admin.client_ca", "directory")]


def test_check_config_with_the_database(fresh):
    fresh.sql("UPDATE schema_migration SET oldest_binary = 10000 WHERE version = (SELECT max(version) FROM schema_migration)")
    assert fresh.musterd("check-config").returncode == 0
    done = fresh.musterd("check-config", "--database", check=False)
    assert done.returncode == 1 and done.stderr.startswith("database: ") and done.stderr.count("\n") == 1
    fresh.pg_stop("immediate")
    assert fresh.musterd("check-config", "--database", check=False).returncode == 1
    fresh.pg_start()


def test_the_password_may_come_from_the_environment_or_systemd(empty, monkeypatch):
    """PostgreSQL asks for one; each source in turn has the right one."""
    hba = empty.folder / "pg/data/pg_hba.conf"
    empty.sql("ALTER USER muster PASSWORD 'right'")
    before = hba.read_text()
    hba.write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    subprocess.run(["kill", "-HUP", (empty.folder / "pg/data/postmaster.pid").read_text().split()[0]], check=True)
    wait_for("PostgreSQL to ask for a password", lambda: empty.musterd("check-config", "--database", check=False).returncode == 1)

    def refused():
        return any(line.startswith("database: ") for line in empty.musterd("check-config", "--database", check=False).stderr.splitlines())

    assert refused()
    credentials = empty.folder / "credentials"
    credentials.mkdir()
    (credentials / "database-password").write_text("right\n")
    os.chmod(credentials / "database-password", 0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert not refused()
    monkeypatch.setenv("MUSTER_DATABASE_PASSWORD", "wrong")
    assert refused()
    monkeypatch.setenv("MUSTER_DATABASE_PASSWORD", "right")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert not refused()
    hba.write_text(before)


def test_the_unit_file_is_right(tmp_path):
    unit = tmp_path / "musterd.service"
    text = (ROOT / "deploy/systemd/musterd.service").read_text()
    unit.write_text(re.sub("/usr/bin/musterd", str(MUSTERD), text))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_half_open_handshakes_cost_no_cpu_and_end(tmp_path):
    with Stack(tmp_path) as stack:
        stack.stop()
        stack.configure(listen__idle_timeout_s=4)
        stack.start()
        silent = [socket.create_connection(("127.0.0.1", stack.port)) for _ in range(40)]
        begun = [socket.create_connection(("127.0.0.1", stack.port)) for _ in range(20)]
        for s in begun:
            s.sendall(bytes.fromhex("1603010200010001fc0303"))  # a ClientHello that never ends
        time.sleep(0.5)
        before, start = cpu_seconds(stack.process.pid), time.monotonic()
        time.sleep(2)
        share = (cpu_seconds(stack.process.pid) - before) / (time.monotonic() - start)
        assert share < 0.25, share
        assert request(stack, "GET", "/healthz")[0] == 200
        for s in silent + begun:
            s.settimeout(30)
            while s.recv(4096):
                pass
            s.close()


def test_a_full_gate_says_503_at_once(tmp_path):
    """One inside, one waiting for 100 ms: with the registry locked, the others are turned away."""
    with Stack(tmp_path) as stack:
        stack.seed()
        stack.stop()
        stack.configure(listen__max_inside=1, listen__max_waiting=1, listen__queue_timeout_ms=100)
        stack.start()
        token = stack.mint("open", uses=50)
        Device(stack, token=token).enrol()
        codes = []

        def enrol():
            try:
                Device(stack, token=token).enrol()
                codes.append("ok")
            except Refused as e:
                codes.append(e.code)
                assert 1 <= int(e.headers["retry-after"]) <= 10

        with contextlib.closing(psycopg2.connect(host="127.0.0.1", port=stack.pg_port, user="muster", dbname="muster", options="-c search_path=muster")) as c, c.cursor() as cursor:
            cursor.execute("LOCK TABLE token IN ACCESS EXCLUSIVE MODE")
            threads = [threading.Thread(target=enrol) for _ in range(8)]
            for t in threads:
                t.start()
            wait_for("refusals", lambda: codes.count("load.overloaded") >= 7)
            c.rollback()
            for t in threads:
                t.join()
        assert sorted(codes) == ["load.overloaded"] * 7 + ["ok"]
        assert request(stack, "GET", "/healthz")[0] == 200
