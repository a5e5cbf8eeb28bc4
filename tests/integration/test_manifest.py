"""Secure element manifests and other makers' CSV files as allowlists."""
import base64
import hashlib
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from client import Device, cert_pem, name_of, new_key, unique
from factory import Authority
from stack import Refused
from test_credentials import refused

NDJSON = "application/x-ndjson"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def spki(key):
    return hashlib.sha256(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def jwk(key, kid="0", cert=None, **changes):
    numbers = key.public_key().public_numbers()
    made = {"kid": kid, "kty": "EC", "crv": "P-256", "x": b64(numbers.x.to_bytes(32, "big")), "y": b64(numbers.y.to_bytes(32, "big"))}
    if cert:
        made["x5c"] = [base64.b64encode(cert.public_bytes(Encoding.DER)).decode()]
    return {**made, **changes}


class Signer:
    """What Microchip's log signer is."""

    def __init__(self, stack, trusted=True, key=None):
        self.authority = Authority(unique("Log Signer"), key=key)
        self.stack, self.name = stack, unique("signer")
        if trusted:
            stack.v1("POST", "/manifest-signers", {"name": self.name, "pem": cert_pem(self.authority.cert).decode()})

    def sign(self, payload, unique_id=None, **protected):
        head = {"typ": "JWT", "alg": "ES256", "kid": "x", "x5t#S256": b64(self.authority.cert.fingerprint(hashes.SHA256())), **protected}
        parts = [b64(json.dumps(p).encode()) for p in (head, payload)]
        signature = self.authority.key.sign(".".join(parts).encode(), ec.ECDSA(hashes.SHA256())) if isinstance(self.authority.key, ec.EllipticCurvePrivateKey) else bytes(70)
        raw = b"".join(n.to_bytes(32, "big") for n in decode_dss_signature(signature)) if signature[:1] == b"0" else signature[:64]
        return {"payload": parts[1], "protected": parts[0], "header": {"uniqueId": unique_id or payload.get("uniqueId")}, "signature": b64(raw)}

    def element(self, key=None, version=3, unique_id=None, keys=None, **more):
        """(serial, entry)"""
        serial = unique_id or "0123" + hashlib.sha256(unique().encode()).hexdigest()[:14]
        payload = {"version": version, "model": "ATECC608C", "partNumber": "ATECC608C-MAHTN-T",
                   "manufacturer": {"organizationName": "Microchip Technology Inc", "organizationalUnitName": "Secure Computing Group"},
                   "groupId": "359SCE55NV38H3CB", "provisioningTimestamp": "2026-01-15T17:22:45.000Z", "uniqueId": serial}
        if version != 2:
            payload["publicKeySet"] = {"keys": keys if keys is not None else [jwk(new_key(), "1"), jwk(key or new_key(), "0")]}
        if version == 1:
            payload["encryptedSecretKeySet"] = {"keys": []}
        return serial, self.sign({**payload, **more})


@pytest.fixture
def signer(stack):
    return Signer(stack)


def imported(stack, tmp_path, entries, *args):
    (tmp_path / "manifest.json").write_text(json.dumps(entries, indent=2))
    done = stack.cli("manifest", "import", tmp_path / "manifest.json", "--product", "pump", "--json", *args, check=False)
    return json.loads(done.stdout)


def row(stack, serial):
    return stack.one("SELECT encode(spki_pin, 'hex'), batch FROM allowlist WHERE serial = %s", serial)


@pytest.mark.parametrize("version", [1, 3])
def test_an_element_is_admitted_with_its_own_key_only(stack, signer, tmp_path, version):
    key = new_key()
    serial, entry = signer.element(key, version)
    told = imported(stack, tmp_path, [entry], "--batch", "lot-7")
    assert (told["imported"], told["rejected"]) == (1, 0) and told["lines"] == [{"line": 1, "serial": serial, "result": "imported", "reason": None}]
    assert row(stack, serial) == (spki(key), "lot-7")
    other = Device(stack, serial, "strict", stack.mint("strict", serial))
    refused("enrol.refused", other.enrol)
    own = Device(stack, serial, "strict", stack.mint("strict", serial))
    own.enrol(key=key)
    assert imported(stack, tmp_path, [entry])["duplicate"] == 1


def test_version_2_names_no_key(stack, signer, tmp_path):
    serial, entry = signer.element(version=2)
    assert imported(stack, tmp_path, [entry])["imported"] == 1 and row(stack, serial)[0] is None


def test_another_key_of_the_element(stack, signer, tmp_path):
    key = new_key()
    serial, entry = signer.element(keys=[jwk(new_key(), "0"), jwk(key, "3")])
    assert imported(stack, tmp_path, [entry], "--key-slot", "3")["imported"] == 1 and row(stack, serial)[0] == spki(key)


def test_by_the_api(stack, signer):
    serial, entry = signer.element(keys=[jwk(new_key(), "2")])
    body = json.dumps(entry).encode() + b"\n\n{}\n"
    told = stack.admin("POST", "/admin/v1/products/pump/manifest?batch=lot-9&key=2&report=rejected", body, NDJSON)
    assert (told["imported"], [line["line"] for line in told["lines"]]) == (1, [3]) and row(stack, serial)[1] == "lot-9"


def test_a_certificate_beside_the_key_is_for_that_key(stack, signer, tmp_path):
    key, other = new_key(), new_key()
    good = signer.element(keys=[jwk(key, cert=signer.authority.sign(name_of("x"), key.public_key()))])
    bad = signer.element(keys=[jwk(key, cert=signer.authority.sign(name_of("x"), other.public_key()))])
    told = imported(stack, tmp_path, [good[1], bad[1]])
    assert [line["result"] for line in told["lines"]] == ["imported", "rejected"] and "another key" in told["lines"][1]["reason"]


def entries(signer, stack):
    """(entry, what is said of it)"""
    good = signer.element()[1]
    key = new_key()
    stranger = Signer(stack, trusted=False)
    yield {**good, "signature": b64(bytes(64))}, "signature is wrong"
    yield {**good, "signature": good["signature"][:-6]}, "signature is wrong"
    yield {**good, "payload": signer.element()[1]["payload"]}, "signature is wrong"
    yield {**good, "header": {"uniqueId": "0123aa"}}, "uniqueId"
    yield {**good, "header": {}}, "uniqueId"
    yield {k: v for k, v in good.items() if k != "protected"}, "missing"
    yield {**good, "payload": good["payload"] + "="}, "signature is wrong"
    yield {**good, "protected": good["protected"] + "="}, "base64url"
    yield stranger.element()[1], "trusted here"
    yield signer.sign({"version": 3, "uniqueId": "0123ab"}, alg="none"), "ES256"
    yield signer.sign({"version": 3, "uniqueId": "0123ab"}, alg="HS256"), "ES256"
    yield signer.sign({"version": 4, "uniqueId": "0123ab"}), "version"
    yield signer.sign({"version": 3, "uniqueId": "0123ab"}), "no key of that name"
    yield signer.sign({"version": 3, "uniqueId": "../etc"}), "no serial"
    yield signer.element(keys=[jwk(key, crv="P-384")])[1], "not P-256"
    yield signer.element(keys=[jwk(key, x=b64(bytes(32)))])[1], "no point"
    yield signer.element(keys=[jwk(key, y=b64(bytes(31)))])[1], "no point"
    yield [1], "no JSON object"
    yield "x" * 70000, "no JSON object"


def test_what_is_rejected_and_the_rest_goes_on(stack, signer, tmp_path):
    cases = list(entries(signer, stack))
    serial, good = signer.element()
    told = imported(stack, tmp_path, [c[0] for c in cases] + [good])
    assert (told["imported"], told["rejected"]) == (1, len(cases))
    for line, (_, said) in zip(told["lines"], cases):
        assert line["result"] == "rejected" and said in line["reason"], (line, said)
    assert told["lines"][-1]["serial"] == serial


def test_a_signers_key_that_is_not_p256_signs_nothing(stack, tmp_path):
    made = Signer(stack, key=rsa.generate_private_key(65537, 2048))
    assert "signature is wrong" in imported(stack, tmp_path, [made.element()[1]])["lines"][0]["reason"]


def test_signers_come_and_go(stack, tmp_path):
    made = Signer(stack, trusted=False)
    (tmp_path / "signer.pem").write_bytes(cert_pem(made.authority.cert))
    shown = stack.cli_json("manifest", "trust", made.name, tmp_path / "signer.pem")
    assert shown["fingerprint"] == made.authority.cert.fingerprint(hashes.SHA256()).hex()
    assert made.name in [s["name"] for s in stack.cli_json("manifest", "signers")]
    with pytest.raises(Refused) as e:
        stack.v1("POST", "/manifest-signers", {"name": unique("x"), "pem": cert_pem(made.authority.cert).decode()})
    assert e.value.code == "request.exists"
    entry = made.element()[1]
    assert imported(stack, tmp_path, [entry])["imported"] == 1
    stack.cli("manifest", "distrust", made.name)
    pages = [s["name"] for page in stack.pages("/manifest-signers?limit=1") for s in page]
    assert len(pages) == len(set(pages)) and made.name not in pages
    assert "trusted here" in imported(stack, tmp_path, [made.element()[1]])["lines"][0]["reason"]
    assert stack.cli("manifest", "distrust", made.name, check=False).returncode == 1
    with pytest.raises(Refused) as e:
        stack.v1("POST", "/manifest-signers", {"name": unique("x"), "pem": "nothing"})
    assert e.value.code == "request.malformed"


def test_a_large_one_goes_in_pieces_and_can_go_on(stack, signer, tmp_path):
    made = [signer.element() for _ in range(2300)]
    report = tmp_path / "report.csv"
    told = imported(stack, tmp_path, [entry for _, entry in made], "--report", report)
    assert (told["imported"], told["rejected"]) == (2300, 0)
    again = imported(stack, tmp_path, [entry for _, entry in made], "--report", report, "--resume")
    assert again["imported"] == 2300 and stack.one("SELECT count(*) FROM allowlist WHERE serial = ANY(%s)", [s for s, _ in made]) == 2300


@pytest.mark.parametrize("text", ["", "{}", "[", "nothing"])
def test_a_file_that_is_none(stack, tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    done = stack.cli("manifest", "import", tmp_path / "m.json", "--product", "pump", check=False)
    assert done.returncode == 2 and "no manifest" in done.stderr


# columns


def test_a_csv_of_another_maker(stack, tmp_path):
    serials, pin = [unique("col") for _ in range(4)], spki(new_key())
    (tmp_path / "lot.csv").write_text('Lot,"Serial No.",Comment,"Key, SHA-256"\r\n'
                                      f'7,{serials[0]},"a ""quoted"", text",{pin}\r\n'
                                      f'8,"{serials[1]}",,\r\n'
                                      f'8,{serials[2]},"x\r\n'
                                      f'9,bad serial,,{pin}\r\n'
                                      f'9,{serials[3]},,nothex\r\n')
    done = stack.cli("allowlist", "import", tmp_path / "lot.csv", "--product", "pump", "--columns", "serial=Serial No.,batch=Lot", "--json", check=False)
    told = json.loads(done.stdout)
    assert told["imported"] == 3 and [line["line"] for line in told["lines"] if line["result"] == "rejected"] == [4, 5]
    assert row(stack, serials[0]) == (None, "7") and row(stack, serials[1]) == (None, "8")
    (tmp_path / "pins.csv").write_text(f"key;x,sn\n{pin},{unique('col')}\nzz,{unique('col')}\n")
    done = stack.cli("allowlist", "import", tmp_path / "pins.csv", "--product", "pump", "--columns", "pin=key;x,serial=sn", "--json", check=False)
    assert (json.loads(done.stdout)["imported"], json.loads(done.stdout)["rejected"]) == (1, 1)


@pytest.mark.parametrize("columns, said", [("serial=Nothing", "no column Nothing"), ("batch=Lot", "must name the serial's"), ("serial", "--columns is"), ("colour=Lot", "--columns is")])
def test_columns_that_are_not_there(stack, tmp_path, columns, said):
    (tmp_path / "lot.csv").write_text("Lot,SN\n1,2\n")
    done = stack.cli("allowlist", "import", tmp_path / "lot.csv", "--product", "pump", "--columns", columns, check=False)
    assert done.returncode == 2 and said in done.stderr
