"""Devices that come with a certificate of a registered CA: the first contact registers them."""
import threading

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from client import Device, fingerprint, new_csr, new_key, unique
from factory import Authority
from stack import Refused
from test_credentials import refused


def maker(stack, template="jit", **settings):
    """A CA whose devices the first contact registers."""
    ca = Authority(unique("Maker "))
    ca.nick = unique("jit")
    ca.register(stack, ca.nick, template)
    for name, value in {"auto_registration": True, **settings}.items():
        stack.sql(f"UPDATE ca SET {name} = %s WHERE name = %s", value, ca.nick)
    return ca


class Maker:
    def __init__(self, stack, template="jit", **settings):
        self.stack, self.ca = stack, maker(stack, template, **settings)

    def device(self, serial=None, **kw):
        """A device with a certificate of this CA, which the registry does not know."""
        d = Device(self.stack, serial)
        d.cert, d.key = self.ca.device(d.serial, **kw)
        return d


@pytest.fixture(scope="module")
def jitp(stack):
    return Maker(stack)


@pytest.fixture(scope="module")
def jitr(stack):
    return Maker(stack, jit="jitr")


def certificates(stack, serial):
    return stack.sql("SELECT c.purpose, c.status, c.origin, encode(c.fingerprint, 'hex') FROM certificate c JOIN device d ON d.id = c.device_id"
                     " WHERE d.serial = %s ORDER BY c.purpose, c.id", serial)


def waiting(stack, cert):
    rows = stack.sql("SELECT status, reason, contacts FROM jit_certificate WHERE encode(fingerprint, 'hex') = %s", fingerprint(cert))
    return rows[0] if rows else None


def test_the_first_call_registers_thing_certificate_policy_and_group(stack, jitp):
    d = jitp.device()
    got = d.config()
    assert got["serial"] == d.serial and got["thing_name"] == f"jit-{d.serial}" and got["state"] == "PROVISIONED"
    assert certificates(stack, d.serial) == [("operational", "current", "registered", fingerprint(d.cert))]
    shown = stack.device(d.serial)
    assert shown["groups"] == ["g-jit"] and shown["attributes"] == {"maker": "Factory", "site": "field"}
    assert shown["thing_type"] == "lightBulb-versionA"
    assert len(shown["certificates"][0]["policies"]) == 1 and shown["certificates"][0]["origin"] == "registered"
    assert [(t["operation"], t["credential"], t["outcome"]) for t in shown["trail"]] == [("verify", "device", "ok"), ("jitp", "jit", "ok")]
    assert d.config() == got


def test_a_certificate_that_lacks_a_declared_field_fails_with_a_reason(stack):
    fields = Maker(stack, "jitfields")
    d = fields.device()
    e = refused("template.parameter_missing", d.config)
    assert "AWS::IoT::Certificate::Country" in e.problem["detail"]
    outcome, detail = stack.last_attempt(d.serial)
    assert outcome == "template.parameter_missing" and "Country" in detail
    assert waiting(stack, d.cert)[0] == "failed" and "Country" in waiting(stack, d.cert)[1]
    assert certificates(stack, d.serial) == []
    key = new_key()
    named = fields.ca.sign(x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "CH"), x509.NameAttribute(NameOID.COMMON_NAME, d.serial)]), key.public_key())
    assert d.config(named, key)["thing_name"] == d.serial


def test_a_failed_one_is_tried_again_with_every_contact(stack):
    fields = Maker(stack, "jitfields")
    d = fields.device()
    refused("template.parameter_missing", d.config)
    refused("template.parameter_missing", d.config)
    assert waiting(stack, d.cert)[2] == 2
    stack.sql("UPDATE ca SET template_id = (SELECT id FROM template WHERE name = 'jit') WHERE name = %s", fields.ca.nick)
    for _ in range(30):
        try:
            d.config()
            break
        except Refused as e:
            assert e.code == "template.parameter_missing"
            threading.Event().wait(0.1)
    assert waiting(stack, d.cert)[0] == "assigned"


def test_a_renewal_may_be_the_first_contact(stack, jitp):
    d = jitp.device()
    first, first_key = d.cert, d.key
    d.renew(new_key())
    assert [c[:3] for c in certificates(stack, d.serial)] == [("operational", "current", "registered"), ("operational", "pending", "issued")]
    assert d.config()["state"] == "PROVISIONED"
    assert [c[1] for c in certificates(stack, d.serial)] == ["superseded", "current"]
    refused("cert.superseded", d.config, first, first_key)


