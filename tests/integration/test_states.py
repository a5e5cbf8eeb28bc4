"""States a person can see: a test for each sentence of that section of the design."""
import re

import psycopg2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from client import Device, fingerprint, new_key, unique
from factory import Authority
from stack import Refused

ORDER = ["UNPROVISIONED", "BOOTSTRAP", "ENROLL", "CREDENTIAL_STORE", "REGISTER", "VERIFY", "PROVISIONED"]


@pytest.fixture(scope="module")
def maker(stack):
    ca = Authority("State Maker")
    ca.register(stack, "state-maker")
    return ca


def test_unprovisioned_is_on_the_allowlist_and_never_seen(stack):
    serial = unique()
    stack.allow(serial)
    shown = stack.device(serial)
    assert (shown["state"], shown["allowlist"]["claimed_at"]) == ("UNPROVISIONED", None)
    assert serial in [d["serial"] for d in stack.cli_json("device", "list", "--state", "UNPROVISIONED")]


def test_bootstrap_is_authenticated_once(stack, maker):
    serial = unique()
    cert, key = maker.device(serial)
    d = Device(stack, serial=serial, template="factory")
    with pytest.raises(Refused):
        d.post("simpleenroll", b"no csr", [cert], key)
    assert stack.state(serial) == "BOOTSTRAP"


def test_enroll_is_csr_accepted(stack, maker):
    serial = unique()
    cert, key = maker.device(serial)
    stack.allow(serial)
    stack.v1("POST", f"/products/pump/allowlist/{serial}/block")
    d = Device(stack, serial=serial, template="factory")
    with pytest.raises(Refused):
        d.enrol_factory([cert], key)
    assert stack.state(serial) == "ENROLL"


