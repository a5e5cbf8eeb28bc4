"""Who may enrol: tokens, factory certificates, the device's own certificate, and what the rest is told."""
import base64
import hashlib
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from client import EST, Device, cert_pem, fingerprint, name_of, new_csr, new_key, request, unique
from factory import Authority
from stack import LOSE, Refused


@pytest.fixture(scope="module")
def maker(stack):
    ca = Authority("Credential Maker")
    ca.register(stack, "credential-maker")
    return ca


def refused(code, call, *args, **kw):
    with pytest.raises(Refused) as e:
        call(*args, **kw)
    assert e.value.code == code, e.value
    return e.value


# tokens

def test_serial_and_token_problems_are_one_indistinguishable_refusal(stack):
    known, unknown, blocked, other = unique(), unique(), unique(), unique()
    stack.allow(known, blocked)
    stack.v1("POST", f"/products/pump/allowlist/{blocked}/block")
    expired = stack.mint("strict", serial=known)
    stack.sql("UPDATE token SET expires_at = clock_timestamp() - interval '1 s' WHERE serial = %s", known)
    revoked = stack.v1("POST", "/tokens", {"template": "strict", "serial": known})[0]
    stack.v1("POST", f"/tokens/{revoked['id']}/revoke")
    cases = {
        "token.unknown": Device(stack, known, "strict", "mst_unknown"),
        "token.expired": Device(stack, known, "strict", expired),
        "token.revoked": Device(stack, known, "strict", revoked["token"]),
        "token.wrong_serial": Device(stack, other, "strict", stack.mint("strict", serial=known)),
        "token.wrong_template": Device(stack, known, "strict", stack.mint("open")),
        "allowlist.unknown_serial": Device(stack, unknown, "strict", stack.mint("strict")),
        "allowlist.blocked": Device(stack, blocked, "strict", stack.mint("strict")),
    }
    bodies = set()
    for code, device in cases.items():
        e = refused("enrol.refused", device.enrol)
        assert e.status == 403
        assert stack.last_attempt(device.serial)[0] == code
        bodies.add(e.body.replace(e.problem["request_id"].encode(), b""))
    assert len(bodies) == 1


def test_a_bound_token_by_basic_and_by_bearer(stack):
    for user in (True, False):
        serial = unique()
        stack.allow(serial)
        Device(stack, serial, "strict", stack.mint("strict", serial=serial)).enrol(user=user)


def test_a_serial_with_colons_in_basic(stack):
    serial = "aa:bb:cc:dd:ee:01"
    Device(stack, serial, "open", stack.mint("open")).enrol()
    assert stack.state(serial) == "VERIFY"


def test_a_free_token_has_as_many_uses_as_it_was_minted_with(stack):
    token = stack.mint("open", uses=3)
    for _ in range(3):
        Device(stack, token=token).enrol()
    d = Device(stack, token=token)
    refused("enrol.refused", d.enrol)
    assert stack.last_attempt(d.serial)[0] == "token.consumed"


def test_expiry_is_by_database_time(stack):
    serial = unique()
    stack.v1("POST", "/tokens", {"template": "open", "serial": serial, "expires_in_s": 60})
    assert stack.one("SELECT expires_at - clock_timestamp() BETWEEN interval '50 s' AND interval '60 s' FROM token WHERE serial = %s", serial)


def test_tokens_are_stored_hashed_and_told_once(stack):
    made = stack.v1("POST", "/tokens", {"template": "open"})[0]
    digest = hashlib.sha256(made["token"].encode()).digest()
    assert bytes(stack.one("SELECT hash FROM token WHERE id = %s", made["id"])) == digest
    assert "token" not in stack.v1("GET", f"/tokens/{made['id']}")
    dump = "".join(str(r) for r in stack.sql("SELECT * FROM token") + stack.sql("SELECT * FROM audit") + stack.sql("SELECT * FROM history"))
    assert made["token"] not in dump and made["token"] not in stack.log_text()


def test_a_batch_of_tokens_list_revoke_and_regenerate(stack, tmp_path):
    serials = [unique("batch") for _ in range(4)]
    file = tmp_path / "serials"
    file.write_text("# comment\n" + "\n".join(serials) + "\n\n")
    lines = stack.cli("token", "create", "--template", "strict", "--serials", file, "--expires", "90d").stdout.split("\n")
    rows = [line.split(" ") for line in lines if line]
    assert [r[2] for r in rows] == serials and all(r[1].startswith("mst_") for r in rows)
    (one,) = stack.cli_json("token", "list", "--serial", serials[0])
    assert one["state"] == "unused"
    new = stack.cli_json("token", "regenerate", one["id"])
    assert new["serial"] == serials[0] and new["token"] != rows[0][1]
    states = {t["id"]: t["state"] for t in stack.cli_json("token", "list", "--serial", serials[0])}
    assert states == {one["id"]: "revoked", new["id"]: "unused"}
    stack.allow(serials[0])
    refused("enrol.refused", Device(stack, serials[0], "strict", rows[0][1]).enrol)
    Device(stack, serials[0], "strict", new["token"]).enrol()
    shown = stack.cli_json("token", "show", new["id"])
    assert shown["state"] == "used" and shown["used_by"][0]["serial"] == serials[0]
    stack.cli("token", "revoke", rows[1][0])
    assert [t["serial"] for t in stack.cli_json("token", "list", "--state", "revoked") if t["serial"] == serials[1]] == [serials[1]]


