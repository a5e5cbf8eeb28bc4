"""HAProxy in front, configured as docs/operations.md says: TLS passed through, and TLS ended there."""
import base64
import contextlib
import http.client
import re
import socket
import ssl
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from client import EST, Device, cert_pem, certs_of, key_pem, name_of, new_csr, new_key, request, tls_context, unique
from factory import Authority
from stack import ROOT, Stack, free_port, wait_for

CLIENT = "127.0.0.33"
PROXY_SOURCE = "127.0.0.34"


def snippet(name):
    """The configuration of that name in the manual."""
    text = (ROOT / "docs" / "operations.md").read_text()
    return re.search(rf"<!-- haproxy {name} -->\n```haproxy\n(.*?)```", text, re.S).group(1)


class Balancer:
    """HAProxy with a snippet of the manual; its addresses and files are replaced by ours."""

    def __init__(self, folder, name, server_port, files):
        self.folder, self.port = folder, free_port()
        text = snippet(name).replace("bind :8443", f"bind 127.0.0.1:{self.port}")
        text = re.sub(r"server replica-1 \S+", f"server replica-1 127.0.0.1:{server_port} source {PROXY_SOURCE}", text)
        text = re.sub(r"    server replica-2 .*\n", "", text)
        for theirs, ours in files.items():
            assert theirs in text
            text = text.replace(theirs, str(ours))
        assert "/etc/" not in text and "10.0.0." not in text
        self.config = folder / f"{name}.cfg"
        self.config.write_text("global\n    maxconn 200\ndefaults\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n" + text)

    def __enter__(self):
        self.log = open(self.folder / "haproxy.log", "ab")
        self.process = subprocess.Popen(["haproxy", "-db", "-f", self.config], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        wait_for("HAProxy", lambda: self.answers() or self.process.poll() is not None)
        assert self.process.poll() is None, (self.folder / "haproxy.log").read_text()[-2000:]
        return self

    def answers(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True

    def __exit__(self, *exc):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


class Via:
    """The stack as a device sees it behind the balancer."""

    def __init__(self, stack, balancer):
        self.stack, self.port, self.cafile = stack, balancer.port, stack.cafile


def ask(via, method, path, body=None, headers=None, chain=None, key=None):
    """A request from an address that is not the balancer's."""
    c = http.client.HTTPSConnection("127.0.0.1", via.port, context=tls_context(via, chain, key), timeout=30, source_address=(CLIENT, 0))
    try:
        c.request(method, path, body=body, headers=headers or {})
        answer = c.getresponse()
        return answer.status, answer.read()
    finally:
        c.close()


def enrol(via, serial, cert, factory_key, key):
    return ask(via, "POST", EST + "/factory/simpleenroll", base64.b64encode(new_csr(key, serial)), {"Content-Type": "application/pkcs10"}, [cert], factory_key)


def trail_source(stack, serial):
    return stack.one("SELECT source FROM history WHERE serial = %s ORDER BY at DESC LIMIT 1", serial)


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    """A stack that takes PROXY headers from HAProxy's address and has a proxy listener."""
    folder = tmp_path_factory.mktemp("behind")
    with Stack(folder) as stack:
        stack.seed()
        stack.proxies = Authority("Proxies")
        (folder / "proxies.pem").write_bytes(cert_pem(stack.proxies.cert))
        stack.stop()
        stack.configure(listen__proxy_protocol_from=PROXY_SOURCE, proxy__address="127.0.0.1", proxy__port=0,
                        proxy__client_ca=folder / "proxies.pem", proxy__names="balancer.example")
        stack.start()
        stack.factory = Authority("Factory Behind")
        stack.factory.register(stack, "factory-behind")
        yield stack


@pytest.fixture(scope="module")
def passthrough(behind):
    with Balancer(behind.folder, "passthrough", behind.port, {"/etc/haproxy/muster-root.pem": behind.cafile}) as balancer:
        yield Via(behind, balancer)


def pem_of(folder, name, chain, key):
    (folder / name).write_bytes(b"".join(cert_pem(c) for c in chain) + key_pem(key))
    return folder / name


@pytest.fixture(scope="module")
def termination(behind):
    folder, key = behind.folder, new_key()
    proxy = pem_of(folder, "proxy.pem", [behind.proxies.sign(name_of("haproxy"), key.public_key(), san=[x509.DNSName("balancer.example")])], key)
    (folder / "site.pem").write_bytes((folder / "server.pem").read_bytes() + (folder / "server.key").read_bytes())
    (folder / "any-ca.pem").write_bytes(cert_pem(Authority("Any CA").cert))
    files = {"/etc/haproxy/muster-root.pem": behind.cafile, "/etc/haproxy/proxy.pem": proxy,
             "/etc/haproxy/est.example.com.pem": folder / "site.pem", "/etc/haproxy/any-ca.pem": folder / "any-ca.pem"}
    with Balancer(folder, "termination", behind.proxy_port, files) as balancer:
        yield Via(behind, balancer)


@pytest.fixture(params=["passthrough", "termination"])
def via(request):
    return request.getfixturevalue(request.param)


def ready(via):
    """HAProxy has found its server healthy, or not yet failed: a request goes through."""
    def once():
        with contextlib.suppress(OSError, http.client.HTTPException):
            return ask(via, "GET", "/readyz")[0] == 200
    wait_for("the balancer", once)


def test_a_device_lives_behind_it(behind, via):
    """Enrolment with the factory certificate, VERIFY and renewal with its own: its address is in the trail."""
    ready(via)
    serial, key = unique(), new_key()
    cert, factory_key = behind.factory.device(serial)
    status, body = enrol(via, serial, cert, factory_key, key)
    assert status == 200, body
    assert trail_source(behind, serial) == CLIENT
    (issued,) = certs_of(body)
    status, body = ask(via, "GET", "/v1/device/config", chain=[issued], key=key)
    assert status == 200 and behind.state(serial) == "PROVISIONED", body
    fresh_key = new_key()
    status, body = ask(via, "POST", EST + "/simplereenroll", base64.b64encode(new_csr(fresh_key, issued.subject)),
                       {"Content-Type": "application/pkcs10"}, [issued], key)
    assert status == 200, body
    (renewed,) = certs_of(body)
    assert ask(via, "GET", "/v1/device/config", chain=[renewed], key=fresh_key)[0] == 200
    assert trail_source(behind, serial) == CLIENT


def test_an_unknown_ca_is_explained(behind, via):
    ready(via)
    serial = unique()
    cert, key = Authority("Unknown Behind").device(serial)
    status, body = enrol(via, serial, cert, key, new_key())
    assert status == 403 and b"ca.not_registered" in body and b"Unknown Behind" in body


def test_no_certificate_is_none(via):
    ready(via)
    status, body = ask(via, "GET", "/v1/device/config")
    assert status == 401 and b"auth.required" in body


def test_a_clients_own_header_is_worth_nothing(behind, passthrough, termination):
    cert, _ = behind.factory.device(unique())
    mine = {"Client-Cert": f":{base64.b64encode(cert.public_bytes(serialization.Encoding.DER)).decode()}:",
            "X-Forwarded-For": "192.0.2.66"}
    ready(passthrough)
    ready(termination)
    status, body = ask(passthrough, "GET", "/v1/device/config", headers=mine)
    assert status == 400 and b"proxy.header_refused" in body
    path = unique("/v1/none")
    status, body = ask(termination, "GET", "/v1/device/config", headers=mine)
    assert status == 401 and b"auth.required" in body
    ask(termination, "GET", path, headers=mine)
    assert wait_for("the record", lambda: [r["source"] for r in behind.log_records() if r.get("path") == path]) == [CLIENT]


def test_a_handshake_that_fails_behind_it_names_the_device(behind, passthrough):
    ready(passthrough)
    raw = socket.create_connection(("127.0.0.1", passthrough.port), timeout=20, source_address=("127.0.0.35", 0))
    with pytest.raises(ssl.SSLError):
        ssl.create_default_context().wrap_socket(raw, server_hostname="127.0.0.1")
    raw.close()
    record = wait_for("the record", lambda: [r for r in behind.log_records() if r["event"] == "connection.without_request" and r["source"] == "127.0.0.35"])[0]
    assert record["alert"] == "CA is unknown"


def test_a_device_knows_nothing_of_it(behind, passthrough):
    """The whole life of a device with a token, by the client that the other tests use."""
    ready(passthrough)
    device = Device(behind, token=behind.mint("open"))
    device.stack = passthrough
    device.enrol()
    assert device.config() and device.renew()
    assert request(passthrough, "GET", EST + "/cacerts")[0] == 200


@pytest.mark.parametrize("listener", ["device", "proxy"])
def test_its_health_checks_come_through(behind, passthrough, termination, listener):
    """As the balancer's own requests."""
    def healthy():
        return [r for r in behind.log_records() if (r.get("path"), r.get("source"), r.get("listener"), r.get("status")) ==
                ("/readyz", PROXY_SOURCE, listener, 200)]
    wait_for("a health check", healthy)
