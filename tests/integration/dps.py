"""A device of DPS: what SDKs send, byte for byte where it matters."""
import base64
import datetime
import hashlib
import hmac
import json
import time
import urllib.parse

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from client import cert_pem, name_of, new_key, request, unique
from stack import SCOPE, wait_for

JSON = "application/json; charset=utf-8"
VERSION = "2021-06-01"


def derive(master, registration_id):
    """The key of a group's device; both in base64."""
    return base64.b64encode(hmac.new(base64.b64decode(master), registration_id.encode(), hashlib.sha256).digest()).decode()


def sas(key, registration_id, scope=SCOPE, ends=None, quote=True, skn="&skn=registration", resource=None):
    """As SDKs write it: sr percent-encoded (TPM, C, C#) or not (node's symmetric keys)."""
    resource = resource or f"{scope}/registrations/{registration_id}"
    sr = urllib.parse.quote(resource, safe="") if quote else resource
    se = str(int(ends if ends is not None else time.time() + 3600))
    mac = hmac.new(base64.b64decode(key), f"{sr}\n{se}".encode(), hashlib.sha256).digest()
    return f"SharedAccessSignature sr={sr}&sig={urllib.parse.quote(base64.b64encode(mac), safe='')}&se={se}{skn}"


class Registrant:
    """One device that registers: by a symmetric key (base64), or by a certificate chain and key."""

    def __init__(self, stack, registration_id=None, key=None, chain=None, tls_key=None, scope=SCOPE):
        self.stack, self.scope, self.symmetric, self.chain, self.tls_key = stack, scope, key, chain, tls_key
        self.id = registration_id or unique("dps")

    def call(self, method, path, body=None, auth=None, version=VERSION, headers=None):
        send = {"Content-Type": JSON, **(headers or {})}
        auth = auth if auth is not None else sas(self.symmetric, self.id, self.scope) if self.symmetric else None
        if auth:
            send["Authorization"] = auth
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        query = f"?api-version={version}" if version else ""
        status, got, text = request(self.stack, method, f"/{self.scope}/registrations/{self.id}{path}{query}", data, send, self.chain, self.tls_key)
        assert got["content-type"].startswith("application/json"), (status, got, text)
        return status, got, json.loads(text)

    def register(self, body=None, **kw):
        return self.call("PUT", "/register", body if body is not None else {"registrationId": self.id}, **kw)

    def poll(self, operation, **kw):
        return self.call("GET", f"/operations/{operation}", **kw)

    def lookup(self, body=None, **kw):
        return self.call("POST", "", body if body is not None else {"registrationId": self.id}, **kw)

    def assigned(self, body=None):
        """Registers, polling as often as it is told to; the registration state."""
        status, got, answer = self.register(body)
        end = time.monotonic() + 60
        while status == 202 and time.monotonic() < end:
            assert answer["status"] == "assigning" and int(got["retry-after"]) >= 3
            status, got, answer = self.poll(answer["operationId"])
        assert status == 200 and answer["status"] == "assigned", (status, answer)
        return answer["registrationState"]

    def refused(self, status=401, **kw):
        got, headers, answer = self.register(**kw)
        assert got == status and answer["errorCode"] // 1000 == status and answer["trackingId"], (got, answer)
        return answer["message"], answer["info"]["code"]


def endpoint(stack, host, weight=None):
    return stack.v1("PUT", f"/endpoints/{host}", {"weight": weight} if weight is not None else {})


def enrollment(stack, registration_id=None, attestation="symmetric-key", **more):
    return stack.v1("POST", "/enrollments", {"registration_id": registration_id or unique("dps"), "attestation": attestation, "template": "open", **more})


def group(stack, name=None, attestation="symmetric-key", **more):
    return stack.v1("POST", "/enrollment-groups", {"name": name or unique("group"), "attestation": attestation, "template": "open", **more})


def brokers(stack):
    for host in ("broker-a.example.com", "broker-b.example.com", "broker-c.example.com"):
        endpoint(stack, host)


def individual(stack, **more):
    made = enrollment(stack, **more)
    return Registrant(stack, made["registration_id"], made["primary_key"]), made


def self_signed(cn, days=(-1, 365)):
    key, now = new_key(), datetime.datetime.now(datetime.timezone.utc)
    cert = (x509.CertificateBuilder().subject_name(name_of(cn)).issuer_name(name_of(cn)).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now + datetime.timedelta(days=days[0]))
            .not_valid_after(now + datetime.timedelta(days=days[1])).sign(key, hashes.SHA256()))
    return key, cert


def pinned(stack, cn=None, days=(-1, 365), registration_id=None, **more):
    cn = cn or unique("x509")
    key, cert = self_signed(cn, days)
    enrollment(stack, registration_id or cn, "x509", certificate=cert_pem(cert).decode(), **more)
    return Registrant(stack, registration_id or cn, chain=[cert], tls_key=key)
