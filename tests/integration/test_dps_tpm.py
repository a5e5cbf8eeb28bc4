"""Devices that register by their TPM: swtpm with tpm2-tools, and with Azure's SDK, unmodified."""
import base64
import hashlib
import hmac
import time
import urllib.parse

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from client import unique
from dps import Registrant, endpoint, enrollment, group, sas
from mssim import Simulator
from stack import SCOPE, Refused
from test_dps_sdk import sdk
from tpm import EK_RSA, Tpm


def b64(data):
    return base64.b64encode(data).decode()


def pem(der):
    return "-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der).decode() + "-----END CERTIFICATE-----\n"


@pytest.fixture(scope="module")
def tpm(tmp_path_factory):
    with Tpm(tmp_path_factory.mktemp("tpm")) as running:
        yield running


@pytest.fixture(scope="module")
def keys(tpm):
    """The manufacturer's endorsement key, and a storage root key."""
    return tpm.key_at(EK_RSA), tpm.storage_root_key("rsa2048")


@pytest.fixture(autouse=True)
def broker(stack):
    endpoint(stack, "broker-a.example.com")


class TpmDevice(Registrant):
    def __init__(self, stack, tpm, ek, srk, registration_id=None, cert=None):
        super().__init__(stack, registration_id)
        self.tpm, self.ek, self.srk = tpm, ek, srk
        self.body = {"registrationId": self.id, "tpm": {"endorsementKey": b64(ek.public), "storageRootKey": b64(srk.public)}}
        if cert:
            self.body["payload"] = {"ekCert": cert}

    def challenge(self):
        status, _, answer = self.register(self.body)
        assert status == 401 and answer["keyName"] == "registration" and "status" not in answer, answer
        return base64.b64decode(answer["authenticationKey"])

    def signed(self, key, **kw):
        """The signature that a key in the TPM makes."""
        text = sas(b64(b"x"), self.id, **kw)
        sr, se = text.split("sr=")[1].split("&")[0], text.split("se=")[1].split("&")[0]
        sig = urllib.parse.quote(b64(self.tpm.hmac(key, f"{sr}\n{se}".encode())), safe="")
        return f"SharedAccessSignature sr={sr}&sig={sig}&se={se}&skn=registration"

    def prove(self):
        return self.tpm.import_hmac_key(self.ek, self.srk, self.challenge())


def single(stack, tpm, keys, **more):
    ek, srk = keys
    made = enrollment(stack, attestation="tpm", endorsement_key=b64(ek.public), **more)
    return TpmDevice(stack, tpm, ek, srk, made["registration_id"]), made


def test_a_device_registers_by_its_tpm(stack, tpm, keys):
    d, made = single(stack, tpm, keys)
    assert made["endorsement_key"] == hashlib.sha256(keys[0].public[2:]).hexdigest()
    key = d.prove()
    auth = d.signed(key)
    status, _, answer = d.register(d.body, auth=auth)
    assert status == 200, answer
    state = answer["registrationState"]
    assert state["assignedHub"] and "authenticationKey" in state["tpm"] and "symmetricKey" not in state
    kept = tpm.import_hmac_key(*keys, base64.b64decode(state["tpm"]["authenticationKey"]))
    assert d.register(d.body, auth=d.signed(kept))[0] == 401  # it is for the broker, and opens nothing here
    later = d.lookup(d.body, auth=auth)[2]
    assert later["deviceId"] == state["deviceId"] and later["tpm"] == {} and "symmetricKey" not in later
    assert "enrollment" in [t["credential"] for t in stack.device(d.id)["trail"] if t["outcome"] == "ok"]
    assert stack.sql("SELECT 1 FROM history WHERE serial = %s AND outcome = 'tpm.challenge'", d.id) == []


def test_a_challenge_is_forgotten_by_nobody(stack, tpm, keys):
    """Whoever knows the public keys may ask for challenges: those that were given before still count."""
    d, _ = single(stack, tpm, keys)
    key = d.prove()
    for _ in range(3):
        d.challenge()
    assert d.register(d.body, auth=d.signed(key))[0] == 200


