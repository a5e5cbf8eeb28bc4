"""Claims over HTTPS and EST: what they may do, what they may not, and what is left when something goes wrong."""
import base64
import concurrent.futures
import datetime
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from claims import CREATE_FROM_CSR, CREATE_KEYS, Claim, ClaimDevice, Rejected, csr_pem
from client import Device, cert_pem, fingerprint, name_of, new_csr, new_key, request, spki_sha256, unique
from factory import Authority
from replica import Replica
from stack import Refused, wait_for


def rejected(code, call, *args, **kw):
    with pytest.raises(Rejected) as refusal:
        call(*args, **kw)
    assert refusal.value.code == code, refusal.value.body
    return refusal.value


@pytest.fixture(scope="module")
def claim(stack):
    return Claim(stack)


def provisioned(stack, claim, **kw):
    d = ClaimDevice(claim, **kw)
    stack.allow(d.serial)
    d.answer = d.provision()
    return d


class Foreign(Claim):
    """A claim whose certificate another CA made, which is registered."""

    def __init__(self, stack, cert, key, **body):
        self.stack, self.template, self.name = stack, "claimopen", unique("claim")
        self.cert, self.key, self.chain = cert, key, [cert]
        stack.v1("POST", "/claims", {"name": self.name, "template": self.template, "certificate": cert_pem(cert).decode(), "rate_per_second": 0, **body})


# the two steps

def test_a_device_provisions_itself(stack, claim):
    d = provisioned(stack, claim)
    assert d.answer == {"thingName": f"claimed-{d.serial}", "deviceConfiguration": {"prefix": f"devices/{d.serial}"}}
    assert d.cert.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value != d.serial
    assert stack.state(d.serial) == "VERIFY"
    assert d.config()["thing_name"] == d.answer["thingName"]
    assert stack.state(d.serial) == "PROVISIONED"
    shown = stack.device(d.serial)
    assert [c["fingerprint"] for c in shown["certificates"]] == [d.created["certificateId"]]
    create = stack.sql("SELECT operation, credential, claim, outcome FROM history WHERE fingerprint = %s ORDER BY at", bytes.fromhex(d.created["certificateId"]))
    assert create[:2] == [("CreateCertificateFromCsr", "claim", claim.name, "ok"), ("RegisterThing", "claim", claim.name, "ok")]


def test_a_key_made_for_the_device(stack, claim):
    d = ClaimDevice(claim, client="keyless")
    stack.allow(d.serial)
    d.create_keys()
    assert isinstance(d.key, ec.EllipticCurvePrivateKey)
    d.register()
    assert d.config()["state"] == "PROVISIONED"
    for table in ("claim_certificate", "certificate", "certificate_der", "history", "outbox"):
        dump = stack.sql(f"SELECT x::text FROM {table} x")
        assert not any(d.created["certificateOwnershipToken"] in row[0] for row in dump), table
    assert d.created["certificateOwnershipToken"] not in stack.log_text()


def test_parameters_go_into_the_thing_and_never_into_a_policy(stack, claim):
    d = provisioned(stack, claim)
    assert stack.device(d.serial)["attributes"]["region"] == "eu"
    body = {"Parameters": {"SerialNumber": {"Type": "String"}, "Topic": {"Type": "String"}},
            "Resources": {"policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": {"Version": "2012-10-17", "Statement": [
                {"Effect": "Allow", "Action": "iot:Publish", "Resource": {"Fn::Join": ["", ["arn:aws:iot:*:*:topic/", {"Ref": "Topic"}]]}}]}}}},
            "Muster": {"Credentials": ["claim"], "Allowlist": "optional"}}
    stack.v1("PUT", "/templates/topical?product=pump", body)
    c = Claim(stack, "topical")
    for evil in ("*", "a/${iot:ClientId}", "?"):
        assert "wildcard" in rejected("template.evaluation_failed", ClaimDevice(c).provision, Topic=evil).problem["detail"]
    assert ClaimDevice(c).provision(Topic="dt/1")["thingName"]
    assert '"Topic"' in rejected("template.parameter_missing", ClaimDevice(c).provision).problem["detail"]


