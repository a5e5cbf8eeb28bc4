"""Crashes: musterd is killed at random moments under 2,000 enrolments, PostgreSQL once. Nothing is lost."""
import http.client
import os
import random
import signal
import ssl
import threading
import time

import pytest

from client import Device, fingerprint, new_key, request
from stack import Refused, Stack, free_port, wait_for

ENROLMENTS = 2000
WORKERS = 12
KILLS = 6


class Drill:
    """Clients that never give up, and what they hold."""

    def __init__(self, stack, serials, tokens):
        self.stack = stack
        self.work = list(zip(serials, tokens))
        self.lock = threading.Lock()
        self.held = {}
        self.failures = []

    def enrol(self, serial, token):
        d = Device(self.stack, serial, "drill", token)
        key = new_key()
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                d.enrol(key=key)
                with self.lock:
                    self.held[serial] = fingerprint(d.cert)
                return
            except (OSError, http.client.HTTPException, ssl.SSLError):
                time.sleep(0.02)
            except Refused as e:
                if e.status != 503:
                    with self.lock:
                        self.failures.append((serial, e))
                    return
                time.sleep(0.02)
        self.failures.append((serial, "gave up"))

    def worker(self):
        while True:
            with self.lock:
                if not self.work:
                    return
                serial, token = self.work.pop()
            self.enrol(serial, token)

    def done(self):
        with self.lock:
            return len(self.held) + len(self.failures)


def test_kill_under_two_thousand_enrolments(tmp_path):
    with Stack(tmp_path) as stack:
        stack.seed()
        stack.v1("PUT", "/templates/drill?product=pump", {
            "Resources": {"t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Fn::Sub": "drill-${Muster::Serial}"}}}},
            "Muster": {"Credentials": ["token"], "Grace": "1h"}})
        stack.stop()
        stack.configure(listen__device_port=free_port(), listen__admin_port=free_port())
        stack.start()
        serials = [f"drill-{n:04d}" for n in range(ENROLMENTS)]
        stack.allow(*serials)
        tokens = [t["token"] for t in stack.v1("POST", "/tokens", {"template": "drill", "serials": serials})]
        drill = Drill(stack, serials, tokens)
        threads = [threading.Thread(target=drill.worker) for _ in range(WORKERS)]
        for t in threads:
            t.start()
        rng = random.Random(20261123)
        marks = sorted(rng.sample(range(100, ENROLMENTS - 200), KILLS))
        for number, mark in enumerate(marks):
            wait_for(f"{mark} enrolments", lambda: drill.done() >= mark or not any(t.is_alive() for t in threads), 300)
            time.sleep(rng.random() * 0.01)
            if number == KILLS // 2:
                stack.pg_stop("immediate")
                stack.pg_start()
            stack.stop(signal.SIGKILL)
            stack.start()
        for t in threads:
            t.join(300)
        assert drill.failures == []
        check_registry(stack, drill, serials)


def check_registry(stack, drill, serials):
    """What the issue promises, from the registry's side."""
    assert len(drill.held) == ENROLMENTS
    registered = dict(stack.sql("SELECT d.serial, encode(c.fingerprint, 'hex') FROM certificate c JOIN device d ON d.id = c.device_id"
                                " WHERE c.status IN ('pending', 'current')"))
    assert all(registered[serial] == fp for serial, fp in drill.held.items())
    assert stack.one("SELECT count(*), count(DISTINCT (product_id, serial_canonical)), count(DISTINCT thing_name) FROM device") == (ENROLMENTS,) * 3
    assert stack.one("SELECT count(*) FROM certificate") == ENROLMENTS
    assert stack.one("SELECT count(*) FROM token t WHERE (t.uses = 0) <> NOT EXISTS (SELECT 1 FROM token_use u WHERE u.token_id = t.id)") == 0
    assert stack.one("SELECT count(*) FROM token t JOIN token_use u ON u.token_id = t.id JOIN device d ON d.id = u.device_id"
                     " JOIN certificate c ON c.id = u.certificate_id WHERE t.uses = 1 AND d.serial_canonical = t.serial_canonical"
                     " AND c.device_id = d.id AND c.status = 'pending'") == ENROLMENTS
    assert stack.one("SELECT count(*) FROM certificate c LEFT JOIN certificate_der x ON x.certificate_id = c.id WHERE x.der IS NULL") == 0
    assert stack.one("SELECT count(*) FROM outbox WHERE event = 'device.enrolled'") == ENROLMENTS


def test_a_certificate_leaves_only_after_the_commit(fresh):
    """While the registry cannot commit, nobody gets a certificate."""
    token = fresh.mint("open", uses=3)
    Device(fresh, token=token).enrol()
    fresh.pg_stop("immediate")
    d = Device(fresh, token=token)
    with pytest.raises(Refused) as e:
        d.enrol()
    assert (e.value.status, e.value.code) == (503, "db.unavailable")
    assert 1 <= int(e.value.headers["retry-after"]) <= 10
    fresh.pg_start()
    assert wait_for("the registry", lambda: try_enrol(d))
    assert fresh.one("SELECT count(*) FROM certificate c JOIN device d ON d.id = c.device_id WHERE d.serial = %s", d.serial) == 1


def try_enrol(d):
    try:
        return d.enrol()
    except Refused as e:
        assert e.status == 503, e
        return None


def test_readiness_follows_the_database_and_sigterm_drains(fresh):
    assert request(fresh, "GET", "/readyz")[0] == 200
    fresh.pg_stop("immediate")
    assert request(fresh, "GET", "/healthz")[0] == 200
    assert request(fresh, "GET", "/readyz")[0] == 503
    fresh.pg_start()
    wait_for("readiness", lambda: request(fresh, "GET", "/readyz")[0] == 200)
    token = fresh.mint("open", uses=100)
    results = []

    def enrol():
        try:
            results.append(Device(fresh, token=token).enrol())
        except (OSError, http.client.HTTPException, ssl.SSLError):
            results.append(None)  # not accepted any more
        except Refused as e:
            assert e.code == "load.draining", e
            results.append(None)

    threads = [threading.Thread(target=enrol) for _ in range(24)]
    for t in threads:
        t.start()
    wait_for("a first answer", lambda: results)
    assert fresh.stop(signal.SIGTERM) == 0
    for t in threads:
        t.join()
    given = [r for r in results if r]
    assert fresh.one("SELECT count(*) FROM certificate") == len(given)


def backends(stack):
    """Process ids of the server's side of musterd's connections."""
    return [row[0] for row in stack.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'musterd'")]


def test_a_registry_that_hangs_is_given_up(tmp_path):
    """Its backends are stopped in the middle: connections stand, nothing answers."""
    with Stack(tmp_path) as stack:
        stack.seed()
        stack.stop()
        stack.configure(database__statement_timeout_ms=1000, database__pool_size=2)
        stack.start()
        token = stack.mint("open", uses=5)
        Device(stack, token=token).enrol()
        pids = backends(stack)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(Refused) as e:
                for _ in range(4):
                    Device(stack, token=token).enrol()
            assert (e.value.status, e.value.code) == (503, "db.unavailable")
            assert time.monotonic() - began < 20
            # new connections find a server that answers
            assert wait_for("the registry", lambda: try_enrol(Device(stack, token=token)))
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
