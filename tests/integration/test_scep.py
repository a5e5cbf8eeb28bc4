"""SCEP by a client of our own, by strongSwan's and by certmonger's."""
import base64
import json
import subprocess

import pytest
from cryptography import x509

from client import Device, cert_pem, fingerprint, key_pem, new_key, request, spki_sha256, unique
from factory import Authority
from scep import CERT_POLL, GET_CERT, GET_CRL, PKCS_REQ, RENEWAL_REQ, Reply, Scep, csr, envelop, issuer_and_serial, issuer_and_subject, self_signed, sign
from stack import wait_for


@pytest.fixture
def scep(stack):
    return Scep(stack)


def enrolled(stack, scep, token=None, **kw):
    """(serial, key, certificate) of a device that came by SCEP."""
    serial = unique("scep")
    key, reply = scep.enrol(serial, token or stack.mint("open"), **kw)
    assert reply.status == "0", reply.text
    return serial, key, reply.certs[0]


def renewed(scep, key, cert, new=None, kind=RENEWAL_REQ, **kw):
    new = new or new_key("RSA-2048")
    return new, scep.ask(kind, csr(new, cert.subject.rfc4514_string().split("CN=")[1]), key, cert, **kw)


# What is told beforehand


def test_capabilities_and_cas(stack, scep):
    caps = scep.caps()
    assert {"AES", "POSTPKIOperation", "Renewal", "SCEPStandard", "SHA-256", "SHA-512"} <= set(caps) and not {"DES3", "SHA-1", "GetNextCACert"} & set(caps)
    ra, issuing, root = scep.cas()
    assert ra.issuer == issuing.subject and issuing.issuer == root.subject == root.issuer
    assert ra.public_key().key_size == 2048 and not ra.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert scep.http("GET", "operation=GetNextCACert")[0] == 404


@pytest.mark.parametrize("path", ["/scep", "/scep/open", "/scep/pkiclient.exe", "/scep/open/pkiclient.exe", "/cgi-bin/pkiclient.exe", "/certsrv/mscep/mscep.dll",
                                  "/certsrv/mscep/mscep.dll/pkiclient.exe"])
def test_paths_that_clients_insist_on(stack, path):
    enrolled(stack, Scep(stack, path))


def test_what_is_no_operation(stack, scep):
    for query in ("", "operation=", "operation=Nonsense", "operation=pkioperation"):
        status, _, body = scep.http("GET", query)
        assert status == 400 and b"scep.operation_unknown" in body
    assert scep.http("PUT", "operation=GetCACaps")[0] == 405
    assert Scep(stack, "/scep/none-such").post(b"x")[0] == 400


def test_a_server_without_an_ra_says_so(fresh):
    fresh.stop()
    fresh.doors = False
    fresh.configure()
    fresh.start()
    status, _, body = request(fresh, "GET", "/scep?operation=GetCACaps")
    assert status == 404 and json.loads(body)["code"] == "scep.not_configured"


# Enrolling


def test_a_device_enrols_with_a_token(stack, scep):
    serial, key, cert = enrolled(stack, scep)
    assert spki_sha256(key) == spki_sha256(cert) and cert.issuer == scep.cas()[1].subject
    shown = stack.device(serial)
    assert shown["state"] == "VERIFY" and shown["trail"][0]["protocol"] == "scep" and shown["trail"][0]["operation"] == "PKCSReq" and shown["trail"][0]["credential"] == "token"
    device = Device(stack, serial)
    device.key, device.cert = key, cert
    assert device.config()["serial"] == serial
    assert stack.state(serial) == "PROVISIONED"


def test_get_and_post_are_one(stack, scep):
    serial, key = unique("scep"), new_key("RSA-2048")
    message = scep.message(PKCS_REQ, csr(key, serial, stack.mint("open")), key, self_signed(key, serial))
    status, _, body = scep.get(message)
    assert status == 200 and Reply(scep, body).status == "0"
    for text in (base64.b64encode(message).decode(), base64.b64encode(message).decode().replace("+", "%2B")):  # not escaped, and escaped in part
        status, _, again = scep.http("GET", f"operation=PKIOperation&message={text}")
        assert status == 200 and Reply(scep, again).certs == Reply(scep, body).certs


