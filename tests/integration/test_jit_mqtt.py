"""Devices whose certificate's first contact is a connect at the broker: refused once, registered, let in."""
import json
import random
import signal
import threading
import time

import pytest

from broker import REFUSED
from client import Device, cert_pem, fingerprint, key_pem, unique
from factory import Authority
from fleet import Client, joined
from mqtt import Closed, Mqtt
from replica import Replica
from stack import wait_for
from test_jit import Maker, certificates, waiting


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with joined(tmp_path_factory.mktemp("jit")) as place:
        yield place


def trusted(place, template="jit", **settings):
    """A CA that registers devices, trusted by the broker."""
    made = Maker(place.stack, template, **settings)
    place.broker.trust_add(cert_pem(made.ca.cert))
    return made


@pytest.fixture(scope="module")
def jitp(place):
    return trusted(place)


def retry(place, d, seconds=20):
    """Connects as AWS's SDK does, until it is let in; the answers before."""
    codes, pause, end = [], 0.055, time.monotonic() + seconds
    while time.monotonic() < end:
        with Client(place, d.cert, d.key) as c:
            if c.code == 0:
                return codes
            codes.append(c.code)
        time.sleep(pause)
        pause = min(pause * 2, 2)
    raise AssertionError(f"{d.serial} was not let in: {codes}")


def test_the_first_connect_is_refused_and_registers(place, jitp):
    d = jitp.device()
    codes = retry(place, d)
    assert codes and set(codes) == {REFUSED}
    assert certificates(place.stack, d.serial)[0][:3] in (("operational", "pending", "registered"), ("operational", "current", "registered"))
    wait_for("VERIFY", lambda: place.stack.state(d.serial) == "PROVISIONED")
    trail = place.stack.device(d.serial)["trail"]
    assert [(t["protocol"], t["operation"], t["outcome"]) for t in trail] == [("broker", "verify", "ok"), ("mqtt", "jitp", "ok")]
    assert place.code(d.cert, d.key) == 0
    with Client(place, d.cert, d.key) as c:  # nothing new for the registry
        assert c.code == 0
    assert len(place.stack.device(d.serial)["trail"]) == 2


def test_a_reason_for_every_refusal_is_in_the_trail(place):
    fields = trusted(place, "jitfields")
    d = fields.device()
    assert place.code(d.cert, d.key) == REFUSED
    wait_for("the reason", lambda: (place.stack.last_attempt(d.serial) or [""])[0] == "template.parameter_missing")
    assert waiting(place.stack, d.cert)[0] == "failed"
    assert place.code(d.cert, d.key) == REFUSED


def test_an_intermediate_that_is_registered_as_helper(place, jitp):
    """Mosquitto shows the leaf only."""
    middle = Authority(unique("Middle "), jitp.ca)
    place.broker.trust_add(cert_pem(middle.cert))
    d = Device(place.stack)
    d.cert, d.key = middle.device(d.serial)
    assert place.code(d.cert, d.key) == REFUSED
    time.sleep(1.5)
    assert place.code(d.cert, d.key) == REFUSED  # nobody can say who made it
    place.stack.v1("POST", "/cas", {"name": unique("middle"), "pem": cert_pem(middle.cert).decode(), "kind": "helper"})
    place.stack.catalog_caught_up()
    retry(place, d)


def test_registration_by_event_and_activation(place):
    jitr = trusted(place, jit="jitr")
    d = jitr.device()
    assert place.code(d.cert, d.key) == REFUSED
    wait_for("the pending certificate", lambda: waiting(place.stack, d.cert))
    assert place.code(d.cert, d.key) == REFUSED
    place.stack.v1("POST", f"/certs/{fingerprint(d.cert)}/activate", {})
    retry(place, d)
    wait_for("VERIFY", lambda: place.stack.state(d.serial) == "PROVISIONED")
    place.stack.v1("POST", f"/certs/{fingerprint(d.cert)}/deactivate")
    place.refused(d.cert, d.key)
    place.stack.v1("POST", f"/certs/{fingerprint(d.cert)}/activate", {})
    place.admitted(d.cert, d.key)


def test_what_was_registered_ahead_comes_by_the_broker(place):
    off = trusted(place, auto_registration=False)
    ahead, unknown = off.device(), off.device()
    place.stack.v1("POST", "/certs", {"pem": cert_pem(ahead.cert).decode()})
    retry(place, ahead)
    assert place.code(unknown.cert, unknown.key) == REFUSED
    time.sleep(1)
    assert place.code(unknown.cert, unknown.key) == REFUSED and certificates(place.stack, unknown.serial) == []


