"""GET /renewal-info (the resource of RFC 9773 4.1, for EST): when to renew."""
import base64
import datetime
import json

import pytest
from cryptography import x509

from client import EST, Device, fingerprint, new_key, request


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def name_of(cert, padded=False):
    aki = cert.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    number = cert.serial_number.to_bytes((cert.serial_number.bit_length() + 7) // 8, "big")
    return f"{b64url(aki)}.{b64url(bytes(padded) + number)}"


def ask(stack, name, label=""):
    status, headers, body = request(stack, "GET", f"{EST}{label}/renewal-info/{name}")
    return status, headers, json.loads(body)


def window(stack, cert, **kw):
    status, headers, answer = ask(stack, name_of(cert, **kw))
    assert status == 200 and headers["content-type"] == "application/json" and int(headers["retry-after"]) > 0
    return [datetime.datetime.fromisoformat(answer["suggestedWindow"][k].replace("Z", "+00:00")).replace(tzinfo=None) for k in ("start", "end")]


@pytest.fixture
def device(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    return d


def test_the_window_opens_when_renewal_is_allowed(stack, device):
    start, end = window(stack, device.cert)
    left = device.cert.not_valid_after - start
    assert start < end < device.cert.not_valid_after
    assert abs(left - datetime.timedelta(days=365) / 3) < datetime.timedelta(days=1), "RenewBefore of the template: a third"
    assert window(stack, device.cert, padded=True) == [start, end], "an INTEGER's leading zero is no other number"
    assert ask(stack, name_of(device.cert), "/open")[0] == 200


def test_a_certificate_that_has_ended_is_to_be_renewed_now(stack, device):
    now = datetime.datetime.utcnow()
    old = device.cert
    device.renew(key=new_key())
    device.config()
    assert window(stack, old)[1] < now
    stack.v1("POST", f"/certs/{fingerprint(device.cert)}/revoke")
    assert window(stack, device.cert)[1] < now


@pytest.mark.parametrize("name,status,code", [
    ("x", 400, "request.malformed"), (".", 400, "request.malformed"), ("AA==.AA==", 400, "request.malformed"),
    ("AAAA." + "A" * 400, 400, "request.malformed"), ("AAAA.AA+A", 400, "request.malformed"), ("AAAA.BBBB", 404, "object.not_found")])
def test_names_that_name_nothing(stack, name, status, code):
    got, _, problem = ask(stack, name)
    assert (got, problem["code"]) == (status, code)


def test_a_known_authority_with_an_unknown_number(stack, device):
    aki = name_of(device.cert).split(".")[0]
    assert ask(stack, f"{aki}.{b64url(b'12345678')}")[2]["code"] == "object.not_found"