def test_over_https_too(stack):
    scep = Scep(stack)
    serial, key = unique("scep"), new_key("RSA-2048")
    message = scep.message(PKCS_REQ, csr(key, serial, stack.mint("open")), key, self_signed(key, serial))
    status, _, body = request(stack, "POST", "/scep?operation=PKIOperation", message, {"Content-Type": "application/x-pki-message"})
    assert status == 200 and Reply(scep, body).status == "0"


@pytest.mark.parametrize("cipher, digest", [("aes128_cbc", "sha256"), ("aes192_cbc", "sha384"), ("aes256_cbc", "sha512")])
def test_answers_use_the_clients_algorithms(stack, scep, cipher, digest):
    serial = unique("scep")
    _, reply = scep.enrol(serial, stack.mint("open"), cipher=cipher, digest=digest)
    assert reply.status == "0" and (reply.cipher, reply.digest) == (cipher, digest)


def test_the_same_again_is_the_same(stack, scep):
    serial, key, cert = enrolled(stack, scep)
    again = scep.enrol(serial, stack.mint("open"), key)[1]
    assert again.certs == [cert]


def test_a_factory_certificate_needs_no_challenge(stack, scep):
    ca, serial, key = Authority(unique("Line")), unique("scep"), new_key("RSA-2048")
    ca.register(stack, unique("line"), template="both")
    cert, _ = ca.device(serial, key)
    own = new_key("RSA-2048")
    reply = Scep(stack, "/scep/both").ask(PKCS_REQ, csr(own, serial), key, cert)
    assert reply.status == "0", reply.text
    assert spki_sha256(reply.certs[0]) == spki_sha256(own) and stack.device(serial)["trail"][0]["credential"] == "factory"


# Renewing


def test_a_renewal_needs_no_challenge(stack, scep):
    serial, key, cert = enrolled(stack, scep)
    new, reply = renewed(scep, key, cert)
    assert reply.status == "0", reply.text
    (fresh,) = reply.certs
    assert spki_sha256(fresh) == spki_sha256(new) and fresh.subject == cert.subject and stack.device(serial)["trail"][0]["operation"] == "RenewalReq"
    again = renewed(scep, new, fresh, kind=PKCS_REQ)[1]  # as old clients renew
    assert again.status == "0", again.text


def test_who_may_not_renew(stack, scep):
    serial, key, cert = enrolled(stack, scep)
    assert renewed(scep, key, self_signed(key, serial))[1].fail == "2"  # by nobody's certificate
    other_serial, other_key, other = enrolled(stack, scep)
    reply = scep.ask(RENEWAL_REQ, csr(new_key("RSA-2048"), serial), other_key, other)
    assert reply.status == "2" and "csr.subject_changed" in reply.text
    stack.v1("POST", f"/certs/{fingerprint(cert)}/revoke", {"reason": "superseded"})
    reply = renewed(scep, key, cert)[1]
    assert reply.status == "2" and "cert.revoked" in reply.text


def test_a_client_certificate_in_tls_is_no_credential_here(stack, scep):
    """Only the message is: who holds the connection has not made the request."""
    ec, key, serial = Device(stack, token=stack.mint("open")), new_key("RSA-2048"), unique("scep")
    ec.enrol()
    message = scep.message(PKCS_REQ, csr(key, serial), key, self_signed(key, serial))
    status, _, body = request(stack, "POST", "/scep?operation=PKIOperation", message, {"Content-Type": "application/x-pki-message"}, [ec.cert], ec.key)
    assert status == 200 and Reply(scep, body).text.startswith("auth.required")


