"""Registrations with the device API that cannot be done yet: they are operations, and devices are never told 429 or 503."""
import base64
import concurrent.futures
import json

import pytest
from cryptography import x509

from client import new_csr, new_key, spki_sha256, unique
from dps import Registrant, brokers, derive, endpoint, group, individual
from stack import TEMPLATES, wait_for


@pytest.fixture(autouse=True)
def hosts(stack):
    brokers(stack)


def test_a_device_that_waits_for_approval_polls(stack):
    d, _ = individual(stack, template="waiting")
    key = new_key()
    body = {"csr": base64.b64encode(new_csr(key, d.id)).decode()}
    status, got, answer = d.register(body)
    assert status == 202 and answer["status"] == "assigning" and int(got["retry-after"]) >= 3
    status, got, again = d.poll(answer["operationId"])
    assert status == 202 and again["operationId"] == answer["operationId"]
    assert stack.sql("SELECT 1 FROM dps_registration WHERE registration_id = %s", d.id) == []
    stack.v1("POST", f"/devices/{d.id}/approve")
    status, _, done = d.poll(answer["operationId"])
    assert status == 200 and done["operationId"] == answer["operationId"]
    leaf = x509.load_der_x509_certificate(base64.b64decode(done["registrationState"]["issuedCertificateChain"][0]))
    assert spki_sha256(leaf) == spki_sha256(key)
    # the answer may be lost on its way: the next poll has the certificate as well, for an hour
    status, _, again = d.poll(answer["operationId"])
    assert status == 200 and again["registrationState"]["issuedCertificateChain"] == done["registrationState"]["issuedCertificateChain"]
    stack.sql("UPDATE dps_operation SET done_at = done_at - interval '61 minutes' WHERE registration_id = %s", d.id)
    assert stack.one("SELECT dps_prune()") >= 1 and stack.sql("SELECT 1 FROM dps_operation WHERE registration_id = %s", d.id) == []


def test_who_waits_is_neither_counted_nor_assigned(stack):
    g = group(stack, template="waiting", warn_devices=1, max_devices=1)
    devices = [Registrant(stack, i, derive(g["primary_key"], i)) for i in (unique("queue"), unique("queue"))]
    for d in devices * 2:
        assert d.register()[0] == 202
    assert stack.v1("GET", f"/enrollment-groups/{g['name']}")["devices"] == 0 and told_large(stack, g) == 0
    stack.v1("POST", f"/devices/{devices[0].id}/approve")
    first = devices[0].assigned()
    assert told_large(stack, g) == 1
    # reset, it waits again; until an operator says so its assignment is what it was
    endpoint(stack, "later.example.com")
    stack.v1("POST", f"/enrollment-groups/{g['name']}/update", {"allocation": "static", "endpoints": ["later.example.com"]})
    stack.v1("POST", f"/devices/{devices[0].id}/reset")
    assert devices[0].register()[0] == 202 and devices[0].lookup()[2]["assignedHub"] == first["assignedHub"] != "later.example.com"
    stack.v1("POST", f"/devices/{devices[0].id}/approve")
    assert devices[0].assigned()["assignedHub"] == "later.example.com" and told_large(stack, g) == 1
    stack.v1("POST", f"/enrollment-groups/{g['name']}/update", {"endpoints": ["broker-a.example.com"]})
    stack.v1("DELETE", "/endpoints/later.example.com")


def told_large(stack, g):
    return stack.one("SELECT count(*) FROM outbox WHERE event = 'enrollment.group_large' AND payload->>'group' = %s", g["name"])


def test_an_approval_is_for_the_enrollment_that_asked(stack):
    """What asks without a key of its own is approved as what it is: no other credential takes the word."""
    serial = unique("approved")
    (d, _), (other, _) = (individual(stack, template="waiting", serial=serial) for _ in range(2))
    assert d.register()[0] == 202
    stack.v1("POST", f"/devices/{serial}/approve")
    assert other.register()[0] == 202  # it waits by itself now
    stack.v1("POST", f"/devices/{serial}/approve")
    assert d.register()[0] == 202
    stack.v1("POST", f"/devices/{serial}/approve")
    assert d.assigned()


