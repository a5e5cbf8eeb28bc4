"""The broker's plugin: what a claim, a device, a stranger and musterd may do at it, and what answers nobody else gets."""
import hashlib
import os
import re
import signal
import ssl
import struct
import time

import pytest

from broker import (ABSENT, CLAIM, CLEAR, CONTROL, DENIED, GATE, OPERATIONAL, READY, REFUSED, REQUEST, SEEN, UNUSED, Credential, Place, Service, entry)
from client import unique
from mqtt import Closed, Mqtt, packet
from stack import wait_for

CREATE = "$aws/certificates/create/json"
SIX = [CREATE, "$aws/certificates/create/cbor", "$aws/certificates/create-from-csr/json", "$aws/certificates/create-from-csr/cbor",
       "$aws/provisioning-templates/line-7/provision/json", "$aws/provisioning-templates/line-7/provision/cbor"]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with Place(tmp_path_factory.mktemp("broker")) as place:
        yield place


@pytest.fixture
def place(running):
    running.again()
    yield running


def told(place, attempt):
    """What musterd is told of an attempt, which is repeated: of many only some are told."""
    def note():
        attempt()
        place.service.client.ping()
        found = [m for m in place.service.client.messages if m.topic == DENIED]
        place.service.client.messages.clear()
        return found
    m = wait_for("a note", note)[0]
    assert m.payload == b""
    return m.properties


def ask(c, topic=CREATE, payload=b"{}", **kw):
    return c.publish(topic, payload, **kw)


# what works

@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("topic", SIX)
def test_a_request_is_stamped_and_its_answer_arrives(place, version, topic):
    client_id = unique()
    with place.open(place.claim, client_id, version) as c:
        assert c.subscribe(topic + "/accepted") == 1 and c.subscribe(topic + "/rejected") == 1
        ask(c, topic, b"\x00payload\xff")
        request = place.service.message(REQUEST)
        assert request.payload == b"\x00payload\xff" and request.qos == 1
        assert request.properties.pop("conn").isdigit()
        assert request.properties == {"cert": place.claim.fingerprint, "client": client_id, "topic": topic, "from": "127.0.0.1"}


def test_the_answer_is_delivered_without_a_subscription_and_to_one_client_only(place):
    clients = {unique(): None for _ in range(8)}
    for n in clients:
        clients[n] = place.open(place.claim, n)
        assert clients[n].subscribe(CREATE + "/accepted") == 1
    listener = place.open(place.claim)
    assert listener.subscribe(CREATE + "/accepted") == 1
    for n, c in clients.items():
        ask(c, payload=n.encode())
    for _ in clients:
        request = place.service.message(REQUEST)
        place.service.answer(request, b"for " + request.payload)
    for n, c in clients.items():
        m = c.message()
        assert (m.topic, m.payload, m.qos, m.retain) == (CREATE + "/accepted", b"for " + n.encode(), 0, 0)
        assert c.nothing()
        c.close()
    assert listener.nothing()
    listener.close()
    with place.open(place.claim) as c:
        ask(c)
        place.service.answer(place.service.message(REQUEST), b"no", "rejected")
        assert c.message().topic == CREATE + "/rejected"


def test_a_device_is_confined_to_its_thing(place):
    with place.open(place.device) as c, place.open(place.device2) as other:
        assert c.subscribe("things/pump-1/#") == 1 and c.subscribe("$aws/things/pump-1/shadow/+") == 1
        assert other.subscribe("things/pump-2/#") == 1
        assert c.publish("things/pump-1/state", b"mine") != REFUSED
        assert c.message().payload == b"mine"
        for topic in ("things/pump-2/state", "things/pump-1", "x", CREATE, "$SYS/broker/connection/x/state", CONTROL, REQUEST, GATE, "things/pump-10/x"):
            assert c.publish(topic, b"x") == REFUSED, topic
        for topic in ("#", "+/pump-2/#", "things/#", "things/+/x", "things/pump-2/#", "$aws/#", "$aws/things/+/x", "$SYS/#", "muster/#", GATE,
                      "$share/g/things/pump-1/#", "$share/g/muster/request", "$CONTROL/#", CREATE + "/accepted"):
            assert c.subscribe(topic) == REFUSED, topic
        assert other.nothing() and c.nothing()
    assert place.service.nothing()


