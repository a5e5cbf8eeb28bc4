"""Devices that come with a certificate of a registered CA: the first contact registers them."""
import json
import threading

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from client import Device, cert_pem, fingerprint, new_csr, new_key, unique
from factory import Authority
from stack import Refused
from test_credentials import refused


def maker(stack, template="jit", **settings):
    """A CA whose devices the first contact registers."""
    ca = Authority(unique("Maker "))
    ca.nick = unique("jit")
    ca.register(stack, ca.nick, template, **{"auto_registration": True, **settings})
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
    stack.catalog_caught_up()
    d.config()
    stack.sql("UPDATE ca SET auto_registration = false WHERE name = %s", off.ca.nick)
    stack.catalog_caught_up()
    assert d.config()["state"] == "PROVISIONED"
    refused("ca.no_auto_registration", off.device().config)


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


# the operator's part

def test_activation_makes_the_device(stack, jitr):
    d = jitr.device()
    refused("cert.pending_activation", d.config)
    (row,) = [w for w in stack.cli_json("cert", "waiting", "--status", "pending", "--ca", jitr.ca.nick) if w["fingerprint"] == fingerprint(d.cert)]
    assert row["template"] == "jit" and row["contacts"] == 1 and d.serial in row["subject"] and row["last_source"] == "127.0.0.1"
    assert row in [w for page in stack.pages(f"/certs:waiting?status=pending&ca={jitr.ca.nick}&limit=1") for w in page]
    shown = stack.cli_json("cert", "activate", fingerprint(d.cert), "--param", "Site=basel")
    assert shown["serial"] == d.serial and shown["origin"] == "registered" and shown["active"]
    assert stack.device(d.serial)["attributes"]["site"] == "basel"
    assert d.config()["state"] == "PROVISIONED"
    assert fingerprint(d.cert) not in [w["fingerprint"] for w in stack.cli_json("cert", "waiting", "--ca", jitr.ca.nick)]
    trail = stack.device(d.serial)["trail"]
    assert [(t["protocol"], t["operation"], t["credential"]) for t in trail] == [("config", "verify", "device"), ("admin", "activate", "jit")]
    assert stack.one("SELECT count(*) FROM audit WHERE action = 'cert.activate' AND object = %s", fingerprint(d.cert)) == 1
    assert stack.cli_json("cert", "activate", fingerprint(d.cert))["fingerprint"] == fingerprint(d.cert)  # it is: nothing to do


def test_activation_takes_another_template(stack):
    bare = Maker(stack, None, jit="jitr")
    d = bare.device()
    refused("cert.pending_activation", d.config)
    refused("template.no_default", stack.v1, "POST", f"/certs/{fingerprint(d.cert)}/activate", {})
    assert waiting(stack, d.cert)[0] == "pending"
    stack.v1("POST", f"/certs/{fingerprint(d.cert)}/activate", {"template": "jit", "parameters": {"Site": "bern"}})
    assert d.config()["thing_name"] == f"jit-{d.serial}" and stack.device(d.serial)["attributes"]["site"] == "bern"


def test_a_deactivated_certificate_is_refused_until_it_is_activated(stack, jitp):
    d = jitp.device()
    d.config()
    assert not stack.cli_json("cert", "deactivate", fingerprint(d.cert))["active"]
    refused("cert.inactive", d.config)
    assert stack.cli_json("cert", "activate", fingerprint(d.cert))["active"]
    assert d.config()["state"] == "PROVISIONED"
    assert [t["operation"] for t in stack.device(d.serial)["trail"]][:2] == ["activate", "deactivate"]


def test_one_that_waits_can_be_kept_out_and_revoked(stack, jitr):
    d = jitr.device()
    refused("cert.pending_activation", d.config)
    assert stack.v1("POST", f"/certs/{fingerprint(d.cert)}/deactivate")["status"] == "inactive"
    refused("cert.inactive", d.config)
    assert stack.v1("POST", f"/certs/{fingerprint(d.cert)}/revoke", {})["status"] == "revoked"
    refused("cert.revoked", d.config)
    again, key = jitr.ca.device(d.serial, key=d.key)  # nor another over its key
    refused("cert.revoked", d.config, again, key)
    e = refused("request.conflict", stack.v1, "POST", f"/certs/{fingerprint(d.cert)}/activate", {})
    assert e.status == 409


