"""Behind a balancer: the PROXY protocol, and the listener that believes RFC 9440 headers of proxies."""
import base64
import http.client
import ipaddress
import os
import socket
import ssl
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID

from client import EST, Device, basic, cert_pem, certs_of, name_of, new_csr, new_key, request, tls_context, unique
from factory import Authority
from stack import Refused, Stack, wait_for

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
BALANCER = "127.0.0.9"
NAME = "balancer.example"


def der(cert):
    return cert.public_bytes(serialization.Encoding.DER)


def sequence(data):
    return f":{base64.b64encode(data).decode()}:"


def forwarded(*chain):
    """The headers of a proxy whose client presented this chain."""
    headers = {"Client-Cert": sequence(der(chain[0]))}
    if chain[1:]:
        headers["Client-Cert-Chain"] = ", ".join(sequence(der(c)) for c in chain[1:])
    return headers


class Balanced(Stack):
    """A stack with all doors open: balancers at 127.0.0.9 and fd00::/8, proxies of a CA of their own."""

    def start(self):
        if self.token:
            self.proxy_ca = Authority("Proxy CA")
            (self.folder / "proxies.pem").write_bytes(cert_pem(self.proxy_ca.cert))
            self.configure(listen__proxy_protocol_from=f"{BALANCER}, fd00::/8", proxy__address="127.0.0.1", proxy__port=0,
                           proxy__client_ca=self.folder / "proxies.pem", proxy__names=f"other.example, {NAME}",
                           listen__max_connections_per_address=40, log__level="debug")
            self.identity = self.proxy("haproxy-1", san=[x509.DNSName(NAME)])
        super().start()

    def proxy(self, cn, ca=None, key=None, **kw):
        """(chain, key) of a proxy."""
        key = key or new_key()
        return [(ca or self.proxy_ca).sign(name_of(cn), key.public_key(), **kw)], key


@pytest.fixture(scope="module")
def balanced(tmp_path_factory):
    with Balanced(tmp_path_factory.mktemp("balanced")) as stack:
        stack.seed()
        yield stack


# the PROXY protocol

def v2(source="192.0.2.7", command=0x21, family=None, behind=b""):
    """A header that says the client is at `source`."""
    address = ipaddress.ip_address(source)
    to = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    content = address.packed + to.packed + (40000).to_bytes(2, "big") + (443).to_bytes(2, "big") + behind
    kind = family if family is not None else 0x11 if address.version == 4 else 0x21
    return SIGNATURE + bytes([command, kind]) + len(content).to_bytes(2, "big") + content


def connect(stack, first=(), source=BALANCER):
    """A TLS connection from `source` that begins with these pieces."""
    raw = socket.create_connection(("127.0.0.1", stack.port), timeout=20, source_address=(source, 0))
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in first:
        raw.sendall(piece)
    return raw


def ask(stack, raw, method="GET", path="/healthz", body=None, headers=None, chain=None, key=None):
    """One request over a socket that is connected; (status, body)."""
    c = http.client.HTTPSConnection("127.0.0.1", stack.port, timeout=20)
    c.sock = tls_context(stack, chain, key).wrap_socket(raw, server_hostname="127.0.0.1")
    try:
        c.request(method, path, body=body, headers=headers or {})
        answer = c.getresponse()
        return answer.status, answer.read()
    finally:
        c.close()


def source_logged(stack, raw):
    """The source that the log has of a request over this socket."""
    agent = unique("/v1/none")
    assert ask(stack, raw, path=agent)[0] == 404
    return wait_for("the record", lambda: [r["source"] for r in stack.log_records() if r.get("path") == agent])[0]


@pytest.mark.parametrize("source", ["192.0.2.7", "2001:db8::7"])
def test_the_header_says_who_is_there(balanced, source):
    assert source_logged(balanced, connect(balanced, [v2(source)])) == source
    assert source_logged(balanced, connect(balanced, [v2(source, behind=b"\x04\x00\x02\x00\x00")])) == source


def test_the_header_may_come_byte_by_byte_and_others_do_not_wait(balanced):
    raw = connect(balanced)
    for byte in v2():
        raw.sendall(bytes([byte]))
        if byte == 0x51:
            assert request(balanced, "GET", "/healthz")[0] == 200
    assert source_logged(balanced, raw) == "192.0.2.7"