def test_a_device_that_waits_polls_with_the_same_signature(stack, tpm, keys):
    d, _ = single(stack, tpm, keys, template="waiting")
    auth = d.signed(d.prove())
    status, _, answer = d.register(d.body, auth=auth)
    assert status == 202 and answer["status"] == "assigning"
    operation = answer["operationId"]
    assert d.poll(operation, auth=auth)[0] == 202
    assert d.poll(operation, auth=d.signed(tpm.import_hmac_key(*keys, single(stack, tpm, keys)[0].challenge())))[0] == 401  # another's challenge
    stack.v1("POST", f"/devices/{d.id}/approve")
    for _ in range(2):  # the first answer may be lost on its way
        status, _, answer = d.poll(operation, auth=auth)
        state = answer["registrationState"]
        assert status == 200 and state["assignedHub"] and state["tpm"]["authenticationKey"] and "symmetricKey" not in state


def hours_key(stack, d, hour):
    """What a challenge of that hour (since 1970) holds, by whoever has the key outside the registry."""
    outside = serialization.load_pem_private_key((stack.folder / "ca/secrets.key").read_bytes(), None)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    sealing = outside.decrypt(bytes(stack.one("SELECT wrapped FROM secret_key")), oaep)
    names = ["000b" + hashlib.sha256(k.public[2:]).hexdigest() for k in (d.ek, d.srk)]
    return hmac.digest(sealing, f"tpm {d.id} {names[0]} {names[1]} {hour}".encode(), "sha256")