def test_a_certificate_registered_without_thing_waits_for_its_first_contact(stack, tmp_path):
    off = Maker(stack, auto_registration=False)
    d = off.device()
    (tmp_path / "d.pem").write_bytes(cert_pem(d.cert))
    row = stack.cli_json("cert", "register", tmp_path / "d.pem", "--param", "Site=shelf")
    assert row["status"] == "active" and row["contacts"] == 0 and row["created_by"]
    assert certificates(stack, d.serial) == []
    wait_config(d)
    assert stack.device(d.serial)["attributes"]["site"] == "shelf"
    refused("request.exists", stack.v1, "POST", "/certs", {"pem": cert_pem(d.cert).decode()})


def test_a_certificate_registered_inactive_is_refused(stack):
    off = Maker(stack, auto_registration=False)
    d = off.device()
    stack.v1("POST", "/certs", {"pem": cert_pem(d.cert).decode(), "status": "inactive"})
    stack.catalog_caught_up()
    refused("cert.inactive", d.config)
    stack.v1("POST", f"/certs/{fingerprint(d.cert)}/activate", {})
    assert d.config()["serial"] == d.serial


def test_a_certificate_registered_with_a_template_has_its_device_at_once(stack):
    off = Maker(stack, auto_registration=False)
    d = off.device()
    shown = stack.v1("POST", "/certs", {"pem": cert_pem(d.cert).decode(), "template": "jit", "parameters": {"Site": "ahead"}})
    assert shown["serial"] == d.serial and shown["status"] == "pending"
    device = stack.device(d.serial)
    assert device["state"] == "VERIFY" and device["attributes"]["site"] == "ahead"
    assert device["verify_by"][:4] > "2030"  # it may come in years
    wait_config(d)
    assert stack.state(d.serial) == "PROVISIONED"


@pytest.mark.parametrize("body, code", [
    ({"pem": "nonsense"}, "request.malformed"), ({"pem": "<own>"}, "cert.wrong_purpose"), ({"pem": "<stranger>"}, "ca.not_registered"),
    ({"pem": "<good>", "template": "nosuch"}, "object.not_found"), ({"pem": "<good>", "parameters": {"AWS::IoT::Certificate::CommonName": "x"}}, "request.malformed"),
    ({"pem": "<good>", "parameters": {"Site": 7}}, "request.malformed")])
def test_what_cannot_be_registered(stack, jitp, body, code):
    own = Device(stack, None, "open", stack.mint("open"))
    own.enrol()
    pems = {"<own>": own.cert, "<stranger>": Authority("Stranger").device(unique())[0], "<good>": jitp.device().cert}
    pem = cert_pem(pems[body["pem"]]).decode() if body["pem"] in pems else body["pem"]
    refused(code, stack.v1, "POST", "/certs", {**body, "pem": pem})


def test_a_batch_from_json_lines_with_a_result_a_line(stack, tmp_path):
    off = Maker(stack, auto_registration=False)
    devices = [off.device() for _ in range(40)]
    lines = [json.dumps({"CertificatePem": cert_pem(d.cert).decode(), "Site": f"s{n}"}) for n, d in enumerate(devices)]
    lines.insert(3, "no json")
    lines.insert(7, json.dumps({"CertificatePem": cert_pem(Authority("Stranger").device(unique())[0]).decode()}))
    file, report = tmp_path / "batch.ndjson", tmp_path / "batch.csv"
    file.write_text("\n".join(lines) + "\n")
    done = stack.cli("cert", "import", file, "--template", "jit", "--report", report, check=False)
    assert done.stdout == "40 imported, 0 duplicate, 2 rejected\n" and done.returncode == 1
    rows = [row.split(",", 3) for row in report.read_text().splitlines()[1:] if not row.startswith("#")]
    assert [(r[0], r[1]) for r in rows if r[1] != "imported"] == [("4", "rejected"), ("8", "rejected")]
    assert "ca.not_registered" in rows[7][3]
    assert stack.device(devices[5].serial)["attributes"]["site"] == "s5"
    wait_config(devices[5])
    again = stack.cli("cert", "import", file, "--template", "jit", check=False)
    assert again.stdout.splitlines()[-1] == "0 imported, 40 duplicate, 2 rejected"
    # the command died in the middle of a line: --resume goes on, and each line is reported once
    report.write_text("".join(report.read_text().splitlines(keepends=True)[:11]) + "11,impor")
    done = stack.cli("cert", "import", file, "--template", "jit", "--report", report, "--resume", check=False)
    rows = [row.split(",", 3) for row in report.read_text().splitlines()[1:] if not row.startswith("#")]
    assert done.returncode == 1 and [int(r[0]) for r in rows] == list(range(1, 43)) and {r[1] for r in rows[12:]} == {"duplicate"}


