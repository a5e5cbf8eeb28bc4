"""The operator's side of claims: API, command, files, what is left of a line, alerts."""
import base64
import datetime
import json
import re
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from client import Device, cert_pem, fingerprint, new_csr, new_key, spki_sha256, unique
from factory import Authority
from stack import LOSE, Refused

DAY = 86400
YEAR = 365 * DAY


def refused(code, call, *args, **kw):
    with pytest.raises(Refused) as e:
        call(*args, **kw)
    assert e.value.code == code, e.value
    return e.value.problem.get("detail", "")


def create(stack, name=None, template="claimed", token=None, **body):
    return stack.v1("POST", "/claims", {"name": name or unique("claim"), "template": template, **body}, token=token)


def leaf_of(made):
    return x509.load_pem_x509_certificate(made["certificate_pem"].encode())


def certs_in(text):
    return [x509.load_pem_x509_certificate(pem.encode()) for pem in re.findall("-----BEGIN CERT.+?-----END CERT[^-]+-----", text, re.S)]


def signed_by(cert, ca):
    ca.public_key().verify(cert.signature, cert.tbs_certificate_bytes, ec.ECDSA(cert.signature_hash_algorithm))
    return cert.issuer == ca.subject


def pem_csr(key):
    der = x509.load_der_x509_csr(new_csr(key, "anything"))
    return der.public_bytes(serialization.Encoding.PEM).decode()


