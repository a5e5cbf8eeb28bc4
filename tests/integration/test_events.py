"""Lifecycle events: on the broker's topics and to webhooks, signed, at least once, in order for each device."""
import contextlib
import itertools
import hashlib
import hmac
import http.server
import json
import signal
import threading
import time

import pytest

from client import Device, cert_pem, fingerprint, unique
from fleet import Client, joined
from replica import Replica
from stack import Refused, wait_for
from test_credentials import refused
from test_jit import Maker
from test_policies import ANY, allow, device

SECRET = b"0123456789abcdef0123456789abcdef"


class Receiver(http.server.ThreadingHTTPServer):
    """A web service that remembers; answer says with which status it takes an event."""

    def __init__(self):
        self.taken, self.seen, self.answer, self.lock = [], [], lambda event: 200, threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/hook"

    def of(self, serial):
        return [e["event"] for e in self.taken if e.get("serial") == serial]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fields = dict(part.split("=", 1) for part in self.headers["Muster-Signature"].split(","))
        wanted = hmac.new(SECRET, fields["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
        event = json.loads(body)
        with self.server.lock:
            good = hmac.compare_digest(wanted, fields["v1"]) and self.headers["Muster-Request-Id"] == event["id"]
            status = self.server.answer(event) if good else 401
            self.server.seen.append((event, status))
            if status < 300:
                self.server.taken.append(event)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("events")
    with joined(folder) as place:
        (folder / "secret").write_bytes(SECRET + b"\n")
        (folder / "secret").chmod(0o600)
        plain = place.settings
        place.settings = lambda **more: plain(hook__secret_file=folder / "secret", **more)
        with place.changed():
            pass
        yield place


@pytest.fixture
def receiver(place):
    with contextlib.closing(Receiver()) as r:
        r.name = unique("hook")
        place.stack.cli("webhook", "create", r.name, r.url)
        yield r
        place.stack.cli("webhook", "delete", r.name)


def sink(place, name):
    (row,) = [w for w in place.stack.v1("GET", "/webhooks") if w["name"] == name]
    return row


def life(place, d):
    """Enrols, is verified, renews, and comes through quarantine."""
    d.enrol()
    d.config()
    d.renew()
    d.config()
    place.stack.v1("POST", f"/devices/{d.serial}/quarantine", {"reason": "test"})
    place.stack.v1("POST", f"/devices/{d.serial}/release")
    place.stack.v1("POST", f"/certs/{fingerprint(d.cert)}/revoke", {"reason": "superseded"})
    return ["device.enrolled", "device.provisioned", "device.renewed", "device.provisioned", "device.quarantined", "device.released", "certificate.revoked"]


def new_device(place):
    return Device(place.stack, None, "open", place.stack.mint("open"))


def test_a_life_in_events_at_a_webhook(place, receiver):
    d = new_device(place)
    wanted = life(place, d)
    wait_for("the events", lambda: len(receiver.of(d.serial)) >= len(wanted))
    assert receiver.of(d.serial) == wanted
    first = next(e for e in receiver.taken if e.get("serial") == d.serial)
    assert first["product"] == "pump" and first["thing_name"] and first["at"].endswith("Z") and first["request_id"]
    wait_for("the counters", lambda: sink(place, receiver.name)["delivered"] >= len(wanted))
    assert [e for e in place.stack.v1("GET", "/events?limit=50") if e.get("serial") == d.serial][-1]["event"] == "device.enrolled"


def test_a_life_in_events_at_the_broker(place):
    maker = Maker(place.stack, "jit")
    place.broker.trust_add(cert_pem(maker.ca.cert))
    worker = device(place, maker, [ANY, allow("Subscribe Receive", "topicfilter/$muster/events/*", "topic/$muster/events/*")])
    with Client(place, worker.cert, worker.key) as c:
        assert c.subscribe("$muster/events/pump/+/+") == 1
        d = new_device(place)
        wanted = [f"$muster/events/pump/{d.serial}/{e.split('.')[1]}" for e in life(place, d)]
        got = []
        while len(got) < len(wanted):
            m = c.message()
            if d.serial in m.topic:
                got.append(m.topic)
                assert json.loads(m.payload)["serial"] == d.serial and m.qos == 1
        assert got == wanted


def test_a_pending_certificate_is_announced_as_aws_does_it(place):
    jitr = Maker(place.stack, "jit", jit="jitr")
    place.broker.trust_add(cert_pem(jitr.ca.cert))
    worker = device(place, jitr, [ANY, allow("Subscribe Receive", "topicfilter/$aws/events/*", "topic/$aws/events/*")])
    with Client(place, worker.cert, worker.key) as c:
        assert c.subscribe(f"$aws/events/certificates/registered/{fingerprint(jitr.ca.cert)}") == 1
        d = jitr.device()
        for n in range(2):  # repeat connects are announced again
            with Client(place, d.cert, d.key) as refused_one:
                assert refused_one.code != 0
            said = json.loads(c.message().payload)
            assert said["certificateId"] == fingerprint(d.cert) and said["caCertificateId"] == fingerprint(jitr.ca.cert)
            assert said["certificateStatus"] == "PENDING_ACTIVATION" and abs(said["timestamp"] / 1000 - time.time()) < 60
            assert abs(int(said["certificateRegistrationTimestamp"]) / 1000 - time.time()) < 60
            time.sleep(1.2)
        place.stack.v1("POST", f"/certs/{said['certificateId']}/activate", {})  # what a worker does
        place.admitted(d.cert, d.key)


def test_a_receiver_that_is_away_gets_everything_in_order(place, receiver):
    receiver.answer = lambda event: 503
    devices = [new_device(place) for _ in range(5)]
    wanted = {d.serial: life(place, d) for d in devices}
    wait_for("an attempt", lambda: sink(place, receiver.name)["failed"] > 0)
    assert sink(place, receiver.name)["last_error"] == "status 503" and sink(place, receiver.name)["behind_s"] >= 1
    receiver.answer = lambda event: 200
    wait_for("all", lambda: all(len(receiver.of(s)) >= len(w) for s, w in wanted.items()), 60)
    assert {s: receiver.of(s) for s in wanted} == wanted


def test_one_device_that_is_refused_holds_up_nobody_else(place, receiver):
    bad, good = new_device(place), new_device(place)
    receiver.answer = lambda event: 500 if event.get("serial") == bad.serial else 200
    wanted = life(place, bad)
    life(place, good)
    wait_for("the other's events", lambda: receiver.of(good.serial) == wanted)
    assert receiver.of(bad.serial) == [] and sink(place, receiver.name)["waiting"] == len(wanted)
    assert {e["event"] for e, status in receiver.seen if e.get("serial") == bad.serial} == {"device.enrolled"}  # the others wait behind it
    receiver.answer = lambda event: 200
    wait_for("its own", lambda: receiver.of(bad.serial) == wanted, 60)
    assert sink(place, receiver.name)["waiting"] == 0


def test_dead_letters(place, receiver):
    bad = new_device(place)
    receiver.answer = lambda event: 500 if event.get("serial") == bad.serial else 200
    bad.enrol()
    wait_for("the first attempt", lambda: sink(place, receiver.name)["waiting"] == 1)
    place.stack.sql("UPDATE event_retry SET attempts = 11, next_try = now() WHERE event->>'serial' = %s", bad.serial)
    wait_for("the end of trying", lambda: sink(place, receiver.name)["dead"] == 1)
    (dead,) = place.stack.cli_json("event", "dead", "--receiver", receiver.name)
    assert dead["event"] == "device.enrolled" and dead["serial"] == bad.serial and dead["last_error"] == "status 500" and dead["attempts"] == 12
    bad.config()
    receiver.answer = lambda event: 200
    wait_for("what comes behind a dead one", lambda: receiver.of(bad.serial) == ["device.provisioned"])
    assert place.stack.v1("GET", f"/dead-events?receiver={receiver.name}&limit=1") == [dead]
    assert list(place.stack.pages(f"/dead-events?receiver={receiver.name}&limit=1")) == [[dead], []]
    assert place.stack.v1("POST", "/dead-events:retry", {"id": dead["id"]}) == {"count": 1}
    wait_for("the dead one", lambda: receiver.of(bad.serial) == ["device.provisioned", "device.enrolled"])
    refused("object.not_found", place.stack.v1, "POST", "/dead-events:drop", {"id": dead["id"]})
    assert place.stack.cli_json("event", "drop")["count"] == 0


def test_a_dead_letter_is_dropped(place, receiver):
    bad = new_device(place)
    receiver.answer = lambda event: 500
    bad.enrol()
    wait_for("the first attempt", lambda: sink(place, receiver.name)["waiting"] == 1)
    place.stack.sql("UPDATE event_retry SET attempts = 11, next_try = now() WHERE event->>'serial' = %s", bad.serial)
    wait_for("the end of trying", lambda: sink(place, receiver.name)["dead"] == 1)
    (dead,) = place.stack.cli_json("event", "dead", "--receiver", receiver.name)
    assert place.stack.v1("POST", "/dead-events:drop", {"id": dead["id"]}) == {"count": 1}
    assert sink(place, receiver.name)["dead"] == 0


def test_pages_of_events_and_receivers(place):
    name = unique("paged")
    place.stack.v1("POST", "/webhooks", {"name": name, "url": "http://127.0.0.1:9/x", "events": ["device.enrolled"]})
    assert name in [w["name"] for page in place.stack.pages("/webhooks?limit=1") for w in page]
    place.stack.v1("DELETE", f"/webhooks/{name}")
    for _ in range(2):
        new_device(place).enrol()
    first, second = itertools.islice(place.stack.pages("/events?limit=1"), 2)
    assert first != second


def test_only_the_events_that_are_wanted(place):
    with contextlib.closing(Receiver()) as r:
        name = unique("some")
        place.stack.cli("webhook", "create", name, r.url, "--event", "device.quarantined,certificate.*")
        d = new_device(place)
        life(place, d)
        wait_for("the events", lambda: len(r.of(d.serial)) >= 2)
        assert r.of(d.serial) == ["device.quarantined", "certificate.revoked"]
        place.stack.cli("webhook", "pause", name)
        other = new_device(place)
        life(place, other)
        time.sleep(1)
        assert r.of(other.serial) == []
        place.stack.cli("webhook", "resume", name)
        wait_for("what came meanwhile", lambda: r.of(other.serial) == ["device.quarantined", "certificate.revoked"])
        place.stack.cli("webhook", "delete", name)


def test_killed_in_the_middle_nothing_is_lost_and_another_replica_takes_over(place, receiver, tmp_path):
    stack = place.stack
    receiver.answer = lambda event: time.sleep(0.02) or 200
    (tmp_path / "second").mkdir()
    second = Replica(stack, tmp_path / "second")
    second.configure(**place.settings())
    devices = [new_device(place) for _ in range(12)]
    wanted = {d.serial: life(place, d) for d in devices}
    wait_for("the first events", lambda: receiver.taken)
    stack.stop(signal.SIGKILL)
    second.start()
    try:
        wait_for("all of them", lambda: all(set(wanted[d.serial]) <= set(receiver.of(d.serial)) and receiver.of(d.serial)[-1] == "certificate.revoked" for d in devices), 90)
    finally:
        second.stop()
        stack.start()
        place.ready()
    for d in devices:  # repeated is allowed, another order is not
        ids, order = set(), []
        for e in receiver.taken:
            if e.get("serial") == d.serial and e["id"] not in ids:
                ids.add(e["id"])
                order.append(e["event"])
        assert order == wanted[d.serial]


@pytest.mark.parametrize("url", ["ftp://x/", "http://", "https://", "nonsense", "http://a b/", "http://x/\u00e4"])
def test_what_is_no_receiver(stack, url):
    refused("request.malformed", stack.v1, "POST", "/webhooks", {"name": unique("w"), "url": url})
    assert Refused


def test_what_ends_soon_is_an_event_of_its_template(place, receiver):
    """The job tells it: docs/expiry.md."""
    d = new_device(place)
    d.enrol()
    d.config()
    place.stack.sql("UPDATE certificate SET not_after = now() + interval '5 days', not_before = now() - interval '360 days' WHERE fingerprint = decode(%s, 'hex')", fingerprint(d.cert))
    place.stack.sql("DELETE FROM expiry_mark")
    place.stack.process.send_signal(signal.SIGHUP)

    def told():
        return {e["threshold_s"]: e for e in receiver.taken if e["event"] == "certificate.expiring" and d.serial in e["serials"]}

    wait_for("both thresholds", lambda: set(told()) == {30 * 86400, 7 * 86400})
    assert all(e["template"] == "open" and e["product"] == "pump" and e["devices"] >= 1 for e in told().values())
    assert [r for r in place.stack.log_records() if r["event"] == "expiry.told" and d.serial in r["told"].get("serials", [])]