def test_a_device_without_a_thing_may_connect_and_nothing_else(place):
    place.service.batch(entry(OPERATIONAL, place.stranger.fingerprint))
    with place.open(place.stranger) as c:
        assert c.publish("things//x", b"x") == REFUSED and c.subscribe("things//#") == REFUSED


def test_the_first_connection_of_a_device_is_told(place):
    place.service.batch(entry(UNUSED, place.device.fingerprint, "pump-1"))
    for _ in range(2):
        client_id = unique()
        with place.open(place.device, client_id) as c:
            assert c.subscribe("things/pump-1/#") == 1
            seen = place.service.message(SEEN)
            assert (seen.payload, seen.properties) == (b"", {"cert": place.device.fingerprint, "client": client_id, "from": "127.0.0.1"})
    place.service.batch(entry(OPERATIONAL, place.device.fingerprint, "pump-1"))
    with place.open(place.device):
        assert place.service.nothing()


# who may connect

@pytest.mark.parametrize("version, refused", [(4, 5), (5, REFUSED)])
def test_an_unknown_certificate_is_refused(place, version, refused):
    assert place.code(place.stranger, unique(), version) == refused
    assert place.code(place.stranger, unique(), version, username=place.claim.fingerprint) == refused


def test_without_a_certificate_nobody_connects(place):
    with pytest.raises((ssl.SSLError, Closed)):
        Mqtt(place.broker.port, place.broker.cafile).connect(unique())


def test_where_the_listener_requires_no_certificate_the_plugin_does(tmp_path):
    place = Place(tmp_path)
    place.broker.options = "require_certificate false"
    with place.broker, Mqtt(place.broker.port, place.broker.cafile) as c:
        assert c.connect(unique(), username=place.claim.fingerprint) == REFUSED
        assert "no certificate" in place.broker.log_text()


@pytest.mark.parametrize("client_id", ["a+b", "#", "a/b", "x\ny", "x\x7fy", "a" * 129, "musterd-1"])
def test_client_ids_that_mean_something_are_refused(place, client_id):
    for credential in (place.claim, place.device):
        try:
            assert place.code(credential, client_id) == REFUSED
        except Closed:
            assert any(ord(x) < 32 or ord(x) == 127 for x in client_id)  # refused by Mosquitto itself


def test_the_longest_client_id_is_taken_and_an_empty_one_not(place):
    assert place.code(place.claim, "a" * 128) == 0
    for version in (4, 5):
        with place.claim.open(place.broker, version) as c:
            try:
                assert c.connect("") != 0
            except Closed:
                pass


def test_musterd_has_client_ids_of_its_own(place):
    assert place.code(place.musterd, unique()) == REFUSED
    assert place.code(place.musterd, "musterd-other") == 0


# what a claim may not

@pytest.mark.parametrize("topic", [CREATE + "/accepted", CREATE + "/rejected", CREATE + "/x", "$aws/certificates/create/xml",
                                   "$aws/provisioning-templates/a/b/provision/json", "$aws/things/pump-1/shadow/update", "things/pump-1/x", "x",
                                   CONTROL, "$CONTROL/other/v1", REQUEST, DENIED, SEEN, GATE, "muster/x", "$muster/request", "$SYS/x"])
def test_a_claim_writes_requests_only(place, topic):
    with place.open(place.claim) as c, place.open(place.claim2) as other:
        assert other.subscribe(CREATE + "/accepted") == 1
        assert c.publish(topic, b"{}", user=[("op", "gate"), ("client", "x")]) == REFUSED
        assert other.nothing()


@pytest.mark.parametrize("topic", ["#", "+/+/+", "$aws/#", "$aws/+/create/json/accepted", CREATE, CREATE + "/+", CREATE + "/#", CREATE + "/accepted/x",
                                   "$share/x/" + CREATE + "/accepted", "$share/x/#", "$share/muster/" + REQUEST, REQUEST, "muster/#", "$muster/#", GATE,
                                   "$CONTROL/#", CONTROL, "$SYS/#", "things/pump-1/#"])
@pytest.mark.parametrize("version, refused", [(4, 128), (5, REFUSED)])
def test_a_claim_subscribes_to_its_answers_only(place, topic, version, refused):
    with place.open(place.claim, version=version) as c:
        assert c.subscribe(topic) == refused


def test_requests_are_seen_by_musterd_only(place):
    with place.open(place.claim) as c, place.open(place.device) as device:
        assert device.subscribe("$aws/#") == REFUSED and device.subscribe(CREATE) == REFUSED
        ask(c)
        place.service.message(REQUEST)
        assert device.nothing() and c.nothing()


