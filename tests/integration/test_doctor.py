"""muster doctor: every check is seen both ways."""
import os

import pytest

from client import Device, new_key
from factory import Authority
from stack import Refused


def findings(stack):
    return {f["check"]: f for f in stack.v1("GET", "/doctor")}


def severity(stack, check):
    return findings(stack)[check]["severity"]


def test_a_healthy_installation(fresh):
    found = findings(fresh)
    assert {f["severity"] for f in found.values()} == {"ok"}, found
    assert {"schema", "clock", "issuers", "ca root", "ca issuing-1", "default template", "products", "stuck devices", "quarantine storm",
            "quarantine", "unknown issuers", "certificates", "partitions"} <= set(found)
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