def test_a_token_is_for_one_template(stack):
    refused("template.credential_not_allowed", Device(stack, template="factory", token=stack.mint("open")).enrol)


def test_a_disabled_template_refuses(stack):
    token = stack.mint("nograce")
    stack.cli("template", "disable", "nograce")
    refused("template.unknown", Device(stack, template="nograce", token=token).enrol)
    stack.cli("template", "enable", "nograce")
    Device(stack, template="nograce", token=token).enrol()


# chains

def post(stack, chain, key, serial="x"):
    status, _, body = request(stack, "POST", EST + "/factory/simpleenroll", base64.b64encode(new_csr(new_key(), serial)),
                              {"Content-Type": "application/pkcs10"}, chain, key)
    return status, json.loads(body) if status != 200 else {}


def test_a_factory_certificate_of_a_registered_ca_enrols(stack, maker):
    serial = unique()
    cert, key = maker.device(serial)
    assert post(stack, [cert], key)[0] == 200
    assert stack.state(serial) == "VERIFY"


def test_an_unregistered_ca_gets_an_answer_and_is_listed_and_can_be_registered(stack, tmp_path):
    ca = Authority(unique("Stranger"))
    serial = unique()
    cert, key = ca.device(serial)
    status, problem = post(stack, [cert], key)
    assert (status, problem["code"]) == (403, "ca.not_registered")
    name = ca.cert.subject.rfc4514_string()
    assert name in problem["detail"] and "AKI" in problem["detail"]
    post(stack, [cert], key)
    (row,) = [r for r in stack.cli_json("ca", "unknown") if r["issuer"] == name]
    assert row["seen"] == 2 and row["last_source"] == "127.0.0.1" and "BEGIN CERTIFICATE" in row["sample_pem"]
    assert name in stack.cli("ca", "unknown").stdout
    file = tmp_path / "ca.pem"
    file.write_bytes(cert_pem(ca.cert))
    stack.cli("ca", "register", unique("ca"), file, "--template", "factory", "--without-proof")
    assert post(stack, [cert], key)[0] == 200
    assert name not in [r["issuer"] for r in stack.cli_json("ca", "unknown")]


def test_a_self_signed_device_certificate(stack):
    key = new_key()
    lone = Authority(unique("self"), key=key)
    cert = lone.sign(lone.name, key.public_key())
    status, problem = post(stack, [cert], key)
    assert (status, problem["code"]) == (403, "ca.not_registered")


def test_an_intermediate_may_be_sent_or_registered_as_helper(stack, maker):
    middle = Authority("Middle", parent=maker)
    serial = unique()
    cert, key = middle.device(serial)
    assert post(stack, [cert], key)[1]["code"] == "ca.not_registered"
    assert post(stack, [cert, middle.cert], key)[0] == 200
    stack.v1("POST", "/cas", {"name": unique("middle"), "pem": cert_pem(middle.cert).decode(), "kind": "helper"})
    second, second_key = middle.device(unique())
    assert post(stack, [second], second_key)[0] == 200


def test_an_incomplete_chain(stack):
    root = Authority("Far Root")
    middle = Authority("Far Middle", parent=root)
    leaf_ca = Authority("Far Leaf CA", parent=middle)
    cert, key = leaf_ca.device(unique())
    status, problem = post(stack, [cert, leaf_ca.cert], key)
    assert (status, problem["code"]) == (403, "chain.incomplete")
    assert "Far Middle" in problem["detail"]


def test_an_expired_certificate_is_told_by_how_long(stack, maker):
    cert, key = maker.device(unique(), begin=-10, end=-3)
    status, problem = post(stack, [cert], key)
    assert (status, problem["code"]) == (403, "cert.expired")
    assert "3 days" in problem["detail"] and "server's time" in problem["detail"]


def test_a_certificate_not_yet_valid(stack, maker):
    cert, key = maker.device(unique(), begin=2, end=30)
    status, problem = post(stack, [cert], key)
    assert (status, problem["code"]) == (403, "cert.not_yet_valid")


def test_an_untrusted_chain_is_told_so_even_when_expired(stack):
    cert, key = Authority("Old Stranger").device(unique(), begin=-10, end=-3)
    assert post(stack, [cert], key)[1]["code"] == "ca.not_registered"


