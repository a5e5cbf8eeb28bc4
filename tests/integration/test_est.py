"""EST on the wire: RFC 7030, RFC 8951, and the one answer shape that every known client reads."""
import base64
import datetime
import json
import re
import socket
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtensionOID

from client import (EST, Device, basic, certs_of, fingerprint, name_of, new_csr, new_key, request, tls_context, unique)
from stack import Refused

PKCS10 = {"Content-Type": "application/pkcs10"}


@pytest.fixture(scope="module")
def token(stack):
    return stack.mint("open", uses=1000)


def wrap(text, width, end="\n"):
    return end.join(text[i:i + width] for i in range(0, len(text), width)) + end


def post_csr(stack, token, body, headers=None, path=EST + "/simpleenroll", serial=None, **kw):
    serial = serial or unique()
    return request(stack, "POST", path, body, {**PKCS10, "Authorization": basic(serial, token), **(headers or {})}, **kw)


def assert_answer_shape(status, headers, body, kind):
    assert status == 200
    assert headers["content-type"] == kind
    assert headers["content-transfer-encoding"] == "base64"
    assert headers["content-length"] == str(len(body))
    assert "transfer-encoding" not in headers
    assert re.fullmatch(rb"[A-Za-z0-9+/]+=*\n", body), body[:100]
    assert sum(len(k) + len(v) + 4 for k, v in headers.items()) < 900


def test_cacerts_needs_no_credential_and_has_every_ca(stack):
    for path in ("/cacerts", "/strict/cacerts"):
        status, headers, body = request(stack, "GET", EST + path)
        assert_answer_shape(status, headers, body, "application/pkcs7-mime")
        certs = certs_of(body)
        root = x509.load_pem_x509_certificate(stack.cafile.read_bytes())
        assert root in certs
        assert len(certs) == len(stack.sql("SELECT 1 FROM ca WHERE kind IN ('root', 'issuing')"))


def test_enroll_answer_shape_and_only_the_certificate(stack, token):
    serial = unique()
    status, headers, body = post_csr(stack, token, base64.b64encode(new_csr(new_key(), serial)), serial=serial)
    assert_answer_shape(status, headers, body, "application/pkcs7-mime; smime-type=certs-only")
    assert len(certs_of(body)) == 1


def test_certs_only_is_signed_data_version_1_with_id_data_and_no_signer(stack):
    der = base64.b64decode(request(stack, "GET", EST + "/cacerts")[2])
    assert der[4:15] == bytes.fromhex("06092a864886f70d010702")
    inner = der[der.index(bytes.fromhex("020101")):]
    assert inner.startswith(bytes.fromhex("020101" "3100" "300b06092a864886f70d010701")), inner[:32].hex()
    assert der.endswith(bytes.fromhex("3100"))


@pytest.mark.parametrize("shape", ["one line", "64", "76", "crlf", "spaces", "no final newline", "pem", "new pem", "pem in base64", "der"])
def test_request_shapes_that_clients_send(stack, token, shape):
    serial = unique()
    der = new_csr(new_key(), serial)
    text = base64.b64encode(der).decode()
    pem = "-----BEGIN CERTIFICATE REQUEST-----\n" + wrap(text, 64) + "-----END CERTIFICATE REQUEST-----\n"
    body = {
        "one line": text + "\n",
        "64": wrap(text, 64),
        "76": wrap(text, 76),
        "crlf": wrap(text, 64, "\r\n"),
        "spaces": " " + wrap(text, 64, " \t\r\n"),
        "no final newline": text,
        "pem": pem,
        "new pem": pem.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
        "pem in base64": base64.b64encode(pem.encode()).decode(),
        "der": der,
    }[shape]
    status, _, answer = post_csr(stack, token, body if isinstance(body, bytes) else body.encode(), serial=serial)
    assert status == 200, answer
    assert certs_of(answer)[0].subject == name_of(serial)


def test_chunked_request(stack, token):
    status, _, answer = post_csr(stack, token, base64.b64encode(new_csr(new_key(), "x")), chunked=True)
    assert status == 200, answer