def test_the_same_registration_again_gets_the_same_answer(stack, claim):
    d = provisioned(stack, claim, client="dev-1")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: d.register(), range(16)))
    assert all(a == d.answer for a in answers)
    rejected("ownership.used", d.register, Region="us")
    assert stack.one("SELECT count(*) FROM certificate c JOIN device d ON d.id = c.device_id WHERE d.serial = %s", d.serial) == 1
    assert stack.one("SELECT devices FROM claim WHERE name = %s", claim.name) == stack.one(
        "SELECT count(*) FROM claim_use u JOIN claim c ON c.id = u.claim_id WHERE c.name = %s", claim.name)


def test_an_ownership_token_is_bound_to_claim_client_and_hour(stack, claim):
    other = Claim(stack)
    d = ClaimDevice(claim, client="mine")
    stack.allow(d.serial)
    d.create()
    for client in (None, "theirs"):
        d.client = client
        assert rejected("ownership.invalid", d.register).error == "InvalidCertificateOwnershipToken"
    d.client, d.claim = "mine", other
    rejected("ownership.invalid", d.register)
    d.claim = claim
    rejected("ownership.invalid", d.register, token="mot_" + "A" * 43)
    assert "cannot be empty" in rejected("ownership.invalid", claim.call, f"/v1/provisioning-templates/{claim.template}/provision", {}).problem["detail"]
    stack.sql("UPDATE claim_certificate SET expires_at = now() - interval '1 s' WHERE fingerprint = %s", bytes.fromhex(d.created["certificateId"]))
    assert "expired" in rejected("ownership.invalid", d.register).problem["detail"]


def test_who_never_registers_is_revoked(stack, claim):
    d = ClaimDevice(claim)
    stack.allow(d.serial)
    d.create()
    fp = bytes.fromhex(d.created["certificateId"])
    stack.sql("SELECT claim_certificate_sweep()")
    assert stack.one("SELECT status FROM claim_certificate WHERE fingerprint = %s", fp) == "pending"
    stack.sql("UPDATE claim_certificate SET expires_at = now() - interval '1 s' WHERE fingerprint = %s", fp)
    stack.sql("SELECT claim_certificate_sweep()")  # or the server's own job was there before
    assert stack.one("SELECT status FROM claim_certificate WHERE fingerprint = %s", fp) == "revoked"
    assert stack.one("SELECT count(*) FROM outbox WHERE event = 'certificate.unregistered' AND payload->>'fingerprint' = %s", fp.hex()) == 1
    assert "revoked" in rejected("ownership.invalid", d.register).problem["detail"]
    with pytest.raises(Refused) as refusal:
        d.config()
    assert refusal.value.code == "cert.unknown"
    d.create()  # the same key, after the power came back
    assert d.register()["thingName"]


def test_a_serial_in_the_request_must_be_the_one_registered(stack, claim):
    d, other = ClaimDevice(claim), unique("cd")
    stack.allow(d.serial, other)
    d.create(subject=other)
    refusal = rejected("serial.mismatch", d.register)
    assert other in refusal.problem["detail"]
    d.create(subject="Fleet Provisioning Demo")  # no serial, a sentence
    assert d.register()["thingName"] == f"claimed-{d.serial}"
    e = ClaimDevice(claim)
    stack.allow(e.serial)
    e.create(subject=e.serial)
    claim.call(f"/v1/provisioning-templates/{claim.template}/provision", {"certificateOwnershipToken": e.created["certificateOwnershipToken"]})
    assert stack.device(e.serial)["thing_name"] == f"claimed-{e.serial}"