def test_est_enrolment_stays_an_enrolment(stack, jitp):
    """simpleenroll asks for another certificate: the one that asks stays what it is."""
    d = jitp.device()
    stack.allow(d.serial)
    factory_cert, factory_key = d.cert, d.key
    d.enrol_factory([factory_cert], factory_key, new_key())
    assert [c[:3] for c in certificates(stack, d.serial)] == [("bootstrap", "current", "issued"), ("operational", "pending", "issued")]
    refused("cert.wrong_purpose", d.config, factory_cert, factory_key)


def test_a_device_that_registered_itself_may_enrol_another_key(stack, jitp):
    d = jitp.device()
    d.config()
    key = new_key()
    d.cert, d.key = d.post("simpleenroll", new_csr(key, d.cert.subject), [d.cert], d.key), key
    assert d.config()["state"] == "PROVISIONED"
    assert [c[1] for c in certificates(stack, d.serial)] == ["superseded", "current"]


def test_many_contacts_at_once_register_one_device(stack, jitp):
    d = jitp.device()
    answers, lock = [], threading.Lock()

    def contact():
        got = d.config()
        with lock:
            answers.append(got["thing_name"])

    threads = [threading.Thread(target=contact) for _ in range(16)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert answers == [f"jit-{d.serial}"] * 16
    assert certificates(stack, d.serial) == [("operational", "current", "registered", fingerprint(d.cert))]
    assert stack.one("SELECT count(*) FROM device WHERE serial = %s", d.serial) == 1
    assert stack.one("SELECT count(*) FROM outbox WHERE event = 'device.enrolled' AND payload->>'serial' = %s", d.serial) == 1


def test_a_device_known_by_another_way_is_the_same_device(stack, jitp):
    """Enrolled by EST with a token, then there is a factory certificate: one identity."""
    d = Device(stack, None, "open", stack.mint("open"))
    d.enrol()
    d.config()
    cert, key = jitp.ca.device(d.serial)
    e = refused("device.already_provisioned", d.config, cert, key)
    assert "Reprovision" in e.problem["detail"]
    assert stack.one("SELECT count(*) FROM device WHERE serial = %s", d.serial) == 1
    assert d.config()["state"] == "PROVISIONED"


def test_automatic_registration_off(stack):
    off = Maker(stack, auto_registration=False)
    d = off.device()
    refused("cert.wrong_purpose", d.config)
    assert waiting(stack, d.cert) is None
    stack.sql("UPDATE ca SET auto_registration = true WHERE name = %s", off.ca.nick)
    wait_config(d)
    stack.sql("UPDATE ca SET auto_registration = false WHERE name = %s", off.ca.nick)
    threading.Event().wait(1.5)
    assert d.config()["state"] == "PROVISIONED"
    refused("cert.unknown", off.device().config)


def wait_config(d):
    for _ in range(50):
        try:
            return d.config()
        except Refused:
            threading.Event().wait(0.1)
    raise AssertionError("not admitted")


def test_jitr_waits_for_somebody(stack, jitr):
    d = jitr.device()
    e = refused("cert.pending_activation", d.config)
    assert e.headers.get("retry-after")
    assert waiting(stack, d.cert)[0] == "pending"
    events = "SELECT payload FROM outbox WHERE event = 'certificate.pending' AND payload->>'fingerprint' = %s"
    assert len(stack.sql(events, fingerprint(d.cert))) == 1
    payload = stack.one(events, fingerprint(d.cert))
    assert payload["ca_certificate_id"] == fingerprint(jitr.ca.cert) and payload["ca"] == jitr.ca.nick
    refused("cert.pending_activation", d.config)
    assert len(stack.sql(events, fingerprint(d.cert))) == 1  # not twice within a second
    threading.Event().wait(1.1)
    refused("cert.pending_activation", d.config)
    assert len(stack.sql(events, fingerprint(d.cert))) == 2
    assert certificates(stack, d.serial) == []


def test_revoked_is_dead_whatever_the_ca_says(stack, jitp):
    d = jitp.device()
    d.config()
    stack.v1("POST", f"/certs/{fingerprint(d.cert)}/revoke", {"reason": "keyCompromise"})
    refused("cert.revoked", d.config)
    again, key = jitp.ca.device(d.serial, key=d.key)
    refused("device.quarantined", d.config, again, key)
    stack.v1("POST", f"/devices/{d.serial}/release")
    refused("key.reused", d.config, again, key)
