"""A template that asks a webhook before it provisions: yes, no, other parameters, and none of them."""
import contextlib
import hashlib
import hmac
import http.server
import json
import threading
import time

import pytest

from claims import Claim, ClaimDevice
from client import Device, new_csr, unique
from stack import Refused, Stack
from test_claims import attempt, rejected

SECRET = "a-secret-of-the-hook-tests"


class Hook(http.server.ThreadingHTTPServer):
    """Answers what `answer` says; keeps what it was asked."""

    def __init__(self):
        self.asked, self.answer = [], lambda body: {"allowProvisioning": True}
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/hook"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        stamp, mac = (part.split("=", 1)[1] for part in self.headers["Muster-Signature"].split(","))
        good = hmac.compare_digest(mac, hmac.new(SECRET.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest())
        self.server.asked.append({**json.loads(body), "signed": good and abs(time.time() - int(stamp)) < 60, "header": self.headers["Muster-Request-Id"]})
        answer = self.server.answer(json.loads(body))
        with contextlib.suppress(OSError):
            self.send_response(200 if answer is not None else 500)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def hook():
    server = Hook()
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def stack(tmp_path_factory, hook):
    folder = tmp_path_factory.mktemp("hooked")
    with Stack(folder) as running:
        running.seed()
        (folder / "secret").write_text(SECRET)
        (folder / "secret").chmod(0o600)
        running.stop()
        running.configure(hook__secret_file=folder / "secret", hook__workers=2, hook__max_waiting=2)
        running.start()
        document = {"Parameters": {"SerialNumber": {"Type": "String"}, "Region": {"Type": "String", "Default": "eu"}},
                    "Resources": {"thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "SerialNumber"}, "AttributePayload": {"region": {"Ref": "Region"}}}}},
                    "Muster": {"Credentials": ["claim", "token"], "Allowlist": "required", "PreProvisioningHook": {"Url": hook.url, "Timeout": "1s"}}}
        running.v1("PUT", "/templates/hooked?product=pump", document)
        yield running


@pytest.fixture
def device(stack, hook):
    hook.asked.clear()
    hook.answer = lambda body: {"allowProvisioning": True}
    d = ClaimDevice(Claim(stack, "hooked"), client="hook-client")
    stack.allow(d.serial)
    return d


def test_yes_and_what_it_was_asked(device, hook):
    assert device.provision(Region="us")["thingName"] == device.serial
    (asked,) = hook.asked
    assert asked["signed"] and asked["header"] == asked["requestId"]
    assert asked["payloadVersion"] == "2020-04-01" and asked["clientId"] == "hook-client" and asked["templateArn"].endswith("provisioningtemplate/hooked")
    assert asked["claimCertificateId"] == device.claim.id and asked["certificateId"] == device.created["certificateId"]
    assert asked["certificatePem"] == device.created["certificatePem"] and asked["parameters"] == {"SerialNumber": device.serial, "Region": "us"}
    device.register(Region="us")
    assert len(hook.asked) == 1, "what was answered is not asked again"


def test_no(stack, device, hook):
    hook.answer = lambda body: {"allowProvisioning": False, "reason": "not built here"}
    refusal = rejected("hook.denied", device.provision)
    assert refusal.status == 403 and refusal.error == "AccessDenied" and "not built here" in refusal.problem["detail"]
    assert stack.last_attempt(device.serial)[0] == "hook.denied"
    assert stack.sql("SELECT 1 FROM device WHERE serial = %s", device.serial) == []
    hook.answer = lambda body: {"allowProvisioning": True}
    assert device.register()["thingName"] == device.serial, "a no consumes nothing"


def test_overrides_are_judged_like_the_device(stack, device, hook):
    hook.answer = lambda body: {"allowProvisioning": True, "parameterOverrides": {"Region": "us"}}
    device.provision()
    assert stack.device(device.serial)["attributes"]["region"] == "us"
    other, allowed = ClaimDevice(device.claim), unique("final")
    stack.allow(other.serial, allowed)
    hook.answer = lambda body: {"allowProvisioning": True, "parameterOverrides": {"SerialNumber": unique("nobody")}}
    rejected("enrol.refused", other.provision)
    hook.answer = lambda body: {"allowProvisioning": True, "parameterOverrides": {"SerialNumber": allowed}}
    assert other.register()["thingName"] == allowed
    evil = ClaimDevice(device.claim)
    stack.allow(evil.serial)
    hook.answer = lambda body: {"allowProvisioning": True, "parameterOverrides": {"Muster::Product": "x"}}
    rejected("hook.failed", evil.provision)


@pytest.mark.parametrize("answer", [None, [], {}, {"allowProvisioning": "true"}, {"allowProvisioning": True, "parameterOverrides": {"Region": 5}}], ids=str)
def test_it_fails_closed(device, hook, answer):
    hook.answer = lambda body: answer
    assert attempt(device.provision) in ("hook.failed", "hook.denied")
    assert hook.asked


def test_a_slow_one_holds_up_nobody_else(stack, device, hook):
    release = threading.Event()
    hook.answer = lambda body: release.wait(10) and {"allowProvisioning": True}
    began = time.monotonic()
    outcomes, threads = [], []
    for _ in range(8):
        d = ClaimDevice(device.claim)
        stack.allow(d.serial)
        d.create()
        threads.append(threading.Thread(target=lambda d=d: outcomes.append(attempt(d.register))))
    [t.start() for t in threads]
    free = ClaimDevice(Claim(stack, "claimopen"))
    assert free.provision()["thingName"] and time.monotonic() - began < 5
    [t.join() for t in threads]
    release.set()
    assert set(outcomes) == {"hook.failed", "hook.busy"}, outcomes


def test_it_is_asked_for_claims_whatever_the_door(stack, device, hook):
    est = Device(stack, device.serial, "hooked")
    est.post("simpleenroll", new_csr(est.key, est.serial), device.claim.chain, device.claim.key)
    (asked,) = hook.asked
    assert "certificateId" not in asked and asked["parameters"] == {"SerialNumber": device.serial}
    hook.answer = lambda body: {"allowProvisioning": False}
    other = Device(stack, unique(), "hooked")
    stack.allow(other.serial)
    with pytest.raises(Refused) as refusal:
        other.post("simpleenroll", new_csr(other.key, other.serial), device.claim.chain, device.claim.key)
    assert refusal.value.code == "hook.denied"
    token = Device(stack, other.serial, "hooked", token=stack.mint("hooked", other.serial))
    token.enrol()  # a token is an operator's own word