def test_an_ecdsa_signer_is_told_why_not(stack, scep):
    """Answers are enveloped for the signer's key, which takes RSA."""
    key, serial = new_key(), unique("scep")
    message = sign(envelop(csr(key, serial, stack.mint("open")), scep.ra), key, self_signed(key, serial), {"type": str(PKCS_REQ), "transaction": "1", "nonce": b"n" * 16})
    status, _, body = scep.post(message)
    assert status == 400 and b"scep.algorithm" in body and b"not RSA" in body


def test_an_expired_signer_is_a_matter_of_time(stack, scep):
    ca, name, serial = Authority(unique("Late")), unique("late"), unique("scep")
    ca.register(stack, name)
    cert, key = ca.device(serial, new_key("RSA-2048"), begin=-10, end=-1)
    reply = Scep(stack, "/scep/factory").ask(PKCS_REQ, csr(new_key("RSA-2048"), serial), key, cert)
    assert (reply.status, reply.fail) == ("2", "3") and "cert.expired" in reply.text  # badTime


# Refusals


def test_refusals_are_signed_and_say_why(stack, scep):
    key, reply = scep.enrol(unique("scep"), "mst_wrong")
    assert (reply.status, reply.fail) == ("2", "2") and reply.text.startswith("enrol.refused")
    _, reply = scep.enrol(unique("scep"), None)
    assert reply.status == "2" and reply.text.startswith("auth.required")
    _, reply = Scep(stack, "/scep/p256").enrol(unique("scep"), stack.mint("p256"))
    assert reply.fail == "0" and "csr.key_not_allowed" in reply.text
    other = new_key("RSA-2048")
    reply = scep.ask(PKCS_REQ, csr(new_key("RSA-2048"), unique("scep"), stack.mint("open")), other, self_signed(other, "x"))
    assert reply.fail == "1" and "scep.signer_mismatch" in reply.text
    reply = Scep(stack, "/scep/none-such").enrol(unique("scep"), stack.mint("open"))[1]
    assert reply.status == "2" and "template.unknown" in reply.text


def test_a_refusal_burns_no_token(stack, scep):
    token = stack.mint("open")
    other = new_key("RSA-2048")
    assert scep.ask(PKCS_REQ, csr(new_key("RSA-2048"), unique("scep"), token), other, self_signed(other, "x")).status == "2"
    assert scep.enrol(unique("scep"), token, digest="sha512")[1].status == "0"
    assert "enrol.refused" in scep.enrol(unique("scep"), token)[1].text


@pytest.mark.parametrize("kw", [{"cipher": "tripledes_3key"}, {"digest": "sha1"}])
def test_old_algorithms_are_an_option(stack, fresh_scep, kw):
    serial, key = unique("scep"), new_key("RSA-2048")
    scep = Scep(stack)
    status, _, body = scep.post(scep.message(PKCS_REQ, csr(key, serial, stack.mint("open")), key, self_signed(key, serial), **kw))
    assert (status == 400 and b"scep.algorithm" in body) or Reply(scep, body).fail == "0"
    old = Scep(fresh_scep)
    assert {"DES3", "SHA-1"} <= set(old.caps())
    _, reply = old.enrol(serial, fresh_scep.mint("open"), **kw)
    assert reply.status == "0", reply.text


@pytest.fixture
def fresh_scep(fresh):
    fresh.stop()
    fresh.configure(scep__allow_3des=1, scep__allow_sha1=1)
    fresh.start()
    return fresh


def test_an_envelope_for_somebody_else(stack, scep):
    """Whatever is wrong with it: one answer."""
    serial, key = unique("scep"), new_key("RSA-2048")
    cert, ra = self_signed(key, serial), scep.ra
    stranger = new_key("RSA-2048")
    texts = set()
    for content in (csr(key, serial, stack.mint("open")), b"no CSR at all", b""):
        for recipient in (ra, self_signed(stranger, "ra")):
            scep.ra = recipient
            message = scep.message(PKCS_REQ, content, key, cert)
            scep.ra = ra
            status, _, body = scep.post(message)
            reply = Reply(scep, body)
            if reply.status != "0":
                texts.add((status, reply.fail, reply.text))
    assert len(texts) == 1 and "scep.message_check" in texts.pop()[2]


