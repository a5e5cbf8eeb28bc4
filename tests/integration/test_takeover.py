"""Ways in which an identity could be taken over or lost; each was open once."""
import socket
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from client import EST, Device, basic, fingerprint, name_of, new_csr, new_key, request, tls_context, unique
from factory import Authority
from stack import Refused


def refused(code, call, *args, **kw):
    with pytest.raises(Refused) as e:
        call(*args, **kw)
    assert e.value.code == code, e.value
    return e.value


def status_of(stack, cert):
    return stack.one("SELECT status FROM certificate WHERE fingerprint = decode(%s, 'hex')", fingerprint(cert))


def garbage(stack, chain, key, operation="simplereenroll", label=None, times=6):
    """Requests that are no CSR, with a certificate."""
    for _ in range(times):
        path = f"{EST}/{label}/{operation}" if label else f"{EST}/{operation}"
        status, _, _ = request(stack, "POST", path, b"AAAA", {"Content-Type": "application/pkcs10"}, chain, key)
        assert status in (400, 403)


@pytest.fixture(scope="module")
def maker(stack):
    ca = Authority("Takeover Maker")
    ca.register(stack, "takeover-maker")
    return ca


# one key, one name

def respelt_csr(tmp_path, key, subject, *spelling):
    """A CSR over the same EC key in another encoding, made by openssl."""
    pem, out, csr = tmp_path / "k.pem", tmp_path / "o.pem", tmp_path / "c.der"
    pem.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()))
    subprocess.run(["openssl", "ec", "-in", pem, "-out", out, *spelling], check=True, capture_output=True)
    subprocess.run(["openssl", "req", "-new", "-key", out, "-subj", f"/CN={subject}", "-outform", "DER", "-out", csr], check=True, capture_output=True)
    return csr.read_bytes()


@pytest.mark.parametrize("spelling", [("-conv_form", "compressed"), ("-conv_form", "hybrid"), ("-param_enc", "explicit")])
def test_another_spelling_of_a_key_is_no_other_key(stack, tmp_path, spelling):
    token = stack.mint("open", uses=5)
    owner, thief = Device(stack, token=token), Device(stack, token=token)
    owner.enrol()
    csr = respelt_csr(tmp_path, owner.key, thief.serial, *spelling)
    e = refused("csr.key_not_allowed", thief.post, "simpleenroll", csr, headers={"Authorization": basic(thief.serial, token)})
    assert e.status == 400
    # not even its owner's
    refused("csr.key_not_allowed", owner.post, "simpleenroll", respelt_csr(tmp_path, owner.key, owner.serial, *spelling),
            headers={"Authorization": basic(owner.serial, token)})


def test_a_ca_that_spells_its_key_otherwise_is_known_by_it(stack, tmp_path):
    """Its key is the CA's, compressed in the certificate, uncompressed in the request."""
    key = new_key()
    pem, out, cert = tmp_path / "k.pem", tmp_path / "o.pem", tmp_path / "ca.pem"
    pem.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()))
    subprocess.run(["openssl", "ec", "-in", pem, "-out", out, "-conv_form", "compressed"], check=True, capture_output=True)
    subprocess.run(["openssl", "req", "-x509", "-key", out, "-subj", f"/CN={unique('Pressed')}", "-days", "30", "-out", cert,
                    "-addext", "basicConstraints=critical,CA:TRUE"], check=True, capture_output=True)
    stack.v1("POST", "/cas", {"name": unique("pressed"), "pem": cert.read_text(), "without_proof": True})
    refused("key.reused", Device(stack, token=stack.mint("open")).enrol, key=key)


# products

def test_a_disabled_template_does_not_widen_its_ca(stack):
    ca, name = Authority("Narrow Maker"), unique("narrow")
    stack.v1("PUT", f"/templates/{name}?product=pump", {"Muster": {"Credentials": ["factory"], "Allowlist": "optional"}})
    stack.v1("PUT", "/templates/foreign?product=folded", {"Muster": {"Credentials": ["factory"], "Allowlist": "optional"}})
    ca.register(stack, unique("narrow-maker"), template=name)
    cert, key = ca.device(unique("narrow"))
    d = Device(stack, template="foreign")
    refused("template.credential_not_allowed", d.enrol_factory, [cert], key)
    stack.cli("template", "disable", name)
    refused("template.unknown", d.enrol_factory, [cert], key)
    d.template = None
    refused("template.unknown", d.enrol_factory, [cert], key)


def test_a_factory_certificate_proves_nothing_in_another_product(stack, maker):
    serial = unique("victim")
    stack.v1("PUT", "/templates/foreign?product=folded", {"Muster": {"Credentials": ["factory"], "Allowlist": "optional"}})
    victim = Device(stack, serial, "folded", stack.mint("folded"))
    victim.enrol()
    victim.config()
    cert, key = maker.device(serial)
    for label in ("foreign", "folded"):
        garbage(stack, [cert], key, "simpleenroll", label)
    assert stack.one("SELECT state, failures FROM device d JOIN product p ON p.id = d.product_id WHERE d.serial = %s AND p.name = 'folded'", serial) == ("PROVISIONED", 0)


