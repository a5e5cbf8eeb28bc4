"""A claim extracted from one device, in the hands of somebody who knows everything about the protocol."""
import concurrent.futures
import contextlib
import json
import struct
import threading
import time

import pytest

from claims import CREATE_FROM_CSR, ClaimDevice, Rejected, csr_pem
from client import fingerprint, name_of, new_key, request, unique
from fleet import Client, joined
from mqtt import Closed
from stack import wait_for

FROM_CSR = "$aws/certificates/create-from-csr/json"


def register_topic(template):
    return f"$aws/provisioning-templates/{template}/provision/json"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with joined(tmp_path_factory.mktemp("thief")) as place:
        yield place


@pytest.fixture
def stolen(place):
    return place.claim("claimed")


def create(client, key=None):
    kind, made = client.ask(FROM_CSR, {"certificateSigningRequest": csr_pem(key or new_key(), name_of())})
    assert kind == "accepted", made
    return made


def register(client, made, serial, template="claimed", **parameters):
    return client.ask(register_topic(template), {"certificateOwnershipToken": made["certificateOwnershipToken"], "parameters": {"SerialNumber": serial, **parameters}})


def trail(place, claim, outcome):
    return place.stack.one("SELECT count(*) FROM history WHERE claim = %s AND outcome = %s", claim.name, outcome)


def honest(place, claim):
    """A device of the same claim, from its first connection to its first use."""
    serial, key = unique("honest"), new_key()
    place.stack.allow(serial)
    with Client(place, claim.cert, claim.key) as c:
        made = create(c, key)
        kind, told = register(c, made, serial)
    assert (kind, told.get("thingName")) == ("accepted", f"claimed-{serial}"), told
    return serial


def test_serials_that_are_not_his(place, stolen):
    victim = ClaimDevice(stolen, stack=place.stack)
    place.stack.allow(victim.serial)
    victim.provision()
    victim.config()
    with Client(place, stolen.cert, stolen.key) as c:
        kind, told = register(c, create(c), unique("invented"))
        assert (kind, told["statusCode"], told["errorMessage"].split()[0]) == ("rejected", 403, "enrol.refused")
        kind, told = register(c, create(c), victim.serial)
        assert (kind, told["statusCode"], told["errorMessage"].split()[0]) == ("rejected", 409, "device.already_provisioned")
        kind, told = register(c, create(c), unique("x"), template="claimopen")
        assert (kind, told["errorMessage"].split()[0]) == ("rejected", "claim.wrong_template")
        assert place.code(stolen.cert, stolen.key) == 0, "a rejection closes no connection"
    for outcome in ("allowlist.unknown_serial", "device.already_provisioned", "claim.wrong_template"):
        assert trail(place, stolen, outcome) == 1, outcome
    assert victim.config()["state"] == "PROVISIONED"
    honest(place, stolen)


def test_topics_that_are_not_his(place, stolen):
    seen = []
    for topic in ("dt/pump/1", "things/claimed-x/telemetry", "$aws/things/claimed-x/shadow/update", "muster/request", "$CONTROL/muster/v1",
                  f"{FROM_CSR}/accepted", register_topic("claimed") + "/rejected"):
        with Client(place, stolen.cert, stolen.key) as c, contextlib.suppress(Closed):
            code = c.publish(topic, b"{}")
            assert code is None or code >= 0x80, (topic, code)
        seen.append(topic)
    for pattern in ("#", "+/+", "$aws/#", "$aws/certificates/+/json/accepted", "muster/#", "$share/muster/muster/request", "things/#"):
        with Client(place, stolen.cert, stolen.key) as c:
            assert c.subscribe(pattern, 1) >= 0x80, pattern
    wait_for("the trail", lambda: trail(place, stolen, "claim.topic_denied") > 0)
    honest(place, stolen)


def test_answers_of_others(place, stolen):
    """Listens under every topic a claim may hear while 12 devices provision themselves: hears nothing."""
    heard, stop = [], threading.Event()

    def listen():
        with Client(place, stolen.cert, stolen.key, "ears") as c:
            for topic in (FROM_CSR, register_topic("claimed")):
                for kind in ("accepted", "rejected"):
                    c.subscribe(f"{topic}/{kind}", 1)
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    heard.append(c.message(1))

    ears = threading.Thread(target=listen)
    ears.start()
    try:
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            assert len(set(pool.map(lambda _: honest(place, stolen), range(12)))) == 12
    finally:
        stop.set()
        ears.join(30)
    assert heard == []