def test_a_forged_signature(stack, maker):
    """The right issuer name and key identifier, signed by somebody else."""
    key = new_key()
    cert = (x509.CertificateBuilder().subject_name(name_of("forged")).issuer_name(maker.name).public_key(key.public_key())
            .serial_number(7).not_valid_before(maker.cert.not_valid_before).not_valid_after(maker.cert.not_valid_after)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(maker.key.public_key()), False)
            .sign(new_key(), hashes.SHA256()))
    status, problem = post(stack, [cert], key)
    assert (status, problem["code"]) == (403, "chain.signature_invalid")


def test_a_leaf_without_client_auth(stack, maker):
    cert, key = maker.device(unique(), eku=ExtendedKeyUsageOID.SERVER_AUTH)
    status, problem = post(stack, [cert], key)
    assert (status, problem["code"]) == (403, "chain.invalid") and "clientAuth" in problem["detail"]


def test_a_ca_certificate_is_no_device(stack, maker):
    assert post(stack, [maker.cert], maker.key)[1]["code"] == "chain.invalid"


def test_a_revoked_factory_certificate(stack, maker):
    serial = unique()
    cert, key = maker.device(serial)
    assert post(stack, [cert], key)[0] == 200
    stack.v1("POST", f"/certs/{fingerprint(cert)}/revoke")
    assert post(stack, [cert], key)[1]["code"] == "cert.revoked"


def test_a_deactivated_ca_vouches_no_more_not_even_below_another(stack, maker):
    middle = Authority("Deactivated", parent=maker)
    name = unique("deactivated")
    middle.register(stack, name)
    cert, key = middle.device(unique())
    assert post(stack, [cert, middle.cert], key)[0] == 200
    stack.cli("ca", "deactivate", name)
    second, second_key = middle.device(unique())
    assert post(stack, [second, middle.cert], second_key)[1]["code"] == "ca.not_registered"
    stack.cli("ca", "activate", name)
    assert post(stack, [second, middle.cert], second_key)[0] == 200


def test_the_ca_nearest_to_the_device_decides_the_template(stack, maker):
    middle = Authority("Nearest", parent=maker)
    middle.register(stack, unique("nearest"), template="both")
    serial = unique()
    cert, key = middle.device(serial)
    status, _, body = request(stack, "POST", EST + "/simpleenroll", base64.b64encode(new_csr(new_key(), serial)),
                              {"Content-Type": "application/pkcs10"}, [cert, middle.cert], key)
    assert status == 200, body
    assert stack.device(serial)["template"] == "both"


def test_a_factory_certificate_cannot_renew(stack, maker):
    serial = unique()
    cert, key = maker.device(serial)
    status, _, body = request(stack, "POST", EST + "/simplereenroll", base64.b64encode(new_csr(new_key(), serial)),
                              {"Content-Type": "application/pkcs10"}, [cert], key)
    assert status == 403 and b"cert.wrong_purpose" in body


def test_a_certificate_of_ours_that_the_registry_lost(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    stack.sql("DELETE FROM token_use u USING device d WHERE d.id = u.device_id AND d.serial = %s", d.serial)
    stack.sql("DELETE FROM certificate_policy p USING certificate c, device d WHERE c.id = p.certificate_id AND d.id = c.device_id AND d.serial = %s", d.serial)
    stack.sql("DELETE FROM certificate_der x USING certificate c, device d WHERE c.id = x.certificate_id AND d.id = c.device_id AND d.serial = %s", d.serial)
    stack.sql(LOSE + "DELETE FROM certificate c USING device d WHERE d.id = c.device_id AND d.serial = %s", d.serial)
    refused("cert.unknown", d.renew, keep=False)
    refused("cert.unknown", d.config)


def test_a_blocked_serial_does_not_renew(stack):
    serial = unique()
    stack.allow(serial)
    d = Device(stack, serial, "strict", stack.mint("strict", serial=serial))
    d.enrol()
    stack.v1("POST", f"/products/pump/allowlist/{serial}/block")
    refused("enrol.refused", d.renew, keep=False)
    assert stack.last_attempt(serial)[0] == "allowlist.blocked"


def test_no_certificate_is_needed_for_what_is_public(stack):
    assert request(stack, "GET", EST + "/cacerts")[0] == 200
    status, headers, _ = request(stack, "GET", "/v1/device/config")
    assert status == 401


def test_a_hundred_thousand_tokens_would_come_in_pieces(stack):
    """12,000 show it: three requests, one CSV, numbers without a gap."""
    lines = stack.cli("token", "create", "--template", "open", "--count", 12000, "--csv").stdout.splitlines()
    assert lines[0] == "id,token,serial" and len(lines) == 12001
    ids = [int(line.split(",")[0]) for line in lines[1:]]
    assert ids == sorted(set(ids)) and len({line.split(",")[1] for line in lines[1:]}) == 12000
    serials = "\n".join(f"piece-{n}" for n in range(6000))
    rows = json.loads(stack.cli("token", "create", "--template", "strict", "--serials", "-", "--json", stdin=serials).stdout)
    assert [r["serial"] for r in rows] == serials.split("\n")
    stack.sql(LOSE + "DELETE FROM token WHERE serial LIKE 'piece-%%' OR id = ANY(%s)", ids)