def polled(d, operation):
    """What has become of it, once it has."""
    def ask():
        status, _, answer = d.poll(operation)
        return answer if status == 200 else None
    return wait_for(d.id, ask)


def csr_of(registration_id):
    return {"csr": base64.b64encode(new_csr(new_key(), registration_id)).decode()}


def test_a_rate_is_waiting(fresh):
    """Requests past it are kept, as they were asked, and done when they are polled."""
    fresh.stop()
    fresh.configure(limits__queue_wait_ms=100)
    fresh.start()
    brokers(fresh)
    document = json.loads((TEMPLATES / "open.json").read_text())
    document["Muster"]["Rate"] = {"PerSecond": 2, "Burst": 1}
    fresh.v1("PUT", "/templates/dps-slow?product=pump", document)
    g = group(fresh, template="dps-slow")
    devices = [Registrant(fresh, i, derive(g["primary_key"], i)) for i in (unique("slow") for _ in range(6))]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        first = list(pool.map(lambda d: d.register(csr_of(d.id)), devices))
    waiting = [(d, got, answer) for d, (status, got, answer) in zip(devices, first) if status == 202]
    assert waiting and all(3 <= int(got["retry-after"]) <= 300 and answer["operationId"].startswith("4.") for _, got, answer in waiting)
    for d, _, answer in waiting:
        done = polled(d, answer["operationId"])
        assert done["status"] == "assigned" and done["registrationState"]["issuedCertificateChain"]


def test_guessing_is_limited_per_source(fresh):
    """Each guess tries the keys of every group: past the limit nothing is tried, and devices behind the same address wait."""
    fresh.stop()
    fresh.configure(enrol__refused_tokens_burst=5, enrol__refused_tokens_per_source_s=1)
    fresh.start()
    brokers(fresh)
    g, (d, _) = group(fresh), individual(fresh)
    wrong = Registrant(fresh, unique("guess"), derive(g["primary_key"], "another"))
    assert [wrong.register()[0] for _ in range(5)] == [401] * 5
    status, _, answer = d.register(csr_of(d.id))
    assert status == 202 and answer["operationId"].startswith("6.")  # nobody knows yet whose it is
    assert wrong.register()[0] == 202
    wait_for("its turn", lambda: d.register()[0] == 200)


def test_without_its_database_it_lets_devices_wait(fresh):
    """Nothing can be kept then: the id says whether polling is as good as asking again."""
    brokers(fresh)
    plain, modelled, certified = (individual(fresh)[0] for _ in range(3))
    assert plain.register()[0] == 200  # the server knows its registry
    fresh.pg_stop("immediate")
    asked = [plain.register(), modelled.register({"registrationId": modelled.id, "payload": {"modelId": "dtmi:a:b;1"}}), certified.register(csr_of(certified.id))]
    assert [(status, answer["status"], answer["operationId"][:2]) for status, _, answer in asked] == [(202, "assigning", "5."), (202, "assigning", "5."), (202, "assigning", "6.")]
    assert all(int(got["retry-after"]) >= 3 for _, got, _ in asked)
    status, _, answer = plain.poll(asked[0][2]["operationId"])
    assert status == 202 and answer["operationId"] == asked[0][2]["operationId"]
    fresh.pg_start()
    for d, (_, _, answer) in zip((plain, modelled), asked):
        done = polled(d, answer["operationId"])
        assert done["status"] == "assigned"
    status, _, answer = certified.poll(asked[2][2]["operationId"])
    assert status == 200 and answer["status"] == "failed" and answer["registrationState"]["errorCode"] == 429001
    assert "register again" in answer["registrationState"]["errorMessage"]
    assert certified.assigned(csr_of(certified.id))["issuedCertificateChain"]
