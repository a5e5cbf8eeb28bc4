"""What pki/tpm makes, to a TPM; and what a TPM makes, to pki/tpm."""
import hashlib
import hmac
import os
import subprocess
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from stack import BUILD
from tpm import EK_P384, EK_RSA, SIGNING, Tpm, TpmError, sized, take_sized


class Refused(Exception):
    """Why, in tpm_blob's words."""


def blob(command, *arguments):
    """Lines of tpm_blob, as bytes."""
    done = subprocess.run([BUILD / "tests" / "tpm_blob", command, *(a.hex() for a in arguments)], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        assert done.stdout.startswith("refused: "), done.stderr
        raise Refused(done.stdout[len("refused: "):].strip())
    return [bytes.fromhex(line) for line in done.stdout.split()]


@pytest.fixture(scope="module")
def tpm(tmp_path_factory):
    with Tpm(tmp_path_factory.mktemp("tpm")) as running:
        yield running


@pytest.fixture(scope="module", params=["rsa", "ecc"])
def keys(request, tpm):
    """Endorsement and storage root key: RSA-2048, then P-256."""
    return tpm.endorsement_key(request.param), tpm.storage_root_key({"rsa": "rsa2048", "ecc": "ecc256"}[request.param])


def named(tpm, key):
    """The key's name as the TPM computes it."""
    tpm.tool("tpm2_readpublic", "-c", key, "-n", "name")
    return tpm.read("name")


def spki_of(tpm, key):
    """The key's fingerprint as tpm2-tools and another library see it."""
    tpm.tool("tpm2_readpublic", "-c", key, "-f", "pem", "-o", "key.pem")
    key = serialization.load_pem_public_key(tpm.read("key.pem"))
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)).digest()


def test_the_tpm_opens_our_credential(tpm, keys):
    ek, srk = keys
    for length in (1, 16, 32):
        secret = os.urandom(length)
        assert tpm.activate(ek, srk, *blob("credential", ek.public, srk.public, secret)) == secret


def test_the_tpm_opens_no_credential_for_another_key_or_that_was_changed(tpm, keys):
    ek, srk = keys
    ak = tpm.attestation_key(ek)
    id_object, encrypted = blob("credential", ek.public, ak.public, b"secret")
    assert tpm.activate(ek, ak, id_object, encrypted) == b"secret"
    for key, first in ((srk, id_object), (ak, id_object[:-1] + bytes([id_object[-1] ^ 1]))):
        with pytest.raises(TpmError):
            tpm.activate(ek, key, first, encrypted)


def test_the_tpm_opens_a_credential_for_the_manufacturers_keys(tpm):
    """Among them one of P-384, SHA-384 and AES-256."""
    srk = tpm.storage_root_key("ecc256")
    secret = os.urandom(32)
    for handle in (EK_RSA, EK_P384):
        ek = tpm.key_at(handle)
        id_object, encrypted = blob("credential", ek.public, srk.public, secret)
        assert tpm.activate(ek, srk, id_object, encrypted, policy=handle == EK_RSA) == secret, hex(handle)


def test_the_tpm_imports_our_hmac_key_and_its_macs_are_ours(tpm, keys):
    ek, srk = keys
    secret = os.urandom(32)
    (activation,) = blob("activation", ek.public, srk.public, secret)
    key = tpm.import_hmac_key(ek, srk, activation)
    for message in (b"", b"scope/registrations/id\n1900000000", os.urandom(1000)):
        assert tpm.hmac(key, message) == hmac.digest(secret, message, "sha256")


def test_an_hmac_key_for_one_storage_root_key_is_not_imported_under_another(tpm, keys):
    ek, srk = keys
    other = tpm.storage_root_key("ecc384" if srk.public[2:4] == b"\x00\x23" else "ecc256")
    (activation,) = blob("activation", ek.public, other.public, os.urandom(32))
    with pytest.raises(TpmError):
        tpm.import_hmac_key(ek, srk, activation)


