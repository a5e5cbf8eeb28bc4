"""The device API of DPS: enrollments, assignment, certificates, and what a device is told when it fails."""
import base64
import json
import re
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from client import Device, cert_pem, fingerprint, new_csr, new_key, request, spki_sha256, unique
from factory import Authority
from dps import Registrant, brokers, derive, endpoint, enrollment, group, individual, pinned, sas, self_signed
from stack import SCOPE, Refused


@pytest.fixture(autouse=True)
def hosts(stack):
    brokers(stack)


# Registering


def test_a_device_registers_by_its_own_key(stack):
    d, made = individual(stack, payload={"topic": "a/b"})
    state = d.assigned()
    assert state["registrationId"] == d.id and state["status"] == "assigned" and state["substatus"] == "initialAssignment"
    assert state["assignedHub"].startswith("broker-") and state["deviceId"] and state["payload"] == {"topic": "a/b"}
    assert base64.b64decode(state["etag"]) == b'"1"' and "enrollmentGroupId" not in state["symmetricKey"]
    shown = stack.v1("GET", f"/devices/{d.id}")
    assert shown["state"] == "PROVISIONED" and shown["certificates"] == []
    assert shown["trail"][0]["protocol"] == "dps" and shown["trail"][0]["credential"] == "enrollment"
    again = d.assigned()
    assert again["assignedHub"] == state["assignedHub"] and again["substatus"] == "initialAssignment"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", state["createdDateTimeUtc"])
    assert again["createdDateTimeUtc"] == state["createdDateTimeUtc"] and base64.b64decode(again["etag"]) == b'"2"'
    assert Registrant(stack, d.id, made["secondary_key"]).assigned()["deviceId"] == state["deviceId"]


def test_a_device_of_a_group_registers_by_a_derived_key(stack):
    g = group(stack)
    d = Registrant(stack, unique("grp"), None)
    d.symmetric = derive(g["primary_key"], d.id)
    assert d.assigned()["symmetricKey"]["enrollmentGroupId"] == g["name"]
    d.symmetric = derive(g["secondary_key"], d.id)
    assert d.assigned()["deviceId"] == f"open-{d.id}"  # the thing name of the template
    assert stack.v1("GET", f"/enrollment-groups/{g['name']}")["devices"] == 1


def test_ids_are_compared_without_case_and_keys_derived_as_people_type(stack):
    g = group(stack)
    small = unique("mixed")
    big = Registrant(stack, small.upper(), derive(g["primary_key"], small.upper()))
    assert big.assigned()["registrationId"] == small.upper()
    other = Registrant(stack, small.upper(), derive(g["primary_key"], small))
    assert other.assigned()["deviceId"] == big.assigned()["deviceId"]
    assert stack.one("SELECT count(*) FROM dps_registration WHERE registration_id = %s", small) == 1


def test_the_vector_of_the_documents():
    key = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw=="
    assert derive(key, "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6") == "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc="


def test_keys_that_the_operator_has(stack):
    key = base64.b64encode(b"0123456789abcdef").decode()
    made = enrollment(stack, primary_key=key)
    assert made["primary_key"] == key and len(base64.b64decode(made["secondary_key"])) == 64
    assert Registrant(stack, made["registration_id"], key).assigned()
    for bad in (base64.b64encode(b"short").decode(), base64.b64encode(bytes(65)).decode(), "no base64"):
        with pytest.raises(Refused) as e:
            enrollment(stack, primary_key=bad)
        assert e.value.code == "request.malformed"


def test_signatures_as_sdks_write_them(stack):
    d, made = individual(stack)
    for kw in ({"quote": True}, {"quote": False}, {"skn": ""}, {"skn": "&skn=registration", "ends": time.time() - 200}, {"ends": time.time() + 30 * 86400}):
        status, _, answer = d.register(auth=sas(d.symmetric, d.id, **kw))
        assert status == 200, (kw, answer)
    lower = sas(d.symmetric, d.id).replace("%2F", "%2f")
    assert d.register(auth=lower)[0] == 401  # another text than the one that was signed