def test_tokens_of_others(place, stolen):
    """An ownership token seen elsewhere is worth nothing under another client id, claim or transport."""
    serial = unique("mine")
    place.stack.allow(serial)
    with Client(place, stolen.cert, stolen.key, "owner") as c:
        made = create(c)
    with Client(place, stolen.cert, stolen.key, "thief") as c:
        kind, told = register(c, made, serial)
        assert (kind, told["errorCode"]) == ("rejected", "InvalidCertificateOwnershipToken")
    status, _, text = request(place.stack, "POST", "/v1/provisioning-templates/claimed/provision",
                              json.dumps({"certificateOwnershipToken": made["certificateOwnershipToken"], "parameters": {"SerialNumber": serial}}).encode(),
                              {"Content-Type": "application/json"}, stolen.chain, stolen.key)
    assert (status, json.loads(text)["code"]) == (400, "ownership.invalid")
    assert trail(place, stolen, "ownership.invalid") == 2
    wait_for("the owner's client id to be free", lambda: reconnects(place, stolen, "owner"))
    with Client(place, stolen.cert, stolen.key, "owner") as c:
        assert register(c, made, serial)[0] == "accepted"


def reconnects(place, claim, client):
    with Client(place, claim.cert, claim.key, client) as c:
        return c.code == 0


def test_more_than_its_rate_on_both_transports(place):
    claim = place.claim("claimed", rate_per_second=5, rate_burst=5)
    began, outcomes = time.monotonic(), []

    def by_mqtt(_):
        with Client(place, claim.cert, claim.key) as c:
            kind, told = c.ask(FROM_CSR, {"certificateSigningRequest": csr_pem(new_key(), name_of())})
            if kind == "rejected":
                assert told["statusCode"] == 429 and told["errorCode"] == "Throttled"
                assert c.ping() is None, "a 429 keeps the connection"
            outcomes.append(kind)

    def by_https(_):
        try:
            claim.call(CREATE_FROM_CSR, {"certificateSigningRequest": csr_pem(new_key(), name_of())}, place.stack)
            outcomes.append("accepted")
        except Rejected as e:
            assert e.code == "claim.rate_limited" and int(e.headers["retry-after"]) > 0
            outcomes.append("rejected")

    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        jobs = [pool.submit(f, n) for n in range(50) for f in (by_mqtt, by_https)]
        for job in jobs:
            job.result()
    took = time.monotonic() - began
    assert len(outcomes) == 100 and outcomes.count("accepted") <= 5 * (took + 1) + 6, (outcomes.count("accepted"), took)
    assert outcomes.count("rejected") > 0
    honest(place, claim)  # who comes later is held up by the shared rate only


def test_more_than_its_budget(place):
    claim = place.claim("claimopen", budget=2)
    with Client(place, claim.cert, claim.key) as c:
        made = [create(c) for _ in range(4)]
        outcomes = [register(c, m, unique("many"), template="claimopen") for m in made]
    assert [kind for kind, _ in outcomes] == ["accepted", "accepted", "rejected", "rejected"]
    assert outcomes[2][1]["errorMessage"].startswith("claim.budget_exhausted")
    assert trail(place, claim, "claim.budget_exhausted") == 2


# what else may happen

def test_killed_between_the_steps(place, stolen):
    serial, key = unique("kill"), new_key()
    place.stack.allow(serial)
    with Client(place, stolen.cert, stolen.key, "between") as c:
        made = create(c, key)
    place.stack.stop(9)
    place.stack.start()
    place.ready()
    wait_for("the client id to be free", lambda: reconnects(place, stolen, "between"))
    with Client(place, stolen.cert, stolen.key, "between") as c:
        kind, told = register(c, made, serial)
        assert kind == "accepted", told
        assert register(c, made, serial) == (kind, told)  # as after a lost answer


