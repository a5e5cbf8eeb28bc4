"""CRLs of registered CAs: who is on one is refused at every door."""
import datetime
import signal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from client import Device, cert_pem, fingerprint, unique
from factory import Authority, now
from fleet import joined
from stack import Refused, wait_for
from test_credentials import refused
from test_jit import Maker, certificates
from test_jit_mqtt import retry, trusted

CRL = "application/pkix-crl"


def crl_of(ca, *certs, number=1, begin=-1, end=7, reason=x509.ReasonFlags.key_compromise, key=None, digest=None, extensions=(), aki=None):
    """Days from now; DER."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(ca.name).last_update(now() + datetime.timedelta(days=begin))
    builder = builder.next_update(now() + datetime.timedelta(days=end))
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key((aki or ca.key).public_key()), False)
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), False)
    for extension in extensions:
        builder = builder.add_extension(extension, True)
    for cert in certs:
        entry = x509.RevokedCertificateBuilder().serial_number(cert if isinstance(cert, int) else cert.serial_number).revocation_date(now())
        builder = builder.add_revoked_certificate(entry.add_extension(x509.CRLReason(reason), False).build())
    return builder.sign(key or ca.key, digest or hashes.SHA256()).public_bytes(Encoding.DER)


def upload(stack, name, der):
    return stack.v1("POST", f"/cas/{name}/crl", der, kind=CRL)


@pytest.fixture
def jitp(stack):
    return Maker(stack)


def test_a_listed_certificate_is_refused_at_its_first_contact(stack, jitp):
    listed, other = jitp.device(), jitp.device()
    answer = upload(stack, jitp.ca.nick, crl_of(jitp.ca, listed.cert))
    assert answer["crl"]["entries"] == 1 and answer["crl"]["number"] == "01" and answer["crl_mode"] == "use" and answer["revoked"] == 0
    e = refused("cert.revoked", listed.config)
    assert e.status == 403 and certificates(stack, listed.serial) == []
    assert other.config()["serial"] == other.serial
    (line,) = [r for r in stack.log_records() if r.get("request_id") == e.problem["request_id"]]
    assert "is on the CRL of its CA" in line["detail"]


def test_a_factory_certificate_does_not_enrol(stack):
    ca = Authority(unique("Maker"))
    name = unique("maker")
    ca.register(stack, name, "open")
    d = Device(stack, None, "both")
    cert, key = ca.device(d.serial)
    upload(stack, name, crl_of(ca, cert))
    refused("cert.revoked", d.enrol_factory, [cert], key)
    again, key = ca.device(d.serial)
    try:
        d.enrol_factory([again], key)
    except Refused as e:
        assert e.code != "cert.revoked"


def test_a_device_that_is_registered_is_revoked(stack, jitp):
    gone, stays = jitp.device(), jitp.device()
    gone.config(), stays.config()
    answer = upload(stack, jitp.ca.nick, crl_of(jitp.ca, gone.cert, 12345))
    assert answer["revoked"] == 1 and answer["crl"]["entries"] == 2
    assert certificates(stack, gone.serial) == [("operational", "revoked", "registered", fingerprint(gone.cert))]
    assert stack.one("SELECT revoke_reason FROM certificate WHERE fingerprint = decode(%s, 'hex')", fingerprint(gone.cert)) == "keyCompromise"
    refused("cert.revoked", gone.config)
    refused("cert.revoked", gone.renew)
    assert stays.config()
    assert upload(stack, jitp.ca.nick, crl_of(jitp.ca, gone.cert, number=2))["revoked"] == 0
    assert stack.one("SELECT count(*) FROM outbox WHERE event = 'certificate.revoked' AND payload->>'fingerprint' = %s AND payload->>'crl_of' = %s",
                     fingerprint(gone.cert), jitp.ca.nick) == 1


def test_one_that_cannot_be_read_keeps_no_other(stack, jitp):
    """What is applied again in the minutes after an upload, to those who registered meanwhile."""
    broken, gone = [Maker(stack), Maker(stack)], jitp.device()
    gone.config()
    set_der = "UPDATE ca_crl SET der = decode(%s, 'hex') WHERE ca_id = (SELECT id FROM ca WHERE name = %s)"
    for maker in (broken[0], jitp, broken[1]):
        upload(stack, maker.ca.nick, crl_of(maker.ca))
    for maker, der in ((broken[0], b"\0"), (jitp, crl_of(jitp.ca, gone.cert)), (broken[1], b"\0")):
        stack.sql(set_der, der.hex(), maker.ca.nick)
    stack.process.send_signal(signal.SIGHUP)
    wait_for("the device to be revoked", lambda: certificates(stack, gone.serial)[0][1] == "revoked")
    wait_for("the log", lambda: {m.ca.nick for m in broken} <= {r.get("ca") for r in stack.log_records() if r["event"] == "jobs.foreign_crls_failed"})
    for maker in broken:
        upload(stack, maker.ca.nick, crl_of(maker.ca, number=2))


def test_the_same_serial_number_of_another_ca_is_somebody_else(stack, jitp):
    other = Maker(stack)
    mine, twin = jitp.device(), other.device()
    mine.config(), twin.config()
    answer = upload(stack, other.ca.nick, crl_of(other.ca, mine.cert))
    assert answer["revoked"] == 0 and mine.config() and twin.config()


def test_an_intermediate_that_its_root_revoked_takes_its_devices_along(stack, jitp):
    between = Authority(unique("Between"), parent=jitp.ca)
    d = Device(stack)
    d.cert, d.key = between.device(d.serial)

    def call():
        from client import request
        return request(stack, "GET", "/v1/device/config", chain=[d.cert, between.cert], key=d.key)

    assert call()[0] == 200
    upload(stack, jitp.ca.nick, crl_of(jitp.ca, between.cert))
    status, _, body = call()
    assert status == 403 and b"cert.revoked" in body


def test_a_helper_has_a_crl_of_its_own(stack, jitp):
    between = Authority(unique("Between"), parent=jitp.ca)
    name = unique("helper")
    stack.v1("POST", "/cas", {"name": name, "pem": cert_pem(between.cert).decode(), "kind": "helper"})
    listed, other = Device(stack), Device(stack)
    listed.cert, listed.key = between.device(listed.serial)
    other.cert, other.key = between.device(other.serial)
    other.config()
    assert upload(stack, name, crl_of(between, listed.cert))["crl"]["entries"] == 1
    refused("cert.revoked", listed.config)
    assert other.config()
    assert upload(stack, name, crl_of(between, listed.cert, other.cert, number=2))["revoked"] == 1
    refused("cert.revoked", other.config)


def test_what_is_required_and_missing_or_overdue_closes_the_ca(stack, jitp):
    d, new = jitp.device(), jitp.device()
    d.config()
    assert stack.cli_json("ca", "update", jitp.ca.nick, "--crl", "require")["crl"] is None
    e = refused("ca.crl_overdue", d.config)
    assert e.status == 403
    refused("ca.crl_overdue", new.config)
    upload(stack, jitp.ca.nick, crl_of(jitp.ca))
    assert d.config() and new.config()
    stack.sql("DELETE FROM ca_crl WHERE ca_id = (SELECT id FROM ca WHERE name = %s)", jitp.ca.nick)
    upload(stack, jitp.ca.nick, crl_of(jitp.ca, begin=-9, end=-1))
    refused("ca.crl_overdue", d.config)
    finding = next(f for f in stack.v1("GET", "/doctor") if f["check"] == f"CRL of {jitp.ca.nick}")
    assert finding["severity"] == "error" and "muster ca crl" in finding["remedy"]
    stack.cli("ca", "update", jitp.ca.nick, "--crl", "use")
    assert d.config()


def test_an_overdue_one_that_is_not_required_still_counts(stack, jitp):
    listed, other = jitp.device(), jitp.device()
    upload(stack, jitp.ca.nick, crl_of(jitp.ca, listed.cert, begin=-9, end=-1))
    refused("cert.revoked", listed.config)
    assert other.config()


def test_off_means_that_it_is_not_looked_at(stack, jitp):
    stack.cli("ca", "update", jitp.ca.nick, "--crl", "off")
    listed = jitp.device()
    listed.config()
    assert upload(stack, jitp.ca.nick, crl_of(jitp.ca, listed.cert))["crl_mode"] == "off"
    assert listed.config() and certificates(stack, listed.serial)[0][1] == "current"


def test_by_the_command_line(stack, jitp, tmp_path):
    der = crl_of(jitp.ca, 4711)
    for name, content in (("a.crl", der), ("b.pem", x509.load_der_x509_crl(der).public_bytes(Encoding.PEM))):
        (tmp_path / name).write_bytes(content)
        assert stack.cli_json("ca", "crl", jitp.ca.nick, tmp_path / name)["crl"]["entries"] == 1
    assert stack.v1("GET", f"/cas/{jitp.ca.nick}")["crl"]["uploaded_by"]
    assert stack.one("SELECT count(*) FROM audit WHERE action = 'ca.crl' AND object = %s", jitp.ca.nick) == 2


PARTITION = x509.IssuingDistributionPoint(full_name=[x509.UniformResourceIdentifier("http://x/1.crl")], relative_name=None, only_contains_user_certs=False,
                                          only_contains_ca_certs=False, only_some_reasons=None, indirect_crl=False, only_contains_attribute_certs=False)


@pytest.mark.parametrize("make, said", [
    (lambda ca: b"", "no CRL that can be read"), (lambda ca: b"\x30\x03abc", "no CRL that can be read"), (lambda ca: b"x" * 300, "no CRL that can be read"),
    (lambda ca: crl_of(ca) + b"x", "no CRL that can be read"), (lambda ca: cert_pem(ca.cert), "no CRL that can be read"),
    (lambda ca: crl_of(Authority("Somebody else")), "not of this CA"), (lambda ca: crl_of(ca, key=Authority("Somebody else").key), "not of this CA"),
    (lambda ca: crl_of(ca, digest=hashes.SHA1()), "not of this CA"), (lambda ca: crl_of(ca, aki=Authority("Somebody else").key), "not of this CA"), (lambda ca: crl_of(ca, extensions=[PARTITION]), "covers only some"),
    (lambda ca: crl_of(ca, extensions=[x509.DeltaCRLIndicator(1)]), "covers only some")])
def test_what_is_no_crl_of_it(stack, jitp, make, said):
    with pytest.raises(Refused) as e:
        upload(stack, jitp.ca.nick, make(jitp.ca))
    assert e.value.code == "request.malformed" and said in e.value.problem["detail"]


def test_a_ca_that_may_not_sign_crls(stack):
    ca = Authority(unique("No CRLs"))
    builder = (x509.CertificateBuilder().subject_name(ca.name).issuer_name(ca.name).public_key(ca.key.public_key()).serial_number(7)
               .not_valid_before(now() - datetime.timedelta(days=1)).not_valid_after(now() + datetime.timedelta(days=99))
               .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
               .add_extension(x509.KeyUsage(True, False, False, False, False, True, False, False, False), True))
    ca.cert, name = builder.sign(ca.key, hashes.SHA256()), unique("nocrl")
    ca.register(stack, name, "jit")
    with pytest.raises(Refused) as e:
        upload(stack, name, crl_of(ca))
    assert "may not sign CRLs" in e.value.problem["detail"]


def test_an_older_one_does_not_take_its_place(stack, jitp):
    upload(stack, jitp.ca.nick, crl_of(jitp.ca, 1, number=300))
    for older in (crl_of(jitp.ca, number=299), crl_of(jitp.ca, number=301, begin=-2)):
        with pytest.raises(Refused) as e:
            upload(stack, jitp.ca.nick, older)
        assert e.value.code == "request.conflict"
    assert stack.v1("GET", f"/cas/{jitp.ca.nick}")["crl"]["entries"] == 1
    upload(stack, jitp.ca.nick, crl_of(jitp.ca, number=70000))


def test_it_is_for_registered_cas(stack):
    for name, code in (("nobody", "object.not_found"), ("issuing-1", "request.malformed")):
        with pytest.raises(Refused) as e:
            upload(stack, name, crl_of(Authority("x")))
        assert e.value.code == code


def test_a_ca_with_an_rsa_key(stack):
    ca = Authority(unique("RSA Maker"), key=rsa.generate_private_key(65537, 2048))
    ca.nick = unique("rsa")
    ca.register(stack, ca.nick, "jit", auto_registration=True)
    d = Device(stack)
    d.cert, d.key = ca.device(d.serial)
    upload(stack, ca.nick, crl_of(ca, d.cert))
    refused("cert.revoked", d.config)


def test_fifty_thousand_entries(stack, jitp):
    d = jitp.device()
    d.config()
    assert upload(stack, jitp.ca.nick, crl_of(jitp.ca, *range(1, 50001), d.cert))["revoked"] == 1
    assert jitp.device().config()


# at the broker


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with joined(tmp_path_factory.mktemp("foreign")) as place:
        yield place


def test_the_broker_ends_sessions_and_closes_a_ca(place):
    made = trusted(place)
    gone, stays, late = made.device(), made.device(), made.device()
    for d in (gone, stays):
        retry(place, d)
    from fleet import Client
    with Client(place, gone.cert, gone.key) as c:
        upload(place.stack, made.ca.nick, crl_of(made.ca, gone.cert, late.cert))
        c.ended()
    place.refused(gone.cert, gone.key)
    assert place.code(stays.cert, stays.key) == 0
    for _ in range(3):
        assert place.code(late.cert, late.key) != 0
    wait_for("the trail", lambda: place.stack.one("SELECT count(*) FROM history WHERE outcome = 'cert.revoked' AND operation = 'jitp'") > 0)
    place.stack.v1("POST", f"/cas/{made.ca.nick}/update", {"crl_mode": "require"})
    assert place.code(stays.cert, stays.key) == 0
    place.stack.sql("UPDATE ca_crl SET this_update = now() - interval '9 days', next_update = now() - interval '1 minute'")
    place.stack.sql("SELECT ca_crl_close()")  # the job does it within a minute
    place.refused(stays.cert, stays.key)
    upload(place.stack, made.ca.nick, crl_of(made.ca, gone.cert, number=2))
    place.admitted(stays.cert, stays.key)
