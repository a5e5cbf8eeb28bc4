"""A certificate for a key that a TPM certifies: two requests of plain JSON."""
import base64
import hashlib
import json

import pytest
from cryptography import x509

from client import new_csr, new_key, request, spki_sha256, unique
from dps import enrollment, group
from test_dps_tpm import b64, group_id, pem
from tpm import EK_RSA, Tpm


@pytest.fixture(scope="module")
def tpm(tmp_path_factory):
    with Tpm(tmp_path_factory.mktemp("tpm")) as running:
        yield running


class Place:
    """A TPM with an endorsement key, a storage root key, an attestation key and a key to be bound; and its CSR, which the TPM signs."""

    def __init__(self, tpm, algorithm="ecc"):
        self.tpm, self.ek = tpm, tpm.endorsement_key(algorithm)
        self.srk = tpm.storage_root_key({"rsa": "rsa2048", "ecc": "ecc256"}[algorithm])
        self.ak = tpm.attestation_key(self.ek, algorithm, {"rsa": "rsassa", "ecc": "ecdsa"}[algorithm])
        self.key = tpm.signing_key(self.srk, {"rsa": "rsa2048", "ecc": "ecc256"}[algorithm])

    def csr(self, cn):
        """Made by openssl with the TPM's public key; the TPM signs what is to be signed."""
        return tpm_csr(self.tpm, self.key, cn)


def tpm_csr(tpm, key, cn):
    """PKCS#10 by hand: the TPM signs the digest of what asn1crypto wrote."""
    from asn1crypto import csr as asn1csr, keys, x509 as asn1x509
    tpm.tool("tpm2_readpublic", "-c", key, "-f", "der", "-o", "key.der")
    public = keys.PublicKeyInfo.load(tpm.read("key.der"))
    info = asn1csr.CertificationRequestInfo({"version": "v1", "subject": asn1x509.Name.build({"common_name": cn}), "subject_pk_info": public, "attributes": []})
    tpm.write("tbs", info.dump())
    rsa = public.algorithm == "rsa"
    tpm.tool("tpm2_sign", "-c", key, "-g", "sha256", "-s", "rsassa" if rsa else "ecdsa", "-f", "plain", "-o", "sig", "tbs")
    tpm.flush()
    return asn1csr.CertificationRequest({"certification_request_info": info, "signature_algorithm": {"algorithm": "sha256_rsa" if rsa else "sha256_ecdsa"},
                                         "signature": tpm.read("sig")}).dump()


