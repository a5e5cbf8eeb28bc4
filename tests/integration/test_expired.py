"""Certificates that expired on a shelf or in a drawer: within the template's grace and past it."""
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from client import Device, fingerprint, new_key, spki_sha256, unique
from factory import Authority
from stack import Refused


@pytest.fixture(scope="module")
def maker(stack):
    ca = Authority("Shelf Maker")
    ca.register(stack, "shelf-maker", template="shelf")
    return ca


def refused(code, call, *args, **kw):
    with pytest.raises(Refused) as e:
        call(*args, **kw)
    assert e.value.code == code, e.value
    return e.value


@pytest.mark.parametrize("days,good", [(1, True), (29, True), (31, False), (300, False)])
def test_a_factory_certificate_that_expired(stack, maker, days, good):
    serial = unique("shelf")
    cert, key = maker.device(serial, begin=-400, end=-days)
    d = Device(stack, serial, "shelf")
    if good:
        d.enrol_factory([cert], key)
        assert stack.state(serial) == "VERIFY"
    else:
        e = refused("cert.expired", d.enrol_factory, [cert], key)
        assert f"{days} days" in e.problem["detail"]


def test_without_a_grace_there_is_none(stack, maker):
    cert, key = maker.device(unique("shelf"), begin=-10, end=-1)
    refused("cert.expired", Device(stack, template="factory").enrol_factory, [cert], key)


def test_the_rest_is_judged_all_the_same(stack, maker):
    serial = unique("shelf")
    cert, key = maker.device(serial, begin=-10, end=-1)
    Device(stack, serial, "shelf").enrol_factory([cert], key)
    stack.v1("POST", f"/certs/{fingerprint(cert)}/revoke")
    refused("cert.revoked", Device(stack, serial, "shelf").enrol_factory, [cert], key)
    stranger, stranger_key = Authority("Shelf Stranger").device(unique("shelf"), begin=-10, end=-1)
    refused("ca.not_registered", Device(stack, template="shelf").enrol_factory, [stranger], stranger_key)
    later, later_key = maker.device(unique("shelf"), begin=1, end=2)
    refused("cert.not_yet_valid", Device(stack, template="shelf").enrol_factory, [later], later_key)


def expired_twin(stack, d, days):
    """A device's certificate that ended days ago: signed with the issuing key, put in place of the real one."""
    issuing = x509.load_pem_x509_certificate((stack.folder / "ca/issuing-1.pem").read_bytes())
    ca = Authority.__new__(Authority)
    ca.key, ca.name = load_pem_private_key((stack.folder / "ca/issuing-1.key").read_bytes(), None), issuing.subject
    san = d.cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    cert = ca.sign(d.cert.subject, d.key.public_key(), begin=-days - 10, end=-days, san=list(san))
    assert spki_sha256(d.key)
    stack.sql("UPDATE certificate SET fingerprint = decode(%s, 'hex'), not_before = %s, not_after = %s WHERE fingerprint = decode(%s, 'hex')",
              fingerprint(cert), cert.not_valid_before, cert.not_valid_after, fingerprint(d.cert))
    return cert


@pytest.mark.parametrize("days,good", [(4, True), (6, False)])
def test_a_devices_certificate_that_expired(stack, days, good):
    d = Device(stack, template="shelf", token=stack.mint("shelf"))
    d.enrol()
    d.cert = expired_twin(stack, d, days)
    assert d.cert.public_bytes(Encoding.DER)
    if good:
        d.renew(key=new_key())
        assert stack.state(d.serial) == "PROVISIONED"
    else:
        refused("cert.expired", d.renew)
    old = Device(stack, template="refuse", token=stack.mint("refuse"))
    old.enrol()
    old.cert = expired_twin(stack, old, 1)
    refused("cert.expired", old.renew)
    refused("cert.expired", old.config)
