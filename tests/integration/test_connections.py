"""Connections that send slowly, wrongly or nothing: ended in time, counted, and explained in the log."""
import contextlib
import http.client
import os
import re
import select
import socket
import ssl
import struct
import subprocess
import threading
import time

import psycopg2
import pytest

from client import Device, request, tls_context
from stack import Stack, wait_for


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """A request may take two seconds; silence may last longer."""
    with Stack(tmp_path_factory.mktemp("hasty")) as stack:
        stack.seed()
        stack.stop()
        stack.configure(listen__request_timeout_s=2, listen__idle_timeout_s=30, log__level="debug")
        stack.start()
        yield stack


def connect(stack, port=None):
    raw = socket.create_connection(("127.0.0.1", port or stack.port), timeout=20)
    return tls_context(stack).wrap_socket(raw, server_hostname="127.0.0.1")


def counted(stack, listener="device"):
    text = stack.admin("GET", "/metrics", raw=True)[2].decode()
    return int(re.search(rf'muster_connections_without_request_total{{listener="{listener}"}} (\d+)', text).group(1))


def unasked(stack):
    return stack.metric("muster_connections_unasked")


def records_of(stack, **fields):
    return [r for r in stack.log_records() if r["event"] == "connection.without_request" and fields.items() <= r.items()]


def explained(stack, before, **fields):
    """The newest record with these fields, once the connection is counted."""
    wait_for("the count", lambda: counted(stack) > before)
    return wait_for(f"a record with {fields}", lambda: records_of(stack, **fields))[-1]


def drip(tls, piece, seconds=15):
    """Sends one byte after the other until the server has enough; returns how long that took."""
    start = time.monotonic()
    tls.settimeout(0.1)
    while time.monotonic() - start < seconds:
        try:
            tls.sendall(piece)
            if tls.recv(1) == b"":
                break
        except TimeoutError:
            continue
        except OSError:
            break
    tls.close()
    return time.monotonic() - start


def test_a_client_that_drips_its_headers_is_cut_off(hasty):
    before = counted(hasty)
    tls = connect(hasty)
    tls.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Drip: ")
    assert 1 < drip(tls, b"a") < 6
    record = explained(hasty, before, reason="no request followed the handshake")
    assert record["handshake"] == "FINISHED" and record["client_offers"] == "TLS 1.3" and 1500 < record["ms"] < 6000


def test_a_client_that_drips_its_body_is_cut_off(hasty):
    tls = connect(hasty)
    tls.sendall(b"POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: x\r\nContent-Type: application/pkcs10\r\nContent-Length: 9999\r\n\r\n")
    assert 1 < drip(tls, b"A") < 6


def test_a_client_that_drips_its_handshake_is_cut_off(hasty):
    raw = socket.create_connection(("127.0.0.1", hasty.port), timeout=20)
    raw.sendall(bytes.fromhex("1603010200010001fc0303"))
    assert 1 < drip(raw, b"\0") < 6


def test_the_time_begins_anew_with_every_answer(hasty):
    tls = connect(hasty)
    start = time.monotonic()
    answers = 0
    while time.monotonic() - start < 4:
        tls.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"ok\n"):
            answer += tls.recv(65536)
        answers += 1
        assert select.select([tls], [], [], 0.5)[0] == [], "it was closed, or said more than the answer"
    assert answers >= 6
    tls.settimeout(10)
    while tls.recv(65536):
        pass
    assert time.monotonic() - start < 12
    tls.close()


def test_a_request_that_is_worked_on_may_take_longer(hasty):
    token, answer = hasty.mint("open", uses=5), []
    holder = psycopg2.connect(host="127.0.0.1", port=hasty.pg_port, user="muster", dbname="muster", options="-c search_path=muster")
    with holder.cursor() as cursor:
        cursor.execute("LOCK TABLE token IN ACCESS EXCLUSIVE MODE")
        thread = threading.Thread(target=lambda: answer.append(Device(hasty, token=token).enrol()))
        start = time.monotonic()
        thread.start()
        thread.join(4)
        assert thread.is_alive() and time.monotonic() - start > 3.5
        holder.rollback()
    holder.close()
    thread.join(30)
    assert len(answer) == 1


def openssl(stack, *args):
    subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{stack.port}", *args], input=b"", capture_output=True, timeout=30)


def test_a_client_of_tls_1_1_is_recognised(hasty):
    before = counted(hasty)
    openssl(hasty, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    record = explained(hasty, before, client_offers="TLS 1.1")
    assert record["reason"] == "the client offers no TLS 1.2 or 1.3"
    assert (record["listener"], record["source"]) == ("device", "127.0.0.1")


@pytest.mark.parametrize("version", ["1_2", "1_3"])
def test_a_client_that_does_not_trust_us_is_recognised(hasty, version):
    before = counted(hasty)
    openssl(hasty, "-tls" + version, "-verify_return_error")
    record = explained(hasty, before, alert="CA is unknown", client_offers="TLS " + version.replace("_", "."))
    assert record["reason"] == "the client refused the handshake with an alert"


def test_a_client_that_speaks_plain_http_is_recognised(hasty):
    before = counted(hasty)
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=20) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        raw.recv(100)
    assert explained(hasty, before, reason="plain HTTP was sent, not TLS")["client_offers"] is None