def test_what_a_request_must_look_like(stack, claim):
    for body in ({}, {"certificateSigningRequest": ""}, {"certificateSigningRequest": "garbage"}, {"certificateSigningRequest": None}):
        assert rejected("csr.malformed", claim.call, CREATE_FROM_CSR, body).error == "InvalidCsr"
    for body in ({"certificateSigningRequest": 5}, {"certificateSigningRequest": "A" * 9000}, {"clientId": []}):
        assert rejected("request.malformed", claim.call, CREATE_FROM_CSR, body).error == "InvalidPayload"
    status, headers, text = request(stack, "POST", CREATE_KEYS, b"{", {"Content-Type": "application/json"}, claim.chain, claim.key)
    assert json.loads(text)["code"] == "request.malformed"
    d = ClaimDevice(claim)
    d.create()
    assert '"AWS::IoT::Certificate::Id"' in rejected("request.malformed", d.register, **{"AWS::IoT::Certificate::Id": "x"}).problem["detail"]
    rejected("request.malformed", d.register, SerialNumber=5)
    rejected("request.malformed", d.register, **{f"p{i}": "x" for i in range(21)})
    rejected("serial.malformed", d.register, SerialNumber="not a serial")
    d.serial = None
    body = {"certificateOwnershipToken": d.created["certificateOwnershipToken"], "parameters": {"Other": "x"}}
    assert '"SerialNumber"' in rejected("serial.missing", claim.call, "/v1/provisioning-templates/claimed/provision", body).problem["detail"]
    key = new_key("Ed25519")
    rejected("csr.key_not_allowed", claim.call, CREATE_FROM_CSR, {"certificateSigningRequest": csr_pem(key, name_of("x"))})
    broken = bytearray(new_csr(new_key(), "x"))
    broken[-1] ^= 1
    rejected("csr.signature_invalid", claim.call, CREATE_FROM_CSR, {"certificateSigningRequest": base64.b64encode(broken).decode()})


def test_the_two_steps_are_for_claims(stack, claim):
    body = json.dumps({"certificateSigningRequest": csr_pem(new_key(), name_of("x"))}).encode()
    kind = {"Content-Type": "application/json"}
    assert json.loads(request(stack, "POST", CREATE_FROM_CSR, body, kind)[2])["code"] == "auth.required"
    d = provisioned(stack, claim)
    assert json.loads(request(stack, "POST", CREATE_FROM_CSR, body, kind, [d.cert], d.key)[2])["code"] == "claim.required"
    cert, key = Authority("Bystander").device("x")
    assert json.loads(request(stack, "POST", CREATE_FROM_CSR, body, kind, [cert], key)[2])["code"] == "ca.not_registered"


# one step

def test_est_with_a_claim(stack, claim):
    d = Device(stack, template="claimed")
    stack.allow(d.serial)
    cert = d.post("simpleenroll", new_csr(d.key, d.serial), claim.chain, claim.key)
    again = d.post("simpleenroll", new_csr(d.key, d.serial), claim.chain, claim.key)
    assert fingerprint(cert) == fingerprint(again)
    d.cert = cert
    assert d.config()["state"] == "PROVISIONED"
    d.renew()
    with pytest.raises(Refused) as refusal:
        d.post("simplereenroll", new_csr(d.key, d.serial), claim.chain, claim.key)
    assert refusal.value.code == "cert.wrong_purpose"


def test_json_with_a_claim(stack, claim):
    serial, key = unique("cd"), new_key()
    stack.allow(serial)
    body = {"csr": csr_pem(key, name_of()), "serial": serial}
    status, _, text = request(stack, "POST", "/v1/enroll", json.dumps(body).encode(), {"Content-Type": "application/json"}, claim.chain, claim.key)
    answer = json.loads(text)
    assert status == 200 and answer["thing_name"] == f"claimed-{serial}", answer


def test_the_key_of_a_claim_is_never_a_device(stack, claim):
    d = Device(stack, template="claimed")
    stack.allow(d.serial)
    with pytest.raises(Refused) as refusal:
        d.post("simpleenroll", new_csr(claim.key, d.serial), claim.chain, claim.key)
    assert refusal.value.code == "key.reused"
    rejected("key.reused", claim.call, CREATE_FROM_CSR, {"certificateSigningRequest": csr_pem(claim.key, name_of("x"))})


# bounds

def test_scope(stack, claim):
    d = ClaimDevice(claim)
    stack.allow(d.serial)
    d.create()
    rejected("claim.wrong_template", d.register, template="claimopen")
    rejected("template.unknown", d.register, template="nosuch")
    wide = Claim(stack, templates=["claimopen"])
    e = ClaimDevice(wide)
    e.create()
    assert e.register(template="claimopen")["thingName"] == f"claimopen-{e.serial}"
    with pytest.raises(Refused) as refusal:
        Device(stack, template="strict").post("simpleenroll", new_csr(new_key(), "x"), claim.chain, claim.key)
    assert refusal.value.code == "claim.wrong_template"


