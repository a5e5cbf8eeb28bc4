"""POST /serverkeygen (RFC 7030 4.4): keys made by the server, in clear and encrypted to the client."""
import base64
import email
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key, pkcs7

from client import Device, basic, key_pem, cert_pem, name_of, new_csr, new_key, request, unique
from factory import Authority
from stack import Refused

ASYMM_DECRYPT_KEY_ID = x509.ObjectIdentifier("1.2.840.113549.1.9.16.2.54")
DECRYPT_KEY_ID = x509.ObjectIdentifier("1.2.840.113549.1.9.16.2.37")
SMIME_CAPABILITIES = x509.ObjectIdentifier("1.2.840.113549.1.9.15")
AES_256_CBC, AES_128_CBC, DES3_CBC = ("60864801650304012a", "608648016503040102", "2a864886f70d0307")


def tlv(tag, content):
    length = len(content)
    head = bytes([length]) if length < 128 else bytes([0x82, length >> 8, length & 255])
    return bytes([tag]) + head + content


def octets(data):
    return tlv(4, data)


def capabilities(*oids):
    return tlv(0x30, b"".join(tlv(0x30, tlv(6, bytes.fromhex(o))) for o in oids))


def raw_csr(key, cn, attributes):
    """A PKCS#10 request with attributes of any type: [(OID, DER of the value)]."""
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    body = b"".join(tlv(0x30, tlv(6, oid_bytes(oid)) + tlv(0x31, value)) for oid, value in attributes)
    info = tlv(0x30, b"\x02\x01\x00" + name_of(cn).public_bytes() + spki + tlv(0xa0, body))
    signature = key.sign(info, ec.ECDSA(hashes.SHA256()))
    return tlv(0x30, info + tlv(0x30, tlv(6, bytes.fromhex("2a8648ce3d040302"))) + tlv(3, b"\0" + signature))


def oid_bytes(oid):
    parts = [int(p) for p in oid.dotted_string.split(".")]
    out = [parts[0] * 40 + parts[1]]
    for p in parts[2:]:
        piece = [p & 127]
        while p := p >> 7:
            piece.insert(0, p & 127 | 128)
        out += piece
    return bytes(out)


def keygen(stack, template, csr, headers=None, chain=None, key=None):
    status, got, body = request(stack, "POST", f"/.well-known/est/{template}/serverkeygen", base64.b64encode(csr),
                                {"Content-Type": "application/pkcs10", **(headers or {})}, chain, key)
    if status != 200:
        raise Refused(status, got, body)
    assert got["content-type"].startswith("multipart/mixed; boundary=")
    message = email.message_from_bytes(b"Content-Type: " + got["content-type"].encode() + b"\r\n\r\n" + body)
    parts = message.get_payload()
    assert [p["Content-Transfer-Encoding"] for p in parts] == ["base64", "base64"]
    (cert,) = pkcs7.load_der_pkcs7_certificates(parts[1].get_payload(decode=True))
    assert parts[1]["Content-Type"] == "application/pkcs7-mime; smime-type=certs-only"
    return parts[0]["Content-Type"], parts[0].get_payload(decode=True), cert


def same_key(private, cert):
    def spki(k):
        return k.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return spki(private.public_key()) == spki(cert.public_key())


@pytest.mark.parametrize("kind,expected", [("P-256", ec.EllipticCurvePrivateKey), ("P-384", ec.EllipticCurvePrivateKey),
                                           ("RSA-2048", rsa.RSAPrivateKey), ("Ed25519", ed25519.Ed25519PrivateKey)])
def test_the_key_follows_the_request(stack, kind, expected):
    serial, asked = unique("gen"), new_key(kind)
    kind_of_part, der, cert = keygen(stack, "open", new_csr(asked, serial), {"Authorization": basic(serial, stack.mint("open"))})
    private = load_der_private_key(der, None)
    assert kind_of_part == "application/pkcs8"
    assert isinstance(private, expected) and same_key(private, cert) and not same_key(asked, cert)
    if kind == "P-384":
        assert private.curve.name == "secp384r1"
    d = Device(stack, serial)
    d.key, d.cert = private, cert
    assert d.config()["state"] == "PROVISIONED"
    d.renew()