def test_what_is_no_tls_and_what_breaks_off(hasty):
    for sent, reason in ((b"\0\1\2\3garbage", "what was sent is not TLS"), (bytes.fromhex("1603010200010001fc0303"), "the ClientHello is not whole")):
        before = counted(hasty)
        with socket.create_connection(("127.0.0.1", hasty.port), timeout=20) as raw:
            raw.sendall(sent)
        explained(hasty, before, reason=reason)


def test_connecting_and_leaving_is_counted_and_no_news(hasty):
    before = counted(hasty)
    socket.create_connection(("127.0.0.1", hasty.port)).close()
    assert explained(hasty, before, reason="nothing was sent")["level"] == "debug"


def test_a_request_is_not_counted(hasty):
    before = counted(hasty)
    for _ in range(3):
        assert request(hasty, "GET", "/healthz")[0] == 200
    assert counted(hasty) == before


def test_the_log_is_sampled_and_the_count_is_whole(fresh):
    before = counted(fresh)
    for _ in range(60):
        with socket.create_connection(("127.0.0.1", fresh.port), timeout=20) as raw:
            raw.sendall(b"nonsense")
    wait_for("the count", lambda: counted(fresh) == before + 60)
    assert 10 <= len(records_of(fresh, reason="what was sent is not TLS")) <= 40


def test_connections_past_the_limit_are_closed_and_room_comes_back(tmp_path):
    with Stack(tmp_path) as stack:
        stack.stop()
        stack.configure(listen__max_connections=16, log__level="debug")
        stack.start()
        held = [connect(stack) for _ in range(16)]
        with pytest.raises((OSError, ssl.SSLError)):
            connect(stack)
        wait_for("the reason", lambda: records_of(stack, reason="max_connections is reached"))
        for tls in held:
            tls.close()

        def answers():
            try:
                return request(stack, "GET", "/healthz")[0] == 200
            except OSError:
                return False
        wait_for("room", answers)


def test_no_place_is_lost_whatever_clients_do(tmp_path):
    """Clients that break off anywhere, and requests between them; then every place is free again."""
    def misbehave(stack, number):
        with contextlib.suppress(OSError):
            raw = socket.create_connection(("127.0.0.1", stack.port), timeout=20)
            if number % 5 == 0:
                raw.sendall(b"nonsense")
            elif number % 5 == 1:
                raw.sendall(bytes.fromhex("1603010200010001fc0303"))
            elif number % 5 > 2:
                raw = tls_context(stack).wrap_socket(raw, server_hostname="127.0.0.1")
                if number % 5 == 4:
                    raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            if number % 2:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()

    with Stack(tmp_path) as stack:
        stack.stop()
        stack.configure(listen__max_connections=16)
        stack.start()
        threads = [threading.Thread(target=lambda n=n: [misbehave(stack, n + i) for i in range(60)]) for n in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

        def all_places():
            held = []
            with contextlib.suppress(OSError):
                held += [connect(stack) for _ in range(16)]
                for tls in held:
                    tls.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert tls.recv(12) == b"HTTP/1.1 200"
                return True
        wait_for("every place", all_places)


def test_connections_of_one_address_are_limited(tmp_path):
    with Stack(tmp_path) as stack:
        stack.stop()
        stack.configure(listen__max_connections_per_address=3, log__level="debug")
        stack.start()
        held = [connect(stack) for _ in range(3)]
        with pytest.raises((OSError, ssl.SSLError)):
            connect(stack)
        wait_for("the reason", lambda: records_of(stack, reason="max_connections_per_address is reached"))
        other = socket.create_connection(("127.0.0.1", stack.port), timeout=20, source_address=("127.0.0.2", 0))
        tls_context(stack).wrap_socket(other, server_hostname="127.0.0.1").close()
        for tls in held:
            tls.close()


def test_descriptors_that_run_out_cost_no_cpu_and_come_back(tmp_path):
    with Stack(tmp_path) as stack:
        held = [socket.create_connection(("127.0.0.1", stack.port)) for _ in range(100)]
        wait_for("them to be accepted", lambda: descriptors(stack) > 100)
        subprocess.run(["prlimit", "--pid", str(stack.process.pid), f"--nofile={descriptors(stack)}:1024"], check=True)
        more = [socket.create_connection(("127.0.0.1", stack.port)) for _ in range(10)]
        before, start = cpu_seconds(stack.process.pid), time.monotonic()
        time.sleep(1)
        assert (cpu_seconds(stack.process.pid) - before) / (time.monotonic() - start) < 0.25
        assert ["Too many open files"] == [r["reason"] for r in stack.log_records() if r["event"] == "connection.not_accepted"]
        for s in held:
            s.close()
        wait_for("room", lambda: descriptors(stack) < 100)
        assert request(stack, "GET", "/healthz")[0] == 200
        for s in more:
            s.close()


def descriptors(stack):
    return len(os.listdir(f"/proc/{stack.process.pid}/fd"))


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_connections_that_have_not_asked_are_counted_while_they_last(fresh):
    wait_for("earlier connections to end", lambda: unasked(fresh) == 0)
    silent = [socket.create_connection(("127.0.0.1", fresh.port), timeout=20) for _ in range(3)]
    shaken = http.client.HTTPSConnection("127.0.0.1", fresh.port, context=tls_context(fresh), timeout=20)
    shaken.connect()
    wait_for("all four to be counted", lambda: unasked(fresh) == 4)
    for _ in range(2):
        shaken.request("GET", "/healthz")
        assert shaken.getresponse().read() == b"ok\n"
        assert unasked(fresh) == 3
    shaken.close()
    for raw in silent:
        raw.close()
    wait_for("none to be left", lambda: unasked(fresh) == 0)