def test_the_factory_race_is_repaired_by_the_first_connect(place, jitp, tmp_path):
    """A batch of 200 whose certificates are on the devices; for 3 in 100 the registry was not written."""
    stack = place.stack
    batch = [jitp.device() for _ in range(200)]
    missed = batch[::33]
    lines = "".join(json.dumps({"CertificatePem": cert_pem(d.cert).decode(), "Site": "line-3"}) + "\n" for d in batch if d not in missed)
    (tmp_path / "batch.ndjson").write_text(lines)
    done = stack.cli("cert", "import", tmp_path / "batch.ndjson", "--template", "jit")
    assert done.stdout == f"{200 - len(missed)} imported, 0 duplicate, 0 rejected\n"
    wait_for("the broker to know them", lambda: place.metric("muster_gate_behind_seconds") == 0)
    refused = {d.serial for d in batch if retry(place, d)}
    assert refused == {d.serial for d in missed}
    wait_for("VERIFY", lambda: unverified(stack, [d.serial for d in batch]) == set())
    for d in batch:
        trail = stack.device(d.serial)["trail"]
        assert (trail[-1]["protocol"], trail[-1]["operation"]) == (("mqtt", "jitp") if d in missed else ("admin", "register"))
    shown = stack.cli("device", "show", missed[0].serial).stdout
    assert "registered" in shown and "jitp" in shown


def unverified(stack, serials):
    return {serial for (serial,) in stack.sql("SELECT serial FROM device WHERE serial = ANY (%s) AND state <> 'PROVISIONED'", serials)}


DEVICES = 1000


class Crowd:
    """Connections that all begin at once and try until they are in."""

    def __init__(self, place, devices, each):
        self.place, self.devices, self.each = place, devices, each
        self.barrier = threading.Barrier(len(devices) * each + 1)
        self.inside, self.failed, self.lock = 0, [], threading.Lock()
        self.files = {}
        for d in devices:
            file = place.folder / f"{d.serial}.pem"
            file.write_bytes(cert_pem(d.cert) + key_pem(d.key))
            self.files[d.serial] = file

    def attempt(self, d, n):
        try:
            with Mqtt(self.place.broker.port, self.place.broker.cafile, self.files[d.serial]) as c:
                return c.connect(f"{d.serial}-{n}") == 0
        except (Closed, OSError):
            return False

    def run(self, d, n):
        self.barrier.wait()
        end, pause = time.monotonic() + 240, 1  # as AWS's SDK: what comes sooner only keeps the others from being registered
        while time.monotonic() < end:
            if self.attempt(d, n):
                with self.lock:
                    self.inside += 1
                return
            time.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, 16)
        with self.lock:
            self.failed.append(d.serial)


def test_1000_devices_at_once_twice_each_through_two_replicas_one_of_which_dies(place, jitp, tmp_path):
    stack = place.stack
    (tmp_path / "second").mkdir()
    second = Replica(stack, tmp_path / "second")
    second.configure(**place.settings())
    second.start()
    try:
        place.ready(second)
        crowd = Crowd(place, [jitp.device() for _ in range(DEVICES)], 2)
        serials = [d.serial for d in crowd.devices]
        count = "SELECT count(*) FROM device WHERE serial = ANY (%s)"
        old = threading.stack_size(256 * 1024)
        threads = [threading.Thread(target=crowd.run, args=(d, n)) for d in crowd.devices for n in range(crowd.each)]
        [t.start() for t in threads]
        threading.stack_size(old)
        crowd.barrier.wait()
        wait_for("the first tenth", lambda: stack.one(count, serials) >= DEVICES // 10, 120)
        assert stack.one(count, serials) < DEVICES
        stack.stop(signal.SIGKILL)
        [t.join() for t in threads]
    finally:
        second.stop()
        stack.start()
        place.ready()
    assert crowd.failed == [] and crowd.inside == 2 * DEVICES
    assert stack.one(count, serials) == DEVICES
    assert stack.one("SELECT count(*) FROM thing WHERE name = ANY (%s)", [f"jit-{s}" for s in serials]) == DEVICES
    assert stack.one("SELECT count(*) FROM certificate c JOIN device d ON d.id = c.device_id WHERE d.serial = ANY (%s)", serials) == DEVICES
    assert stack.one("SELECT count(*) FROM certificate c JOIN device d ON d.id = c.device_id WHERE d.serial = ANY (%s)"
                     " AND NOT EXISTS (SELECT 1 FROM certificate_der x WHERE x.certificate_id = c.id)", serials) == 0
    assert stack.one("SELECT count(*) FROM outbox WHERE event = 'device.enrolled' AND payload->>'serial' = ANY (%s)", serials) == DEVICES
    # whose connect a dying replica was told of is verified by its next one
    missed = unverified(stack, serials)
    for d in crowd.devices:
        if d.serial in missed:
            assert place.code(d.cert, d.key) == 0
    wait_for("VERIFY", lambda: unverified(stack, serials) == set())
    assert stack.sql("SELECT outcome, detail FROM history WHERE serial = ANY (%s) AND outcome NOT IN ('ok', 'replayed')", serials) == []