def test_signature_and_key_of_the_request_do_not_matter(stack):
    serial = unique("gen")
    csr = bytearray(new_csr(new_key(), serial))
    csr[-1] ^= 1
    with pytest.raises(Refused) as e:
        Device(stack, serial).post("simpleenroll", bytes(csr), headers={"Authorization": basic(serial, stack.mint("open"))})
    assert e.value.code == "csr.signature_invalid"
    _, der, cert = keygen(stack, "open", bytes(csr), {"Authorization": basic(serial, stack.mint("open"))})
    assert same_key(load_der_private_key(der, None), cert)


def test_every_request_gets_a_key_of_its_own(stack):
    """Power was lost before the first was saved: the same token again, within its grace."""
    serial = unique("gen")
    token, csr = stack.mint("strict", serial), new_csr(new_key(), serial)
    stack.allow(serial)
    first = keygen(stack, "strict", csr, {"Authorization": basic(serial, token)})
    second = keygen(stack, "strict", csr, {"Authorization": basic(serial, token)})
    assert first[1] != second[1]
    states = {c["fingerprint"]: c["status"] for c in stack.device(serial)["certificates"]}
    assert states[second[2].fingerprint(hashes.SHA256()).hex()] == "pending"
    assert states[first[2].fingerprint(hashes.SHA256()).hex()] == "revoked"