@pytest.mark.parametrize("algorithm, scheme", [("ecc", "ecdsa"), ("rsa", "rsassa"), ("rsa", "rsapss")])
def test_what_the_tpm_certifies_holds(tpm, keys, algorithm, scheme):
    ek, srk = keys
    ak = tpm.attestation_key(ek, algorithm, scheme)
    for kind in ("ecc256", "rsa2048"):
        key = tpm.signing_key(srk, kind)
        nonce = os.urandom(32)
        attest, signature = tpm.certify(key, ak, nonce)
        assert blob("certify", ak.public, key.public, attest, signature, nonce) == [spki_of(tpm, key)]
        assert named(tpm, key) in attest
        with pytest.raises(Refused, match="another nonce"):
            blob("certify", ak.public, key.public, attest, signature, os.urandom(32))
        with pytest.raises(Refused, match="another key"):
            blob("certify", ak.public, tpm.signing_key(srk).public, attest, signature, nonce)


def test_a_key_that_can_leave_the_tpm_is_not_bound(tpm, keys):
    ek, srk = keys
    ak = tpm.attestation_key(ek)
    key = tpm.signing_key(srk, attributes="sensitivedataorigin|userwithauth|sign")
    attest, signature = tpm.certify(key, ak, b"nonce")
    with pytest.raises(Refused, match="outside its TPM"):
        blob("certify", ak.public, key.public, attest, signature, b"nonce")


def test_a_key_that_signs_anything_does_not_attest(tpm, keys):
    _, srk = keys
    forger = tpm.signing_key(srk, "ecc256:ecdsa-sha256", SIGNING)
    attest, signature = tpm.certify(forger, forger, b"nonce")
    with pytest.raises(Refused, match="no attestation key"):
        blob("certify", forger.public, forger.public, attest, signature, b"nonce")


@pytest.mark.parametrize("handle, name", [(EK_RSA, "ek-rsa2048"), (EK_P384, "ek-secp384r1")])
def test_the_manufacturers_certificate_is_its_keys(tpm, handle, name):
    ek, certificate, issuer = tpm.key_at(handle), tpm.certificate(name), tpm.certificate("issuer")
    now = int(time.time()).to_bytes(8, "big")
    assert blob("ek-certificate", ek.public, certificate, issuer, now) == []
    other = tpm.key_at(EK_RSA + EK_P384 - handle)
    with pytest.raises(Refused, match="not of the endorsement key"):
        blob("ek-certificate", other.public, certificate, issuer, now)
    with pytest.raises(Refused, match="issuer"):
        blob("ek-certificate", ek.public, certificate, tpm.certificate("root"), now)
    early = int(x509.load_der_x509_certificate(certificate).not_valid_before.timestamp()) - 2 * 86400
    with pytest.raises(Refused, match="is valid from"):
        blob("ek-certificate", ek.public, certificate, issuer, early.to_bytes(8, "big"))


def test_keys_that_are_no_storage_keys_get_nothing(tpm, keys):
    ek, srk = keys
    ak = tpm.attestation_key(ek)
    with pytest.raises(Refused, match="no storage key"):
        blob("credential", ak.public, srk.public, b"secret")
    with pytest.raises(Refused, match="no storage key"):
        blob("activation", ek.public, ak.public, bytes(32))


def test_a_public_area_goes_with_or_without_its_size(tpm, keys):
    ek, srk = keys
    part, rest = take_sized(ek.public)
    assert rest == b"" and sized(part[2:]) == ek.public
    assert tpm.activate(ek, srk, *blob("credential", ek.public[2:], srk.public[2:], b"secret")) == b"secret"


def test_keys_outlive_the_power(tpm, keys):
    """What later tests rely on: a device that was switched off has its keys."""
    ek, srk = keys
    tpm.stop()
    tpm.start()
    assert tpm.activate(ek, srk, *blob("credential", ek.public, srk.public, b"secret")) == b"secret"
