"""A client of SCEP (RFC 8894) that can also send what no client would."""
import base64
import http.client
import itertools
import os
import urllib.parse

from asn1crypto import cms, core, crl, x509 as asn1x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding as rsa_padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

import datetime

import openapi
from client import name_of, new_key

OIDS = {n: f"2.16.840.1.113733.1.9.{k}" for n, k in (("type", 2), ("status", 3), ("fail", 4), ("nonce", 5), ("recipient", 6), ("transaction", 7))}
FAIL_TEXT = "1.3.6.1.5.5.7.24.1"
PKCS_REQ, RENEWAL_REQ, CERT_POLL, GET_CERT, GET_CRL = 19, 17, 20, 21, 22
HASHES = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512(), "sha1": hashes.SHA1()}
CIPHERS = {"aes128_cbc": (algorithms.AES, 16), "aes192_cbc": (algorithms.AES, 24), "aes256_cbc": (algorithms.AES, 32), "tripledes_3key": (algorithms.TripleDES, 24)}
_numbers = itertools.count(1)

for _name, _oid in OIDS.items():
    if _oid not in cms.CMSAttributeType._map:
        cms.CMSAttributeType._map[_oid] = f"scep_{_name}"
        cms.CMSAttribute._oid_specs[f"scep_{_name}"] = type(f"Set{_name}", (core.SetOf,), {"_child_spec": core.OctetString if _name in ("nonce", "recipient") else core.PrintableString})
cms.CMSAttributeType._map[FAIL_TEXT] = "scep_text"
cms.CMSAttribute._oid_specs["scep_text"] = type("SetText", (core.SetOf,), {"_child_spec": core.UTF8String})


def asn1(cert):
    return asn1x509.Certificate.load(cert.public_bytes(serialization.Encoding.DER))


