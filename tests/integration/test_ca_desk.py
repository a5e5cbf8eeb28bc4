"""Registering CAs: proof of possession, an operator's word, issuers seen but not registered, bundles for another region."""
import json
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from client import cert_pem, fingerprint, new_key, request, unique
from factory import Authority
from stack import Refused, Stack, wait_for
from test_credentials import refused


def ca_pem(ca):
    return cert_pem(ca.cert).decode()


def proof(ca, code, **kw):
    return cert_pem(ca.sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, code)]), new_key().public_key(), **kw)).decode()


@pytest.fixture(scope="module")
def code(stack):
    return stack.cli_json("ca", "code")["registration_code"]


def test_the_code_stays_until_it_is_renewed(stack, code):
    assert len(code) == 64 and stack.cli_json("ca", "code")["registration_code"] == code


def test_a_proof_registers(stack, code, tmp_path):
    ca = Authority(unique("Proven "))
    (tmp_path / "ca.pem").write_text(ca_pem(ca))
    (tmp_path / "proof.pem").write_text(proof(ca, code))
    made = stack.cli_json("ca", "register", unique("proven"), tmp_path / "ca.pem", "--proof", tmp_path / "proof.pem", "--template", "jit")
    assert made["proof"] == "verified" and made["auto_registration"] and made["jit"] == "jitp" and made["active"]


@pytest.mark.parametrize("what", ["another code", "another key", "expired", "nonsense"])
def test_a_proof_that_proves_nothing(stack, code, what):
    ca, other = Authority(unique("Unproven ")), Authority(unique("Other "))
    pem = {"another code": lambda: proof(ca, "0" * 64), "another key": lambda: proof(other, code), "expired": lambda: proof(ca, code, begin=-9, end=-2),
           "nonsense": lambda: "nonsense"}[what]()
    refused("ca.proof_invalid", stack.v1, "POST", "/cas", {"name": unique("u"), "pem": ca_pem(ca), "proof": pem, "template": "jit"})


def test_neither_proof_nor_word(stack):
    e = refused("ca.proof_required", stack.v1, "POST", "/cas", {"name": unique("u"), "pem": ca_pem(Authority(unique("U ")))})
    assert "--proof" in e.problem["detail"] and "--without-proof" in e.problem["detail"]
    made = stack.v1("POST", "/cas", {"name": unique("helper"), "pem": ca_pem(Authority(unique("H "))), "kind": "helper"})
    assert made["proof"] is None and made["jit"] is None and not made["auto_registration"]


def test_an_operators_word_and_a_name_from_the_subject(stack, tmp_path):
    cn = unique("Gerätewerk 7 ")
    ca = Authority(cn)
    (tmp_path / "CA.pem").write_text(ca_pem(ca))
    made = stack.cli_json("ca", "register", tmp_path / "CA.pem", "--template", "jit", "--without-proof")
    assert made["proof"] == "override" and made["auto_registration"] and made["name"].startswith("ger-tewerk-7-")
    audit = stack.one("SELECT detail FROM audit WHERE action = 'ca.register' AND object = %s", made["name"])
    assert audit["proof"] == "override" and audit["auto_registration"]
    again = Authority(cn)  # the same subject, another key: another name
    (tmp_path / "CA.pem").write_text(ca_pem(again))
    second = stack.cli_json("ca", "register", tmp_path / "CA.pem", "--template", "jit", "--without-proof", "--auto", "off")
    assert second["name"].startswith(made["name"] + "-") and not second["auto_registration"]
    assert stack.cli("ca", "register", "--without-proof", check=False).returncode == 2


def test_automatic_registration_needs_to_know_what_to_run(stack):
    body = {"name": unique("u"), "pem": ca_pem(Authority(unique("U "))), "without_proof": True}
    refused("request.conflict", stack.v1, "POST", "/cas", {**body, "auto_registration": True})
    assert not stack.v1("POST", "/cas", body)["auto_registration"]
    stack.v1("POST", f"/cas/{body['name']}/update", {"jit": "jitr", "auto_registration": True})
    refused("request.conflict", stack.v1, "POST", f"/cas/{body['name']}/update", {"jit": "jitp"})
    shown = stack.cli_json("ca", "update", body["name"], "--jit", "jitp", "--template", "jit")
    assert shown["jit"] == "jitp" and shown["template"] == "jit" and shown["auto_registration"]
    assert not stack.cli_json("ca", "update", body["name"], "--auto", "off")["auto_registration"]
    refused("request.conflict", stack.v1, "POST", "/cas/issuing-1/update", {"auto_registration": False})
    refused("object.not_found", stack.v1, "POST", "/cas/nobody/update", {"auto_registration": False})