def test_messages_that_are_none(stack, scep):
    serial, key = unique("scep"), new_key("RSA-2048")
    cert = self_signed(key, serial)
    good = scep.message(PKCS_REQ, csr(key, serial, stack.mint("open")), key, cert)
    for at in (1, 40, len(good) // 2, len(good) - 1):
        status, _, body = scep.post(good[:at])
        assert status == 400 and b"scep.malformed" in body
    for at in range(4, len(good), max(1, len(good) // 40)):
        status, _, body = scep.post(good[:at] + bytes([good[at] ^ 1]) + good[at + 1:])
        assert status in (200, 400), body
    assert scep.post(good + b"\0")[0] == 400 and scep.post(b"")[0] == 400 and scep.post(b"0" * 40000)[0] == 413
    for attributes in ({"transaction": None}, {"nonce": None}, {"type": None}, {"type": "x"}, {"nonce": bytes(100)}, {"transaction": "x" * 200}, {"type": ["19", "19"]}):
        kw = {"kind": PKCS_REQ, **attributes}
        fields = {"type": "19", "nonce": bytes(16), "transaction": "t", **attributes}
        message = sign(envelop(b"x", scep.ra), key, cert, {k: v for k, v in fields.items() if v is not None})
        status, _, body = scep.post(message)
        assert status == 400 and b"scep.malformed" in body, (kw, body)
    status, _, body = scep.post(sign(envelop(b"x", scep.ra), key, cert, {"type": "19", "nonce": bytes(16), "transaction": "t"}, certs=[]))
    assert status == 400
    many = sign(envelop(b"x", scep.ra, recipients=5), key, cert, {"type": "19", "nonce": bytes(16), "transaction": "t"})
    scep.nonce, scep.transaction, scep.key_of_signer = bytes(16), "t", key
    assert Reply(scep, scep.post(many)[2]).status == "2"
    assert scep.ask(3, b"x", key, cert).status == "2" and scep.ask(99, b"x", key, cert).status == "2"
    ask = scep.http("GET", "operation=PKIOperation&message=!!!")
    assert ask[0] == 400 and scep.http("GET", "operation=PKIOperation")[0] == 400


# Waiting


def test_a_device_that_waits_polls(stack):
    scep, serial, key = Scep(stack, "/scep/waiting"), unique("scep"), new_key("RSA-2048")
    token, transaction = stack.mint("waiting"), unique("tx")
    cert = self_signed(key, serial)
    reply = scep.ask(PKCS_REQ, csr(key, serial, token), key, cert, transaction=transaction)
    assert reply.status == "3"
    poll = issuer_and_subject(scep.cas()[1], serial)
    assert scep.ask(CERT_POLL, poll, key, cert, transaction=transaction).status == "3"
    kept = bytes(stack.one("SELECT message FROM scep_pending ORDER BY kept_at DESC LIMIT 1"))
    assert token.encode() not in kept
    # ever new transactions of one device do not fill the registry: its last one waits
    before, again = stack.one("SELECT count(*) FROM scep_pending"), unique("tx")
    for name in (unique("tx"), again):
        assert scep.ask(PKCS_REQ, csr(key, serial, token), key, cert, transaction=name).status == "3"
    assert stack.one("SELECT count(*) FROM scep_pending") == before
    assert scep.ask(CERT_POLL, poll, key, cert, transaction=transaction).fail == "4"
    transaction = again
    other = new_key("RSA-2048")
    reply = scep.ask(CERT_POLL, poll, other, self_signed(other, serial), transaction=transaction)
    assert (reply.status, reply.fail) == ("2", "4") and "scep.unknown_transaction" in reply.text
    stack.v1("POST", f"/devices/{serial}/approve")
    reply = scep.ask(CERT_POLL, poll, key, cert, transaction=transaction)
    assert reply.status == "0" and spki_sha256(reply.certs[0]) == spki_sha256(key)
    assert scep.ask(CERT_POLL, poll, key, cert, transaction=transaction).certs == reply.certs
    assert scep.ask(CERT_POLL, b"\x05\x00", key, cert, transaction=transaction).fail == "1"


# Certificates and CRLs


def test_a_device_may_have_its_own_certificates_and_the_crl(stack, scep):
    serial, key, cert = enrolled(stack, scep)
    assert scep.ask(GET_CERT, issuer_and_serial(cert), key, cert).certs == [cert]
    other_serial, other_key, other = enrolled(stack, scep)
    reply = scep.ask(GET_CERT, issuer_and_serial(other), key, cert)
    assert reply.fail == "4" and "scep.unknown_certificate" in reply.text
    reply = scep.ask(GET_CERT, issuer_and_serial(cert), key, self_signed(key, serial))
    assert reply.status == "2"
    reply = scep.ask(GET_CRL, issuer_and_serial(self_signed(key, "nobody")), key, cert)
    assert reply.fail == "4"
    reply = scep.ask(GET_CRL, issuer_and_serial(cert), key, cert)
    assert reply.status == "2" and "no CRL" in reply.text


# A change of CA


def test_the_next_ca_is_told_signed(fresh, tmp_path):
    scep = Scep(fresh)
    fresh.musterd("add-root", "--name", "root-2")
    wait_for("the new root", lambda: "GetNextCACert" in scep.caps())
    status, headers, body = scep.http("GET", "operation=GetNextCACert")
    assert status == 200 and headers["content-type"] == "application/x-x509-next-ca-cert"
    (tmp_path / "next.der").write_bytes(body)
    done = subprocess.run(["openssl", "cms", "-verify", "-inform", "DER", "-in", tmp_path / "next.der", "-CAfile", _chain(scep, tmp_path), "-purpose", "any", "-out", tmp_path / "certs.der"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(["openssl", "pkcs7", "-inform", "DER", "-in", tmp_path / "certs.der", "-print_certs", "-noout"], capture_output=True, text=True, check=True).stdout
    assert "root-2" in shown
    fresh.musterd("add-ra")  # again: another certificate of the same key
    fresh.stop()
    fresh.start()
    enrolled(fresh, Scep(fresh))


def test_openssl_agrees_with_our_messages(stack, scep, tmp_path):
    serial, key = unique("scep"), new_key("RSA-2048")
    cert = self_signed(key, serial)
    status, _, body = scep.post(scep.message(PKCS_REQ, csr(key, serial, stack.mint("open")), key, cert))
    assert status == 200
    (tmp_path / "rep.der").write_bytes(body)
    (tmp_path / "key.pem").write_bytes(key_pem(key))
    (tmp_path / "cert.pem").write_bytes(cert_pem(cert))
    run = lambda *args: subprocess.run(["openssl", *map(str, args)], capture_output=True, text=True, check=True).stdout  # noqa: E731
    run("cms", "-verify", "-inform", "DER", "-in", tmp_path / "rep.der", "-CAfile", _chain(scep, tmp_path), "-purpose", "any", "-binary", "-out", tmp_path / "env.der")
    run("cms", "-decrypt", "-inform", "DER", "-in", tmp_path / "env.der", "-inkey", tmp_path / "key.pem", "-recip", tmp_path / "cert.pem", "-binary", "-out", tmp_path / "p7.der")
    assert f"CN = {serial}" in run("pkcs7", "-inform", "DER", "-in", tmp_path / "p7.der", "-print_certs", "-noout")


def _chain(scep, folder):
    (folder / "chain.pem").write_bytes(b"".join(cert_pem(c) for c in scep.cas()[1:]))
    return folder / "chain.pem"