def test_a_budget_counts_devices(stack):
    c = Claim(stack, budget=3)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        devices = [ClaimDevice(c) for _ in range(8)]
        stack.allow(*(d.serial for d in devices))
        for d in devices:
            d.create()
        outcomes = list(pool.map(lambda d: attempt(d.register), devices))
    assert sorted(outcomes) == ["claim.budget_exhausted"] * 5 + ["ok"] * 3
    assert c.show()["devices"] == 3
    for d, outcome in zip(devices, outcomes):
        if outcome == "ok":
            assert d.register()["thingName"]  # who has been counted goes on
    rejected("claim.budget_exhausted", ClaimDevice(c).create)
    rejected("claim.budget_exhausted", ClaimDevice(c).create_keys)


def attempt(call, *args, **kw):
    try:
        call(*args, **kw)
        return "ok"
    except Refused as e:
        return e.code


def test_certificates_that_wait_are_capped(stack):
    c = Claim(stack, max_pending=3)
    devices = [ClaimDevice(c) for _ in range(4)]
    stack.allow(*(d.serial for d in devices))
    for d in devices[:3]:
        d.create()
    assert int(rejected("claim.too_many_pending", devices[3].create).headers["retry-after"]) > 0
    rejected("claim.too_many_pending", devices[3].create_keys)
    devices[0].register()
    devices[3].create()


def test_the_rate_holds_across_replicas(stack, tmp_path):
    c = Claim(stack, rate_per_second=5, rate_burst=4)
    with Replica(stack, tmp_path) as second:
        devices = [ClaimDevice(c, stack=s) for s in (stack, second) * 60]
        began = datetime.datetime.now()
        with concurrent.futures.ThreadPoolExecutor(60) as pool:
            outcomes = list(pool.map(lambda d: attempt(d.create), devices))
        took = (datetime.datetime.now() - began).total_seconds()
    passed = outcomes.count("ok")
    assert set(outcomes) == {"ok", "claim.rate_limited"}
    assert passed <= 5 * (took + 1) + 4 + 1 and passed >= 5
    assert stack.one("SELECT count(*) FROM history WHERE claim = %s AND outcome = 'claim.rate_limited'", c.name) > 0


# ends

def expire(stack, claim, days, grace=None):
    stack.sql("UPDATE claim SET enrol_until = now() - %s * interval '1 day', grace_s = COALESCE(%s, grace_s) WHERE name = %s", days, grace, claim.name)


def test_a_claim_that_ended_in_a_warehouse(stack):
    c = Claim(stack, "claimopen")
    known, unknown = ClaimDevice(c), ClaimDevice(c)
    stack.allow(known.serial)
    known.create(), unknown.create()
    expire(stack, c, 90)
    assert "ended at" in rejected("claim.expired", ClaimDevice(c).create).problem["detail"]
    rejected("claim.expired", known.register)
    expire(stack, c, 90, 91 * 86400)
    assert known.register()["thingName"]
    assert "never seen" in rejected("claim.expired", unknown.register).problem["detail"]
    assert known.register() and ClaimDevice(c).create()
    assert stack.one("SELECT u.in_grace FROM claim_use u JOIN device d ON d.id = u.device_id WHERE d.serial = %s", known.serial) is True
    assert stack.last_attempt(known.serial)[0] == "replayed"
    assert stack.one("SELECT detail FROM history WHERE serial = %s AND outcome = 'ok' AND operation = 'RegisterThing'", known.serial) == "in the grace of the claim"
    assert stack.one("SELECT count(*) FROM outbox WHERE event = 'claim.grace_used' AND payload->>'serial' = %s", known.serial) == 1


def test_a_claim_certificate_that_expired_itself(stack):
    """Over HTTPS only: a broker would have dropped it in the handshake."""
    ca = Authority("Old claims")
    ca.register(stack, unique("old-claims"), template=None)
    cert, key = ca.device(unique("claim"), begin=-400, end=4 / 86400)
    c = Foreign(stack, cert, key, enrol_for_s=1)
    d = ClaimDevice(c)
    stack.allow(d.serial)
    wait_for("the certificate to expire", lambda: attempt(d.create) == "cert.expired")
    stack.sql("UPDATE claim SET grace_s = 30 * 86400 WHERE name = %s", c.name)
    wait_for("the grace to be known", lambda: attempt(d.create) == "ok")
    assert d.provision()["thingName"]
    assert stack.one("SELECT u.in_grace FROM claim_use u JOIN device d ON d.id = u.device_id WHERE d.serial = %s", d.serial) is True
    rejected("claim.expired", ClaimDevice(c).provision)


