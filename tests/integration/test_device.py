"""Devices without EST, and doors that stay shut."""
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from client import EST, Device, basic, cert_pem, fingerprint, name_of, new_csr, new_key, request, unique
from factory import Authority
from stack import Refused, Stack, wait_for

JSON = {"Content-Type": "application/json"}


def enroll(stack, body, headers=None, chain=None, key=None):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, got, answer = request(stack, "POST", "/v1/enroll", data, {**JSON, **(headers or {})}, chain, key)
    if status != 200:
        raise Refused(status, got, answer)
    return json.loads(answer)


def csr_pem(key, subject):
    return x509.load_der_x509_csr(new_csr(key, subject)).public_bytes(Encoding.PEM).decode()


def test_enrol_by_token_gives_leaf_chain_and_configuration(stack):
    serial, key = unique("json"), new_key()
    answer = enroll(stack, {"csr": csr_pem(key, serial)}, {"Authorization": basic(serial, stack.mint("open"))})
    leaf = x509.load_pem_x509_certificate(answer["certificate"].encode())
    chain = [x509.load_pem_x509_certificate(c.encode()) for c in answer["chain"]]
    assert leaf.subject == name_of(serial) and leaf.issuer == chain[0].subject and chain[0].issuer == chain[1].subject == chain[1].issuer
    assert (answer["serial"], answer["thing_name"], answer["state"], answer["replayed"]) == (serial, f"open-{serial}", "VERIFY", False)
    assert answer["configuration"] == {"prefix": f"devices/{serial}"}
    d = Device(stack, serial)
    assert d.config(cert=leaf, key=key)["state"] == "PROVISIONED"


def test_the_same_again_is_a_replay_and_by_est_too(stack):
    serial, key, token = unique("json"), new_key(), stack.mint("open", uses=3)
    body, headers = {"csr": csr_pem(key, serial), "template": "open"}, {"Authorization": basic(serial, token)}
    first, again = enroll(stack, body, headers), enroll(stack, body, headers)
    assert first["certificate"] == again["certificate"] and again["replayed"]
    d = Device(stack, serial, "open", token)
    assert cert_pem(d.enrol(key=key)).decode() == first["certificate"]


def test_the_serial_may_stand_in_the_body(stack):
    serial, key = unique("json"), new_key()
    headers = {"Authorization": "Bearer " + stack.mint("open")}
    assert enroll(stack, {"csr": csr_pem(key, "other"), "serial": serial}, headers)["serial"] == serial


def test_by_factory_certificate_and_renewal(stack):
    ca, serial = Authority("Json Maker"), unique("json")
    ca.register(stack, unique("json-maker"))
    cert, factory_key = ca.device(serial)
    key = new_key()
    answer = enroll(stack, {"csr": csr_pem(key, serial)}, chain=[cert], key=factory_key)
    own = x509.load_pem_x509_certificate(answer["certificate"].encode())
    fresh = new_key()
    renewed = enroll(stack, {"csr": csr_pem(fresh, own.subject)}, chain=[own], key=key)
    assert renewed["state"] == "PROVISIONED" and renewed["configuration"] is None
    assert fingerprint(x509.load_pem_x509_certificate(renewed["certificate"].encode())) != fingerprint(own)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", {}, {"csr": 1}, {"csr": "x", "colour": "red"}, b'{"csr":"a","csr":"b"}', {"csr": "x", "serial": "y" * 300}])
def test_bodies_that_are_refused(stack, body):
    with pytest.raises(Refused) as e:
        enroll(stack, body, {"Authorization": basic("s", stack.mint("open"))})
    assert (e.value.status, e.value.code) == (400, "request.malformed")


def test_refusals_are_those_of_est(stack):
    key = new_key()
    for headers, code in (({}, "auth.required"), ({"Authorization": basic("x", "mst_no")}, "enrol.refused"), ({"Authorization": "Digest"}, "auth.malformed")):
        with pytest.raises(Refused) as e:
            enroll(stack, {"csr": csr_pem(key, "x")}, headers)
        assert e.value.code == code
    with pytest.raises(Refused) as e:
        enroll(stack, {"csr": csr_pem(key, "x"), "serial": "y"}, {"Authorization": basic("x", stack.mint("open"))})
    assert e.value.code == "request.malformed"


@pytest.mark.parametrize("header", ["Client-Cert", "client-cert-chain", "CLIENT-CERT"])
@pytest.mark.parametrize("path", ["/v1/device/config", EST + "/cacerts", "/healthz"])
def test_a_proxys_header_is_believed_from_nobody(stack, header, path):
    status, _, body = request(stack, "GET", path, headers={header: ":AAAA:"})
    assert status == 400 and b"proxy.header_refused" in body
    status, _, body = request(stack, "GET", "/admin/v1/whoami", headers={header: ":AAAA:"}, port=stack.admin_port)
    assert status == 400 and b"proxy.header_refused" in body


@pytest.mark.parametrize("path", ["/fullcmc", "/open/fullcmc"])
def test_full_cmc_is_not_done(stack, path):
    status, _, body = request(stack, "POST", EST + path, b"x", {"Content-Type": "application/pkcs7-mime; smime-type=CMC-request"})
    assert status == 501 and b"request.not_implemented" in body


def test_failed_admin_logins_are_limited_and_a_right_one_never(tmp_path):
    with Stack(tmp_path) as stack:
        stack.stop()
        stack.configure(admin__login_failures_per_minute=5)
        stack.start()
        codes = []
        for n in range(12):
            with pytest.raises(Refused) as e:
                stack.v1("GET", "/whoami", token=f"mat_{n}")
            codes.append(e.value.code)
        assert codes[:5] == ["admin.denied"] * 5 and "load.rate_limited" in codes
        assert int(e.value.headers["Retry-After"]) >= 1
        assert stack.v1("GET", "/whoami")["name"] == "admin"


def test_refused_tokens_are_limited_per_source_before_they_cost_a_signature(tmp_path):
    with Stack(tmp_path) as stack:
        stack.seed()
        stack.stop()
        stack.configure(enrol__refused_tokens_burst=5, enrol__refused_tokens_per_source_s=1)
        stack.start()
        codes = []
        for n in range(12):
            with pytest.raises(Refused) as e:
                Device(stack, token=f"mst_{n}").enrol()
            codes.append(e.value.code)
        assert codes[:5] == ["enrol.refused"] * 5 and "load.rate_limited" in codes
        assert e.value.status != 429 or int(e.value.headers["retry-after"]) >= 1
        # when the bucket has filled again, a good token is as good as ever
        good = Device(stack, token=stack.mint("open"))
        wait_for("a refilled bucket", lambda: try_enrol(good), 10)


def try_enrol(device):
    try:
        return device.enrol()
    except Refused as e:
        assert e.code == "load.rate_limited", e
        return None
