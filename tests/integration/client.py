"""A device: keys, CSRs and the EST requests of a client that tells everything it gets."""
import base64
import http.client
import itertools
import json
import pathlib
import ssl
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

import openapi
from stack import Refused

EST = "/.well-known/est"
_numbers = itertools.count(1)


def unique(prefix="dev"):
    return f"{prefix}-{next(_numbers):05d}"


def new_key(kind="P-256"):
    if kind == "P-256":
        return ec.generate_private_key(ec.SECP256R1())
    if kind == "P-384":
        return ec.generate_private_key(ec.SECP384R1())
    if kind == "P-521":
        return ec.generate_private_key(ec.SECP521R1())
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, int(kind.split("-")[1]))


def name_of(cn=None, *more):
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn else []
    return x509.Name(parts + list(more))


def new_csr(key, subject, san=None):
    """DER of a PKCS#10 request; subject is a CN or a Name."""
    name = subject if isinstance(subject, x509.Name) else name_of(subject)
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(serialization.Encoding.DER)


def key_pem(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def cert_pem(cert):
    return cert.public_bytes(serialization.Encoding.PEM)


def fingerprint(cert):
    return cert.fingerprint(hashes.SHA256()).hex()


def spki_sha256(key):
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(der)
    return digest.finalize()


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def certs_of(body):
    return pkcs7.load_der_pkcs7_certificates(base64.b64decode(body))


def tls_context(stack, chain=None, key=None):
    context = ssl.create_default_context(cafile=str(stack.cafile))
    if chain:
        with tempfile.TemporaryDirectory() as folder:
            pem = pathlib.Path(folder, "c.pem")
            pem.write_bytes(b"".join(cert_pem(c) for c in chain) + key_pem(key))
            context.load_cert_chain(pem)
    return context


def request(stack, method, path, body=None, headers=None, chain=None, key=None, chunked=False, port=None):
    """One request on a connection of its own; (status, headers, body) whatever the status."""
    c = http.client.HTTPSConnection("127.0.0.1", port or stack.port, context=tls_context(stack, chain, key), timeout=60)
    try:
        if chunked:
            pieces = (body[i:i + 37] for i in range(0, len(body), 37))
            c.request(method, path, body=pieces, headers=headers or {}, encode_chunked=True)
        else:
            c.request(method, path, body=body, headers=headers or {})
        answer = c.getresponse()
        got = {k.lower(): v for k, v in answer.getheaders()}
        text = answer.read()
        sent_type = next((v for k, v in (headers or {}).items() if k.lower() == "content-type"), None)
        if hasattr(stack, "admin_port"):  # a balancer has none, and answers some things itself
            openapi.SPEC.seen("admin" if port == stack.admin_port else "device", method, path, sent_type, body, answer.status, got, text)
        return answer.status, got, text
    finally:
        c.close()


class Device:
    """One device with its present key and certificate."""

    def __init__(self, stack, serial=None, template=None, token=None, kind="P-256"):
        self.stack = stack
        self.serial = serial or unique()
        self.template = template
        self.token = token
        self.key = new_key(kind)
        self.cert = None

    def path(self, operation):
        return f"{EST}/{self.template}/{operation}" if self.template else f"{EST}/{operation}"

    def post(self, operation, csr, chain=None, key=None, headers=None):
        extra = {"Content-Type": "application/pkcs10", **(headers or {})}
        status, got, body = request(self.stack, "POST", self.path(operation), base64.b64encode(csr), extra, chain, key)
        if status != 200:
            raise Refused(status, got, body)
        (cert,) = certs_of(body)
        return cert

    def enrol(self, key=None, token=None, user=True, subject=None, keep=True):
        """simpleenroll with the bootstrap token."""
        key = key or self.key
        text = token or self.token
        credential = basic(self.serial, text) if user else f"Bearer {text}"
        cert = self.post("simpleenroll", new_csr(key, subject or self.serial), headers={"Authorization": credential})
        if keep:
            self.key, self.cert = key, cert
        return cert

    def enrol_factory(self, chain, factory_key, key=None):
        """simpleenroll with a factory certificate."""
        key = key or self.key
        cert = self.post("simpleenroll", new_csr(key, self.serial), chain, factory_key)
        self.key, self.cert = key, cert
        return cert

    def renew(self, key=None, subject=None, san=None, chain=None, with_key=None, keep=True):
        """simplereenroll with the certificate in hand."""
        key = key or self.key
        csr = new_csr(key, subject or self.cert.subject, san)
        cert = self.post("simplereenroll", csr, chain or [self.cert], with_key or self.key)
        if keep:
            self.key, self.cert = key, cert
        return cert

    def config(self, cert=None, key=None):
        """GET /v1/device/config: VERIFY."""
        status, headers, body = request(self.stack, "GET", "/v1/device/config", chain=[cert or self.cert], key=key or self.key)
        if status != 200:
            raise Refused(status, headers, body)
        return json.loads(body)