def test_a_device_renews_with_a_key_of_ours(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    _, der, cert = keygen(stack, "open", new_csr(new_key(), d.cert.subject), chain=[d.cert], key=d.key)
    d.key, d.cert = load_der_private_key(der, None), cert
    assert d.config()["state"] == "PROVISIONED"


def test_a_template_may_refuse(stack):
    serial = unique("gen")
    token = stack.mint("refuse", serial)
    stack.allow(serial)
    with pytest.raises(Refused) as e:
        keygen(stack, "refuse", new_csr(new_key(), serial), {"Authorization": basic(serial, token)})
    assert (e.value.status, e.value.code) == (403, "keygen.not_allowed")
    assert stack.one("SELECT uses FROM token WHERE serial = %s", serial) == 0


def test_without_a_credential(stack):
    with pytest.raises(Refused) as e:
        keygen(stack, "open", new_csr(new_key(), unique("gen")))
    assert (e.value.status, e.value.code) == (401, "auth.required")


def test_a_stranger_costs_no_key(stack):
    """Judged before a key is made: a refused token takes no time of an RSA-4096 key."""
    serial, csr = unique("gen"), new_csr(new_key("RSA-4096"), unique("gen"))
    for token, template, outcome in (("mst_" + "x" * 43, "open", "token.unknown"), (stack.mint("strict"), "open", "token.wrong_template"),
                                     (stack.mint("strict", serial), "strict", "allowlist.unknown_serial")):
        with pytest.raises(Refused) as e:
            keygen(stack, template, csr, {"Authorization": basic(serial, token)})
        assert e.value.code == "enrol.refused" and stack.last_attempt(serial)[0] == outcome
        steps = stack.sql("SELECT steps FROM history WHERE serial = %s ORDER BY at DESC LIMIT 1", serial)[0][0]
        assert [s["step"] for s in steps][-1] == "issue", "refused before anything was signed"


# encrypted to the client

@pytest.fixture(scope="module", params=["P-256", "RSA-2048"])
def factory_device(request, stack):
    ca = Authority(f"Keygen Maker {request.param}")
    ca.register(stack, f"keygen-maker-{request.param.lower()}", template="factory")

    def make():
        serial = unique("gen")
        stack.allow(serial)
        cert, key = ca.device(serial, key=new_key(request.param))
        return serial, cert, key
    return make


def ski(cert):
    return cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def decrypt(tmp_path, stack, der, cert, key):
    """The private key out of EnvelopedData{SignedData{key package}}, by openssl."""
    files = {"env": der, "cert": cert_pem(cert), "key": key_pem(key)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    def openssl(*args, stdin=None):
        done = subprocess.run(["openssl", "cms", *args], input=stdin, capture_output=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout
    signed = openssl("-decrypt", "-inform", "DER", "-in", "env", "-recip", "cert", "-inkey", "key")
    info = tlv(0x30, bytes.fromhex("06092a864886f70d010702") + tlv(0xa0, signed))
    package = openssl("-verify", "-inform", "DER", "-CAfile", str(stack.cafile), "-purpose", "any", "-binary", stdin=info)
    assert package[0] == 0x30
    inner = package[2:] if package[1] < 128 else package[2 + (package[1] & 127):]
    return load_der_private_key(inner, None)


@pytest.mark.parametrize("ciphers,expected", [(None, "aes-256-cbc"), ((AES_256_CBC, AES_128_CBC), "aes-256-cbc"), ((DES3_CBC, AES_128_CBC), "aes-128-cbc")])
def test_encrypted_to_the_clients_key(stack, tmp_path, factory_device, ciphers, expected):
    serial, cert, key = factory_device()
    attributes = [(ASYMM_DECRYPT_KEY_ID, octets(ski(cert)))]
    if ciphers:
        attributes.append((SMIME_CAPABILITIES, capabilities(*ciphers)))
    kind, der, made = keygen(stack, "factory", raw_csr(new_key(), serial, attributes), chain=[cert], key=key)
    assert kind == "application/pkcs7-mime; smime-type=server-generated-key"
    assert same_key(decrypt(tmp_path, stack, der, cert, key), made)
    shown = subprocess.run(["openssl", "cms", "-cmsout", "-print", "-inform", "DER"], input=der, capture_output=True).stdout
    assert f"algorithm: {expected}".encode() in shown


@pytest.mark.parametrize("attributes,code", [
    ([(ASYMM_DECRYPT_KEY_ID, octets(b"x" * 20))], "keygen.key_unknown"),
    ([(DECRYPT_KEY_ID, octets(b"shared"))], "keygen.key_unknown"),
    ([(DECRYPT_KEY_ID, octets(b"shared")), (ASYMM_DECRYPT_KEY_ID, None)], "keygen.key_unknown"),
    ([(ASYMM_DECRYPT_KEY_ID, octets(b""))], "csr.malformed"),
    ([(ASYMM_DECRYPT_KEY_ID, b"\x02\x01\x05")], "csr.malformed"),
    ([(ASYMM_DECRYPT_KEY_ID, b"")], "csr.malformed"),
    ([(ASYMM_DECRYPT_KEY_ID, None), (SMIME_CAPABILITIES, capabilities(DES3_CBC))], "keygen.cipher_unsupported"),
    ([(ASYMM_DECRYPT_KEY_ID, None), (SMIME_CAPABILITIES, b"\x04\x01x")], "csr.malformed"),
])
def test_what_cannot_be_encrypted_is_never_sent(stack, factory_device, attributes, code):
    serial, cert, key = factory_device()
    filled = [(oid, octets(ski(cert)) if value is None else value) for oid, value in attributes]
    with pytest.raises(Refused) as e:
        keygen(stack, "factory", raw_csr(new_key(), serial, filled), chain=[cert], key=key)
    assert e.value.code == code
    assert stack.sql("SELECT 1 FROM certificate c JOIN device d ON d.id = c.device_id WHERE d.serial = %s AND c.purpose = 'operational'", serial) == []


def test_a_token_holder_has_no_key_to_encrypt_for(stack):
    serial = unique("gen")
    csr = raw_csr(new_key(), serial, [(ASYMM_DECRYPT_KEY_ID, octets(b"k" * 20))])
    with pytest.raises(Refused) as e:
        keygen(stack, "open", csr, {"Authorization": basic(serial, stack.mint("open"))})
    assert e.value.code == "keygen.key_unknown"


def test_private_keys_stay_nowhere(stack):
    serial = unique("gen")
    _, der, _ = keygen(stack, "open", new_csr(new_key(), serial), {"Authorization": basic(serial, stack.mint("open"))})
    secret = load_der_private_key(der, None).private_numbers().private_value.to_bytes(32, "big")
    dump = subprocess.run(["pg_dump", "-h", "127.0.0.1", "-p", str(stack.pg_port), "-U", "muster", "muster"], capture_output=True).stdout
    assert len(dump) > 100000 and secret.hex().encode() not in dump and base64.b64encode(der)[:40] not in dump
    assert secret.hex() not in stack.log_text()