def test_a_certificate_with_the_registration(stack):
    d, _ = individual(stack)
    key = new_key()
    csr = base64.b64encode(new_csr(key, d.id)).decode()
    state = d.assigned({"registrationId": d.id, "csr": csr})
    chain = [x509.load_der_x509_certificate(base64.b64decode(c)) for c in state["issuedCertificateChain"]]
    assert len(chain) == 3 and spki_sha256(chain[0]) == spki_sha256(key) and chain[-1].subject == chain[-1].issuer
    shown = stack.v1("GET", f"/devices/{d.id}")
    assert shown["state"] == "VERIFY" and shown["certificates"][0]["fingerprint"] == fingerprint(chain[0])
    again = d.assigned({"registrationId": d.id, "csr": csr})
    assert again["issuedCertificateChain"] == state["issuedCertificateChain"]
    device = Device(stack, d.id)
    device.key, device.cert = key, chain[0]
    assert device.config()["serial"] == d.id
    assert stack.v1("GET", f"/devices/{d.id}")["state"] == "PROVISIONED"


def test_the_old_shape_of_certificates(stack):
    d, _ = individual(stack)
    key = new_key()
    pem = "-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(new_csr(key, d.id)).decode() + "-----END CERTIFICATE REQUEST-----\n"
    state = d.assigned({"registrationId": d.id, "clientCertificateCsr": pem})
    assert spki_sha256(x509.load_pem_x509_certificate(state["issuedClientCertificate"].encode())) == spki_sha256(key)
    assert d.register({"csr": "AAAA", "clientCertificateCsr": pem})[0] == 400


def test_a_csr_for_another_device(stack):
    d, _ = individual(stack)
    csr = base64.b64encode(new_csr(new_key(), "somebody-else")).decode()
    message, code = d.refused(body={"csr": csr})
    assert code == "enrollment.name_mismatch" and "somebody-else" in message


def test_lookup_and_polling(stack):
    d, _ = individual(stack)
    status, _, answer = d.lookup()
    assert status == 404 and answer["info"]["code"] == "dps.not_registered"
    status, _, done = d.register()
    assert status == 200
    status, _, state = d.lookup()
    assert status == 200 and state["assignedHub"] == done["registrationState"]["assignedHub"] and "issuedCertificateChain" not in state
    status, _, polled = d.call("GET", f"/operations/{done['operationId']}", {})  # as node does it
    assert status == 200 and polled["registrationState"]["deviceId"] == state["deviceId"]
    other, _ = individual(stack)
    status, _, answer = other.poll(done["operationId"])
    assert status == 404 and answer["info"]["code"] == "dps.operation_unknown"
    status, _, answer = d.poll("nonsense")
    assert status == 404
    before = stack.one("SELECT etag FROM dps_registration WHERE registration_id = %s", d.id)
    assert d.lookup()[0] == 200 and stack.one("SELECT etag FROM dps_registration WHERE registration_id = %s", d.id) == before
    assert d.lookup({"csr": "AAAA"})[0] == 400


# What is refused, and what the device is told


def test_a_wrong_key_is_told_apart_from_nothing(stack):
    d, _ = individual(stack)
    right = d.symmetric
    d.symmetric = base64.b64encode(b"x" * 32).decode()
    message, code = d.refused()
    assert code == "enrol.refused" and "registration id" in message
    request = d.register()[2]["trackingId"]
    assert stack.v1("GET", f"/attempts/{request}")[0]["outcome"] == "enrollment.key_mismatch"
    stranger = Registrant(stack, unique("nobody"), right)
    assert stranger.refused()[0] == message  # which of them it was is the operator's
    d.symmetric = right
    assert d.assigned()


def test_a_disabled_entry_says_so_to_its_device_only(stack):
    d, made = individual(stack)
    stack.v1("POST", f"/enrollments/{d.id}/disable")
    assert d.refused()[1] == "enrollment.disabled"
    assert d.lookup()[2]["info"]["code"] == "enrollment.disabled"
    wrong = Registrant(stack, d.id, base64.b64encode(b"x" * 32).decode())
    assert wrong.refused()[1] == "enrol.refused"
    stack.v1("POST", f"/enrollments/{d.id}/enable")
    assert d.assigned()