def test_from_an_unknown_issuer_to_a_registered_one_in_one_command(stack):
    """The device is told why, the operator sees who asked, and one command lets it in."""
    ca = Authority(unique("Stranger "))
    cert, key = ca.device(unique())
    status, _, body = request(stack, "GET", "/v1/device/config", chain=[cert, ca.cert], key=key)
    told = json.loads(body)
    assert status == 403 and told["code"] == "ca.not_registered" and "Stranger" in told["detail"] and "AKI" in told["detail"]
    (row,) = [u for u in stack.cli_json("ca", "unknown") if u["issuer"] == ca.cert.subject.rfc4514_string()]
    assert row["ca_fingerprint"] == fingerprint(ca.cert) and row["seen"] == 1
    made = stack.cli_json("ca", "register", "--unknown", row["ca_fingerprint"], "--template", "jit", "--without-proof")
    assert made["subject"] == row["issuer"] and made["fingerprint"] == row["ca_fingerprint"]
    status, _, body = request(stack, "GET", "/v1/device/config", chain=[cert], key=key)
    assert status == 200, body
    assert row["issuer_hash"] not in [u["issuer_hash"] for u in stack.cli_json("ca", "unknown")]


def test_an_unknown_issuer_whose_certificate_nobody_sent(stack):
    ca = Authority(unique("Silent "))
    cert, key = ca.device(unique())
    request(stack, "GET", "/v1/device/config", chain=[cert], key=key)
    (row,) = [u for u in stack.cli_json("ca", "unknown") if u["issuer"] == ca.cert.subject.rfc4514_string()]
    assert row["ca_fingerprint"] is None
    refused("object.not_found", stack.v1, "POST", "/cas", {"unknown": row["issuer_hash"], "without_proof": True})
    refused("object.not_found", stack.v1, "POST", "/cas", {"unknown": "0" * 64, "without_proof": True})
    refused("request.malformed", stack.v1, "POST", "/cas", {"name": "x", "without_proof": True})


def test_a_ca_certificate_that_signed_nothing_is_not_kept(stack):
    """Whoever sends a certificate of the right name along must not become the CA an operator registers."""
    ca = Authority(unique("Right "))
    (cn,) = [a.value for a in ca.cert.subject]
    impostor, same_key = Authority(cn), Authority(cn, key=ca.key)
    cert, key = ca.device(unique())

    def row():
        (found,) = [u for u in stack.cli_json("ca", "unknown") if u["issuer"] == ca.cert.subject.rfc4514_string()]
        return found["ca_fingerprint"]

    request(stack, "GET", "/v1/device/config", chain=[cert, impostor.cert], key=key)
    assert row() is None
    leaf, _ = ca.device("no-ca")
    request(stack, "GET", "/v1/device/config", chain=[cert, leaf], key=key)
    assert row() is None
    request(stack, "GET", "/v1/device/config", chain=[cert, impostor.cert, ca.cert], key=key)
    assert row() == fingerprint(ca.cert)
    request(stack, "GET", "/v1/device/config", chain=[cert, same_key.cert], key=key)
    assert row() == fingerprint(ca.cert), "the first one stays"
    refused("object.not_found", stack.v1, "POST", "/cas", {"unknown": fingerprint(impostor.cert), "without_proof": True})


def test_a_chain_of_several_gives_its_top(stack):
    root = Authority(unique("Top "))
    middle = Authority(unique("Middle "), parent=root)
    cert, key = middle.device(unique())
    request(stack, "GET", "/v1/device/config", chain=[cert, middle.cert, root.cert], key=key)
    (found,) = [u for u in stack.cli_json("ca", "unknown") if u["issuer"] == root.cert.subject.rfc4514_string()]
    assert found["ca_fingerprint"] == fingerprint(root.cert)
    made = stack.v1("POST", "/cas", {"unknown": fingerprint(root.cert), "without_proof": True})
    assert made["fingerprint"] == fingerprint(root.cert) and not made["auto_registration"]
    assert stack.v1("POST", f"/cas/{made['name']}/update", {"template": "jit"})["template"] == "jit"
    bundle = {"format": 1, "cas": [{"name": unique("never"), "pem": ca_pem(Authority(unique("Never ")))}]}
    assert stack.v1("POST", "/cas:import", {**bundle, "check": True}) == [{"name": bundle["cas"][0]["name"], "result": "registered", "reason": None}]
    assert bundle["cas"][0]["name"] not in [c["name"] for c in stack.v1("GET", "/cas?limit=1000")]