def call(stack, path, body):
    status, _, text = request(stack, "POST", f"/v1/tpm/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    return status, json.loads(text)


def refused(answer, code):
    assert answer[1]["code"] == code, answer
    return answer[1].get("detail", "")


@pytest.fixture(scope="module", params=["rsa", "ecc"])
def place(request, tpm):
    return Place(tpm, request.param)


class Bound:
    def __init__(self, stack, place, registration_id=None, certificate=None):
        self.stack, self.place = stack, place
        self.id = registration_id or enrollment(stack, attestation="tpm", endorsement_key=b64(place.ek.public))["registration_id"]
        self.who = {"registration_id": self.id, "endorsement_key": b64(place.ek.public), "attestation_key": b64(place.ak.public)}
        if certificate:
            self.who["endorsement_certificate"] = certificate

    def ask(self):
        status, answer = call(self.stack, "challenge", self.who)
        assert status == 200, answer
        return answer

    def proof(self, question=None, nonce=None, csr=None):
        q, tpm = question or self.ask(), self.place.tpm
        secret = tpm.activate(self.place.ek, self.place.ak, base64.b64decode(q["credential"]), base64.b64decode(q["secret"]))
        attest, signature = tpm.certify(self.place.key, self.place.ak, nonce or base64.b64decode(q["nonce"]))
        return {**self.who, "activated": b64(secret), "key": b64(self.place.key.public), "attest": b64(attest), "signature": b64(signature),
                "csr": b64(csr or self.place.csr(self.id))}


def test_a_key_of_the_tpm_gets_a_certificate(stack, place):
    d = Bound(stack, place)
    status, answer = call(stack, "enroll", d.proof())
    assert status == 200, answer
    cert = x509.load_pem_x509_certificate(answer["certificate"].encode())
    place.tpm.tool("tpm2_readpublic", "-c", place.key, "-f", "der", "-o", "key.der")
    assert spki_sha256(cert) == hashlib.sha256(place.tpm.read("key.der")).digest() and len(answer["chain"]) == 2
    shown = stack.device(d.id)
    assert shown["state"] == "VERIFY" and [t["protocol"] for t in shown["trail"] if t["outcome"] == "ok"] == ["tpm"]
    assert stack.sql("SELECT endpoint FROM dps_registration WHERE registration_id = %s", d.id) == [("",)]  # it asked for no broker
    again = call(stack, "enroll", d.proof())[1]
    assert again["certificate"] == answer["certificate"] and again["replayed"]


def test_what_proves_nothing(stack, place, tpm):
    d, other = Bound(stack, place), Bound(stack, place)
    good = d.proof()
    assert "nonce" in refused(call(stack, "enroll", d.proof(nonce=b"another nonce of 32 bytes at most")), "tpm.signature_invalid")
    refused(call(stack, "enroll", {**good, "registration_id": other.id}), "tpm.signature_invalid")  # the credential was for another registration
    refused(call(stack, "enroll", {**good, "activated": b64(bytes(32))}), "tpm.signature_invalid")
    key = new_key()
    assert "certified" in refused(call(stack, "enroll", {**good, "csr": b64(new_csr(key, d.id))}), "tpm.key_mismatch")
    refused(call(stack, "enroll", {**good, "signature": good["signature"][:-8] + "AAAAAAA="}), "tpm.signature_invalid")
    refused(call(stack, "enroll", {**good, "key": d.who["attestation_key"]}), "tpm.signature_invalid")
    refused(call(stack, "enroll", good), "key.reused")  # all else was right, but the key is another device's by now


def test_an_attestation_key_that_signs_anything(stack, place):
    d = Bound(stack, place)
    assert "attestation key" in refused(call(stack, "challenge", {**d.who, "attestation_key": b64(place.key.public)}), "tpm.malformed")


def test_another_tpm_and_other_enrollments(stack, place, tpm):
    d = Bound(stack, place)
    refused(call(stack, "challenge", {**d.who, "endorsement_key": b64(tpm.key_at(EK_RSA).public if place.ek.public != tpm.key_at(EK_RSA).public else tpm.endorsement_key("ecc").public)}),
            "tpm.key_mismatch")
    refused(call(stack, "challenge", {**d.who, "registration_id": unique("nobody")}), "enrol.refused")
    symmetric = enrollment(stack)
    refused(call(stack, "challenge", {**d.who, "registration_id": symmetric["registration_id"]}), "enrol.refused")
    proof = d.proof()
    stack.v1("POST", f"/enrollments/{d.id}/disable")
    refused(call(stack, "enroll", proof), "enrollment.disabled")


def test_bodies_that_are_none(stack, place):
    d = Bound(stack, place)
    for body in ({}, {**d.who, "more": 1}, {**d.who, "endorsement_key": "!"}, {**d.who, "registration_id": 5}, {**d.who, "csr": "AAAA"}, [], {**d.who, "endorsement_certificate": ["AAAA"] * 9}):
        refused(call(stack, "challenge", body), "request.malformed")
    refused(call(stack, "enroll", d.who), "request.malformed")


def test_a_group_by_the_manufacturers_certificates(stack, tpm):
    place = Place(tpm, "rsa")
    place.ek = tpm.key_at(EK_RSA)
    place.ak = tpm.attestation_key(place.ek, "ecc", "ecdsa")
    group(stack, attestation="tpm", roots=pem(tpm.certificate("root")))
    d = Bound(stack, place, group_id(place.ek), [b64(tpm.certificate("ek-rsa2048")), b64(tpm.certificate("issuer"))])
    status, answer = call(stack, "enroll", d.proof())
    assert status == 200, answer
    refused(call(stack, "challenge", {k: v for k, v in d.who.items() if k != "endorsement_certificate"}), "enrol.refused")
    refused(call(stack, "challenge", {**d.who, "registration_id": unique("chosen")}), "enrollment.name_mismatch")
