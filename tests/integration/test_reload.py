"""SIGHUP, sd_notify and the watchdog. Also run under ThreadSanitizer."""
import http.client
import os
import signal
import socket
import subprocess
import threading

import pytest

from client import Device, request, tls_context
from stack import Refused, wait_for


def records(stack, event):
    return [r for r in stack.log_records() if r["event"] == event]


def hup(stack, event):
    """Sends SIGHUP and waits for one more record of the event."""
    before = len(records(stack, event))
    stack.process.send_signal(signal.SIGHUP)
    wait_for(event, lambda: len(records(stack, event)) > before)
    return records(stack, event)[-1]


def refused_code(stack, **device):
    with pytest.raises(Refused) as e:
        Device(stack, **device).enrol()
    return e.value.code


def test_limits_templates_and_level_change_on_an_open_connection(fresh):
    c = http.client.HTTPSConnection("127.0.0.1", fresh.port, context=tls_context(fresh), timeout=30)

    def ask():
        c.request("GET", "/.well-known/est/csrattrs")
        answer = c.getresponse()
        answer.read()
        return answer.status

    assert ask() in (200, 204)
    sock = c.sock
    token = fresh.mint("open", uses=5)
    Device(fresh, token=token).enrol()
    fresh.configure(enrol__default_template="", enrol__refused_tokens_burst=1, enrol__refused_tokens_per_source_s=1,
                    listen__max_inside=7, listen__max_waiting=9, listen__device_port=4, log__level="debug")
    hup(fresh, "config.reloaded")
    assert ask() == 404 and c.sock is sock
    assert refused_code(fresh, token=token) == "template.no_default"
    changed = {r["key"] for r in records(fresh, "config.changed")}
    assert changed == {"enrol.default_template", "enrol.refused_tokens_burst", "enrol.refused_tokens_per_source_s",
                       "listen.max_inside", "listen.max_waiting", "log.level"}
    assert {r["key"] for r in records(fresh, "config.needs_restart")} == {"listen.device_port"}
    _, _, text = fresh.admin("GET", "/metrics", raw=True)
    assert b'muster_gate_max_inside{listener="device"} 7\n' in text and b'muster_gate_max_waiting{listener="device"} 9\n' in text
    codes = {refused_code(fresh, template="open", token="mst_wrong") for _ in range(4)}
    assert "load.rate_limited" in codes


def test_a_broken_file_changes_nothing(fresh):
    good = fresh.config.read_text()
    fresh.config.write_text(good.replace("default_template = open", "default_template =") + "[listen]\nnonsense = 1\n")
    assert "no key [listen] nonsense" in hup(fresh, "config.reload_refused")["reason"]
    fresh.config.write_text(good.replace("default_template = open", "default_template =") + "[log]\nlevel = loud\n")
    assert "level" in hup(fresh, "config.reload_refused")["reason"]
    fresh.config.write_text(good.replace("default_template = open", "default_template ="))
    key = (fresh.folder / "server.key").read_text()
    (fresh.folder / "server.key").write_text("broken")
    assert "certificate" in hup(fresh, "config.reload_refused")["reason"]
    Device(fresh, token=fresh.mint("open")).enrol()
    assert b"muster_config_last_reload_successful 0\n" in fresh.admin("GET", "/metrics", raw=True)[2]
    (fresh.folder / "server.key").write_text(key)
    hup(fresh, "config.reloaded")
    assert refused_code(fresh, token=fresh.mint("open")) == "template.no_default"
    assert b"muster_config_last_reload_successful 1\n" in fresh.admin("GET", "/metrics", raw=True)[2]


def test_an_issuing_key_that_came_late_is_loaded(fresh):
    fresh.stop()
    key = fresh.folder / "ca/issuing-1.key"
    key.rename(key.with_suffix(".away"))
    fresh.start()
    assert request(fresh, "GET", "/readyz")[0] == 503
    key.with_suffix(".away").rename(key)
    hup(fresh, "config.reloaded")
    wait_for("an issuer", lambda: request(fresh, "GET", "/readyz")[0] == 200)


def test_reloads_under_load_lose_no_request(fresh):
    token = fresh.mint("open", uses=1000)
    texts = []
    for n in (3, 5):
        fresh.configure(listen__max_inside=n, trail__records_per_source_s=n, retention__audit_days=3650 + n)
        texts.append(fresh.config.read_text())
    done, failures = threading.Event(), []

    def enrol():
        while not done.is_set():
            try:
                Device(fresh, token=token).enrol()
            except Exception as e:
                failures.append(repr(e))

    def hold():
        c = http.client.HTTPSConnection("127.0.0.1", fresh.port, context=tls_context(fresh), timeout=30)
        c.connect()
        sock = c.sock
        while not done.is_set():
            c.request("GET", "/readyz")
            if c.getresponse().read() != b"ready\n" or c.sock is not sock:
                failures.append("the connection was not kept")
                return

    threads = [threading.Thread(target=f) for f in (enrol, enrol, enrol, hold)]
    for t in threads:
        t.start()
    for n in range(12):
        fresh.config.write_text(texts[n % 2])
        hup(fresh, "config.reloaded")
    done.set()
    for t in threads:
        t.join()
    assert failures == []


class Notified:
    """The socket systemd listens on."""

    def __init__(self, folder):
        self.path = str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(30)

    def next(self):
        return self.socket.recv(4096).decode().split("\n")

    def until(self, word):
        for _ in range(100):
            message = self.next()
            if word in message:
                return message
        raise AssertionError(word)


@pytest.fixture
def watched(fresh, monkeypatch):
    fresh.stop()
    notified = Notified(fresh.folder)
    monkeypatch.setenv("NOTIFY_SOCKET", notified.path)
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    fresh.start()
    monkeypatch.undo()
    return fresh, notified


def test_systemd_is_told(watched):
    stack, notified = watched
    assert "STATUS=Serving" in notified.until("READY=1")
    assert notified.next() == ["WATCHDOG=1"]
    stack.process.send_signal(signal.SIGHUP)
    reloading = notified.until("RELOADING=1")
    (usec,) = [int(line.split("=")[1]) for line in reloading if line.startswith("MONOTONIC_USEC=")]
    assert usec > 0
    assert "STATUS=Serving" in notified.until("READY=1")
    stack.config.write_text("broken")
    stack.process.send_signal(signal.SIGHUP)
    assert any("refused" in line for line in notified.until("READY=1"))
    stack.process.send_signal(signal.SIGTERM)
    notified.until("STOPPING=1")


def test_the_watchdog_starves_when_nobody_answers(watched):
    """With every descriptor gone nothing is accepted any more, though the process lives."""
    stack, notified = watched
    notified.until("WATCHDOG=1")
    pid = stack.process.pid
    used = max(int(n) for n in os.listdir(f"/proc/{pid}/fd")) + 1
    subprocess.run(["prlimit", f"--pid={pid}", f"--nofile={used}:"], check=True)
    held = []
    for _ in range(used):
        held.append(socket.create_connection(("127.0.0.1", stack.admin_port)))
        if any(r["event"] == "watchdog.no_answer" for r in stack.log_records()):
            break
    wait_for("no answer", lambda: records(stack, "watchdog.no_answer"))
    for s in held:
        s.close()
    subprocess.run(["prlimit", f"--pid={pid}", "--nofile=1024:"], check=True)
    wait_for("an answer", lambda: request(stack, "GET", "/healthz", port=stack.admin_port)[0] == 200)
    notified.until("WATCHDOG=1")