def test_verify_waits_for_the_first_use_and_provisioned_follows(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    shown = stack.device(d.serial)
    assert shown["state"] == "VERIFY" and shown["verify_by"]
    answer = d.config()
    assert answer == {"serial": d.serial, "thing_name": f"open-{d.serial}", "state": "PROVISIONED",
                      "configuration": {"prefix": f"devices/{d.serial}"}}
    shown = stack.device(d.serial)
    assert (shown["state"], shown["verify_by"]) == ("PROVISIONED", None)


def test_renewal_verifies_too(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    d.renew()
    assert stack.state(d.serial) == "PROVISIONED"


def test_a_foreign_platform_reports_seen(stack):
    d = Device(stack, template="external", token=stack.mint("external"))
    d.enrol()
    assert stack.state(d.serial) == "VERIFY"
    stack.cli("device", "seen", d.serial)
    assert stack.state(d.serial) == "PROVISIONED"


def test_a_template_may_ask_for_no_verification(stack):
    d = Device(stack, template="unverified", token=stack.mint("unverified"))
    d.enrol()
    assert stack.state(d.serial) == "PROVISIONED"


def test_quarantine_by_hand_from_every_state_and_release(stack):
    for state in ORDER:
        d = Device(stack, token=stack.mint("open"))
        d.enrol()
        stack.sql("ALTER TABLE device DISABLE TRIGGER device_move")
        stack.sql("UPDATE device SET state = %s WHERE serial = %s", state, d.serial)
        stack.sql("ALTER TABLE device ENABLE TRIGGER device_move")
        stack.cli("device", "quarantine", d.serial, "--reason", "stolen")
        shown = stack.device(d.serial)
        assert (shown["state"], shown["quarantine_reason"]) == ("QUARANTINE", "stolen")
        with pytest.raises(Refused) as e:
            d.renew(keep=False)
        assert e.value.code == "device.quarantined"
        with pytest.raises(Refused) as e:
            d.config()
        assert e.value.code == "device.quarantined"
        assert stack.cli_json("device", "release", d.serial)["state"] == "VERIFY"
        d.config()


def test_quarantine_after_as_many_failures_as_the_template_says(stack):
    serial = unique()
    d = Device(stack, serial=serial, template="strict", token=stack.mint("strict", serial=serial))
    for n in range(3):
        assert stack.sql("SELECT state FROM device WHERE serial = %s", serial) in ([], [("ENROLL",)])
        with pytest.raises(Refused):
            d.enrol()
    shown = stack.device(serial)
    assert shown["state"] == "QUARANTINE" and "3 failures" in shown["quarantine_reason"]


def test_default_number_of_failures_is_five(stack):
    serial = unique()
    d = Device(stack, serial=serial, template="refuse", token=stack.mint("refuse", serial=serial))
    d.enrol()
    d.config()
    for n in range(5):
        assert stack.state(serial) == "PROVISIONED"
        with pytest.raises(Refused):
            d.enrol(key=new_key(), keep=False)
    assert stack.state(serial) == "QUARANTINE"


def test_the_schema_refuses_illegal_moves(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    d.config()
    for state in ("BOOTSTRAP", "ENROLL", "CREDENTIAL_STORE", "REGISTER"):
        with pytest.raises(psycopg2.errors.CheckViolation):
            stack.sql("UPDATE device SET state = %s WHERE serial = %s", state, d.serial)


def test_an_attempt_is_one_append_only_row_that_carries_its_steps(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    rows = stack.sql("SELECT at IS NOT NULL, reached, outcome, protocol, credential, source, request_id, state, steps FROM history WHERE serial = %s", d.serial)
    (row,) = rows
    assert row[:6] == (True, "REGISTER", "ok", "est", "token", "127.0.0.1")
    assert re.fullmatch("[0-9a-f]{32}", row[6]) and row[7] == "VERIFY"
    assert [s["step"] for s in row[8]] == ["authenticate", "identify", "decode", "link", "authorize", "limit", "hook", "evaluate", "issue"]
    assert all(s["us"] >= 0 and s["result"] == "ok" for s in row[8])
    for statement in ("UPDATE history SET outcome = 'x' WHERE serial = %s", "DELETE FROM history WHERE serial = %s"):
        with pytest.raises(psycopg2.errors.RestrictViolation):
            stack.sql(statement, d.serial)


def test_a_refused_attempt_tells_how_far_it_came(stack):
    serial = unique()
    d = Device(stack, serial=serial, template="strict", token=stack.mint("strict", serial=serial))
    with pytest.raises(Refused) as e:
        d.enrol()
    (attempt,) = stack.v1("GET", f"/attempts/{e.value.problem['request_id']}")
    assert (attempt["outcome"], attempt["reached"], attempt["steps"][-1]["step"], attempt["steps"][-1]["result"]) == \
        ("allowlist.unknown_serial", "ENROLL", "record", "allowlist.unknown_serial")


def test_device_show_prints_the_trail_and_explain_the_reason(stack):
    serial = unique()
    d = Device(stack, serial=serial, template="strict", token=stack.mint("strict", serial=serial))
    with pytest.raises(Refused) as e:
        d.enrol()
    request_id = e.value.problem["request_id"]
    text = stack.cli("device", "show", serial).stdout
    assert "allowlist.unknown_serial" in text and request_id in text
    text = stack.cli("explain", request_id).stdout
    assert "not on the allowlist" in text and "remedy: muster allowlist import" in text and "authenticate" in text


def test_one_log_record_a_request_joins_the_trail(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    request_id = stack.one("SELECT request_id FROM history WHERE serial = %s", d.serial)
    records = [r for r in stack.log_records() if r.get("request_id") == request_id]
    (record,) = records
    assert (record["event"], record["status"], record["outcome"], record["serial"]) == ("request", 200, "ok", d.serial)


def test_retired_for_good(stack):
    token = stack.mint("open", uses=3)
    d = Device(stack, token=token)
    d.enrol()
    assert stack.cli("device", "retire", d.serial, check=False).returncode == 2
    stack.cli("device", "retire", d.serial, "--yes")
    with pytest.raises(Refused) as e:
        d.config()
    assert e.value.code == "cert.revoked"
    with pytest.raises(Refused) as e:
        d.enrol(key=new_key(), keep=False)
    assert stack.last_attempt(d.serial)[0] == "device.retired"
    with pytest.raises(psycopg2.errors.CheckViolation):
        stack.sql("UPDATE device SET retired_at = NULL WHERE serial = %s", d.serial)
    assert "retired" in stack.cli("device", "release", d.serial, check=False).stderr


def test_a_certificate_alone_can_rebuild_its_row(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    renewed = d.renew()
    for cert in (d.cert, renewed):
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert f"urn:muster:pump:{d.serial}" in names.get_values_for_type(x509.UniformResourceIdentifier)
        der = bytes(stack.one("SELECT der FROM certificate_der x JOIN certificate c ON c.id = x.certificate_id WHERE c.fingerprint = decode(%s, 'hex')", fingerprint(cert)))
        assert der == cert.public_bytes(Encoding.DER)