def test_attempts_are_told_but_not_more_than_five_a_second(place):
    client_id = unique()
    common = {"cert": place.claim.fingerprint, "client": client_id, "from": "127.0.0.1"}
    with place.open(place.claim, client_id) as c:
        assert told(place, lambda: c.publish("secret/" + "x" * 300, b"x")) == {**common, "topic": "secret/" + "x" * 193, "what": "publish"}
        assert told(place, lambda: c.subscribe("sp\u00e4t/#")) == {**common, "topic": "sp??t/#", "what": "subscribe"}
        begin = time.monotonic()
        tries = 0
        while time.monotonic() - begin < 1.5:
            c.publish("other", b"x")
            tries += 1
        took = time.monotonic() - begin
        place.service.client.ping()
        notes = [m for m in place.service.client.messages if m.topic == DENIED]
        assert 1 <= len(notes) <= 5 * (int(took) + 2) < tries


def test_wills_reach_nobody(place):
    topics = [CREATE, CREATE + "/accepted", REQUEST, CONTROL, "things/pump-1/x"]
    with place.open(place.device) as device, place.open(place.claim2) as other:
        assert device.subscribe("things/pump-1/#") == 1 and other.subscribe(CREATE + "/accepted") == 1
        clients = []
        for will in [(topic, b"{}", 1, retain) for topic in topics for retain in (False, True)]:
            c = place.claim.open(place.broker)
            try:
                assert c.connect(unique("will"), will=will) == 0
                clients.append(c)
            except Closed:
                assert will[0] == CONTROL  # newer Mosquittos refuse such a will
        for c in clients:
            c.close()
        gone = wait_for("the clients to be gone", lambda: re.findall(r"Client will-\d+ (?:closed|disconn)", place.broker.log_text())[len(clients) - 1:])
        assert gone and len(clients) >= 8
        assert device.nothing() and other.nothing()
        place.service.client.ping()
        assert not [m for m in place.service.client.messages if m.topic == REQUEST]
    with place.open(place.claim2) as other:
        assert other.subscribe(CREATE + "/accepted") == 1 and other.nothing()


@pytest.mark.parametrize("kw", [{"retain": True}, {"payload": b"x" * (16 * 1024 + 1)}])
def test_requests_that_are_retained_or_too_large_are_refused(place, kw):
    with place.open(place.claim) as c:
        assert ask(c, **kw) == REFUSED
        place.service.client.ping()
        assert not [m for m in place.service.client.messages if m.topic == REQUEST]
        assert told(place, lambda: ask(c, **kw))["topic"] == CREATE
        assert ask(c, payload=b"x" * (16 * 1024)) != REFUSED
        assert len(place.service.message(REQUEST).payload) == 16 * 1024


def test_requests_with_quality_of_service_2_are_refused(place):
    with place.open(place.claim) as c:
        c.send(c.publish_packet(CREATE, b"{}", qos=2))
        assert c.wait(5)[2] == REFUSED
        place.service.client.ping()
        assert not [m for m in place.service.client.messages if m.topic == REQUEST]


def test_properties_of_the_client_are_dropped(place):
    forged = [("cert", "00" * 32), ("client", "victim"), ("conn", "1"), ("topic", "x"), ("from", "192.0.2.1"), ("op", "answer"), ("more", "x")]
    client_id = unique()
    with place.open(place.claim, client_id) as c:
        ask(c, user=forged)
        found = place.service.message(REQUEST).properties
        assert set(found) == {"cert", "client", "conn", "topic", "from"}
        assert (found["cert"], found["client"], found["topic"], found["from"]) == (place.claim.fingerprint, client_id, CREATE, "127.0.0.1")


# client ids and their answers

def test_another_certificate_does_not_take_a_client_id(place):
    client_id = unique()
    with place.open(place.claim, client_id) as c:
        for credential in (place.claim2, place.device):
            assert place.code(credential, client_id) == REFUSED
        ask(c)
        place.service.answer(place.service.message(REQUEST), b"mine")
        assert c.message().payload == b"mine"
    for n in (client_id, "musterd-x"):
        assert place.code(place.claim2, n) == (0 if n == client_id else REFUSED)


