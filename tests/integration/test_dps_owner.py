"""Whose a device is that registers with the device API: one enrollment's, and nobody else's."""
import base64
import concurrent.futures
import json

import pytest

from client import Device, fingerprint, new_csr, new_key, unique
from dps import Registrant, brokers, derive, group, individual
from factory import Authority
from stack import TEMPLATES, Refused


@pytest.fixture(autouse=True)
def hosts(stack):
    brokers(stack)


def test_an_individual_enrollment_goes_before_every_group(stack):
    g = group(stack)
    d, _ = individual(stack)
    d.symmetric = derive(g["primary_key"], d.id)
    assert d.refused()[1] == "enrol.refused"
    stack.v1("POST", f"/enrollments/{d.id}/disable")
    assert d.refused()[1] == "enrol.refused"
    # by its serial as well as by its id
    named = unique("Named")
    individual(stack, serial=named)
    d = Registrant(stack, named.lower(), derive(g["primary_key"], named.lower()))
    assert d.refused(409)[1] == "enrollment.other"


def test_the_key_of_a_group_opens_its_own_devices_only(stack):
    """Who has the master of one group can be none of another's: not register, not look up, not be told what it is for, not fail for it."""
    mine, theirs = group(stack), group(stack, payload={"secret": 1})
    victim = Registrant(stack, unique("victim"), None)
    victim.symmetric = derive(theirs["primary_key"], victim.id)
    state = victim.assigned()
    thief = Registrant(stack, victim.id, derive(mine["primary_key"], victim.id))
    for body in (None, {"csr": base64.b64encode(new_csr(new_key(), victim.id)).decode()}):
        message, code = thief.refused(409, body=body)
        assert code == "enrollment.other" and theirs["name"] in message
    status, _, answer = thief.lookup()
    assert status == 404 and answer["info"]["code"] == "dps.not_registered"
    for _ in range(12):
        thief.refused(status=400, body={"csr": "AAAA"})
    assert stack.v1("GET", f"/devices/{victim.id}")["state"] == "PROVISIONED"
    assert victim.assigned()["createdDateTimeUtc"] == state["createdDateTimeUtc"] and stack.v1("GET", f"/devices/{victim.id}")["certificates"] == []
    shown = [stack.v1("GET", f"/enrollment-groups/{g['name']}")["devices"] for g in (mine, theirs)]
    assert shown == [0, 1]
    # an operator's word moves it, and it is counted where it is
    stack.v1("POST", f"/devices/{victim.id}/reset")
    assert thief.assigned()["symmetricKey"]["enrollmentGroupId"] == mine["name"]
    assert [stack.v1("GET", f"/enrollment-groups/{g['name']}")["devices"] for g in (mine, theirs)] == [1, 0]
    assert victim.refused(409)[1] == "enrollment.other"
    # so does an enrollment that is gone
    stack.v1("DELETE", f"/enrollment-groups/{mine['name']}")
    assert victim.assigned() and stack.v1("GET", f"/enrollment-groups/{theirs['name']}")["devices"] == 1


