"""Azure's own device SDK for node, unmodified, registers over HTTPS: symmetric keys and certificates, single and of groups."""
import json
import os
import pathlib
import subprocess

import pytest

from client import cert_pem, key_pem, unique
from dps import derive, endpoint, enrollment, group, pinned
from factory import Authority
from stack import ROOT, SCOPE

SDK = pathlib.Path(os.environ.get("MUSTER_SDK", ROOT / "build-tests" / "sdk"))


@pytest.fixture(autouse=True)
def broker(stack):
    endpoint(stack, "broker-a.example.com")


def sdk(stack, *devices, seconds=90):
    """Runs the JavaScript beside; results in their order."""
    task = {"host": "localhost", "port": stack.port, "scope": SCOPE, "devices": devices}
    done = subprocess.run(["node", ROOT / "tests" / "sdk" / "register.js"], input=json.dumps(task), capture_output=True, text=True, timeout=seconds,
                          env={**os.environ, "MUSTER_SDK": str(SDK), "NODE_EXTRA_CA_CERTS": str(stack.cafile)})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def files(folder, name, chain, key):
    cert, private = folder / f"{name}.pem", folder / f"{name}.key"
    cert.write_bytes(b"".join(cert_pem(c) for c in chain))
    private.write_bytes(key_pem(key))
    return {"id": name, "cert": str(cert), "key": str(private)}


def test_symmetric_keys(stack):
    single = enrollment(stack, payload={"site": "basel"})
    g = group(stack)
    of_group = unique("node")
    a, b = sdk(stack, {"id": single["registration_id"], "symmetricKey": single["primary_key"], "payload": {"modelId": "dtmi:a:b;1"}},
               {"id": of_group, "symmetricKey": derive(g["primary_key"], of_group)})
    assert a["result"]["status"] == "assigned" and a["result"]["assignedHub"].startswith("broker-") and a["result"]["payload"] == {"site": "basel"}
    assert b["result"]["status"] == "assigned" and b["result"]["symmetricKey"]["enrollmentGroupId"] == g["name"]


def test_certificates(stack, tmp_path):
    single = pinned(stack)
    ca, name, cn = Authority(unique("Line")), unique("line"), unique("node")
    ca.register(stack, name)
    g = group(stack, attestation="x509", ca=name)
    cert, key = ca.device(cn)
    a, b = sdk(stack, files(tmp_path, single.id, single.chain, single.tls_key), files(tmp_path, cn, [cert], key))
    assert a["result"]["status"] == "assigned"
    assert b["result"]["status"] == "assigned" and b["result"]["x509"]["enrollmentGroupId"] == g["name"]


def test_a_failure_says_why(stack, tmp_path):
    wrong, off = enrollment(stack), enrollment(stack)
    stack.v1("POST", f"/enrollments/{off['registration_id']}/disable")
    late = pinned(stack, days=(-10, -1))
    results = sdk(stack, {"id": wrong["registration_id"], "symmetricKey": off["primary_key"]}, {"id": off["registration_id"], "symmetricKey": off["primary_key"]},
                  files(tmp_path, late.id, late.chain, late.tls_key))
    assert all("result" not in r or not r["result"] for r in results), results
    assert "no enrollment of this registration id accepts this key" in results[0]["message"]
    assert "disabled" in results[1]["message"] and "expired" in results[2]["message"]


def test_a_device_that_waits_is_polled_by_the_sdk(stack):
    """It goes on asking by itself, and takes the answer when it is there."""
    made = enrollment(stack, template="waiting")
    task = {"host": "localhost", "port": stack.port, "scope": SCOPE, "devices": [{"id": made["registration_id"], "symmetricKey": made["primary_key"]}]}
    node = subprocess.Popen(["node", ROOT / "tests" / "sdk" / "register.js"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                            env={**os.environ, "MUSTER_SDK": str(SDK), "NODE_EXTRA_CA_CERTS": str(stack.cafile)})
    node.stdin.write(json.dumps(task))
    node.stdin.close()
    from stack import wait_for
    wait_for("the device to wait", lambda: stack.sql("SELECT 1 FROM dps_operation WHERE registration_id = %s", made["registration_id"]))
    stack.v1("POST", f"/devices/{made['registration_id']}/approve")
    (result,) = json.loads(node.stdout.read())
    assert node.wait(30) == 0 and result["result"]["status"] == "assigned"