def test_the_same_certificate_does_while_nothing_is_awaited(place):
    client_id = unique()
    first = place.open(place.claim, client_id)
    with place.open(place.claim, client_id) as second:
        first.ended()
        ask(second)
        request = place.service.message(REQUEST)
        assert place.code(place.claim, client_id) == REFUSED
        place.service.answer(request, b"mine")
        assert second.message().payload == b"mine" and second.nothing()
        with place.open(place.claim, client_id) as third:
            assert third.nothing()


def test_every_request_of_a_connection_is_awaited(place):
    client_id = unique()
    with place.open(place.claim, client_id) as c:
        ask(c)
        ask(c, SIX[2])
        first, second = place.service.message(REQUEST), place.service.message(REQUEST)
        place.service.answer(first, b"1")
        assert c.message().payload == b"1" and c.nothing()
        assert place.code(place.claim, client_id) == REFUSED
        place.service.answer(second, b"2")
        assert c.message().payload == b"2" and c.nothing()
        assert place.code(place.claim, client_id) == 0


def test_the_answer_to_a_connection_that_is_gone_is_dropped(place):
    client_id = unique()
    first = place.open(place.claim, client_id)
    ask(first)
    request = place.service.message(REQUEST)
    first.disconnect()
    wait_for("the client id to be free", lambda: place.code(place.claim, client_id) == 0)
    with place.open(place.claim, client_id) as second:
        assert second.subscribe(CREATE + "/accepted") == 1
        place.service.answer(request, b"of another connection")
        assert second.nothing()
        ask(second)
        later = place.service.message(REQUEST)
        assert int(later.properties["conn"]) > int(request.properties["conn"])
        place.service.answer(later, b"mine")
        assert second.message().payload == b"mine"


def test_in_the_instant_of_delivery_nobody_takes_over(place):
    """In one turn of the broker's loop: the answer is handed over, who asked is gone, another connects."""
    client_id = unique()
    for leaves in (True, False):
        victim = place.open(place.claim, client_id)
        ask(victim)
        request = place.service.message(REQUEST)
        attacker = place.claim.open(place.broker)
        p, service = request.properties, place.service.client
        order = service.publish_packet(CONTROL, b"the private key", qos=1, user=[
            ("op", "answer"), ("client", p["client"]), ("conn", p["conn"]), ("topic", CREATE + "/accepted")])
        os.kill(place.broker.pid, signal.SIGSTOP)
        service.send(order)
        if leaves:
            victim.send(victim.disconnect_packet())
        attacker.send(attacker.connect_packet(client_id))
        os.kill(place.broker.pid, signal.SIGCONT)
        assert attacker.wait(2)[1] == REFUSED
        if not leaves:
            assert victim.message().payload == b"the private key"
        victim.close()
        wait_for("the client id to be free", lambda: place.code(place.claim, client_id) == 0)
        with place.open(place.claim, client_id) as c:
            assert c.nothing()


def test_a_persistent_session_of_a_claim_gets_no_queued_answer(place):
    client_id = unique()
    for version in (4, 5):
        expiry = {"expiry": 3600} if version == 5 else {}
        first = place.open(place.claim, client_id, version, clean=False, **expiry)
        assert first.subscribe(CREATE + "/accepted", 1) == 1
        ask(first)
        request = place.service.message(REQUEST)
        os.kill(place.broker.pid, signal.SIGSTOP)
        service, p = place.service.client, request.properties
        service.send(service.publish_packet(CONTROL, b"queued", qos=1, user=[
            ("op", "answer"), ("client", client_id), ("conn", p["conn"]), ("topic", CREATE + "/accepted")]))
        first.send(first.disconnect_packet())
        os.kill(place.broker.pid, signal.SIGCONT)
        wait_for("the client id to be free", lambda: probe(place, client_id, version, **expiry))
        first.close()
        place.service.answer(request, b"late")
        with place.open(place.claim, client_id, version, clean=False, **expiry) as second:
            assert second.resumed == 1 and second.nothing()
        assert place.code(place.claim, client_id) == 0


def probe(place, client_id, version, **kw):
    """A connect that keeps the session; it must find nothing in it."""
    with place.claim.open(place.broker, version) as c:
        if c.connect(client_id, clean=False, **kw) != 0:
            return False
        assert c.resumed == 1 and c.nothing()
        c.send(c.disconnect_packet())
        return True