@pytest.mark.parametrize("header", [v2(command=0x20), SIGNATURE + b"\x20\0\0\0", SIGNATURE + b"\x21\0\0\x02zz"])
def test_a_health_check_of_the_balancer_is_its_own(balanced, header):
    assert source_logged(balanced, connect(balanced, [header])) == BALANCER


def ends(raw):
    """Whether the server closes, without a word."""
    raw.settimeout(15)
    try:
        return raw.recv(100) == b""
    except ConnectionResetError:
        return True
    finally:
        raw.close()


@pytest.mark.parametrize("first", [
    b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"PROXY TCP4 192.0.2.7 127.0.0.1 40000 443\r\n", b"\x16\x03\x01\x02\x00" + bytes(40),
    v2(command=0x11), v2(command=0x2f), v2(family=0x12), v2(family=0x31), v2(family=0x21), v2()[:-1],
    SIGNATURE + b"\x21\x11\xff\xff" + bytes(100), SIGNATURE[:-1] + b"x" + v2()[12:]],
    ids=["http", "version 1", "tls", "version", "command", "udp", "unix", "family", "short", "long", "signature"])
def test_a_balancer_that_sends_something_else_is_cut_off(balanced, first):
    raw = connect(balanced, [first])
    if first == v2()[:-1]:
        raw.shutdown(socket.SHUT_WR)
    assert ends(raw)


def test_a_balancer_that_sends_nothing_is_cut_off(balanced):
    assert ends(connect(balanced))
    assert [r for r in balanced.log_records() if r.get("reason") == "the PROXY header did not come in time"]


def test_many_silent_balancers_block_nobody(balanced):
    silent = [connect(balanced) for _ in range(300)]
    assert request(balanced, "GET", "/healthz")[0] == 200
    assert source_logged(balanced, connect(balanced, [v2()])) == "192.0.2.7"
    for raw in silent:
        raw.close()


def test_from_everybody_else_no_header_is_read(balanced):
    """Spoofing: another address of the same host is nobody's balancer."""
    for source in ("127.0.0.1", "127.0.0.2"):
        with pytest.raises((ssl.SSLError, OSError)):
            ask(balanced, connect(balanced, [v2()], source=source))
        assert source_logged(balanced, connect(balanced, source=source)) == source


def test_a_balancer_may_not_leave_it_out(balanced):
    with pytest.raises((ssl.SSLError, OSError)):
        ask(balanced, connect(balanced))


def test_limits_count_the_clients_address(balanced):
    held = [connect(balanced, [v2("198.51.100.1")]) for _ in range(40)]
    tls = [tls_context(balanced).wrap_socket(raw, server_hostname="127.0.0.1") for raw in held]
    with pytest.raises((ssl.SSLError, OSError)):
        ask(balanced, connect(balanced, [v2("198.51.100.1")]))
    assert ask(balanced, connect(balanced, [v2("198.51.100.2")]))[0] == 200
    for t in tls:
        t.close()


def test_a_clients_own_header_through_passthrough_is_refused(balanced):
    authority = Authority("Passed Through")
    cert, _ = authority.device(unique())
    status, body = ask(balanced, connect(balanced, [v2()]), headers=forwarded(cert))
    assert status == 400 and b"proxy.header_refused" in body


def test_a_list_of_balancers_that_does_not_parse_ends_the_start(tmp_path):
    with Stack(tmp_path) as stack:
        stack.stop()
        stack.configure(listen__proxy_protocol_from="balancer.example")
        done = stack.musterd("serve", check=False)
        assert done.returncode == 1 and "proxy_protocol_from" in done.stderr


# the proxy listener

def through(stack, method, path, body=None, headers=None, identity=None, port=None):
    chain, key = identity or stack.identity
    status, got, answer = request(stack, method, path, body, headers, chain, key, port=port or stack.proxy_port)
    return status, got, answer


def through_code(stack, *args, **kw):
    """The fault's code; 'ok' for a success."""
    status, _, body = through(stack, *args, **kw)
    if status < 400:
        return "ok"
    return body.decode().split('"code":"')[1].split('"')[0]


def enrol_through(stack, serial, chain, key=None, more=None, **kw):
    headers = {"Content-Type": "application/pkcs10", **forwarded(*chain), **(more or {})}
    status, got, body = through(stack, "POST", f"{EST}/factory/simpleenroll", base64.b64encode(new_csr(key or new_key(), serial)), headers, **kw)
    if status != 200:
        raise Refused(status, got, body)
    return certs_of(body)[0]