def test_a_proof_by_a_weak_digest_is_none(stack, code):
    ca = Authority(unique("Weak "))
    body = {"name": unique("weak"), "pem": ca_pem(ca)}
    refused("ca.proof_invalid", stack.v1, "POST", "/cas", {**body, "proof": proof(ca, code, digest=hashes.SHA1())})
    assert stack.v1("POST", "/cas", {**body, "proof": proof(ca, code, digest=hashes.SHA256())})["proof"] == "verified"


def test_a_ca_that_was_just_registered_is_known_to_everybody_at_once(stack):
    """However many ask while the catalog is loaded again, and however long nobody had asked."""
    for idle in (0, 2.2):
        ca = Authority(unique("New "))
        devices = [ca.device(unique()) for _ in range(12)]
        answers, start = [], threading.Barrier(len(devices))
        time.sleep(idle)
        ca.register(stack, unique("new"), "jit", auto_registration=True)

        def ask(cert, key):
            start.wait()
            answers.append(request(stack, "GET", "/v1/device/config", chain=[cert], key=key)[0])

        threads = [threading.Thread(target=ask, args=d) for d in devices]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert answers == [200] * len(devices)


@pytest.fixture(scope="module")
def region(tmp_path_factory):
    """Another installation with a registry of its own."""
    with Stack(tmp_path_factory.mktemp("region")) as other:
        other.seed()
        yield other


def test_a_bundle_makes_another_region_know_the_same_cas(stack, region, tmp_path):
    ca, helper = Authority(unique("Shared ")), Authority(unique("Middle "))
    name, lonely = unique("shared"), unique("lonely")
    ca.register(stack, name, "jit", auto_registration=True)
    stack.v1("POST", "/cas", {"name": unique("middle"), "pem": ca_pem(helper), "kind": "helper"})
    stack.v1("PUT", "/templates/onlyhere?product=pump", stack.v1("GET", "/templates/jit")["body"].encode())
    Authority(unique("Lonely ")).register(stack, lonely, "onlyhere")
    (tmp_path / "cas.json").write_text(stack.cli("ca", "export").stdout)
    checked = region.cli_json("ca", "import", tmp_path / "cas.json", "--check", check=False)
    assert {r["name"]: r["result"] for r in checked}[name] == "registered"
    assert [c for c in region.cli_json("ca", "list") if c["name"] == name] == []
    done = {r["name"]: r for r in region.cli_json("ca", "import", tmp_path / "cas.json", check=False)}
    assert done[name]["result"] == "registered"
    assert done[lonely]["result"] == "refused" and "onlyhere" in done[lonely]["reason"]
    (there,) = [c for c in region.cli_json("ca", "list") if c["name"] == name]
    assert there["proof"] == "imported" and there["auto_registration"] and there["template"] == "jit"
    again = {r["name"]: r["result"] for r in region.cli_json("ca", "import", tmp_path / "cas.json", check=False)}
    assert again[name] == "unchanged"
    stack.v1("POST", f"/cas/{name}/update", {"auto_registration": False})
    (tmp_path / "cas.json").write_text(stack.cli("ca", "export").stdout)
    assert {r["name"]: r["result"] for r in region.cli_json("ca", "import", tmp_path / "cas.json", check=False)}[name] == "updated"
    stack.v1("POST", f"/cas/{name}/update", {"auto_registration": True})
    (tmp_path / "cas.json").write_text(stack.cli("ca", "export").stdout)
    region.cli("ca", "import", tmp_path / "cas.json", check=False)
    cert, key = ca.device(unique())  # and each region admits the device for itself
    for place in (stack, region):
        wait_for("the device to be admitted", lambda place=place: request(place, "GET", "/v1/device/config", chain=[cert], key=key)[0] == 200)


@pytest.mark.parametrize("body", [{"format": 2, "cas": []}, {"format": 1, "cas": [7]}, {"format": 1}, {"cas": [{"name": "x"}], "format": 1}])
def test_what_is_no_bundle(stack, body):
    try:
        (row,) = stack.v1("POST", "/cas:import", body)
        assert row["result"] == "refused" and "request.malformed" in row["reason"]
    except Refused as e:
        assert e.code == "request.malformed"