def test_revoked_in_the_middle(stack):
    for mode, finished in (("stop-new", "ok"), ("hard", "claim.revoked")):
        c = Claim(stack)
        begun, done = ClaimDevice(c), ClaimDevice(c)
        stack.allow(begun.serial, done.serial)
        begun.create()
        done.provision()
        stack.v1("POST", f"/claims/{c.name}/revoke", {"mode": mode})
        rejected("claim.revoked", ClaimDevice(c).create)
        assert attempt(begun.register) in (finished, "ownership.invalid" if mode == "hard" else finished)
        assert attempt(done.register) in (finished, "ownership.invalid" if mode == "hard" else finished)
        assert done.config()["state"] == "PROVISIONED"  # its own certificate is its own
        with pytest.raises(Refused) as refusal:
            Device(stack, template="claimed").post("simpleenroll", new_csr(new_key(), "x"), c.chain, c.key)
        assert refusal.value.code in ("claim.revoked", "enrol.refused")


# takeover

def test_a_claim_never_replaces_a_verified_certificate(stack):
    c = Claim(stack, "claimopen")
    d = provisioned(stack, c)
    d.config()
    thief = ClaimDevice(c, d.serial)
    rejected("device.already_provisioned", thief.provision)
    with pytest.raises(Refused) as refusal:
        Device(stack, d.serial, "claimopen").post("simpleenroll", new_csr(new_key(), d.serial), c.chain, c.key)
    assert refusal.value.code == "device.already_provisioned"
    assert d.config()["state"] == "PROVISIONED"
    stack.v1("POST", f"/devices/{d.serial}/reset")
    again = ClaimDevice(c, d.serial)
    again.provision()
    again.config()
    rejected("device.already_provisioned", ClaimDevice(c, d.serial).provision)


def test_before_its_first_use_the_template_says(stack, claim):
    firm = provisioned(stack, claim)
    rejected("device.key_conflict", ClaimDevice(claim, firm.serial).provision)
    assert firm.config()["state"] == "PROVISIONED"
    c = Claim(stack, "claimopen")
    soft = provisioned(stack, c)
    back = ClaimDevice(c, soft.serial)
    back.provision()
    back.config()
    with pytest.raises(Refused) as refusal:
        soft.config()
    assert refusal.value.code == "cert.revoked"
    assert c.show()["devices"] == 1


def test_a_new_certificate_for_the_same_key(stack, claim):
    """Power was lost between the steps, or the answer of the second: the device begins anew with the key it has."""
    d = provisioned(stack, claim)
    first = d.cert
    d.provision()
    assert fingerprint(d.cert) != fingerprint(first)
    d.config()
    d.provision()  # also when it was verified: whoever holds the key is the device
    assert d.config()["state"] == "PROVISIONED"
    assert claim.show()["devices"] == stack.one("SELECT count(*) FROM claim_use u JOIN claim c ON c.id = u.claim_id WHERE c.name = %s", claim.name)


def test_pins_and_blocks_hold(stack, claim):
    d, key = ClaimDevice(claim), new_key()
    stack.admin("POST", "/admin/v1/products/pump/allowlist", f"{d.serial},{spki_sha256(key).hex()}\n".encode(), kind="text/csv")
    rejected("enrol.refused", d.provision)
    assert stack.last_attempt(d.serial)[0] == "allowlist.key_mismatch"
    d.key = key
    d.provision()
    e = ClaimDevice(claim)
    stack.allow(e.serial)
    stack.v1("POST", f"/products/pump/allowlist/{e.serial}/block")
    rejected("enrol.refused", e.provision)
    assert stack.last_attempt(e.serial)[0] == "allowlist.blocked"


def test_two_devices_of_one_token(stack, claim):
    """An ownership token that leaked between two devices serves one of them."""
    d = ClaimDevice(claim)
    others = [unique("cd") for _ in range(6)]
    stack.allow(*others)
    d.create()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(lambda s: attempt(d.register, SerialNumber=s), others))
    assert outcomes.count("ok") == 1 and set(outcomes) <= {"ok", "ownership.used"}, outcomes
    assert stack.one("SELECT count(*) FROM certificate WHERE fingerprint = %s", bytes.fromhex(d.created["certificateId"])) == 1