def test_the_broker_restarts_in_the_middle(place, stolen):
    serial = unique("broker")
    place.stack.allow(serial)
    with Client(place, stolen.cert, stolen.key, "middle") as c:
        made = create(c)
        place.broker.restart()
        with pytest.raises((Closed, OSError)):
            register(c, made, serial)
    place.admitted(stolen.cert, stolen.key)
    with Client(place, stolen.cert, stolen.key, "middle") as c:
        assert register(c, made, serial)[0] == "accepted"


def test_revoked_in_the_middle(place):
    soft, hard = place.claim("claimed"), place.claim("claimed")
    with Client(place, soft.cert, soft.key) as c, Client(place, hard.cert, hard.key) as d:
        serials = [unique("rev"), unique("rev")]
        place.stack.allow(*serials)
        first, second = create(c), create(d)
        place.stack.cli("claim", "revoke", soft.name, "--mode", "stop-new")
        began = time.monotonic()
        place.stack.cli("claim", "revoke", hard.name, "--mode", "hard")
        d.ended()
        assert time.monotonic() - began < 3
        assert register(c, first, serials[0])[0] == "accepted"
        kind, told = c.ask(FROM_CSR, {"certificateSigningRequest": csr_pem(new_key(), name_of())})
        assert (kind, told["errorMessage"].split()[0]) == ("rejected", "claim.revoked")
    place.refused(hard.cert, hard.key)
    assert place.stack.one("SELECT status FROM claim_certificate WHERE fingerprint = decode(%s, 'hex')", second["certificateId"]) == "revoked"


# CBOR, written from the field table of the protocol

def cbor(value):
    def head(major, n):
        if n < 24:
            return bytes([major << 5 | n])
        return bytes([major << 5 | 24, n]) if n < 256 else bytes([major << 5 | 25]) + struct.pack(">H", n)
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    return head(5, len(value)) + b"".join(cbor(k) + cbor(v) for k, v in value.items())


def uncbor(data, at=0):
    major, low, at = data[at] >> 5, data[at] & 31, at + 1
    if low == 24:
        low, at = data[at], at + 1
    elif low == 25:
        low, at = struct.unpack_from(">H", data, at)[0], at + 2
    assert low < 24 or major in (0, 3, 5)
    if major == 0:
        return low, at
    if major == 3:
        return data[at:at + low].decode(), at + low
    assert major == 5
    out = {}
    for _ in range(low):
        key, at = uncbor(data, at)
        out[key], at = uncbor(data, at)
    return out, at


def ask_cbor(client, topic, payload):
    for kind in ("accepted", "rejected"):
        client.subscribe(f"{topic}/{kind}", 0)
    client.publish(topic, payload)
    m = client.message(30)
    value, end = uncbor(m.payload)
    assert end == len(m.payload)
    return m.topic.removeprefix(topic + "/"), value


@pytest.mark.parametrize("keys", [False, True], ids=["csr", "keys"])
def test_a_device_that_speaks_cbor(place, stolen, keys):
    serial, key = unique("cbor"), new_key()
    place.stack.allow(serial)
    with Client(place, stolen.cert, stolen.key) as c:
        if keys:
            kind, made = ask_cbor(c, "$aws/certificates/create/cbor", b"\xa0")
            assert made["privateKey"].startswith("-----BEGIN")
        else:
            kind, made = ask_cbor(c, "$aws/certificates/create-from-csr/cbor", cbor({"certificateSigningRequest": csr_pem(key, name_of())}))
        assert kind == "accepted" and len(made["certificateId"]) == 64 and len(made["certificateOwnershipToken"]) <= 512, made
        assert len(made["certificatePem"]) < 2048, "the buffers of the embedded SDK"
        topic = "$aws/provisioning-templates/claimed/provision/cbor"
        kind, told = ask_cbor(c, topic, cbor({"certificateOwnershipToken": made["certificateOwnershipToken"], "parameters": {"SerialNumber": serial}}))
        assert (kind, told) == ("accepted", {"thingName": f"claimed-{serial}", "deviceConfiguration": {"prefix": f"devices/{serial}"}})
        kind, told = ask_cbor(c, topic, b"\xbf\xff")
        assert (kind, set(told), told["statusCode"]) == ("rejected", {"statusCode", "errorCode", "errorMessage"}, 400)
    place.stack.one("SELECT 1 FROM certificate WHERE fingerprint = decode(%s, 'hex')", made["certificateId"])
    assert fingerprint(stolen.cert) != made["certificateId"]