def test_policies_of_one_product_do_not_reach_another(stack):
    def document(action):
        return {"Resources": {"p": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "shared-name", "PolicyDocument": {"Action": action}}}},
                "Muster": {"Allowlist": "optional"}}

    stack.v1("PUT", "/templates/polpump?product=pump", document("iot:*"))
    stack.v1("PUT", "/templates/polfold?product=folded", document("iot:Connect"))
    for template in ("polpump", "polfold"):
        Device(stack, template=template, token=stack.mint(template)).enrol()
    rows = stack.sql("SELECT p.name, y.document->>'Action' FROM policy y JOIN product p ON p.id = y.product_id WHERE y.name = 'shared-name' ORDER BY 1")
    assert rows == [("folded", "iot:Connect"), ("pump", "iot:*")]


def test_intermediates_may_count_alike(stack):
    """Two factory CAs below one registered root give both their first device the number 1."""
    root = Authority("Counting Root")
    root.register(stack, unique("counting"))
    for n in (1, 2):
        line, serial, key = Authority(f"Counting Line {n}", parent=root), unique("line"), new_key()
        cert = line.sign(name_of(serial), key.public_key())
        cert = (x509.CertificateBuilder(issuer_name=line.name, subject_name=name_of(serial), public_key=key.public_key(), serial_number=1,
                                        not_valid_before=cert.not_valid_before, not_valid_after=cert.not_valid_after)
                .sign(line.key, cert.signature_hash_algorithm))
        Device(stack, serial, "factory").enrol_factory([cert, line.cert], key)
        assert stack.state(serial) == "VERIFY"


# dead certificates

def test_a_revoked_certificate_cannot_quarantine_its_successor(stack):
    serial = unique("successor")
    d = Device(stack, serial, "replace", stack.mint("replace", serial=serial))
    old, old_key = d.enrol(), d.key
    d.config()
    stack.v1("POST", f"/certs/{fingerprint(old)}/revoke")
    d.token = stack.mint("replace", serial=serial)
    d.enrol(key=new_key())
    d.config()
    garbage(stack, [old], old_key)
    assert stack.one("SELECT state, failures FROM device WHERE serial = %s", serial) == ("PROVISIONED", 0)


def test_a_superseded_certificate_cannot_either(stack):
    d = Device(stack, token=stack.mint("open"))
    old, old_key = d.enrol(), d.key
    d.renew(key=new_key())
    d.config()
    assert status_of(stack, old) == "superseded"
    garbage(stack, [old], old_key)
    assert stack.one("SELECT state, failures FROM device WHERE serial = %s", d.serial) == ("PROVISIONED", 0)


def test_a_compromised_key_takes_every_certificate_over_it(stack):
    d = Device(stack, token=stack.mint("open"))
    old = d.enrol()
    newer = d.renew()
    d.config()
    stack.v1("POST", f"/certs/{fingerprint(old)}/revoke", {"reason": "keyCompromise"})
    assert status_of(stack, newer) == "revoked" and stack.state(d.serial) == "QUARANTINE"
    stack.v1("POST", f"/devices/{d.serial}/release")
    refused("cert.revoked", d.config)
    refused("cert.revoked", d.renew, key=new_key(), keep=False)


def test_after_its_last_certificate_was_revoked_no_shared_token_takes_the_device(stack):
    token = stack.mint("refuse", uses=5)
    d = Device(stack, template="refuse", token=token)
    d.enrol()
    d.config()
    stack.v1("POST", f"/certs/{fingerprint(d.cert)}/revoke", {"reason": "privilegeWithdrawn"})
    assert stack.state(d.serial) == "UNPROVISIONED"
    refused("device.already_provisioned", d.enrol, key=new_key(), keep=False)
    stack.v1("POST", f"/devices/{d.serial}/reset")
    d.enrol(key=new_key())


def test_a_pending_renewal_over_the_same_key_does_not_kill_it(stack):
    serial = unique("kept")
    d = Device(stack, serial, "replace", stack.mint("replace", serial=serial))
    current, key = d.enrol(), d.key
    d.config()
    d.renew(keep=False)
    d.token = stack.mint("replace", serial=serial)
    d.enrol(key=new_key(), keep=False)
    assert status_of(stack, current) == "current"
    d.key, d.cert = key, current
    d.renew(key=new_key())


# resets, inactive ones, those that need no verification