def test_a_batch_without_template_waits(stack, tmp_path):
    off = Maker(stack, auto_registration=False)
    d = off.device()
    body = json.dumps({"CertificatePem": cert_pem(d.cert).decode(), "Site": "later"}).encode() + b"\n"
    report = stack.admin("POST", "/admin/v1/certs:import", body, kind="application/x-ndjson")
    assert report["imported"] == 1 and report["lines"] == [{"line": 1, "serial": d.serial, "result": "imported", "reason": None}]
    wait_config(d)
    assert stack.device(d.serial)["attributes"]["site"] == "later"


def test_a_report_of_what_was_rejected_only(stack, jitp):
    d = jitp.device()
    lines = json.dumps({"CertificatePem": cert_pem(d.cert).decode()}) + "\n{}\n"
    report = stack.admin("POST", "/admin/v1/certs:import?template=jit&report=rejected", lines.encode(), kind="application/x-ndjson")
    assert (report["imported"], report["rejected"]) == (1, 1) and [line["line"] for line in report["lines"]] == [2]


def test_an_operator_is_told_what_the_allowlist_has_against_it(stack, jitp):
    """Where the template says that it counts; a device is only told that it is refused."""
    document = json.loads(stack.v1("GET", "/templates/jit")["body"])
    document.setdefault("Muster", {})["Allowlist"] = "required"
    name = unique("listed")
    stack.v1("PUT", f"/templates/{name}?product=pump", json.dumps(document).encode())
    d = jitp.device()
    body = {"pem": cert_pem(d.cert).decode(), "template": name}
    refused("allowlist.unknown_serial", stack.v1, "POST", "/certs", body)
    stack.allow(d.serial)
    stack.v1("POST", f"/products/pump/allowlist/{d.serial}/block")
    refused("allowlist.blocked", stack.v1, "POST", "/certs", body)
    stack.v1("POST", f"/products/pump/allowlist/{d.serial}/unblock")
    assert stack.v1("POST", "/certs", body)["serial"] == d.serial
    pinned = jitp.device()
    stack.v1("POST", "/products/pump/allowlist", f"serial,key_sha256\n{pinned.serial},{'ab' * 32}\n".encode(), kind="text/csv")
    refused("allowlist.key_mismatch", stack.v1, "POST", "/certs", {"pem": cert_pem(pinned.cert).decode(), "template": name})


def test_operators_of_one_product_stay_with_it(stack, jitr):
    token = stack.v1("POST", "/admin-tokens", {"name": unique("t"), "role": "operator", "product": "folded"})["token"]
    d = jitr.device()
    refused("cert.pending_activation", d.config)
    assert stack.v1("GET", "/certs:waiting", token=token) == []
    refused("object.not_found", stack.v1, "POST", f"/certs/{fingerprint(d.cert)}/activate", {}, token=token)
    refused("admin.forbidden", stack.v1, "POST", "/certs", {"pem": cert_pem(jitr.device().cert).decode()}, token=token)
    refused("object.not_found", stack.v1, "POST", "/certs", {"pem": cert_pem(jitr.device().cert).decode(), "template": "jit"}, token=token)
