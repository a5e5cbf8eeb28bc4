"""Enrolments that wait for an operator (RFC 7030 4.2.3: 202 and Retry-After)."""
import base64
import json
import subprocess

import pytest

from client import Device, basic, new_csr, new_key, request, unique
from stack import Refused, wait_for
from test_serverkeygen import keygen


def waits(call, *args, **kw):
    with pytest.raises(Refused) as e:
        call(*args, **kw)
    assert (e.value.status, e.value.code) == (202, "approval.pending"), e.value
    assert e.value.headers["retry-after"] == "1" and e.value.headers["content-type"] == "application/json"
    return e.value


def refused(code, call, *args, **kw):
    with pytest.raises(Refused) as e:
        call(*args, **kw)
    assert e.value.code == code, e.value
    return e.value


def bound(stack, serial=None):
    serial = serial or unique("wait")
    return Device(stack, serial, "waiting", token=stack.mint("waiting", serial))


def act(stack, d, what, **body):
    return stack.v1("POST", f"/devices/{d.serial}/{what}", body)


def test_it_waits_and_then_goes_on(stack):
    d = bound(stack)
    first = waits(d.enrol)
    for _ in range(3):
        waits(d.enrol)
    shown = stack.device(d.serial)
    assert shown["state"] == "ENROLL" and shown["certificates"] == []
    assert (shown["approval"]["state"], shown["approval"]["asked"], shown["approval"]["request_id"]) == ("pending", 4, first.problem["request_id"])
    assert [t["outcome"] for t in shown["trail"]] == ["approval.pending"], "polls are counted, not written down"
    assert stack.one("SELECT uses FROM token WHERE serial = %s", d.serial) == 0
    assert d.serial in [x["serial"] for x in stack.v1("GET", "/devices?approval=pending")]
    act(stack, d, "approve")
    assert stack.device(d.serial)["approval"]["state"] == "approved"
    d.enrol()
    assert stack.device(d.serial)["approval"] is None and stack.state(d.serial) == "VERIFY"
    assert d.config()["state"] == "PROVISIONED"
    assert d.enrol() == d.cert, "the same request again is answered without another word"
    assert stack.one("SELECT count(*) FROM outbox WHERE event = 'device.approval_requested' AND payload->>'serial' = %s", d.serial) == 1


def test_rejected(stack):
    d = bound(stack)
    waits(d.enrol)
    act(stack, d, "reject", reason="not on the list")
    e = refused("approval.rejected", d.enrol)
    assert e.status == 403 and "not on the list" in e.problem["detail"]
    refused("approval.rejected", d.enrol, key=new_key())
    act(stack, d, "approve")
    d.enrol()


def test_an_approval_is_for_one_key(stack):
    d = bound(stack)
    waits(d.enrol)
    act(stack, d, "approve")
    other = new_key()
    waits(d.enrol, key=other)
    assert stack.device(d.serial)["approval"]["state"] == "pending"
    e = refused("request.conflict", act, stack, d, "approve", key="00" * 32)
    assert e.status == 409
    key = stack.device(d.serial)["approval"]["key"]
    act(stack, d, "approve", key=key)
    waits(d.enrol)


def test_who_shares_a_credential_cannot_slip_in_a_key(stack):
    token = stack.mint("waiting", uses=10)
    d = Device(stack, unique("wait"), "waiting", token=token)
    waits(d.enrol)
    refused("device.key_conflict", Device(stack, d.serial, "waiting", token=token).enrol)
    act(stack, d, "approve")
    refused("device.key_conflict", Device(stack, d.serial, "waiting", token=token).enrol)
    d.enrol()


def test_no_more_wait_than_the_token_could_give(stack):
    token = stack.mint("waiting", uses=2)
    devices = [Device(stack, unique("wait"), "waiting", token=token) for _ in range(3)]
    waits(devices[0].enrol)
    waits(devices[1].enrol)
    refused("enrol.refused", devices[2].enrol)
    assert stack.last_attempt(devices[2].serial)[0] == "token.consumed"
    waits(devices[0].enrol)
    act(stack, devices[0], "approve")
    devices[0].enrol()
    refused("enrol.refused", devices[2].enrol)
    act(stack, devices[1], "reset")
    waits(devices[2].enrol)