def test_one_command_shuts_a_group(stack):
    g = group(stack)
    devices = [Registrant(stack, i, derive(g["primary_key"], i)) for i in (unique("shut") for _ in range(3))]
    for d in devices[:2]:
        d.assigned()
    stack.v1("POST", f"/enrollment-groups/{g['name']}/disable")
    assert [d.refused()[1] for d in devices] == ["enrollment.disabled"] * 3


def test_keys_are_rotated_one_at_a_time(stack):
    d, made = individual(stack)
    rotated = stack.v1("POST", f"/enrollments/{d.id}/rotate", {"key": "primary"})
    assert rotated["primary_key"] != made["primary_key"] and "secondary_key" not in rotated
    assert d.refused()[1] == "enrol.refused"
    for key in (rotated["primary_key"], made["secondary_key"]):
        assert Registrant(stack, d.id, key).assigned()


@pytest.mark.parametrize("auth, code", [
    (lambda d: sas(d.symmetric, d.id, ends=time.time() - 400), "sas.expired"),
    (lambda d: sas(d.symmetric, d.id, ends=time.time() + 400 * 86400), "sas.expired"),
    (lambda d: sas(d.symmetric, d.id + "x"), "sas.wrong_resource"),
    (lambda d: sas(d.symmetric, d.id, scope="0ne99999999"), "sas.wrong_resource"),
    (lambda d: sas(d.symmetric, d.id, skn="&skn=other"), "sas.malformed"),
    (lambda d: sas(d.symmetric, d.id) + "&se=1", "sas.malformed"),
    (lambda d: sas(d.symmetric, d.id).replace("sig=", "sig=AA"), "sas.malformed"),
    (lambda d: "SharedAccessSignature ", "sas.malformed"),
    (lambda d: "Basic eDp5", "sas.malformed"),
    (lambda d: "Bearer mst_x", "sas.malformed"),
])
def test_signatures_that_are_none(stack, auth, code):
    d, _ = individual(stack)
    status, _, answer = d.register(auth=auth(d))
    assert status == 401 and answer["info"]["code"] == code and answer["info"]["serverTimeUtc"], answer


def test_requests_that_are_none(stack):
    d, _ = individual(stack)
    assert d.register(version=None)[2]["errorCode"] == 400004
    assert d.register(version="latest")[0] == 400
    assert d.register({"registrationId": "other"})[0] == 400
    assert d.register(b"[1]")[0] == 400 and d.register(b"{")[0] == 400 and d.register(b'{"a":' * 40 + b"1" + b"}" * 40)[0] == 400
    assert d.call("PUT", "/register", b"x" * 200000)[0] == 413
    assert d.call("PUT", "/register", {}, headers={"Content-Type": "text/plain"})[0] == 415
    assert d.call("DELETE", "/register")[0] == 405
    elsewhere = Registrant(stack, d.id, d.symmetric, scope="0ne99999999")
    status, got, answer = elsewhere.register()
    assert status == 404 and answer["errorCode"] == 404201 and got["x-ms-error-code"] == "404201"
    assert Registrant(stack, "bad!id", d.symmetric).register()[0] == 400
    assert d.register({"registrationId": d.id.upper(), "unknown": {"later": 1}, "payload": {"modelId": "dtmi:a:b;1"}})[0] == 200


def test_without_a_credential(stack):
    """Nor does anybody find out which ids there are."""
    d, _ = individual(stack)
    d.symmetric = None
    pinned_one = pinned(stack)
    said = set()
    for registration_id in (d.id, pinned_one.id, unique("nobody")):
        for call in ("register", "lookup"):
            status, _, answer = getattr(Registrant(stack, registration_id), call)()
            assert status == 401
            said.add((answer["info"]["code"], answer["message"]))
    assert len(said) == 1 and said.pop()[0] == "auth.required"
    garbage = base64.b64encode(b"x" * 32).decode()
    assert {Registrant(stack, i, garbage).refused() for i in (d.id, pinned_one.id, unique("nobody"))} == {Registrant(stack, unique("nobody"), garbage).refused()}


# Certificates