@pytest.fixture(scope="module")
def factory(balanced):
    authority = Authority("Balanced Factory")
    authority.register(balanced, "balanced-factory")
    return authority


def test_the_header_is_the_clients_chain(balanced, factory):
    serial, key = unique(), new_key()
    cert, _ = factory.device(serial)
    issued = enrol_through(balanced, serial, [cert], key, {"X-Forwarded-For": "10.0.0.1, 192.0.2.77"})
    assert balanced.one("SELECT source FROM history WHERE serial = %s ORDER BY at DESC LIMIT 1", serial) == "192.0.2.77"
    # the certificate it got proves it, the same way
    assert through_code(balanced, "GET", "/v1/device/config", headers=forwarded(issued)) == "ok"
    assert balanced.state(serial) == "PROVISIONED"
    renewed = through(balanced, "POST", f"{EST}/simplereenroll", base64.b64encode(new_csr(key, issued.subject)),
                      {"Content-Type": "application/pkcs10", **forwarded(issued)})
    assert renewed[0] == 200, renewed


def test_without_the_header_there_is_no_certificate(balanced):
    """Not even the proxy's own."""
    assert through_code(balanced, "GET", "/v1/device/config") == "auth.required"


def test_a_token_goes_through_a_proxy_too(balanced):
    serial = unique()
    headers = {"Content-Type": "application/pkcs10", "Authorization": basic(serial, balanced.mint("open"))}
    assert through_code(balanced, "POST", f"{EST}/open/simpleenroll", base64.b64encode(new_csr(new_key(), serial)), headers) == "ok"


def test_an_unregistered_ca_is_explained(balanced):
    serial = unique()
    stranger = Authority("Nobody Knows Me")
    with pytest.raises(Refused) as e:
        enrol_through(balanced, serial, [stranger.device(serial)[0]])
    assert e.value.code == "ca.not_registered" and "Nobody Knows Me" in e.value.problem["detail"]


def test_a_long_chain_with_long_keys_fits(balanced):
    root = Authority("Long Root", key=new_key("RSA-4096"))
    root.register(balanced, "long-root")
    upper = Authority("Long Upper", parent=root, key=new_key("RSA-4096"))
    lower = Authority("Long Lower", parent=upper, key=new_key("RSA-4096"))
    serial = unique()
    cert, _ = lower.device(serial, key=new_key("RSA-4096"))
    assert enrol_through(balanced, serial, [cert, lower.cert, upper.cert])


def test_headers_past_the_memory_are_told_so(balanced):
    status, _, _ = through(balanced, "GET", "/healthz", headers={"Client-Cert": ":" + "A" * 100000 + ":"})
    assert status in (413, 431)


@pytest.mark.parametrize("headers", [
    {"Client-Cert": "AAEC"}, {"Client-Cert": "::"}, {"Client-Cert": ":AAEC:;a=1"}, {"Client-Cert-Chain": ":AAEC:"},
    {"Client-Cert": ":AAEC:", "Client-Cert-Chain": ":AAEC:,"}, {"Client-Cert": "-----BEGIN CERTIFICATE-----"},
    {"Client-Cert": ":AAEC:", "Client-Cert-Chain": ",".join([":AAEC:"] * 8)}])
def test_a_header_that_does_not_parse(balanced, headers):
    assert through_code(balanced, "GET", "/v1/device/config", headers=headers) == "proxy.header_malformed"


def test_a_header_that_is_no_certificate(balanced):
    assert through_code(balanced, "GET", "/v1/device/config", headers={"Client-Cert": ":AAEC:"}) == "chain.malformed"


@pytest.mark.parametrize("name", ["Client-Cert", "Client-Cert-Chain", "X-Forwarded-For"])
def test_no_header_may_come_twice(balanced, factory, name):
    cert = sequence(der(factory.device(unique())[0]))
    c = http.client.HTTPSConnection("127.0.0.1", balanced.proxy_port, context=tls_context(balanced, *balanced.identity), timeout=20)
    c.putrequest("GET", "/v1/device/config")
    c.putheader("Client-Cert", cert)
    for _ in range(1 if name == "Client-Cert" else 2):
        c.putheader(name.lower(), "192.0.2.1" if name == "X-Forwarded-For" else cert)
    c.endheaders()
    answer = c.getresponse()
    assert answer.status == 400 and b"proxy.header_malformed" in answer.read()
    c.close()


