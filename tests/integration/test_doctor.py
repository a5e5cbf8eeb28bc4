"""muster doctor: every check is seen both ways."""
import datetime
import ipaddress
import os
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from client import Device, cert_pem, key_pem, new_key
from dps import Registrant, derive, endpoint, group
from factory import Authority
from stack import Refused, wait_for
from test_reload import hup


def findings(stack):
    return {f["check"]: f for f in stack.v1("GET", "/doctor")}


def severity(stack, check):
    return findings(stack)[check]["severity"]


def test_a_healthy_installation(fresh):
    found = findings(fresh)
    assert {f["severity"] for f in found.values()} == {"ok"}, found
    assert {"database", "server certificate", "approvals", "schema", "clock", "issuers", "ca root", "ca issuing-1", "default template", "products", "stuck devices", "quarantine storm",
            "quarantine", "unknown issuers", "certificates", "partitions", "SCEP registration authority", "enrollment groups"} <= set(found)
    done = fresh.cli("doctor")
    assert "ok       schema" in done.stdout


def test_what_is_wrong_is_found_with_its_remedy(fresh):
    token = fresh.mint("open", uses=5)
    d = Device(fresh, token=token)
    d.enrol()
    fresh.v1("POST", "/products", {"name": "bare"})
    fresh.sql("UPDATE device SET verify_by = now() - interval '1 hour' WHERE serial = %s", d.serial)
    other = Device(fresh, token=token)
    other.enrol()
    other.config()
    fresh.sql("UPDATE certificate c SET not_after = now() + interval '5 days' FROM device d WHERE d.id = c.device_id AND d.serial = %s", other.serial)
    third = Device(fresh, token=token)
    third.enrol()
    fresh.cli("device", "quarantine", third.serial)
    cert, key = Authority("Stranger").device("x")
    with pytest.raises(Refused):
        Device(fresh, template="factory").enrol_factory([cert], key, key=new_key())
    found = findings(fresh)
    for check in ("products", "stuck devices", "certificates", "quarantine", "unknown issuers"):
        assert found[check]["severity"] == "warning" and found[check]["remedy"], check
    assert fresh.cli("doctor", check=False).returncode == 0
    fresh.sql("INSERT INTO outbox (event, payload) VALUES ('quarantine.storm', '{}')")
    fresh.cli("template", "disable", "open")
    fresh.sql("UPDATE ca SET not_after = now() + interval '3 days' WHERE kind = 'issuing'")
    os.chmod(fresh.folder / "ca" / "issuing-1.key", 0o644)
    fresh.v1("POST", "/products", {"name": "another"})
    found = findings(fresh)
    for check in ("quarantine storm", "default template", "ca issuing-1", "key of issuing-1"):
        assert found[check]["severity"] == "error" and found[check]["remedy"], check
    done = fresh.cli("doctor", check=False)
    assert done.returncode == 1 and "remedy: musterd add-issuer" in done.stdout
    fresh.cli("ca", "deactivate", "issuing-1")
    assert severity(fresh, "issuers") == "error"


def test_nobody_answers(fresh, tmp_path):
    down = fresh.cli("doctor", "--url", "https://127.0.0.1:1", check=False)
    assert down.returncode == 3 and "error    server" in down.stdout and "remedy: --url" in down.stdout
    stranger = tmp_path / "stranger.pem"
    stranger.write_bytes(cert_pem(Authority("Stranger").cert))
    foreign = fresh.cli("doctor", "--cacert", stranger, check=False)
    assert foreign.returncode == 3 and "error    server" in foreign.stdout
    fresh.pg_stop()
    away = fresh.cli("doctor", check=False)
    assert away.returncode == 3 and "db.unavailable" in away.stderr and "error    server" in away.stdout
    fresh.pg_start()
    denied = fresh.cli("doctor", token="mat_none", check=False)
    assert denied.returncode == 1 and "admin.denied" in denied.stderr and "error    token" in denied.stdout


def test_the_servers_certificate(fresh):
    fresh.cafile = fresh.folder / "self.pem"
    for days, wanted in [(60, "ok"), (20, "warning"), (3, "error")]:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        key, now = new_key(), datetime.datetime.now(datetime.timezone.utc)
        cert = (x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key()).serial_number(days)
                .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=days, hours=1))
                .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
                .add_extension(x509.BasicConstraints(True, 0), True).sign(key, hashes.SHA256()))
        fresh.cafile.write_bytes(cert_pem(cert))
        (fresh.folder / "server.pem").write_bytes(cert_pem(cert))
        (fresh.folder / "server.key").write_bytes(key_pem(key))
        hup(fresh, "config.reloaded")
        found = findings(fresh)["server certificate"]
        assert found["severity"] == wanted and f" {days} days" in found["detail"] and bool(found["remedy"]) == (wanted != "ok")


def test_the_registration_authority_of_scep(fresh):
    ca = fresh.folder / "ca"
    subprocess.run(["openssl", "req", "-new", "-key", ca / "scep-ra.key", "-subj", "/CN=ra", "-out", fresh.folder / "ra.csr"], check=True)
    for days, wanted in [(40, "ok"), (20, "warning"), (3, "error")]:
        subprocess.run(["openssl", "x509", "-req", "-in", fresh.folder / "ra.csr", "-CA", ca / "issuing-1.pem", "-CAkey", ca / "issuing-1.key", "-days", str(days),
                        "-out", fresh.folder / "scep-ra.pem"], check=True, capture_output=True)
        fresh.stop()
        fresh.start()
        found = findings(fresh)["SCEP registration authority"]
        assert found["severity"] == wanted and bool(found["remedy"]) == (wanted != "ok")
        told = "SELECT payload FROM outbox WHERE event = 'scep_ra.expiring' AND payload->>'threshold_s' = %s"
        if days < 30:
            wait_for("the event", lambda: len(fresh.sql(told, {20: "2592000", 3: "604800"}[days])) == 1)
    fresh.musterd("add-ra")
    fresh.stop()
    fresh.start()
    assert severity(fresh, "SCEP registration authority") == "ok"
    fresh.stop()
    fresh.doors = False
    fresh.configure()
    fresh.start()
    assert "SCEP registration authority" not in findings(fresh)


def test_a_group_that_has_grown_large(fresh):
    endpoint(fresh, "broker.example.com")
    made = group(fresh, warn_devices=1)
    assert severity(fresh, "enrollment groups") == "ok"
    Registrant(fresh, "large-1", derive(made["primary_key"], "large-1")).assigned()
    found = findings(fresh)["enrollment groups"]
    assert found["severity"] == "warning" and found["remedy"]


def test_registered_cas_and_approvals(fresh):
    Authority("Old factory").register(fresh, "old")
    assert "ca old" not in findings(fresh)
    for days, wanted in [(40, "warning"), (5, "error")]:
        fresh.sql("UPDATE ca SET not_after = now() + make_interval(days => %s) WHERE name = 'old'", days)
        found = findings(fresh)["ca old"]
        assert found["severity"] == wanted and found["remedy"]
    serial = "waits-1"
    with pytest.raises(Refused):
        Device(fresh, serial, "waiting", token=fresh.mint("waiting", serial)).enrol()
    found = findings(fresh)["approvals"]
    assert found["severity"] == "warning" and found["detail"].startswith("1 ") and "--approval pending" in found["remedy"]
    fresh.cli("device", "approve", serial)
    assert severity(fresh, "approvals") == "ok"