def said_of(cert):
    """What an answer says of a certificate."""
    return {"subjectName": cert.subject.rfc4514_string(), "issuerName": cert.issuer.rfc4514_string(), "version": 3,
            "sha1Thumbprint": cert.fingerprint(hashes.SHA1()).hex().upper(), "sha256Thumbprint": fingerprint(cert).upper(),
            "notBeforeUtc": f"{cert.not_valid_before:%Y-%m-%dT%H:%M:%SZ}", "notAfterUtc": f"{cert.not_valid_after:%Y-%m-%dT%H:%M:%SZ}",
            "serialNumber": cert.serial_number.to_bytes((cert.serial_number.bit_length() + 7) // 8, "big").hex().upper()}


def test_a_device_registers_by_a_pinned_certificate(stack):
    d = pinned(stack)
    state = d.assigned()
    assert state["x509"] == {"certificateInfo": said_of(d.chain[0])} and "symmetricKey" not in state
    status, _, answer = d.lookup()
    assert status == 200 and answer["x509"] == state["x509"]


def test_pinned_certificates_that_do_not_fit(stack):
    late = pinned(stack, days=(-10, -1))
    message, code = late.refused()
    assert code == "cert.expired" and "ago" in message
    early = pinned(stack, days=(1, 10))
    assert early.refused()[1] == "cert.not_yet_valid"
    named = pinned(stack, registration_id=unique("x509"))
    assert named.refused()[1] == "enrollment.name_mismatch"
    good = pinned(stack)
    key, cert = self_signed(good.id)
    assert Registrant(stack, good.id, chain=[cert], tls_key=key).refused()[1] == "enrol.refused"
    none = Registrant(stack, good.id)
    assert none.refused()[1] == "auth.required"


def test_a_group_by_its_ca(stack):
    ca, name, cn = Authority(unique("Line")), unique("line"), unique("gx")
    ca.register(stack, name)
    g = group(stack, attestation="x509", ca=name)
    cert, key = ca.device(cn)
    chain = [cert]
    d = Registrant(stack, cn, chain=chain, tls_key=key)
    assert d.assigned()["x509"] == {"enrollmentGroupId": g["name"], "certificateInfo": said_of(cert), "signingCertificateInfo": said_of(ca.cert)}
    other = Registrant(stack, unique("gx"), chain=chain, tls_key=key)
    assert other.refused()[1] == "enrollment.name_mismatch"
    stack.v1("POST", f"/enrollment-groups/{g['name']}/disable")
    assert d.refused()[1] == "enrollment.disabled"


# Assignment


def test_policies_of_assignment(stack):
    static, _ = individual(stack, allocation="static", endpoints=["broker-c.example.com", "broker-a.example.com"])
    assert static.assigned()["assignedHub"] == "broker-c.example.com"
    g = group(stack)
    hubs = [Registrant(stack, i, derive(g["primary_key"], i)).assigned()["assignedHub"] for i in (unique("hash") for _ in range(60))]
    assert len(set(hubs)) == 3 and min(hubs.count(h) for h in set(hubs)) >= 8
    endpoint(stack, "heavy.example.com", 9)
    endpoint(stack, "light.example.com", 1)
    endpoint(stack, "off.example.com", 0)
    w = group(stack, allocation="weighted", endpoints=["heavy.example.com", "light.example.com", "off.example.com"])
    hubs = [Registrant(stack, i, derive(w["primary_key"], i)).assigned()["assignedHub"] for i in (unique("weigh") for _ in range(60))]
    assert 40 <= hubs.count("heavy.example.com") < 60 and "off.example.com" not in hubs
    for host in ("heavy", "light", "off"):
        stack.v1("DELETE", f"/endpoints/{host}.example.com")


def test_a_device_is_moved_or_stays(stack):
    for sticky, migrate, substatus in ((False, True, "deviceDataMigrated"), (False, False, "deviceDataReset"), (True, True, "initialAssignment")):
        d, made = individual(stack, allocation="static", endpoints=["broker-a.example.com"], reprovision="sticky" if sticky else "update", migrate=migrate)
        assert d.assigned()["assignedHub"] == "broker-a.example.com"
        stack.v1("POST", f"/enrollments/{d.id}/update", {"endpoints": ["broker-b.example.com"]})
        moved = d.assigned()
        assert moved["assignedHub"] == ("broker-a.example.com" if sticky else "broker-b.example.com") and moved["substatus"] == substatus
        if not sticky:
            stack.v1("POST", f"/enrollments/{d.id}/update", {"endpoints": ["broker-a.example.com"]})
            assert d.assigned()["substatus"] == "reprovisionedToInitialAssignment"


def test_nowhere_to_go_is_a_failure_that_sdks_know(stack):
    endpoint(stack, "gone.example.com")
    d, _ = individual(stack, allocation="static", endpoints=["gone.example.com"])
    stack.v1("DELETE", "/endpoints/gone.example.com")
    status, _, answer = d.register()
    assert status == 200 and answer["status"] == "failed" and answer["registrationState"]["errorCode"] == 400208
    assert stack.state(d.id) == "ENROLL" and stack.sql("SELECT 1 FROM dps_registration WHERE registration_id = %s", d.id) == []


def test_a_group_has_a_limit_and_a_warning(stack):
    g = group(stack, max_devices=2, warn_devices=2)
    ids = [unique("limit") for _ in range(3)]
    devices = [Registrant(stack, i, derive(g["primary_key"], i)) for i in ids]
    for d in devices[:2] * 2:
        d.assigned()
    assert devices[2].refused()[1] == "enrollment.group_full"
    told = stack.sql("SELECT payload FROM outbox WHERE event = 'enrollment.group_large' AND payload->>'group' = %s", g["name"])
    assert len(told) == 1 and told[0][0]["devices"] == 2
    stack.v1("POST", f"/enrollment-groups/{g['name']}/update", {"max_devices": 3})
    assert devices[2].assigned()


def test_no_statement_is_compiled(stack):
    """Choosing a broker has no index to use and so seems dear: PostgreSQL would compile it, for a quarter of a second, under the lock of the group."""
    g = group(stack)
    stack.sql("CREATE TABLE muster.seen (jit text)")
    stack.sql("CREATE FUNCTION muster.look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO muster.seen VALUES (current_setting('jit')); RETURN NULL; END $$")
    stack.sql("CREATE TRIGGER look AFTER INSERT ON muster.dps_registration FOR EACH ROW EXECUTE FUNCTION muster.look()")
    try:
        d = Registrant(stack, unique("plain"), None)
        d.symmetric = derive(g["primary_key"], d.id)
        d.assigned()
        assert stack.sql("SELECT jit FROM muster.seen") == [("off",)]
    finally:
        stack.sql("DROP TRIGGER look ON muster.dps_registration; DROP FUNCTION muster.look(); DROP TABLE muster.seen")


# The desk


def test_keys_are_told_once_and_kept_sealed(stack):
    d, made = individual(stack)
    shown = stack.v1("GET", f"/enrollments/{d.id}")
    assert not {"primary_key", "secondary_key"} & shown.keys() and shown["attestation"] == "symmetric-key"
    sealed = bytes(stack.one("SELECT primary_key FROM enrollment WHERE name = %s", d.id))
    assert base64.b64decode(made["primary_key"]) not in sealed and len(sealed) == 92
    dump = "".join(str(r) for t in ("enrollment", "audit", "outbox", "history") for r in stack.sql(f"SELECT t::text FROM {t} t"))
    assert made["primary_key"] not in dump and base64.b64decode(made["primary_key"]).hex() not in dump and made["primary_key"] not in stack.log_text()
    other, _ = individual(stack)
    stack.sql("UPDATE enrollment SET primary_key = (SELECT primary_key FROM enrollment WHERE name = %s) WHERE name = %s", d.id, other.id)
    assert Registrant(stack, other.id, made["primary_key"]).refused()[1] == "enrol.refused"  # it opens where it was sealed only


@pytest.mark.parametrize("what, verb, body", [(w, *v) for w in ("enrollments", "enrollment-groups")
                                              for v in (("update", b'{"note":"two"}'), ("disable", None), ("enable", None), ("rotate", b'{"key":"primary"}'), ("DELETE", None))])
def test_etags(stack, what, verb, body):
    name = individual(stack)[0].id if what == "enrollments" else group(stack)["name"]
    stack.v1("POST", f"/{what}/{name}/update", {"note": "one"})
    method, path = ("DELETE", f"/admin/v1/{what}/{name}") if verb == "DELETE" else ("POST", f"/admin/v1/{what}/{name}/{verb}")

    def ask(etag):
        headers = {"Authorization": f"Bearer {stack.token}", "If-Match": etag, **({"Content-Type": "application/json"} if method == "POST" else {})}
        status, _, answer = request(stack, method, path, body, headers, port=stack.admin_port)
        return status, json.loads(answer)["code"] if status >= 400 else None
    assert ask('"1"') == (412, "request.etag_mismatch") and ask("2") == (400, "request.malformed")
    assert stack.v1("GET", f"/{what}/{name}")["etag"] == "2"
    assert ask('"2"')[0] in (200, 204)


def test_thousands_are_imported_with_a_result_each(stack):
    ids = [unique("bulk") for _ in range(400)]
    items = [{"registration_id": i, "attestation": "symmetric-key"} for i in ids]
    items += [{"registration_id": ids[0], "attestation": "symmetric-key"}, {"registration_id": "x", "attestation": "x509"},
              {"registration_id": "bad id", "attestation": "symmetric-key"}, {"registration_id": "y", "attestation": "symmetric-key", "nonsense": 1},
              {"attestation": "symmetric-key"}, {"registration_id": "z", "attestation": "symmetric-key", "template": "none-such"}]
    done = stack.v1("POST", "/enrollments:import", {"enrollments": items})
    assert [r["result"] for r in done] == ["created"] * 400 + ["refused"] * 6
    assert [r["code"] for r in done[400:]] == ["request.exists", "request.malformed", "request.malformed", "request.malformed", "request.malformed", "object.not_found"]
    assert "primary_key" in done[0] and "primary_key" not in done[400]
    assert Registrant(stack, ids[7], done[7]["primary_key"]).assigned()
    assert Registrant(stack, ids[399], done[399]["secondary_key"]).assigned()


def test_all_that_an_individual_enrollment_says(stack):
    """Each of its members, and what each does."""
    master, other = base64.b64encode(bytes(range(32))).decode(), base64.b64encode(bytes(range(16))).decode()
    serial = unique("board")
    d, made = individual(stack, serial=serial, note="bench", primary_key=master, secondary_key=other, allocation="static", endpoints=["broker-a.example.com"])
    assert (made["primary_key"], made["secondary_key"], made["serial"], made["note"]) == (master, other, serial, "bench")
    state = Registrant(stack, d.id, other).assigned()
    assert state["deviceId"] == f"open-{serial}" and state["assignedHub"] == "broker-a.example.com"
    assert stack.device(serial)["state"] == "PROVISIONED"
    changed = stack.v1("POST", f"/enrollments/{d.id}/update", {"template": "both", "allocation": "weighted", "endpoints": ["broker-b.example.com"], "reprovision": "sticky",
                                                               "migrate": False, "payload": {"every": 5}})
    assert (changed["template"], changed["allocation"], changed["reprovision"], changed["migrate"], changed["payload"]) == ("both", "weighted", "sticky", False, {"every": 5})
    again = d.assigned()
    assert again["assignedHub"] == "broker-a.example.com" and again["payload"] == {"every": 5}  # sticky
    listed = {e["registration_id"] for e in stack.v1("GET", "/enrollments?template=both&product=pump&attestation=symmetric-key&limit=1000")}
    assert d.id in listed
    with pytest.raises(Refused) as e:
        stack.v1("POST", f"/enrollments/{d.id}/update", {"template": "folded"})
    assert e.value.code == "request.conflict"


def test_a_second_certificate_takes_over(stack):
    """The one that a device has next is pinned beside the one that it has now."""
    cn = unique("x509")
    (key, cert), (next_key, next_cert) = self_signed(cn), self_signed(cn)
    made = enrollment(stack, cn, "x509", certificate=cert_pem(cert).decode(), secondary_certificate=cert_pem(next_cert).decode())
    assert (made["certificate"], made["secondary_certificate"]) == (fingerprint(cert), fingerprint(next_cert))
    assert Registrant(stack, cn, chain=[cert], tls_key=key).assigned()["deviceId"] == Registrant(stack, cn, chain=[next_cert], tls_key=next_key).assigned()["deviceId"]


def test_all_that_a_group_says(stack):
    master, other = base64.b64encode(bytes(range(40))).decode(), base64.b64encode(bytes(range(20))).decode()
    g = group(stack, primary_key=master, secondary_key=other, note="line 3", reprovision="sticky", migrate=False, payload={"v": 1})
    assert (g["primary_key"], g["secondary_key"], g["note"], g["reprovision"], g["migrate"], g["payload"]) == (master, other, "line 3", "sticky", False, {"v": 1})
    name = unique("said")
    d = Registrant(stack, name, derive(master, name))
    assert d.assigned()["payload"] == {"v": 1}
    changed = stack.v1("POST", f"/enrollment-groups/{g['name']}/update", {"template": "both", "allocation": "static", "endpoints": ["broker-c.example.com"], "reprovision": "update",
                                                                          "migrate": True, "payload": {"v": 2}, "warn_devices": 7, "note": "line 4"})
    assert (changed["template"], changed["endpoints"], changed["warn_devices"], changed["note"]) == ("both", ["broker-c.example.com"], 7, "line 4")
    state = Registrant(stack, name, derive(other, name)).assigned()
    assert state["assignedHub"] == "broker-c.example.com" and state["payload"] == {"v": 2}
    assert g["name"] in {x["name"] for x in stack.v1("GET", "/enrollment-groups?template=both&product=pump&attestation=symmetric-key&limit=1000")}


def test_without_a_key_outside_the_registry_there_are_no_secrets(fresh):
    endpoint(fresh, "broker-a.example.com")
    d, _ = individual(fresh)
    fresh.stop()
    fresh.doors = False
    fresh.configure()
    fresh.start()
    with pytest.raises(Refused) as e:
        enrollment(fresh)
    assert e.value.code == "secrets.unavailable"
    assert d.register()[0] == 202 and fresh.last_attempt(d.id)[0] == "secrets.unavailable"  # it asks again; an SDK would die of a 503
    assert fresh.sql("SELECT 1 FROM dps_operation") == []  # a stranger's request looks the same, and takes nobody's place


def test_groups_are_no_more_than_a_registration_can_try(fresh):
    names = [unique("many") for _ in range(201)]
    done = fresh.v1("POST", "/enrollment-groups:import", {"enrollments": [{"name": n, "attestation": "symmetric-key"} for n in names]})
    assert [r["result"] for r in done] == ["created"] * 200 + ["refused"] and done[200]["code"] == "request.conflict"
    with pytest.raises(Refused) as e:
        group(fresh)
    assert e.value.code == "request.conflict"
    endpoint(fresh, "broker.example.com")
    assert Registrant(fresh, "the-last-1", derive(done[199]["primary_key"], "the-last-1")).assigned()["symmetricKey"]["enrollmentGroupId"] == names[199]
    fresh.v1("DELETE", f"/enrollment-groups/{names[0]}")
    assert group(fresh)


def test_members_that_do_not_go_together(stack):
    for body in ({"attestation": "x509"}, {"attestation": "tpm"}, {"attestation": "symmetric-key", "certificate": "x"},
                 {"attestation": "x509", "primary_key": "eA=="}, {"attestation": "none"}, {"attestation": "symmetric-key", "endpoints": ["unknown.example.com"]}):
        with pytest.raises(Refused) as e:
            stack.v1("POST", "/enrollments", {"registration_id": unique("bad"), "template": "open", **body})
        assert e.value.status in (400, 404), body
    with pytest.raises(Refused):
        group(stack, attestation="tpm", endorsement_key="AA==")
    with pytest.raises(Refused) as e:
        stack.v1("POST", f"/enrollments/{pinned(stack).id}/rotate", {"key": "primary"})
    assert e.value.code == "request.conflict" and "no keys" in str(e.value)
    d, _ = individual(stack)
    stack.v1("DELETE", f"/enrollments/{d.id}")
    assert d.refused()[1] == "enrol.refused"