def test_content_type_with_parameters_and_foreign_transfer_encoding(stack, token):
    for extra in ({"Content-Type": "application/pkcs10; charset=us-ascii"}, {"Content-Type": "Application/PKCS10"},
                  {"Content-Transfer-Encoding": "binary"}):
        status, _, answer = post_csr(stack, token, base64.b64encode(new_csr(new_key(), "x")), extra)
        assert status == 200, (extra, answer)


def test_expect_100_continue(stack, token):
    serial = unique()
    body = base64.b64encode(new_csr(new_key(), serial))
    with socket.create_connection(("127.0.0.1", stack.port), timeout=20) as raw, \
            tls_context(stack).wrap_socket(raw, server_hostname="127.0.0.1") as s:
        s.sendall((f"POST {EST}/simpleenroll HTTP/1.1\r\nHost: x\r\nContent-Type: application/pkcs10\r\nExpect: 100-continue\r\n"
                   f"Authorization: {basic(serial, token)}\r\nContent-Length: {len(body)}\r\n\r\n").encode())
        assert s.recv(100).startswith(b"HTTP/1.1 100")
        s.sendall(body)
        assert s.recv(4096).startswith(b"HTTP/1.1 200")


def test_connection_close_is_honoured(stack):
    with socket.create_connection(("127.0.0.1", stack.port), timeout=20) as raw, \
            tls_context(stack).wrap_socket(raw, server_hostname="127.0.0.1") as s:
        s.sendall(f"GET {EST}/cacerts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while piece := s.recv(65536):
            data += piece
    assert data.startswith(b"HTTP/1.1 200") and data.endswith(b"\n")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3(stack, version):
    context = tls_context(stack)
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", stack.port), timeout=20) as raw, \
            context.wrap_socket(raw, server_hostname="127.0.0.1") as s:
        s.sendall(f"GET {EST}/cacerts HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert s.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("kind", ["P-256", "P-384", "RSA-2048", "RSA-3072", "RSA-4096", "Ed25519"])
def test_every_kind_of_key(stack, token, kind):
    d = Device(stack, token=token, kind=kind)
    cert = d.enrol()
    assert cert.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo) == \
        d.key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("kind", ["P-384", "P-521", "RSA-2048", "RSA-1024", "Ed25519"])
def test_a_key_the_template_does_not_allow(stack, kind):
    d = Device(stack, template="p256", token=stack.mint("p256", uses=2), kind=kind)
    with pytest.raises(Refused) as e:
        d.enrol()
    assert (e.value.status, e.value.code) == (400, "csr.key_not_allowed")


def test_the_csr_must_be_signed_with_its_own_key(stack, token):
    der = bytearray(new_csr(new_key(), "x"))
    der[-5] ^= 1
    status, _, body = post_csr(stack, token, base64.b64encode(bytes(der)))
    assert status == 400 and b"csr.signature_invalid" in body


@pytest.mark.parametrize("body", [b"", b"!", b"AAAA", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA", base64.b64encode(b"\x30\x03\x02\x01\x05"), b"\x30\x82\x01"])
def test_a_body_that_is_no_csr(stack, token, body):
    status, headers, answer = post_csr(stack, token, body)
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert b'"code":"csr.malformed"' in answer


def test_trailing_bytes_after_the_csr_are_refused(stack, token):
    status, _, answer = post_csr(stack, token, base64.b64encode(new_csr(new_key(), "x") + b"\0"))
    assert status == 400 and b"csr.malformed" in answer


@pytest.mark.parametrize("method,path,allow", [
    ("GET", "/simpleenroll", "POST"), ("PUT", "/simpleenroll", "POST"), ("GET", "/simplereenroll", "POST"),
    ("POST", "/cacerts", "GET"), ("DELETE", "/strict/cacerts", "GET"), ("GET", "/strict/simpleenroll", "POST")])
def test_wrong_method_is_405_with_allow(stack, method, path, allow):
    status, headers, body = request(stack, method, EST + path)
    assert (status, headers["allow"]) == (405, allow)
    assert b"request.method_not_allowed" in body


@pytest.mark.parametrize("kind", [None, "application/json", "application/pkcs10x", "text/plain"])
def test_wrong_type_is_415(stack, token, kind):
    headers = {"Authorization": basic("x", token), **({"Content-Type": kind} if kind else {})}
    status, _, body = request(stack, "POST", EST + "/simpleenroll", b"AAAA", headers)
    assert status == 415 and b"request.type_unsupported" in body


@pytest.mark.parametrize("chunked", [False, True])
def test_too_long_is_413(stack, token, chunked):
    status, _, body = post_csr(stack, token, b"A" * 40000, chunked=chunked)
    assert status == 413 and b"request.too_large" in body


def test_far_too_long_is_refused_before_it_is_sent(stack, token):
    with socket.create_connection(("127.0.0.1", stack.port), timeout=20) as raw, \
            tls_context(stack).wrap_socket(raw, server_hostname="127.0.0.1") as s:
        s.sendall((f"POST {EST}/simpleenroll HTTP/1.1\r\nHost: x\r\nContent-Type: application/pkcs10\r\n"
                   f"Authorization: {basic('x', token)}\r\nContent-Length: 99999999999\r\n\r\n").encode())
        assert s.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("path", ["/", "/.well-known/est", "/.well-known/est/", EST + "/nothing", EST + "/a/b/cacerts", EST + "//cacerts"])
def test_an_unknown_path_is_404(stack, path):
    status, _, body = request(stack, "GET", path)
    assert status == 404 and b"request.not_found" in body


def test_an_unknown_label_is_404(stack, token):
    for method, path in (("GET", "/nosuch/cacerts"), ("POST", "/nosuch/simpleenroll")):
        headers = {**PKCS10, "Authorization": basic("x", token)} if method == "POST" else {}
        status, _, body = request(stack, method, EST + path, base64.b64encode(new_csr(new_key(), "x")) if headers else None, headers)
        assert status == 404 and b"template.unknown" in body


def test_no_credential_is_401_with_a_challenge_on_an_open_connection(stack):
    status, headers, body = request(stack, "POST", EST + "/simpleenroll", base64.b64encode(new_csr(new_key(), "x")), PKCS10)
    assert (status, headers["www-authenticate"]) == (401, 'Basic realm="muster"')
    assert b"auth.required" in body and headers.get("connection", "").lower() != "close"


@pytest.mark.parametrize("header", ["Basic !!!", "Basic " + base64.b64encode(b"nocolon").decode(), "Digest x", "Bearer", "Bearer a b", "Basic " + base64.b64encode(b"a:").decode()])
def test_a_broken_authorization_header_is_400(stack, header):
    status, _, body = request(stack, "POST", EST + "/simpleenroll", base64.b64encode(new_csr(new_key(), "x")), {**PKCS10, "Authorization": header})
    assert status == 400 and b"auth.malformed" in body


def test_basic_credentials_end_at_a_nul(stack, token):
    serial = unique()
    raw = base64.b64encode(f"{serial}:{token}\0--output-ca\0".encode()).decode()
    status, _, body = request(stack, "POST", EST + "/simpleenroll", base64.b64encode(new_csr(new_key(), serial)), {**PKCS10, "Authorization": "Basic " + raw})
    assert status == 200, body


def test_every_problem_names_its_code_and_request(stack):
    status, headers, body = request(stack, "GET", EST + "/nothing")
    problem = json.loads(body)
    assert headers["content-type"] == "application/problem+json"
    assert problem["type"] == "urn:muster:error:request.not_found"
    assert problem["status"] == status == 404
    assert problem["request_id"] == headers["muster-request-id"] and re.fullmatch("[0-9a-f]{32}", problem["request_id"])
    assert problem["title"] and problem["detail"]


def test_the_certificate_follows_rfc_5280_and_the_template(stack):
    d = Device(stack, template="short", token=stack.mint("short"))
    cert = d.enrol()
    issuer = next(c for c in certs_of(request(stack, "GET", EST + "/cacerts")[2]) if c.subject == cert.issuer)
    ext = {e.oid: e for e in cert.extensions}
    assert cert.version is x509.Version.v3
    assert cert.serial_number.bit_length() >= 128
    assert not ext[ExtensionOID.BASIC_CONSTRAINTS].value.ca and ext[ExtensionOID.BASIC_CONSTRAINTS].critical
    usage = ext[ExtensionOID.KEY_USAGE]
    assert usage.critical and usage.value.digital_signature and not usage.value.key_cert_sign
    assert [o._name for o in ext[ExtensionOID.EXTENDED_KEY_USAGE].value] == ["clientAuth"]
    assert ext[ExtensionOID.AUTHORITY_KEY_IDENTIFIER].value.key_identifier == \
        issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert ext[ExtensionOID.SUBJECT_KEY_IDENTIFIER].value == x509.SubjectKeyIdentifier.from_public_key(d.key.public_key())
    uris = ext[ExtensionOID.SUBJECT_ALTERNATIVE_NAME].value.get_values_for_type(x509.UniformResourceIdentifier)
    assert f"urn:muster:pump:{d.serial}" in uris
    assert ext[ExtensionOID.CRL_DISTRIBUTION_POINTS].value[0].full_name[0].value == "http://pki.example.com/a.crl"
    access = {a.access_method._name: a.access_location.value for a in ext[ExtensionOID.AUTHORITY_INFORMATION_ACCESS].value}
    assert access == {"OCSP": "http://ocsp.example.com", "caIssuers": "http://pki.example.com/a.cer"}


def test_backdated_jittered_and_never_beyond_the_issuer(stack):
    token = stack.mint("short", uses=10)
    ends = set()
    for _ in range(4):
        cert = Device(stack, template="short", token=token).enrol()
        now = datetime.datetime.utcnow()
        assert datetime.timedelta(minutes=55) < now - cert.not_valid_before < datetime.timedelta(minutes=65)
        assert datetime.timedelta(days=9, minutes=-5) < cert.not_valid_after - now <= datetime.timedelta(days=10)
        ends.add(cert.not_valid_after)
    assert len(ends) > 1


def test_serials_of_certificates_are_random_and_unique(stack, token):
    numbers = {Device(stack, token=token).enrol().serial_number for _ in range(8)}
    assert len(numbers) == 8
    assert len({n >> 100 for n in numbers}) == 8


def test_renewal_keeps_subject_and_san_and_may_change_the_key(stack, token):
    d = Device(stack, token=token)
    first = d.enrol()
    second = d.renew(key=new_key())
    assert second.subject == first.subject
    assert second.extensions.get_extension_for_class(x509.SubjectAlternativeName) == \
        first.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert fingerprint(second) != fingerprint(first)
    with pytest.raises(Refused) as e:
        d.renew(subject="another")
    assert (e.value.status, e.value.code) == (403, "csr.subject_changed")
    with pytest.raises(Refused) as e:
        d.renew(san=[x509.DNSName("evil.example")])
    assert e.value.code == "csr.subject_changed"


def test_renewal_needs_the_certificate_not_a_token(stack, token):
    d = Device(stack, token=token)
    d.enrol()
    status, _, body = request(stack, "POST", EST + "/simplereenroll", base64.b64encode(new_csr(d.key, d.serial)),
                              {**PKCS10, "Authorization": basic(d.serial, token)})
    assert status == 401 and b"auth.required" in body


def test_bearer_takes_the_serial_from_the_csr(stack, token):
    d = Device(stack, token=token)
    assert d.enrol(user=False).subject == name_of(d.serial)


def test_health_and_readiness(stack):
    assert request(stack, "GET", "/healthz")[0] == 200
    assert request(stack, "GET", "/readyz")[0] == 200
    assert request(stack, "GET", "/readyz", port=stack.admin_port)[0] == 200


def test_validity_never_exceeds_the_issuers(stack):
    cert = Device(stack, template="long", token=stack.mint("long")).enrol()
    issuer = next(c for c in certs_of(request(stack, "GET", EST + "/cacerts")[2]) if c.subject == cert.issuer)
    assert cert.not_valid_after == issuer.not_valid_after