def test_a_challenge_is_good_for_an_hour_or_two(stack, tpm, keys):
    d, _ = single(stack, tpm, keys)
    while time.time() % 3600 > 3590:
        time.sleep(1)  # the next hour would begin in the middle
    now = int(time.time() // 3600)
    for hour, status in ((now, 200), (now - 1, 200), (now - 2, 401), (now + 1, 401)):
        got, _, answer = d.register(d.body, auth=sas(b64(hours_key(stack, d, hour)), d.id))
        assert got == status, (hour - now, answer)
        assert status == 200 or answer["info"]["code"] == "tpm.signature_invalid"


def test_another_tpm_is_told_so(stack, tpm, keys):
    ek, srk = keys
    d, _ = single(stack, tpm, keys)
    other = tpm.endorsement_key("ecc")
    stranger = TpmDevice(stack, tpm, other, srk, d.id)
    status, _, answer = stranger.register(stranger.body)
    assert status == 400 and answer["info"]["code"] == "tpm.key_mismatch" and "endorsement key" in answer["message"]
    pinned, _ = single(stack, tpm, keys, storage_root_key=b64(srk.public))
    moved = TpmDevice(stack, tpm, ek, tpm.storage_root_key("ecc256"), pinned.id)
    assert moved.register(moved.body)[2]["info"]["code"] == "tpm.key_mismatch"
    assert pinned.register(pinned.body, auth=pinned.signed(pinned.prove()))[0] == 200


def test_a_signature_of_another_challenge(stack, tpm, keys):
    a, _ = single(stack, tpm, keys)
    b, _ = single(stack, tpm, keys)
    key = a.prove()
    status, _, answer = b.register(b.body, auth=b.signed(key))
    assert status == 401 and answer["info"]["code"] == "tpm.signature_invalid"
    d = enrollment(stack)
    crossed = Registrant(stack, b.id, d["primary_key"])
    status, _, answer = crossed.register()
    assert status == 401 and answer["info"]["code"] == "enrol.refused"  # a symmetric key is no TPM


@pytest.mark.parametrize("change", [lambda t: t.pop("storageRootKey"), lambda t: t.update(endorsementKey="AAAA"), lambda t: t.update(endorsementKey=t["endorsementKey"][:-8]),
                                    lambda t: t.update(storageRootKey=b64(b"\0" * 300))])
def test_keys_that_are_none(stack, tpm, keys, change):
    d, _ = single(stack, tpm, keys)
    change(d.body["tpm"])
    status, _, answer = d.register(d.body)
    assert status == 400 and answer["info"]["code"] == "tpm.malformed" and answer["errorCode"] == 400004


def group_id(ek):
    """As SDKs make a registration id of an endorsement key."""
    return base64.b32encode(hashlib.sha256(ek.public).digest()).decode().lower().rstrip("=")


def test_a_group_by_the_manufacturers_certificates(stack, tpm, keys, tmp_path):
    ek, srk = keys
    g = group(stack, attestation="tpm", roots=pem(tpm.certificate("root")))
    chain = [b64(tpm.certificate("ek-rsa2048")), b64(tpm.certificate("issuer"))]
    d = TpmDevice(stack, tpm, ek, srk, group_id(ek), chain)
    status, _, answer = d.register(d.body, auth=d.signed(d.prove()))
    assert status == 200 and answer["registrationState"]["tpm"]["enrollmentGroupId"] == g["name"]
    named = TpmDevice(stack, tpm, ek, srk, unique("chosen"), chain)
    message, code = named.refused(body=named.body)
    assert code == "enrollment.name_mismatch" and group_id(ek) in message
    without = TpmDevice(stack, tpm, ek, srk, d.id)
    assert without.register(without.body)[2]["info"]["code"] == "enrol.refused"
    leaf_only = TpmDevice(stack, tpm, ek, srk, d.id, chain[0])
    assert leaf_only.register(leaf_only.body)[2]["info"]["code"] == "tpm.certificate_invalid"
    other = TpmDevice(stack, tpm, tpm.endorsement_key("ecc"), srk, d.id, chain)
    assert other.register(other.body)[2]["info"]["code"] == "tpm.certificate_invalid"
    stack.v1("POST", f"/enrollment-groups/{g['name']}/disable")
    assert d.register(d.body, auth=d.signed(d.prove()))[2]["info"]["code"] == "enrollment.disabled"
    # a disabled group of the same manufacturer hides none that is enabled, and its devices stay its own
    second = group(stack, attestation="tpm", roots=pem(tpm.certificate("root")))
    assert d.register(d.body, auth=d.signed(d.prove()))[2]["info"]["code"] == "enrollment.other"
    for name in (g["name"], second["name"]):
        stack.v1("DELETE", f"/enrollment-groups/{name}")
    with pytest.raises(Refused):
        group(stack, attestation="tpm", roots="no certificate")


def test_azures_sdk_with_a_tpm(stack, tpm):
    ek = tpm.key_at(EK_RSA)
    made = enrollment(stack, attestation="tpm", endorsement_key=b64(ek.public))
    wrong = enrollment(stack, attestation="tpm", endorsement_key=b64(tpm.endorsement_key("ecc").public))  # a template makes the same RSA key again
    results = []
    for name in (made["registration_id"], wrong["registration_id"]):
        with Simulator(tpm) as simulator:
            results += sdk(stack, {"id": name, "tpmPort": simulator.port})
    g = group(stack, attestation="tpm", roots=pem(tpm.certificate("root")))
    with Simulator(tpm) as simulator:
        chain = [b64(tpm.certificate("ek-rsa2048")), b64(tpm.certificate("issuer"))]
        (grouped,) = sdk(stack, {"id": group_id(ek), "tpmPort": simulator.port, "payload": {"ekCert": chain}})
    assert grouped["result"]["status"] == "assigned" and stack.v1("GET", f"/enrollment-groups/{g['name']}")["devices"] == 1, grouped
    stack.v1("DELETE", f"/enrollment-groups/{g['name']}")
    good, bad = results
    assert good["result"]["status"] == "assigned", good
    assert not bad.get("result") and stack.last_attempt(wrong["registration_id"])[0] == "tpm.key_mismatch"  # what the SDK says of it is its own
