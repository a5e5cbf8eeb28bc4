"""POP linking (RFC 7030 3.5) on TLS 1.2 and 1.3, and what /csrattrs asks for."""
import base64
import json
import re
import socket
import ssl
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import AttributeOID

from client import EST, Device, basic, certs_of, name_of, new_key, request, tls_context, unique
from stack import TEMPLATES, Refused


def linked_csr(key, subject, challenge):
    name = subject if isinstance(subject, x509.Name) else name_of(subject)
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    if challenge is not None:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def http_text(path, body, authorization):
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/pkcs10\r\n"
            f"Authorization: {authorization}\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


def split_answer(data):
    head, _, body = data.partition(b"\r\n\r\n")
    status = int(re.search(rb"HTTP/1.1 (\d{3})", head[head.index(b"HTTP/1.1"):]).group(1))
    return status, body


class Tls12:
    """A TLS 1.2 connection and its tls-unique."""

    def __init__(self, stack):
        context = tls_context(stack)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        raw = socket.create_connection(("127.0.0.1", stack.port), timeout=20)
        self.tls = context.wrap_socket(raw, server_hostname="127.0.0.1")
        self.binding = self.tls.get_channel_binding("tls-unique")

    def send(self, data):
        self.tls.sendall(data)
        answer = b""
        while piece := self.tls.recv(65536):
            answer += piece
        self.tls.close()
        return split_answer(answer)


