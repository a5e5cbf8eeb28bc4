"""AWS's own device SDK, unmodified, against the broker with the plugin and musterd: 32 devices at once on one claim."""
import json
import os
import pathlib
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from claims import csr_pem
from client import cert_pem, fingerprint, key_pem, name_of, new_key, unique
from fleet import joined
from stack import ROOT, wait_for
from test_jit import Maker, certificates

SDK = pathlib.Path(os.environ.get("MUSTER_SDK", ROOT / "build-tests" / "sdk"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with joined(tmp_path_factory.mktemp("sdk")) as place:
        yield place


def sdk(place, task, seconds=120):
    """Runs the JavaScript beside; results by serial."""
    base = {"host": "127.0.0.1", "port": place.broker.port, "ca": str(place.broker.cafile), **task}
    done = subprocess.run(["node", ROOT / "tests" / "sdk" / "provision.js"], input=json.dumps(base), capture_output=True, text=True,
                          env={**os.environ, "MUSTER_SDK": str(SDK)}, timeout=seconds)
    assert done.returncode == 0, done.stderr
    return {r["serial"]: r for r in json.loads(done.stdout)}


def claim_files(claim, folder):
    cert, key = claim.files(folder)
    return {"cert": str(cert), "key": str(key)}


@pytest.mark.parametrize("version", [5, 3])
@pytest.mark.parametrize("keys", [False, True], ids=["csr", "keys"])
def test_each_of_32_devices_gets_exactly_its_own(place, tmp_path, version, keys):
    claim = place.claim("claimed")
    own = {unique("sdk"): new_key() for _ in range(32)}
    place.stack.allow(*own)
    devices = [{"serial": s, "clientId": f"c-{s}", **({} if keys else {"csr": csr_pem(k, name_of())})} for s, k in own.items()]
    results = sdk(place, {"version": version, "template": "claimed", "claim": claim_files(claim, tmp_path), "devices": devices})
    assert len(results) == 32
    seen = set()
    for serial, key in own.items():
        r = results[serial]
        assert "error" not in r, r
        cert = x509.load_pem_x509_certificate(r["certificatePem"].encode())
        if keys:
            key = serialization.load_pem_private_key(r["privateKey"].encode(), None)
        assert cert.public_key().public_numbers() == key.public_key().public_numbers()
        assert r["certificateId"] == fingerprint(cert) and r["certificateId"] not in seen
        assert r["thingName"] == f"claimed-{serial}" and r["deviceConfiguration"] == {"prefix": f"devices/{serial}"}
        assert place.stack.device(serial)["certificates"][0]["fingerprint"] == r["certificateId"]
        seen.add(r["certificateId"])
        (tmp_path / f"{serial}.pem").write_text(r["certificatePem"])
        (tmp_path / f"{serial}.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()))
    # and with what it got it works: the first connection is VERIFY
    wait_for("the broker to know them", lambda: place.metric("muster_gate_behind_seconds") == 0 and place.code(cert, key) == 0)
    working = [{"serial": s, "thingName": results[s]["thingName"], "cert": str(tmp_path / f"{s}.pem"), "key": str(tmp_path / f"{s}.key")} for s in own]
    operated = sdk(place, {"version": version, "operate": True, "devices": working})
    assert all(r.get("published") for r in operated.values()), operated
    for serial in own:
        wait_for("VERIFY at the broker", lambda s=serial: place.stack.state(s) == "PROVISIONED")


@pytest.mark.parametrize("version", [5, 3])
def test_a_rejection_tells_the_sdk_why(place, tmp_path, version):
    claim = place.claim("claimed")
    serial = unique("sdk")
    (r,) = sdk(place, {"version": version, "template": "claimed", "claim": claim_files(claim, tmp_path),
                       "devices": [{"serial": serial, "clientId": f"c-{serial}", "csr": csr_pem(new_key(), name_of())}]}).values()
    assert r["rejected"]["statusCode"] == 403 and r["rejected"]["errorCode"] == "AccessDenied", r
    request = r["rejected"]["errorMessage"].rsplit("request ", 1)[1].rstrip(")")
    assert "allowlist.unknown_serial" in place.stack.cli("explain", request).stdout


@pytest.mark.parametrize("version", [5, 3])
def test_a_factory_certificate_is_enough(place, tmp_path, version):
    """Just-in-time: the first connect is refused, the MQTT 5 client tries again by itself, 3.1.1's application does."""
    maker = Maker(place.stack)
    place.broker.trust_add(cert_pem(maker.ca.cert))
    devices = [maker.device() for _ in range(32)]
    tasks = []
    for d in devices:
        (tmp_path / f"{d.serial}.pem").write_bytes(cert_pem(d.cert))
        (tmp_path / f"{d.serial}.key").write_bytes(key_pem(d.key))
        tasks.append({"serial": d.serial, "thingName": f"jit-{d.serial}", "topic": f"jit/jit-{d.serial}/up",
                      "cert": str(tmp_path / f"{d.serial}.pem"), "key": str(tmp_path / f"{d.serial}.key")})
    results = sdk(place, {"version": version, "operate": True, "retry": True, "devices": tasks})
    for d in devices:
        r = results[d.serial]
        assert r.get("published"), r
        assert r["refusals"] and (version == 3 or set(r["refusals"]) == {135}), r
        wait_for("VERIFY", lambda d=d: place.stack.state(d.serial) == "PROVISIONED")
        assert [c[:3] for c in certificates(place.stack, d.serial)] == [("operational", "current", "registered")]