def time_of(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def from_now_s(text):
    return (time_of(text) - datetime.datetime.now(datetime.timezone.utc)).total_seconds()


def scoped(stack, product, role="operator"):
    return stack.v1("POST", "/admin-tokens", {"name": unique("claims"), "role": role, "product": product})["token"]


def put_template(stack, name, product, credentials=("claim",), **muster):
    stack.v1("PUT", f"/templates/{name}?product={product}", {"Muster": {"Credentials": list(credentials), "Allowlist": "required", **muster}})


@pytest.fixture(scope="module")
def other(stack):
    """A product with a template that takes claims, and an operator of its own."""
    stack.v1("POST", "/products", {"name": "valve"})
    put_template(stack, "valve-claim", "valve")
    return scoped(stack, "valve")


def used(stack, name, in_grace=False):
    """A device whose certificate was given with the claim, as the registry records it."""
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    stack.sql("""INSERT INTO claim_use (claim_id, device_id, certificate_id, in_grace)
        SELECT k.id, c.device_id, c.id, %s FROM claim k, certificate c WHERE k.name = %s AND c.fingerprint = decode(%s, 'hex')""",
              in_grace, name, fingerprint(d.cert))
    stack.sql("UPDATE claim SET devices = devices + 1 WHERE name = %s", name)
    return d


def pending(stack, name, expires="1 hour"):
    """A certificate that waits for its registration; its key's hash."""
    spki = spki_sha256(new_key())
    stack.sql("""INSERT INTO claim_certificate (claim_id, fingerprint, token_hash, spki_sha256, key_kind, certificate, issuer_id, serial_number, not_before,
            not_after, request_id, expires_at)
        SELECT id, %s, %s, %s, 1, '\\x30', issuer_id, %s, now(), now() + interval '1 day', 'r', now() + %s::interval FROM claim WHERE name = %s""",
              spki, spki_sha256(new_key()), spki, spki[:16], expires, name)
    return spki


# making

def test_a_key_made_here_is_told_once(stack):
    made = create(stack, "line-7", note="first")
    leaf = leaf_of(made)
    key = serialization.load_pem_private_key(made["private_key_pem"].encode(), None)
    assert spki_sha256(key) == spki_sha256(leaf) and key.curve.name == "secp256r1"
    assert [(a.oid, a.value) for a in leaf.subject] == [(NameOID.ORGANIZATION_NAME, "pump"), (NameOID.COMMON_NAME, "line-7")]
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [u.value for u in san] == ["urn:muster:claim:pump:line-7"]
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    issuing, root = certs_in(made["chain_pem"])
    assert signed_by(leaf, issuing) and signed_by(issuing, root) and signed_by(root, root)
    assert made["fingerprint"] == fingerprint(leaf) and made["issuer"] == "issuing-1" and made["state"] == "active"
    assert (made["kind"], made["template"], made["templates"], made["product"]) == ("shared", "claimed", ["claimed"], "pump")
    assert (made["budget"], made["rate_per_second"], made["rate_burst"], made["max_pending"], made["grace_s"]) == (None, 10, 50, 100, 0)
    assert time_of(made["enrol_until"]) <= time_of(made["not_after"])
    shown = stack.v1("GET", "/claims/line-7")
    assert shown["pem"] == made["certificate_pem"] and shown["note"] == "first" and shown["last_uses"] == []
    secret = "".join(made["private_key_pem"].splitlines()[1:-1])[40:90]
    everything = [stack.log_text(), json.dumps(shown)] + [str(stack.sql(f"SELECT * FROM {t}")) for t in ("claim", "audit", "outbox", "key_owner")]
    assert all(secret not in text and "PRIVATE" not in text for text in everything)


def test_its_end_is_the_issuers_at_the_latest_and_enrolments_the_certificates(stack):
    issuer = stack.one("SELECT extract(epoch FROM not_after)::bigint FROM ca WHERE name = 'issuing-1'")
    made = create(stack)
    assert time_of(made["not_after"]).timestamp() == issuer
    brief = create(stack, validity_s=30 * DAY)
    assert brief["enrol_until"] == brief["not_after"] and abs(from_now_s(brief["not_after"]) - 30 * DAY) < 60
    exact = create(stack, validity_s=30 * DAY, enrol_for_s=7 * DAY, grace_s=3600)
    assert abs(from_now_s(exact["enrol_until"]) - 7 * DAY) < 60 and exact["days_left"] == 7 and exact["grace_s"] == 3600
    detail = refused("request.malformed", create, stack, validity_s=30 * DAY, enrol_for_s=31 * DAY)
    assert "behind its certificate" in detail


def test_all_members_and_more_templates(stack):
    put_template(stack, "claimed-two", "pump")
    made = create(stack, templates=["claimed-two", "claimed"], budget=5, rate_per_second=3, rate_burst=4, max_pending=7, batch="lot-1", note="n",
                  enrol_for_s=DAY, validity_s=2 * DAY, grace_s=60, temporary=False)
    got = {k: made[k] for k in ("templates", "budget", "rate_per_second", "rate_burst", "max_pending", "batch", "note", "created_by")}
    assert got == {"templates": ["claimed", "claimed-two"], "budget": 5, "rate_per_second": 3, "rate_burst": 4, "max_pending": 7, "batch": "lot-1",
                   "note": "n", "created_by": "admin"}
    listed = [c["name"] for c in stack.v1("GET", "/claims?template=claimed-two&product=pump&state=active&limit=1000")]
    assert made["name"] in listed
    (row,) = stack.v1("GET", f"/audit?object={made['name']}")
    assert row["action"] == "claim.create" and row["detail"]["batch"] == "lot-1"
    assert stack.one("SELECT count(*) FROM outbox WHERE event = 'claim.create' AND payload->>'claim' = %s", made["name"]) == 1


@pytest.mark.parametrize("kind", ["P-256", "P-384", "RSA-2048", "Ed25519"])
def test_a_request_instead(stack, kind):
    key = new_key(kind)
    made = create(stack, csr=pem_csr(key))
    assert "private_key_pem" not in made and spki_sha256(leaf_of(made)) == spki_sha256(key)
    assert leaf_of(made).subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == made["name"]


def test_requests_that_are_none(stack):
    key = new_key()
    good = new_csr(key, "x")
    broken = good[:-1] + bytes([good[-1] ^ 1])
    refused("csr.malformed", create, stack, csr="nonsense")
    refused("csr.signature_invalid", create, stack, csr=base64.b64encode(broken).decode())
    refused("csr.key_not_allowed", create, stack, csr=pem_csr(rsa.generate_private_key(65537, 1024)))
    refused("request.malformed", create, stack, csr=pem_csr(key), certificate="x")


def test_a_certificate_of_a_registered_ca(stack):
    ca = Authority(unique("Claim Maker"))
    middle = Authority(unique("Claim Middle"), parent=ca)
    cert, _ = middle.device("claim")
    pem = (cert_pem(cert) + cert_pem(middle.cert)).decode()
    refused("chain.incomplete", create, stack, certificate=pem)
    name = unique("claim-maker")
    ca.register(stack, name)
    refused("ca.not_registered", create, stack, certificate=cert_pem(cert).decode())
    assert stack.one("SELECT has_claims FROM ca WHERE name = %s", name) is False
    made = create(stack, certificate=pem)
    assert made["issuer"] == name and made["fingerprint"] == fingerprint(cert) and "private_key_pem" not in made
    assert made["certificate_pem"] == cert_pem(cert).decode()
    assert certs_in(made["chain_pem"]) == [middle.cert, ca.cert]
    assert stack.one("SELECT has_claims FROM ca WHERE name = %s", name) is True
    refused("request.exists", create, stack, certificate=pem)
    refused("request.malformed", create, stack, certificate=pem, validity_s=DAY)
    refused("chain.invalid", create, stack, certificate=cert_pem(ca.cert).decode())
    refused("request.malformed", create, stack, certificate="nonsense")


def test_certificates_that_do_not_do(stack, other):
    ca, name = Authority(unique("Claim Poor")), unique("claim-poor")
    ca.register(stack, name)

    def offer(code, token=None, template="claimed", by=ca, **kw):
        return refused(code, create, stack, template=template, token=token, certificate=cert_pem(by.device(unique("c"), **kw)[0]).decode())

    der = bytearray(x509.load_pem_x509_certificate(cert_pem(ca.device("forged")[0])).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = "-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der).decode() + "-----END CERTIFICATE-----\n"
    refused("chain.signature_invalid", create, stack, certificate=forged)
    offer("cert.expired", begin=-9, end=-1)
    offer("cert.not_yet_valid", begin=1)
    offer("chain.invalid", eku=ExtendedKeyUsageOID.SERVER_AUTH)
    assert "another product" in offer("request.conflict", template="valve-claim")
    stray = Authority(unique("Claim Stray"))
    stray.register(stack, unique("claim-stray"), template=None)
    offer("admin.forbidden", by=stray, template="valve-claim", token=other)
    assert create(stack, certificate=cert_pem(stray.device(unique("c"))[0]).decode())["issuer"].startswith("claim-stray")


def test_one_of_our_own_certificates(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    assert "kind device" in refused("key.reused", create, stack, certificate=cert_pem(d.cert).decode())


def test_keys_have_one_use(stack):
    key = new_key()
    made = create(stack, csr=pem_csr(key))
    assert "another claim" in refused("key.reused", create, stack, csr=pem_csr(key))
    refused("key.reused", stack.v1, "POST", f"/claims/{made['name']}/rotate", {"name": unique("claim"), "csr": pem_csr(key)})
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    refused("key.reused", create, stack, csr=pem_csr(d.key))
    refused("key.reused", Device(stack, token=stack.mint("open")).enrol, key=key)


def test_what_is_refused(stack, other):
    name = create(stack)["name"]
    refused("request.exists", create, stack, name)
    refused("object.not_found", create, stack, template="nowhere")
    refused("object.not_found", create, stack, templates=["nowhere"])
    assert "lacks" in refused("template.credential_not_allowed", create, stack, template="strict")
    refused("template.credential_not_allowed", create, stack, templates=["strict"])
    assert "of product" in refused("request.malformed", create, stack, templates=["valve-claim"])
    refused("request.type_unsupported", stack.v1, "POST", "/claims", b"{}", kind="text/plain")
    refused("object.not_found", stack.v1, "GET", "/claims/nowhere")
    for body in ({"template": "claimed"}, {"name": "x"}, {"name": "a b", "template": "claimed"}, {"name": "x" * 65, "template": "claimed"},
                 {"name": "", "template": "claimed"}, {"name": unique(), "template": "claimed", "budget": 0},
                 {"name": unique(), "template": "claimed", "enrol_for_s": 0}, {"name": unique(), "template": "claimed", "max_pending": 0},
                 {"name": unique(), "template": "claimed", "batch": "x" * 129}, {"name": unique(), "template": "claimed", "colour": "red"},
                 {"name": unique(), "template": "claimed", "validity_s": 59}):
        refused("request.malformed", stack.v1, "POST", "/claims", body)


def test_no_issuer(stack):
    put_template(stack, "claimed-nowhere", "pump", Issuer="nobody")
    assert refused("ca.no_issuer", create, stack, template="claimed-nowhere") == "nobody"


def test_a_temporary_claim(stack):
    made = create(stack, temporary=True)
    assert made["kind"] == "temporary" and made["budget"] == 1
    assert 240 < from_now_s(made["enrol_until"]) <= 301 and 3600 < from_now_s(made["not_after"]) <= 3901
    assert create(stack, temporary=True, enrol_for_s=3600, budget=3)["budget"] == 3
    refused("request.malformed", create, stack, temporary=True, enrol_for_s=3601)
    for strange in ({"templates": ["claimed"]}, {"validity_s": DAY}, {"grace_s": 1}, {"batch": "x"}, {"certificate": "x"}):
        assert f"takes no {next(iter(strange))}" in refused("request.malformed", create, stack, temporary=True, **strange)
    assert made["name"] not in [c["name"] for c in stack.v1("GET", "/claims:stock?limit=1000")]
    refused("request.conflict", stack.v1, "POST", f"/claims/{made['name']}/rotate", {"name": unique("claim")})


# seeing

def test_a_token_of_one_product(stack, other):
    mine = create(stack, template="valve-claim", token=other)["name"]
    theirs = create(stack)["name"]
    assert {c["product"] for c in stack.v1("GET", "/claims?limit=1000", token=other)} == {"valve"}
    assert [c["name"] for c in stack.v1("GET", "/claims:stock?limit=1000", token=other)] == [mine]
    refused("object.not_found", create, stack, token=other)
    refused("object.not_found", create, stack, template="valve-claim", templates=["claimed"], token=other)
    refused("object.not_found", stack.v1, "GET", f"/claims/{theirs}", token=other)
    refused("object.not_found", stack.v1, "POST", f"/claims/{theirs}/rotate", {"name": unique("claim")}, token=other)
    refused("object.not_found", stack.v1, "POST", f"/claims/{theirs}/revoke", {"mode": "hard"}, token=other)
    refused("admin.forbidden", create, stack, template="valve-claim", token=scoped(stack, "valve", "viewer"))


def test_counters_and_who_used_it(stack):
    name = create(stack, budget=9)["name"]
    first, late = used(stack, name), used(stack, name, in_grace=True)
    pending(stack, name)
    shown = stack.v1("GET", f"/claims/{name}")
    assert (shown["devices"], shown["pending"], shown["uses_in_grace"], shown["failures"]) == (2, 1, 1, 0)
    assert [(u["serial"], u["in_grace"]) for u in shown["last_uses"]] == [(late.serial, True), (first.serial, False)]
    (cert,) = stack.device(late.serial)["certificates"]
    assert (cert["claim"], cert["in_grace"]) == (name, True)
    told = stack.cli("device", "show", late.serial).stdout
    assert f"{fingerprint(late.cert)[:16]}... was given with claim {name}, in its grace\n" in told
    assert f"with claim {name}\n" in stack.cli("device", "show", first.serial).stdout


def test_the_trail_names_the_claim(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    stack.sql(LOSE + "UPDATE history SET claim = 'line-9' WHERE serial = %s", d.serial)
    (row,) = stack.device(d.serial)["trail"]
    assert row["claim"] == "line-9"
    assert " with claim line-9 " in stack.cli("device", "show", d.serial).stdout
    assert ", with claim line-9," in stack.cli("explain", row["request_id"]).stdout
    assert stack.v1("GET", f"/attempts/{row['request_id']}")[0]["claim"] == "line-9"


@pytest.mark.parametrize("change, state", [
    ("devices = 3", "exhausted"),
    ("enrol_until = now() - interval '1 minute'", "grace"),
    ("enrol_until = now() - interval '2 hours'", "expired"),
    ("enrol_until = now() - interval '2 hours', devices = 3", "expired"),
    ("enrol_until = now() - interval '1 minute', devices = 3", "exhausted")])
def test_states(stack, change, state):
    name = create(stack, budget=3, grace_s=3600)["name"]
    stack.sql(f"UPDATE claim SET {change} WHERE name = %s", name)
    assert stack.v1("GET", f"/claims/{name}")["state"] == state
    assert name in [c["name"] for c in stack.v1("GET", f"/claims?state={state}&limit=1000")]
    assert name not in [c["name"] for c in stack.v1("GET", "/claims?state=active&limit=1000")]


# rotating and revoking

def rotate(stack, old, **body):
    return stack.v1("POST", f"/claims/{old}/rotate", {"name": unique("claim"), **body})


def test_a_successor_has_its_scope_and_limits(stack):
    put_template(stack, "claimed-three", "pump")
    old = create(stack, templates=["claimed-three"], budget=5, rate_per_second=3, rate_burst=4, max_pending=7, batch="lot-2", grace_s=60, enrol_for_s=9 * DAY)
    used(stack, old["name"])
    new = rotate(stack, old["name"])
    same = ("product", "template", "templates", "budget", "rate_per_second", "rate_burst", "max_pending", "batch", "grace_s", "kind")
    assert {k: new[k] for k in same} == {k: old[k] for k in same}
    assert (new["supersedes"], new["devices"], new["note"]) == (old["name"], 0, None) and abs(from_now_s(new["enrol_until"]) - 9 * DAY) < 60
    assert new["fingerprint"] != old["fingerprint"] and "PRIVATE KEY" in new["private_key_pem"]
    before = stack.v1("GET", f"/claims/{old['name']}")
    assert (before["superseded_by"], before["state"], before["enrol_until"]) == (new["name"], "active", old["enrol_until"])
    assert "rotated already" in refused("request.conflict", rotate, stack, old["name"])
    (row,) = [r for r in stack.v1("GET", f"/audit?object={new['name']}")]
    assert row["action"] == "claim.rotate" and row["detail"]["supersedes"] == old["name"]


def test_a_successor_with_other_limits_and_an_earlier_end_of_the_old_one(stack):
    old = create(stack, budget=5, enrol_for_s=9 * DAY)["name"]
    refused("request.conflict", rotate, stack, old, old_enrol_for_s=10 * DAY)
    new = rotate(stack, old, old_enrol_for_s=DAY, csr=pem_csr(new_key()), validity_s=90 * DAY, enrol_for_s=60 * DAY, grace_s=5, budget=6,
                 rate_per_second=7, rate_burst=8, max_pending=9, batch="lot-3", note="second")
    got = {k: new[k] for k in ("grace_s", "budget", "rate_per_second", "rate_burst", "max_pending", "batch", "note", "days_left")}
    assert got == {"grace_s": 5, "budget": 6, "rate_per_second": 7, "rate_burst": 8, "max_pending": 9, "batch": "lot-3", "note": "second", "days_left": 60}
    assert stack.v1("GET", f"/claims/{old}")["days_left"] == 1
    ca = Authority(unique("Claim Next"))
    ca.register(stack, unique("claim-next"))
    assert rotate(stack, new["name"], certificate=cert_pem(ca.device("c")[0]).decode())["issuer"].startswith("claim-next")


def test_rotations_that_are_refused(stack):
    old = create(stack)["name"]
    refused("object.not_found", rotate, stack, "nowhere")
    refused("request.exists", rotate, stack, old, name=old)
    refused("request.malformed", rotate, stack, old, name="a b")
    put_template(stack, "claimed-off", "pump")
    off = create(stack, template="claimed-off")["name"]
    put_template(stack, "claimed-off", "pump", credentials=["token"])
    refused("template.credential_not_allowed", rotate, stack, off)
    stack.v1("POST", "/templates/claimed-off/disable")
    assert "not in use" in refused("request.conflict", rotate, stack, off)


def test_two_rotate_at_once_and_one_is_told(stack):
    old, codes = create(stack)["name"], []

    def go():
        try:
            codes.append(rotate(stack, old)["supersedes"])
        except Refused as e:
            codes.append(e.code)
    threads = [threading.Thread(target=go) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(codes) == sorted([old] + ["request.conflict"] * 3)


def revoke(stack, name, mode):
    return stack.v1("POST", f"/claims/{name}/revoke", {"mode": mode})


def test_revoking(stack):
    name = create(stack)["name"]
    refused("request.malformed", stack.v1, "POST", f"/claims/{name}/revoke")
    refused("request.malformed", revoke, stack, name, "soft")
    refused("object.not_found", revoke, stack, "nowhere", "hard")
    spki = pending(stack, name)
    first = revoke(stack, name, "stop-new")
    assert (first["state"], first["revoke_mode"], first["pending"]) == ("revoked", "stop-new", 1)
    assert revoke(stack, name, "stop-new") == first
    second = revoke(stack, name, "hard")
    assert (second["revoke_mode"], second["revoked_at"], second["pending"]) == ("hard", first["revoked_at"], 0)
    assert stack.one("SELECT status, ended_at IS NOT NULL FROM claim_certificate WHERE spki_sha256 = %s", spki) == ("revoked", True)
    assert stack.sql("SELECT kind FROM key_owner WHERE spki_sha256 = %s", spki) == []  # it was never used, and may come again
    assert "for good" in refused("request.conflict", revoke, stack, name, "stop-new")
    assert revoke(stack, name, "hard") == second
    rows = stack.v1("GET", f"/audit?object={name}")
    assert [(r["action"], r["detail"].get("mode"), r["detail"].get("pending_revoked")) for r in rows] == [
        ("claim.revoke", "hard", 1), ("claim.revoke", "stop-new", 0), ("claim.create", None, None)]
    assert rotate(stack, name)["supersedes"] == name