class Tls13:
    """A TLS 1.3 connection of openssl s_client, which tells the exporter's value (RFC 9266)."""

    def __init__(self, stack):
        self.process = subprocess.Popen(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{stack.port}", "-tls1_3", "-CAfile", stack.cafile, "-ign_eof",
             "-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.binding = None
        for line in self.process.stdout:
            if m := re.search(rb"Keying material: ([0-9A-F]{64})", line):
                self.binding = bytes.fromhex(m.group(1).decode())
                break

    def send(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()
        answer = self.process.stdout.read()
        self.process.wait(20)
        return split_answer(answer)


def enrol(stack, connection, challenge, template="linked"):
    serial, key = unique("pop"), new_key()
    body = base64.b64encode(linked_csr(key, serial, challenge))
    status, answer = connection.send(http_text(f"{EST}/{template}/simpleenroll", body, basic(serial, stack.mint(template))))
    return status, json.loads(answer.splitlines()[0])["code"] if status != 200 else None


@pytest.mark.parametrize("connect", [Tls12, Tls13])
def test_the_right_binding_is_accepted(stack, connect):
    c = connect(stack)
    assert c.binding
    assert enrol(stack, c, base64.b64encode(c.binding)) == (200, None)


@pytest.mark.parametrize("connect", [Tls12, Tls13])
@pytest.mark.parametrize("template", ["linked", "open"])
def test_a_wrong_binding_is_refused_whatever_the_template_says(stack, connect, template):
    c = connect(stack)
    wrong = bytes([c.binding[0] ^ 1]) + c.binding[1:]
    assert enrol(stack, c, base64.b64encode(wrong), template) == (403, "pop.mismatch")


@pytest.mark.parametrize("connect", [Tls12, Tls13])
def test_a_binding_replayed_on_another_connection_is_refused(stack, connect):
    first, second = connect(stack), connect(stack)
    assert enrol(stack, second, base64.b64encode(first.binding)) == (403, "pop.mismatch")
    assert enrol(stack, first, base64.b64encode(first.binding)) == (200, None)


def test_a_template_may_require_it(stack):
    d = Device(stack, template="linked", token=stack.mint("linked"))
    with pytest.raises(Refused) as e:
        d.enrol()
    assert (e.value.status, e.value.code) == (403, "pop.missing")
    assert stack.last_attempt(d.serial)[0] == "pop.missing"


def test_a_password_in_the_request_is_no_binding(stack):
    serial = unique("pop")
    status, _, body = request(stack, "POST", EST + "/open/simpleenroll", base64.b64encode(linked_csr(new_key(), serial, b"secret")),
                              {"Content-Type": "application/pkcs10", "Authorization": basic(serial, stack.mint("open"))})
    assert status == 403 and b"pop.mismatch" in body


def test_a_registration_authority_is_excepted(stack):
    """Its certificate carries id-kp-cmcRA; its renewal needs no linking, though its template asks for it."""
    c, serial, key = Tls12(stack), unique("ra"), new_key()
    body = base64.b64encode(linked_csr(key, serial, base64.b64encode(c.binding)))
    status, answer = c.send(http_text(EST + "/authority/simpleenroll", body, basic(serial, stack.mint("authority"))))
    assert status == 200
    d = Device(stack, serial, "authority")
    d.key, d.cert = key, certs_of(answer)[0]
    d.renew()


def test_a_renewal_is_linked_too(stack):
    c, serial, key = Tls12(stack), unique("pop"), new_key()
    body = base64.b64encode(linked_csr(key, serial, base64.b64encode(c.binding)))
    status, answer = c.send(http_text(EST + "/linked/simpleenroll", body, basic(serial, stack.mint("linked"))))
    d = Device(stack, serial, "linked")
    d.key, d.cert = key, certs_of(answer)[0]
    with pytest.raises(Refused) as e:
        d.renew()
    assert (status, e.value.code) == (200, "pop.missing")


def csrattrs(stack, template):
    """The items of the answer, each (tag, content, DER)."""
    status, headers, body = request(stack, "GET", f"{EST}/{template}/csrattrs")
    assert (status, headers["content-type"], headers["content-transfer-encoding"]) == (200, "application/csrattrs", "base64")
    assert re.fullmatch(rb"[A-Za-z0-9+/]+=*\n", body)
    der = base64.b64decode(body)
    assert subprocess.run(["openssl", "asn1parse", "-inform", "DER"], input=der, capture_output=True).returncode == 0
    ((tag, content, _),) = elements(der)
    assert tag == 0x30
    return elements(content)


def elements(data):
    found = []
    while data:
        length, head = data[1], 2
        if length & 0x80:
            head += length & 0x7f
            length = int.from_bytes(data[2:head], "big")
        assert len(data) >= head + length
        found.append((data[0], data[head:head + length], data[:head + length]))
        data = data[head + length:]
    return found


OID = {"challengePassword": "06092a864886f70d010907", "linking": "060b2a864886f70d010910023a", "template": "060b2a864886f70d010910023d",
       "extensionTemplate": "060b2a864886f70d010910023e", "extensionRequest": "06092a864886f70d01090e", "CN": "0603550403",
       "serialNumber": "0603550405", "SAN": "0603551d11", "EKU": "0603551d25", "EC": "06072a8648ce3d0201", "P-256": "06082a8648ce3d030107",
       "ecdsa-SHA256": "06082a8648ce3d040302", "RSA": "06092a864886f70d010101", "clientAuth": "06082b06010505070302"}


def seq(*parts, tag=0x30):
    body = b"".join(bytes.fromhex(OID.get(p, p)) if isinstance(p, str) else p for p in parts)
    return bytes([tag, len(body)]) + body


EXTENSION = seq("EKU", seq(seq("clientAuth"), tag=4))


def request_template(items):
    """What RFC 9908 3.4 adds: the inside of the CertificationRequestInfoTemplate."""
    found = [elements(content) for tag, content, _ in items if tag == 0x30 and content.startswith(bytes.fromhex(OID["template"]))]
    ((_, (_, values, _)),) = found
    ((_, info, _),) = elements(values)
    return info


def test_csrattrs_in_both_styles(stack):
    items = csrattrs(stack, "p256")
    assert b"".join(der for *_, der in items[:4]) == b"".join([
        bytes.fromhex(OID["CN"]), seq("extensionRequest", seq(seq(EXTENSION), tag=0x31)), seq("EC", seq("P-256", tag=0x31)),
        bytes.fromhex(OID["ecdsa-SHA256"])])
    assert len(items) == 5
    assert request_template(items) == b"".join([
        b"\x02\x01\x00", seq(seq(seq("CN"), tag=0x31)), seq(seq("EC", "P-256"), tag=0xa0),
        seq(seq("extensionRequest", seq(seq(EXTENSION), tag=0x31)), tag=0xa1)])


def test_csrattrs_ask_for_linking(stack):
    items = csrattrs(stack, "linked")
    assert [der.hex() for *_, der in items[:2]] == [OID["challengePassword"], OID["linking"]]
    assert seq("challengePassword", "3100") in request_template(items), "a value-less attribute: the client fills it in"


def test_csrattrs_say_where_the_serial_belongs(stack):
    document = json.loads((TEMPLATES / "open.json").read_text())
    for where, name, plain in (("Subject.serialNumber", "attrs-number", "serialNumber"), ("SAN.URI", "attrs-san", "SAN")):
        document["Muster"].update({"Serial": where, "Keys": ["RSA-2048"]})
        stack.v1("PUT", f"/templates/{name}?product=pump", json.dumps(document).encode())
        items = csrattrs(stack, name)
        assert items[0][2].hex() == OID[plain]
        info = request_template(items)
        if where == "SAN.URI":
            assert seq("extensionTemplate", seq(seq(EXTENSION, seq("SAN")), tag=0x31)) in info
            assert bytes.fromhex(OID["extensionRequest"]) not in info, "one kind of extension request only"
        else:
            assert seq(seq(seq("serialNumber"), tag=0x31)) in info
        assert bytes.fromhex("0282010100" + "ff" * 256 + "0203010001") in info, "a placeholder tells the size of an RSA key"


def test_csrattrs_of_the_default_template_and_of_none(stack):
    assert request(stack, "GET", EST + "/csrattrs")[2] == request(stack, "GET", EST + "/open/csrattrs")[2]
    assert request(stack, "GET", EST + "/nosuch/csrattrs")[0] == 404
