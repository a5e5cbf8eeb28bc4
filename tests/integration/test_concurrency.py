"""Many at once: the same serial with one key and with many, and many devices. Also run under TSan."""
import base64
import contextlib
import http.client
import socket
import threading
import time

import psycopg2
import pytest

from client import EST, Device, basic, certs_of, fingerprint, new_csr, new_key, tls_context, unique
from replica import Replica
from stack import Refused, wait_for

CLIENTS = 64


def all_at_once(stack, requests):
    """Sends each (path, headers, body) on a connection of its own, opened before; [(status, body)]."""
    barrier = threading.Barrier(len(requests))
    answers = [None] * len(requests)

    def run(n, path, headers, body):
        c = http.client.HTTPSConnection("127.0.0.1", stack.port, context=tls_context(stack), timeout=120)
        c.connect()
        barrier.wait()
        c.request("POST", path, body, headers)
        answer = c.getresponse()
        answers[n] = (answer.status, answer.read())
        c.close()

    threads = [threading.Thread(target=run, args=(n, *r)) for n, r in enumerate(requests)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return answers


def enrolment(serial, token, key, template):
    return (f"{EST}/{template}/simpleenroll", {"Content-Type": "application/pkcs10", "Authorization": basic(serial, token)},
            base64.b64encode(new_csr(key, serial)))


def live_certificates(stack, serial):
    return stack.sql("SELECT c.status, encode(c.fingerprint, 'hex') FROM certificate c JOIN device d ON d.id = c.device_id"
                     " WHERE d.serial = %s AND c.status IN ('pending', 'current')", serial)


@pytest.mark.parametrize("bound", [True, False])
def test_one_serial_one_key_64_clients(stack, bound):
    serial, key = unique("same"), new_key()
    stack.allow(serial)
    token = stack.mint("strict", serial=serial) if bound else stack.mint("strict", uses=CLIENTS)
    answers = all_at_once(stack, [enrolment(serial, token, key, "strict")] * CLIENTS)
    assert {status for status, _ in answers} == {200}, answers
    assert len({body for _, body in answers}) == 1
    assert len(stack.sql("SELECT 1 FROM device WHERE serial = %s", serial)) == 1
    assert len(stack.sql("SELECT 1 FROM certificate c JOIN device d ON d.id = c.device_id WHERE d.serial = %s", serial)) == 1
    assert stack.one("SELECT max(uses) FROM token t JOIN token_use u ON u.token_id = t.id JOIN device d ON d.id = u.device_id WHERE d.serial = %s", serial) == 1


def test_one_serial_64_keys_policy_refuse(stack):
    serial = unique("refuse")
    token = stack.mint("refuse", uses=CLIENTS)
    answers = all_at_once(stack, [enrolment(serial, token, new_key(), "refuse") for _ in range(CLIENTS)])
    good = [body for status, body in answers if status == 200]
    assert len(good) == 1, [s for s, _ in answers]
    assert all(status == 409 and b'"code":"device.key_conflict"' in body for status, body in answers if status != 200)
    assert len(stack.sql("SELECT 1 FROM device WHERE serial = %s", serial)) == 1
    ((status, fp),) = live_certificates(stack, serial)
    assert fp == fingerprint(certs_of(good[0])[0])


@pytest.mark.parametrize("template", ["strict", "replace"])
def test_one_serial_64_keys_one_live_certificate(stack, template):
    serial = unique(template)
    stack.allow(serial)
    token = stack.mint(template, serial=serial)
    answers = all_at_once(stack, [enrolment(serial, token, new_key(), template) for _ in range(CLIENTS)])
    assert {s for s, _ in answers} <= {200, 503}, answers
    assert all(b"device.busy" in body for status, body in answers if status == 503)
    assert len(stack.sql("SELECT 1 FROM device WHERE serial = %s", serial)) == 1
    ((status, fp),) = live_certificates(stack, serial)
    assert fp in [fingerprint(certs_of(body)[0]) for s, body in answers if s == 200]
    assert stack.one("SELECT uses FROM token WHERE serial = %s", serial) == 1


def test_a_comeback_while_the_first_request_is_held_up(stack):
    """Power was lost while PostgreSQL stalled, and the key with it: the second request is told to come again, and then is the comeback it says."""
    serial = unique("held")
    stack.allow(serial)
    token = stack.mint("strict", serial=serial)
    answers = []

    def run(device, key):
        try:
            answers.append((device, fingerprint(device.enrol(key=key))))
        except Refused as e:
            answers.append((device, e))

    with contextlib.closing(psycopg2.connect(host="127.0.0.1", port=stack.pg_port, user="muster", dbname="muster")) as c, c.cursor() as cursor:
        cursor.execute("SELECT 1 FROM muster.token WHERE serial = %s FOR UPDATE", (serial,))
        threads = [threading.Thread(target=run, args=(Device(stack, serial, "strict", token), new_key())) for _ in range(2)]
        for t in threads:
            t.start()
        wait_for("both to wait", lambda: 'muster_gate_inside{listener="device"} 2' in stack.admin("GET", "/metrics", raw=True)[2].decode())
        c.rollback()
        for t in threads:
            t.join()
    (refused,) = [(d, e) for d, e in answers if isinstance(e, Refused)]
    device, e = refused
    assert (e.status, e.code) == (503, "device.busy") and int(e.headers["retry-after"]) > 0
    again = fingerprint(device.enrol(key=new_key()))
    assert live_certificates(stack, serial) == [("pending", again)]


def test_what_was_sent_before_the_power_cut_arrives_after_the_comeback(stack):
    """Held up on the way: it takes nothing from the device, which has another key by now."""
    serial = unique("late")
    stack.allow(serial)
    token = stack.mint("strict", serial=serial)
    late = http.client.HTTPSConnection("127.0.0.1", stack.port, context=tls_context(stack), timeout=60)
    late.connect()
    held = fingerprint(Device(stack, serial, "strict", token).enrol(key=new_key()))
    path, headers, body = enrolment(serial, token, new_key(), "strict")
    late.request("POST", path, body, headers)
    answer = late.getresponse()
    assert answer.status == 503 and b'"code":"device.busy"' in answer.read()
    late.close()
    assert live_certificates(stack, serial) == [("pending", held)]


def test_64_renewals_with_one_key(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    fresh = new_key()
    certs, threads = [], []
    for _ in range(16):
        t = threading.Thread(target=lambda: certs.append(fingerprint(d.renew(key=fresh, keep=False))))
        threads.append(t)
        t.start()
    for t in threads:
        t.join()
    assert len(certs) == 16 and len(set(certs)) == 1


def test_many_devices_with_one_free_token_never_exceed_its_uses(stack):
    token = stack.mint("open", uses=40)
    serials = [unique("crowd") for _ in range(CLIENTS)]
    answers = all_at_once(stack, [enrolment(s, token, new_key(), "open") for s in serials])
    assert sorted(s for s, _ in answers).count(200) == 40
    assert stack.one("SELECT count(*) FROM device WHERE serial = ANY(%s)", serials) == 40


def test_two_devices_want_one_key(stack):
    key = new_key()
    token = stack.mint("open", uses=CLIENTS)
    answers = all_at_once(stack, [enrolment(unique("onekey"), token, key, "open") for _ in range(32)])
    assert [s for s, _ in answers].count(200) == 1
    assert all(b"key.reused" in body for s, body in answers if s != 200)


def test_changes_of_the_catalog_under_load(stack):
    """Snapshots are replaced while requests work with them."""
    token = stack.mint("open", uses=1000)
    stop = threading.Event()
    failures = []

    def enrol_on():
        while not stop.is_set():
            try:
                Device(stack, token=token).enrol()
            except Exception as e:  # noqa: BLE001
                failures.append(e)
                return

    threads = [threading.Thread(target=enrol_on) for _ in range(4)]
    for t in threads:
        t.start()
    for n in range(12):
        stack.v1("POST", "/products", {"name": unique("reload")})
    stop.set()
    for t in threads:
        t.join()
    assert failures == []


@pytest.mark.parametrize("rolled_back", [False, True])
def test_a_new_device_that_another_replica_is_writing(stack, rolled_back):
    """The other one is not visible when this one is judged, and there when it is written: it is judged again."""
    serial = unique("both")
    device = Device(stack, serial, "open", stack.mint("open"))
    with contextlib.closing(psycopg2.connect(host="127.0.0.1", port=stack.pg_port, user="muster", dbname="muster")) as c, c.cursor() as cursor:
        cursor.execute("INSERT INTO muster.device (product_id, serial, serial_canonical, state, template_id, template_version)"
                       " SELECT product_id, %s, %s, 'UNPROVISIONED', id, 1 FROM muster.template WHERE name = 'open'", (serial, serial))
        thread = threading.Thread(target=device.enrol)
        thread.start()
        wait_for("it to wait", lambda: stack.one("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%enrol_batch%%'"))
        (c.rollback if rolled_back else c.commit)()
        thread.join()
    assert live_certificates(stack, serial) == [("pending", fingerprint(device.cert))]


class Slow:
    """A line to a database on which what says a certain word is held up."""

    def __init__(self, port, word):
        self.target, self.word = port, word
        self.held, self.goes_on = threading.Event(), threading.Event()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.server.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self.carry, args=ends, daemon=True).start()

    def carry(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.word in data:
                    self.held.set()
                    self.goes_on.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.goes_on.set()
        self.server.close()


def test_what_was_sent_before_the_power_cut_is_held_up_before_the_database(stack, tmp_path):
    """Wherever a request is held up, it stays as old as it is."""
    serial = unique("slow")
    stack.allow(serial)
    token = stack.mint("strict", serial=serial)
    replica = Replica(stack, tmp_path)
    with Slow(stack.pg_port, serial.encode()) as line, contextlib.ExitStack() as todo:
        replica.configure(database__port=line.port)
        replica.start()
        todo.callback(replica.stop)
        path, headers, body = enrolment(serial, token, new_key(), "strict")
        late = http.client.HTTPSConnection("127.0.0.1", replica.port, context=tls_context(replica), timeout=60)
        todo.callback(late.close)
        late.request("POST", path, body, headers)
        assert line.held.wait(20)
        held = fingerprint(Device(stack, serial, "strict", token).enrol(key=new_key()))
        time.sleep(0.5)  # longer than it was under way before
        line.goes_on.set()
        answer = late.getresponse()
        assert answer.status == 503 and b'"code":"device.busy"' in answer.read()
    assert live_certificates(stack, serial) == [("pending", held)]