@pytest.mark.parametrize("header, source", [(None, "127.0.0.1"), ("192.0.2.1", "192.0.2.1"), ("6.6.6.6, 2001:db8::5", "2001:db8::5"),
                                            ("nonsense", "127.0.0.1"), ("192.0.2.1,", "127.0.0.1"), ("192.0.2.1:99", "127.0.0.1"),
                                            ("::ffff:192.0.2.3", "192.0.2.3")])
def test_the_last_forwarded_address_is_the_source(balanced, header, source):
    path = unique("/v1/none")
    through(balanced, "GET", path, headers={"X-Forwarded-For": header} if header else {})
    record = wait_for("the record", lambda: [r for r in balanced.log_records() if r.get("path") == path])[0]
    assert (record["source"], record["listener"]) == (source, "proxy")


def test_on_the_device_listener_it_is_nobodys_word(balanced):
    path = unique("/v1/none")
    request(balanced, "GET", path, headers={"X-Forwarded-For": "192.0.2.1"})
    assert wait_for("the record", lambda: [r["source"] for r in balanced.log_records() if r.get("path") == path]) == ["127.0.0.1"]
    assert b"proxy.header_refused" in request(balanced, "GET", path, headers={"Client-Cert": ":AAEC:"}, chain=balanced.identity[0], key=balanced.identity[1])[2]


def identities(stack):
    other = Authority("Another CA")
    yield "none", (None, None), "no client certificate"
    yield "other CA", stack.proxy(NAME, ca=other, san=[x509.DNSName(NAME)]), "ca.not_registered"
    yield "wrong name", stack.proxy("haproxy-1", san=[x509.DNSName("balancer.example.org")]), "none of the names"
    yield "no name", stack.proxy("x" + NAME), "none of the names"
    yield "expired", stack.proxy(NAME, begin=-9, end=-1), "cert.expired"
    yield "not yet valid", stack.proxy(NAME, begin=1), "cert.not_yet_valid"
    yield "a server's", stack.proxy(NAME, eku=ExtendedKeyUsageOID.SERVER_AUTH), "clientAuth"
    yield "our own CA's", None, "ca.not_registered"


def test_who_is_no_proxy_is_told_so_and_not_believed(balanced, factory):
    device = Device(balanced, token=balanced.mint("open"))
    device.enrol()
    serial = unique()
    cert, _ = factory.device(serial)
    for what, identity, detail in identities(balanced):
        with pytest.raises(Refused) as e:
            enrol_through(balanced, serial, [cert], identity=identity or ([device.cert], device.key))
        assert (e.value.status, e.value.code) == (403, "proxy.unauthenticated"), what
        assert detail in e.value.problem["detail"], what
        status = through(balanced, "GET", "/healthz", identity=identity or ([device.cert], device.key))[0]
        assert status == 200, what
    assert balanced.sql("SELECT 1 FROM device WHERE serial = %s", serial) == []


def test_a_name_may_be_the_cn(balanced):
    for cn in (NAME, NAME.upper(), "other.example"):
        assert through_code(balanced, "GET", "/v1/device/config", identity=balanced.proxy(cn)) == "auth.required"


def test_a_refused_peer_is_refused_for_the_whole_connection(balanced):
    c = http.client.HTTPSConnection("127.0.0.1", balanced.proxy_port, context=tls_context(balanced), timeout=20)
    for _ in range(3):
        c.request("GET", EST + "/cacerts")
        answer = c.getresponse()
        assert answer.status == 403 and b"proxy.unauthenticated" in answer.read()
    c.close()


def test_channel_binding_does_not_reach_through(balanced, factory):
    """A request that carries one, or a template that wants one, is told so."""
    serial, key = unique(), new_key()
    cert, _ = factory.device(serial)
    csr = (x509.CertificateSigningRequestBuilder().subject_name(name_of(serial)).add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"whatever")
           .sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER))
    headers = {"Content-Type": "application/pkcs10", **forwarded(cert)}
    assert through_code(balanced, "POST", f"{EST}/factory/simpleenroll", base64.b64encode(csr), headers) == "pop.unavailable"
    headers["Authorization"] = basic(serial, balanced.mint("linked"))
    assert through_code(balanced, "POST", f"{EST}/linked/simpleenroll", base64.b64encode(csr), headers) == "pop.unavailable"
    assert through_code(balanced, "POST", f"{EST}/linked/simpleenroll", base64.b64encode(new_csr(key, serial)), headers).startswith("pop.")