def test_orders_that_are_wrong_do_nothing(place):
    client_id = unique()
    with place.open(place.claim, client_id) as c, place.open(place.device, "dev-x") as device:
        ask(c)
        p = place.service.message(REQUEST).properties
        good = {"client": client_id, "conn": p["conn"], "topic": CREATE + "/accepted"}
        wrong = [{"topic": CREATE}, {"topic": "things/pump-1/x"}, {"topic": CREATE + "/accepted/x"}, {"client": "nobody"}, {"client": "a" * 300},
                 {"conn": str(int(p["conn"]) + 1)}, {"conn": "-1"}, {"conn": "x"}, {"conn": ""}, {"conn": "9" * 40}]
        for change in wrong:
            place.service.control("answer", b"x", **{**good, **change})
        for missing in good:
            place.service.control("answer", b"x", **{k: v for k, v in good.items() if k != missing})
        place.service.control("other", b"x", **good)
        place.service.client.publish(CONTROL, b"x")
        assert c.nothing() and device.nothing()
        place.service.control("answer", b"", **good)
        assert c.message().payload == b""


def test_musterd_writes_orders_and_reads_its_topics_only(place):
    c = place.service.client
    for topic in (CREATE + "/accepted", REQUEST, GATE, "things/pump-1/x", "$CONTROL/other/v1"):
        assert c.publish(topic, b"x") == REFUSED, topic
    for topic in ("#", "$aws/#", "muster/#", REQUEST, "$share/other/" + REQUEST, "things/#", CONTROL):
        assert c.subscribe(topic) == REFUSED, topic


def test_replicas_share_the_requests(place):
    with Service(place.broker, place.musterd) as second, place.open(place.claim) as c:
        for i in range(10):
            ask(c, payload=b"%d" % i)
        got = []
        for s in (place.service, second):
            s.client.ping()
            mine = [m for m in s.client.messages if m.topic == REQUEST]
            assert mine
            got += [m.payload for m in mine]
        assert sorted(got) == [b"%d" % i for i in range(10)]


# the table

def test_a_certificate_taken_out_ends_its_sessions_within_a_second(place):
    clients = [place.open(place.claim) for _ in range(5)] + [place.open(place.claim, version=4), place.open(place.claim, will=(CREATE, b"{}", 0, False))]
    with place.open(place.claim2) as other, place.open(place.device) as device:
        begin = time.monotonic()
        status = place.service.batch(entry(ABSENT, place.claim.fingerprint), position=7)
        assert (status["position"], status["entries"], status["ready"]) == (7, 3, 1)
        reasons = [c.ended() for c in clients]
        assert time.monotonic() - begin < 2 and set(reasons) == {152, None}
        assert place.code(place.claim, unique()) == REFUSED
        assert other.nothing() and device.nothing() and place.service.nothing()
    place.service.batch(entry(CLAIM, place.claim.fingerprint))
    assert place.code(place.claim, unique()) == 0


def test_what_may_be_done_follows_the_table_at_once(place):
    with place.open(place.device) as c:
        assert c.subscribe("things/pump-1/#") == 1
        place.service.batch(entry(OPERATIONAL, place.device.fingerprint, "pump-9"))
        assert c.publish("things/pump-1/x", b"x") == REFUSED and c.publish("things/pump-9/x", b"x") != REFUSED
        place.service.batch(entry(CLAIM, place.device.fingerprint))
        assert c.publish("things/pump-9/x", b"x") == REFUSED and ask(c) != REFUSED


def test_a_stale_batch_is_refused(place):
    before = place.service.status()
    after = place.service.batch(entry(OPERATIONAL, place.stranger.fingerprint, "x"), counter=before["counter"], position=3)
    assert after["counter"] == before["counter"] + 1 and after["position"] == 3
    for stale in (before["counter"], after["counter"] + 1, 0):
        assert place.service.batch(entry(ABSENT, place.stranger.fingerprint), counter=stale, position=9) == after
    assert place.code(place.stranger, unique()) == 0


def test_a_malformed_batch_changes_nothing(place):
    before = place.service.status()
    head = b"MGB2" + struct.pack(">QqB", before["counter"], 5, CLEAR)
    good = entry(OPERATIONAL, place.stranger.fingerprint, "x")
    bad = [b"", b"MGB2", head[:-1], b"MGB3" + head[4:], head[:-1] + b"\x08", head + good[:-1], head + good + b"\0", head + entry(4, place.stranger.fingerprint),
           head + good + entry(OPERATIONAL, place.stranger.fingerprint, "a/b"), head + entry(OPERATIONAL, place.stranger.fingerprint, "+"),
           head + entry(OPERATIONAL, place.stranger.fingerprint, "t" * 129), head + entry(CLAIM, place.stranger.fingerprint, "x"), head + good * 2001,
           b"MGB2" + struct.pack(">QqB", before["counter"], -1, CLEAR) + good]
    with place.open(place.device) as c:
        for payload in bad:
            assert place.service.raw_batch(payload) == before, payload[:80]
        assert c.publish("things/pump-1/x", b"x") != REFUSED
    assert place.code(place.stranger, unique()) == REFUSED