def csr(key, cn, token=None):
    """DER, with the token as challengePassword."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(name_of(cn))
    if token:
        builder = builder.add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, token.encode())
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def self_signed(key, cn):
    now = datetime.datetime.now(datetime.timezone.utc)
    return (x509.CertificateBuilder().subject_name(name_of(cn)).issuer_name(name_of(cn)).public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=7)).sign(key, hashes.SHA256()))


def envelop(content, recipient, cipher="aes128_cbc", recipients=1):
    algorithm, length = CIPHERS[cipher]
    key, block = os.urandom(length), algorithm.block_size // 8
    iv = os.urandom(block)
    padder = padding.PKCS7(algorithm.block_size).padder()
    encryptor = Cipher(algorithm(key), modes.CBC(iv)).encryptor()
    sealed = encryptor.update(padder.update(content) + padder.finalize()) + encryptor.finalize()
    to = cms.RecipientInfo("ktri", {"version": "v0", "rid": cms.RecipientIdentifier("issuer_and_serial_number", {"issuer": asn1(recipient).issuer, "serial_number": recipient.serial_number}),
                                    "key_encryption_algorithm": {"algorithm": "rsaes_pkcs1v15"}, "encrypted_key": recipient.public_key().encrypt(key, rsa_padding.PKCS1v15())})
    return cms.ContentInfo({"content_type": "enveloped_data", "content": {
        "version": "v0", "recipient_infos": [to] * recipients,
        "encrypted_content_info": {"content_type": "data", "content_encryption_algorithm": {"algorithm": cipher, "parameters": core.OctetString(iv)}, "encrypted_content": sealed}}}).dump()


def sign(content, key, cert, attributes, digest="sha256", certs=None):
    def hashed(data):
        h = hashes.Hash(HASHES[digest])
        h.update(data)
        return h.finalize()
    attrs = [{"type": "content_type", "values": ["data"]}, {"type": "message_digest", "values": [hashed(content)]}]
    attrs += [{"type": f"scep_{n}", "values": v if isinstance(v, list) else [v]} for n, v in attributes.items()]
    attrs = cms.CMSAttributes(attrs)
    curve = isinstance(key, ec.EllipticCurvePrivateKey)
    signature = key.sign(attrs.untag().dump(), ec.ECDSA(HASHES[digest])) if curve else key.sign(attrs.untag().dump(), rsa_padding.PKCS1v15(), HASHES[digest])
    info = {"version": "v1", "sid": cms.SignerIdentifier("issuer_and_serial_number", {"issuer": asn1(cert).issuer, "serial_number": cert.serial_number}),
            "digest_algorithm": {"algorithm": digest}, "signed_attrs": attrs, "signature_algorithm": {"algorithm": f"{digest}_ecdsa" if curve else "rsassa_pkcs1v15"},
            "signature": signature}
    return cms.ContentInfo({"content_type": "signed_data", "content": {
        "version": "v1", "digest_algorithms": [{"algorithm": digest}], "encap_content_info": {"content_type": "data", "content": content},
        "certificates": [asn1(c) for c in (certs if certs is not None else [cert])], "signer_infos": [info]}}).dump()


class Reply:
    """A CertRep: its attributes, and for SUCCESS what was in the envelope."""

    def __init__(self, client, der):
        signed = cms.ContentInfo.load(der)["content"]
        (info,) = signed["signer_infos"]
        self.attrs = {a["type"].native: a["values"][0].native for a in info["signed_attrs"]}
        self.status, self.fail, self.text = self.attrs["scep_status"], self.attrs.get("scep_fail"), self.attrs.get("scep_text")
        assert self.attrs["scep_type"] == "3" and self.attrs["scep_recipient"] == client.nonce and self.attrs["scep_transaction"] == client.transaction
        client.ra.public_key().verify(info["signature"].native, info["signed_attrs"].untag().dump(), rsa_padding.PKCS1v15(), HASHES[info["digest_algorithm"]["algorithm"].native])
        self.digest = info["digest_algorithm"]["algorithm"].native
        content = signed["encap_content_info"]["content"].native
        self.certs, self.crls = [], []
        if self.text:
            openapi.SPEC.said(self.text.split(":")[0])
        if self.status != "0":
            assert content is None  # RFC 8894 3.2.2
            return
        h = hashes.Hash(HASHES[self.digest])
        h.update(content)
        assert h.finalize() == self.attrs["message_digest"]
        envelope = cms.ContentInfo.load(content)["content"]
        (to,) = envelope["recipient_infos"]
        sealed = envelope["encrypted_content_info"]
        self.cipher = sealed["content_encryption_algorithm"]["algorithm"].native
        algorithm, _ = CIPHERS[self.cipher]
        key = client.key_of_signer.decrypt(to.chosen["encrypted_key"].native, rsa_padding.PKCS1v15())
        decryptor = Cipher(algorithm(key), modes.CBC(sealed["content_encryption_algorithm"]["parameters"].native)).decryptor()
        unpadder = padding.PKCS7(algorithm.block_size).unpadder()
        plain = decryptor.update(sealed["encrypted_content"].native) + decryptor.finalize()
        inner = cms.ContentInfo.load(unpadder.update(plain) + unpadder.finalize())["content"]
        self.certs = [x509.load_der_x509_certificate(c.chosen.dump()) for c in inner["certificates"] or []]
        self.crls = [crl.CertificateList.load(c.chosen.dump()) for c in inner["crls"] or []]


class Scep:
    def __init__(self, stack, path="/scep", port=None):
        self.stack, self.path, self.port = stack, path, port or stack.scep_port
        self.ra = self.cas()[0]

    def http(self, method, query, body=None, kind=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            c.request(method, f"{self.path}?{query}", body, {"Content-Type": kind} if kind else {})
            answer = c.getresponse()
            got, text = {k.lower(): v for k, v in answer.getheaders()}, answer.read()
            openapi.SPEC.seen("device", method, f"{self.path}?{query}", kind, body, answer.status, got, text)
            return answer.status, got, text
        finally:
            c.close()

    def cas(self):
        status, headers, body = self.http("GET", "operation=GetCACert&message=CAIdentifier")
        assert status == 200 and headers["content-type"] == "application/x-x509-ca-ra-cert", (status, headers, body)
        return [x509.load_der_x509_certificate(c.chosen.dump()) for c in cms.ContentInfo.load(body)["content"]["certificates"]]

    def caps(self):
        status, headers, body = self.http("GET", "operation=GetCACaps")
        assert status == 200 and headers["content-type"] == "text/plain"
        return body.decode().splitlines()

    def message(self, kind, content, key, cert, transaction=None, cipher="aes128_cbc", digest="sha256", certs=None, **attributes):
        self.nonce, self.transaction, self.key_of_signer = os.urandom(16), transaction or f"tx-{next(_numbers)}", key
        attrs = {"type": str(kind), "nonce": self.nonce, "transaction": self.transaction, **attributes}
        return sign(envelop(content, self.ra, cipher), key, cert, {k: v for k, v in attrs.items() if v is not None}, digest, certs)

    def post(self, message):
        return self.http("POST", "operation=PKIOperation", message, "application/x-pki-message")

    def get(self, message):
        return self.http("GET", "operation=PKIOperation&message=" + urllib.parse.quote(base64.b64encode(message), safe=""))

    def ask(self, *args, **kw):
        status, headers, body = self.post(self.message(*args, **kw))
        assert status == 200 and headers["content-type"] == "application/x-pki-message", (status, body)
        return Reply(self, body)

    def enrol(self, cn, token, key=None, **kw):
        key = key or new_key("RSA-2048")
        return key, self.ask(PKCS_REQ, csr(key, cn, token), key, self_signed(key, cn), **kw)


def issuer_and_serial(cert):
    return cms.IssuerAndSerialNumber({"issuer": asn1(cert).issuer, "serial_number": cert.serial_number}).dump()


def issuer_and_subject(issuer, cn):
    class Names(core.SequenceOf):
        _child_spec = core.Any
    return Names([asn1(issuer).subject, asn1x509.Name.build({"common_name": cn})]).dump()