def test_it_is_measured_by_itself(balanced):
    through(balanced, "GET", "/healthz")
    text = balanced.admin("GET", "/metrics", raw=True)[2].decode()
    assert 'muster_requests_total{listener="proxy",protocol="health",outcome="ok"}' in text
    assert 'muster_connections_without_request_total{listener="proxy"}' in text


def test_an_address_alone_is_no_proxy_listener(fresh):
    fresh.stop()
    fresh.configure(proxy__address="127.0.0.1", proxy__port=0)
    done = fresh.musterd("serve", check=False)
    assert done.returncode == 1 and "client_ca and names" in done.stderr
    fresh.configure(proxy__address="127.0.0.1", proxy__port=0, proxy__names="x", proxy__client_ca=fresh.folder / "musterd.conf")
    done = fresh.musterd("serve", check=False)
    assert done.returncode == 1 and "[proxy] client_ca" in done.stderr


# on a local socket

class LocalConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(self.path)


def local(path, method, url, body=None, headers=None):
    c = LocalConnection(path)
    c.request(method, url, body, headers or {})
    answer = c.getresponse()
    try:
        return answer.status, answer.read()
    finally:
        c.close()


def test_a_proxy_on_the_same_host(fresh):
    path = fresh.folder / "proxy.sock"
    authority = Authority("Local Factory")
    authority.register(fresh, "local-factory")
    fresh.stop()
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    fresh.configure(proxy__address=f"unix:{path}")
    old = os.umask(0o077)
    try:
        fresh.start()
    finally:
        os.umask(old)
    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o660
    assert "proxy" not in (fresh.folder / "ports").read_text()
    serial = unique()
    cert, _ = authority.device(serial)
    headers = {"Content-Type": "application/pkcs10", "X-Forwarded-For": "192.0.2.50", **forwarded(cert)}
    status, body = local(path, "POST", f"{EST}/factory/simpleenroll", base64.b64encode(new_csr(new_key(), serial)), headers)
    assert status == 200, body
    assert fresh.one("SELECT source FROM history WHERE serial = %s", serial) == "192.0.2.50"
    url = unique("/v1/none")
    local(path, "GET", url)
    assert wait_for("the record", lambda: [r["source"] for r in fresh.log_records() if r.get("path") == url]) == ["unix"]
    # somebody listens there: a second server does not take it away
    done = fresh.musterd("serve", check=False)
    assert done.returncode == 1 and "proxy listener" in done.stderr and local(path, "GET", "/healthz")[0] == 200
    fresh.stop()
    assert not path.exists()
    path.write_text("a file, no socket")
    done = fresh.musterd("serve", check=False)
    assert done.returncode == 1 and path.read_text() == "a file, no socket"


# operators with certificates

def test_the_admin_listener_may_want_a_certificate_too(fresh):
    operators = Authority("Operators")
    (fresh.folder / "operators.pem").write_bytes(cert_pem(operators.cert))
    fresh.stop()
    fresh.configure(admin__client_ca=fresh.folder / "operators.pem")
    fresh.start()
    cert, key = operators.device("alice")
    stranger = Authority("Strangers").device("mallory")
    bearer = {"Authorization": f"Bearer {fresh.token}"}
    for identity, path, headers, status, says in (
            ((None, None), "/admin/v1/whoami", bearer, 403, b"admin.certificate_required"),
            ((None, None), "/metrics", bearer, 403, b"admin.certificate_required"),
            ((None, None), "/admin/v1/nothing", bearer, 403, b"admin.certificate_required"),
            (([stranger[0]], stranger[1]), "/admin/v1/whoami", bearer, 403, b"admin.certificate_required"),
            (([cert], key), "/admin/v1/whoami", {}, 401, b"admin.denied"),
            (([cert], key), "/admin/v1/whoami", bearer, 200, b"admin"),
            ((None, None), "/healthz", {}, 200, b"ok"),
            ((None, None), "/readyz", {}, 200, b"")):
        got, _, body = request(fresh, "GET", path, headers=headers, chain=identity[0], key=identity[1], port=fresh.admin_port)
        assert got == status and says in body, (path, got, body)
    # devices are not concerned
    assert request(fresh, "GET", EST + "/cacerts")[0] == 200