def test_groups_of_one_batch_do_not_wait_for_each_other_in_a_circle(stack):
    """New devices of two groups in one batch and in another, the other way round: their locks are taken in one order."""
    a, b = group(stack), group(stack)
    stems = [unique("circle") for _ in range(40)]
    devices = [Registrant(stack, f"{stem}-{n}", derive(g["primary_key"], f"{stem}-{n}")) for stem in stems for n, g in enumerate((a, b) if stems.index(stem) % 2 else (b, a))]
    before = stack.one("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda d: d.assigned(), devices))
    assert stack.one("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == before
    assert [stack.v1("GET", f"/enrollment-groups/{g['name']}")["devices"] for g in (a, b)] == [40, 40]


def test_one_device_that_registers_many_times_at_once(stack):
    g = group(stack)
    d = Registrant(stack, unique("race"), None)
    d.symmetric = derive(g["primary_key"], d.id)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        states = list(pool.map(lambda _: d.assigned(), range(16)))
    assert len({(s["assignedHub"], s["deviceId"], s["createdDateTimeUtc"]) for s in states}) == 1
    assert stack.one("SELECT count(*) FROM device WHERE serial = %s", d.id) == 1
    assert stack.v1("GET", f"/enrollment-groups/{g['name']}")["devices"] == 1


def test_a_device_known_by_its_key_is_nobodys_with_a_token(stack):
    d, _ = individual(stack)
    d.assigned()
    free = stack.mint("open", uses=5)
    stranger = Device(stack, d.id, "open", free)
    with pytest.raises(Refused) as e:
        stranger.enrol()
    assert e.value.code == "device.already_provisioned"


def test_quarantine_and_retirement_hold_here_too(stack):
    d, _ = individual(stack)
    d.assigned()
    stack.v1("POST", f"/devices/{d.id}/quarantine", {"reason": "test"})
    assert d.refused()[1] == "device.quarantined"
    status, _, answer = d.lookup()
    assert status == 401 and answer["info"]["code"] == "device.quarantined"
    stack.v1("POST", f"/devices/{d.id}/release")
    assert d.assigned()
    stack.v1("POST", f"/devices/{d.id}/retire")
    assert d.refused()[1] == "device.retired" and d.lookup()[2]["info"]["code"] == "device.retired"


def test_a_certificate_that_was_revoked_registers_nothing(stack):
    """A CA may have devices of its own and an enrollment group: what an operator judged holds at this door as well."""
    ca, name, cn = Authority(unique("Both")), unique("both"), unique("bx")
    ca.register(stack, name)
    group(stack, attestation="x509", ca=name)
    cert, key = ca.device(cn)
    Device(stack, cn, "factory").post("simpleenroll", new_csr(new_key(), cn), chain=[cert], key=key)
    d = Registrant(stack, cn, chain=[cert], tls_key=key)
    assert d.assigned()
    stack.v1("POST", f"/certs/{fingerprint(cert)}/revoke", {"reason": "keyCompromise"})
    body = {"csr": base64.b64encode(new_csr(new_key(), cn)).decode()}
    assert d.refused()[1] == d.refused(body=body)[1] == "cert.revoked" and d.lookup()[2]["info"]["code"] == "device.quarantined"  # by the reason
    assert ("cert.revoked", fingerprint(cert)) in {(t["outcome"], t["fingerprint"]) for t in stack.device(cn)["trail"]}


def test_an_operator_of_one_product_enrols_nothing_of_anothers(stack):
    """Neither its CAs, nor one that is for all products, nor the ids of its devices."""
    product, line, everyones = unique("product"), unique("line"), unique("everyones")
    stack.v1("POST", "/products", {"name": product})
    document = json.loads((TEMPLATES / "open.json").read_text())
    stack.v1("PUT", f"/templates/{product}?product={product}", document)
    Authority(unique("Line")).register(stack, line)
    Authority(unique("Everyone")).register(stack, everyones, template=None)
    theirs = group(stack)
    d = Registrant(stack, unique("theirs"), None)
    d.symmetric = derive(theirs["primary_key"], d.id)
    d.assigned()
    scoped = stack.cli_json("admin-token", "create", unique("scoped"), "--role", "operator", "--product", product)["token"]

    def code(path, body, token):
        try:
            stack.v1("POST", path, {"template": product, **body}, token=token)
            return "ok"
        except Refused as e:
            return e.code
    by_ca = [{"name": unique("group"), "attestation": "x509", "ca": ca} for ca in (line, everyones)]
    assert [code("/enrollment-groups", body, scoped) for body in by_ca] == ["object.not_found"] * 2
    assert [code("/enrollment-groups", body, stack.token) for body in by_ca] == ["request.conflict", "ok"]
    assert code("/enrollments", {"registration_id": d.id, "attestation": "symmetric-key"}, scoped) == "request.exists"
    assert code("/enrollments", {"registration_id": unique("own"), "attestation": "symmetric-key"}, scoped) == "ok"
    assert d.assigned()