def test_nothing_waits(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    refused("request.conflict", act, stack, d, "approve")
    refused("object.not_found", act, stack, Device(stack), "approve")


def test_reset_ends_the_waiting(stack):
    d = bound(stack)
    waits(d.enrol)
    act(stack, d, "reject")
    act(stack, d, "reset")
    assert stack.device(d.serial)["approval"] is None
    waits(d.enrol)


def test_a_renewal_needs_no_word(stack):
    d = bound(stack)
    waits(d.enrol)
    act(stack, d, "approve")
    d.enrol()
    d.renew(key=new_key())


def test_without_est(stack):
    d = bound(stack)
    body = json.dumps({"csr": csr_pem(d), "template": "waiting"}).encode()
    headers = {"Content-Type": "application/json", "Authorization": basic(d.serial, d.token)}
    status, got, answer = request(stack, "POST", "/v1/enroll", body, headers)
    assert (status, json.loads(answer)["code"], got["retry-after"]) == (202, "approval.pending", "1")
    act(stack, d, "approve")
    status, _, answer = request(stack, "POST", "/v1/enroll", body, headers)
    assert status == 200 and json.loads(answer)["state"] == "VERIFY"


def csr_pem(d):
    text = base64.encodebytes(new_csr(d.key, d.serial)).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"


def test_a_key_of_the_servers_making(stack):
    d = bound(stack)
    csr, headers = new_csr(d.key, d.serial), {"Authorization": basic(d.serial, d.token)}
    waits(keygen, stack, "waiting", csr, headers)
    waits(keygen, stack, "waiting", csr, headers)
    assert stack.device(d.serial)["approval"]["key"] is None
    act(stack, d, "approve")
    keygen(stack, "waiting", csr, headers)


def test_strongswan_polls(fresh, tmp_path):
    fresh.stop()
    fresh.configure(enrol__default_template="waiting")
    fresh.start()
    serial = unique("wait")
    files = {name: tmp_path / name for name in ("key", "csr", "issuing")}
    files["issuing"].write_text(fresh.v1("GET", "/cas/issuing-1")["pem"])

    def pki(*args):
        return subprocess.run(["pki", *args], capture_output=True, check=True).stdout
    files["key"].write_bytes(pki("--gen", "--type", "ecdsa", "--size", "256", "--outform", "pem"))
    files["csr"].write_bytes(pki("--req", "--type", "priv", "--in", files["key"], "--dn", f"CN={serial}"))
    client = subprocess.Popen(["pki", "--est", "--url", f"https://127.0.0.1:{fresh.port}", "--in", files["csr"], "--cacert", fresh.cafile,
                               "--cacert", files["issuing"], "--userpass", f"{serial}:{fresh.mint('waiting', serial)}", "--interval", "1",
                               "--maxpolltime", "60", "--outform", "pem"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for("a second question", lambda: fresh.sql("SELECT 1 FROM approval WHERE asked > 1"))
    fresh.v1("POST", f"/devices/{serial}/approve")
    out, error = client.communicate(timeout=60)
    assert client.returncode == 0, error
    assert serial in subprocess.run(["openssl", "x509", "-noout", "-subject"], input=out, capture_output=True).stdout.decode()


def test_the_operators_words(stack):
    d = bound(stack)
    waits(d.enrol)
    shown = stack.cli("device", "show", d.serial).stdout
    assert f"muster device approve {d.serial}" in shown and "waits for approval" in shown
    listed = stack.cli_json("device", "list", "--approval", "pending")
    assert d.serial in [x["serial"] for x in listed]
    stack.cli("device", "reject", d.serial, "--reason", "later")
    assert "rejected" in stack.cli("device", "show", d.serial).stdout
    stack.cli("device", "approve", d.serial)
    assert "approved" in stack.cli("device", "show", d.serial).stdout
    d.enrol()
    assert [r["action"] for r in stack.v1("GET", f"/audit?object={d.serial}")][::-1] == ["device.reject", "device.approve"]