@pytest.mark.parametrize("verified", [True, False])
def test_a_device_that_comes_back_with_its_old_key_uses_up_the_reset(stack, verified):
    token = stack.mint("refuse", uses=5)
    d = Device(stack, template="refuse", token=token)
    d.enrol()
    if verified:
        d.config()
    stack.v1("POST", f"/devices/{d.serial}/reset")
    d.enrol()
    shown = stack.device(d.serial)
    assert (shown["state"], shown["reset_at"]) == ("PROVISIONED" if verified else "VERIFY", None)
    d.config()
    refused("device.already_provisioned", Device(stack, d.serial, "refuse", token).enrol)
    assert stack.state(d.serial) == "PROVISIONED"


def test_a_renewal_uses_up_the_reset(stack):
    token = stack.mint("refuse", uses=5)
    d = Device(stack, template="refuse", token=token)
    d.enrol()
    d.config()
    stack.v1("POST", f"/devices/{d.serial}/reset")
    d.renew(key=new_key())
    shown = stack.device(d.serial)
    assert (shown["state"], shown["reset_at"]) == ("PROVISIONED", None)
    refused("device.already_provisioned", Device(stack, d.serial, "refuse", token).enrol)


def test_a_renewal_of_an_inactive_certificate_is_inactive(stack):
    stack.v1("PUT", "/templates/inactive?product=pump", {
        "Resources": {"c": {"Type": "AWS::IoT::Certificate", "Properties": {"Status": "INACTIVE"}}}, "Muster": {"Allowlist": "optional"}})
    d = Device(stack, template="inactive", token=stack.mint("inactive"))
    d.enrol()
    d.renew()
    assert [c["active"] for c in stack.device(d.serial)["certificates"]] == [False, False]


def test_without_verification_the_certificate_counts_as_used(stack):
    stack.v1("PUT", "/templates/noverify?product=pump", {"Muster": {"Allowlist": "optional", "Verify": "none", "Reprovision": "replace"}})
    token = stack.mint("noverify", uses=5)
    d = Device(stack, template="noverify", token=token)
    d.enrol()
    assert status_of(stack, d.cert) == "current"
    refused("device.already_provisioned", Device(stack, d.serial, "noverify", token).enrol)
    d.config()
    stack.v1("POST", f"/devices/{d.serial}/quarantine")
    assert stack.v1("POST", f"/devices/{d.serial}/release")["state"] == "PROVISIONED"


# tokens and serials

def test_a_lost_commit_asked_again_is_a_replay_even_without_grace(stack):
    """What the server does when the connection broke between commit and answer: the same call again."""
    d = Device(stack, template="nograce", token=stack.mint("nograce"))
    d.enrol()
    call = stack.one("SELECT request_id FROM history WHERE serial = %s", d.serial)
    verdict = stack.one("SELECT (enrol_token(r)).comeback FROM (SELECT (jsonb_populate_record(NULL::enrol_request, jsonb_build_object("
                        "'token_hash', '\\x' || encode(t.hash, 'hex'), 'template_id', t.template_id, 'product_id', x.product_id,"
                        " 'serial', %s, 'serial_canonical', %s, 'request_id', %s))) r FROM token t JOIN template x ON x.id = t.template_id"
                        " JOIN token_use u ON u.token_id = t.id JOIN device d ON d.id = u.device_id WHERE d.serial = %s) q",
                        d.serial, d.serial, call, d.serial)
    assert verdict is True
    refused("enrol.refused", d.enrol)


def test_a_serial_with_colons_in_a_urn(stack):
    stack.v1("PUT", "/templates/urn?product=pump", {"Muster": {"Credentials": ["token"], "Serial": "SAN.URI", "Allowlist": "optional"}})
    token = stack.mint("urn", uses=5)
    for urn, serial in (("urn:dev:mac:00:11:22:33:44:55", "00:11:22:33:44:55"), ("urn:dev:mac:00:11:22:33:99:55", "00:11:22:33:99:55"),
                        ("urn:uuid:6ba7b810-9dad", "6ba7b810-9dad"), ("urn:muster:pump:SN-URN", "SN-URN")):
        d = Device(stack, template="urn", token=token)
        csr = new_csr(d.key, "x", [x509.UniformResourceIdentifier(urn)])
        cert = d.post("simpleenroll", csr, headers={"Authorization": f"Bearer {token}"})
        assert cert.subject == name_of(serial)


def test_bodies_of_strangers_are_not_taken(stack):
    """The admin listener judges the token before it takes eight megabytes."""
    with socket.create_connection(("127.0.0.1", stack.admin_port), timeout=20) as raw, \
            tls_context(stack).wrap_socket(raw, server_hostname="127.0.0.1") as s:
        s.sendall(b"POST /admin/v1/products/pump/allowlist HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
                  b"Authorization: Bearer mat_no\r\nContent-Length: 8000000\r\n\r\n")
        assert s.recv(100).startswith(b"HTTP/1.1 401")