def test_a_cleared_table_admits_nobody_until_it_is_complete(place):
    with place.open(place.device) as kept, place.open(place.claim) as gone:
        status = place.service.batch(entry(OPERATIONAL, place.device.fingerprint, "pump-1"), flags=CLEAR)
        assert status["ready"] == 0 and status["entries"] == 1
        assert place.code(place.device, unique()) == REFUSED and gone.publish(CREATE, b"{}") == REFUSED
        assert place.service.batch(flags=READY)["ready"] == 1
        gone.ended()
        assert kept.publish("things/pump-1/x", b"x") != REFUSED
        assert place.code(place.device, unique()) == 0


def test_the_status_comes_every_second_and_to_every_replica(place):
    with Service(place.broker, place.musterd) as second:
        first = second.status()
        assert place.service.status() == first and set(first) == {"counter", "position", "entries", "ready"}
        begin = time.monotonic()
        second.status()
        second.status()
        assert 0.5 < time.monotonic() - begin < 5


def test_many_batches_fill_a_large_table(place):
    for b in range(10):
        rows = [entry(OPERATIONAL, hashlib.sha256(b"%d-%d" % (b, i)).hexdigest(), f"thing-{b}-{i}") for i in range(500)]
        status = place.service.batch(*rows)
    assert status["entries"] == 5004 and place.code(place.device, unique()) == 0


# the broker's own life

def test_after_a_restart_of_the_broker_the_table_is_empty(place):
    before = place.service.status()
    place.broker.restart()
    place.service = Service(place.broker, place.musterd)
    status = place.service.status()
    assert (status["ready"], status["entries"], status["position"]) == (0, 0, 0) and status["counter"] != before["counter"]
    assert place.code(place.claim, unique()) == REFUSED
    assert place.service.batch(*place.entries(), counter=before["counter"])["entries"] == 0
    place.fill()
    assert place.code(place.claim, unique()) == 0


def test_a_reload_takes_new_pins_and_leaves_sessions_alone(place):
    other = Credential(place.folder, place.ca, unique("musterd"))
    assert place.code(other, "musterd-new") == REFUSED
    client_id, offline = unique(), unique()
    with place.open(place.claim, client_id) as c, place.open(place.device) as device:
        place.open(place.device2, offline, clean=False, expiry=3600).disconnect()
        ask(c)
        request = place.service.message(REQUEST)
        place.broker.service_file.write_bytes(place.musterd.pem + other.pem)
        place.broker.reload()
        assert place.code(other, "musterd-new") == 0
        place.service.answer(request, b"mine")
        assert c.message().payload == b"mine"
        assert device.publish("things/pump-1/x", b"x") != REFUSED
        with place.open(place.device2, offline, clean=False, expiry=0) as back:
            assert back.resumed == 1
        place.broker.service_file.write_bytes(b"nothing")
        place.broker.reload()
        assert place.code(other, "musterd-new") == 0 and "no or bad certificates" in place.broker.log_text()
        leaving = Service(place.broker, other)
        place.broker.service_file.write_bytes(place.musterd.pem)
        place.broker.reload()
        leaving.client.ended()
        assert place.code(other, "musterd-new") == REFUSED and c.nothing()


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_without_pinned_certificates_the_broker_does_not_start(tmp_path, pem):
    place = Place(tmp_path)
    place.broker.service_file.write_bytes(pem)
    with pytest.raises(AssertionError, match="does not start"):
        place.broker.start()
    assert "no or bad certificates" in place.broker.log_text()


def test_garbage_does_not_hurt_the_broker(place):
    for raw in (b"\xff" * 100, packet(1, 0, b"\x00\x04MQTT"), packet(3, 0, b""), os.urandom(200)):
        with place.claim.open(place.broker) as c:
            c.send(raw)
            try:
                c.ended(seconds=1)
            except TimeoutError:
                pass
    assert place.code(place.claim, unique()) == 0
