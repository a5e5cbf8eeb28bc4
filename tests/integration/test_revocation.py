"""CRLs and OCSP, as openssl's and GnuTLS' own commands see them."""
import base64
import contextlib
import http.client
import re
import signal
import subprocess
import time
import urllib.parse

import psycopg2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

import client
import matrix
from claims import Claim
from client import Device, cert_pem, fingerprint, new_key, unique
from factory import Authority
from scep import GET_CRL, RENEWAL_REQ, Scep, csr, issuer_and_serial
from stack import Refused, Stack, free_port, wait_for

DER = serialization.Encoding.DER
from test_broker_auth import Asker


class Place:
    """A stack with a listener for relying parties, and what they do there."""

    def __init__(self, folder, **more):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.stack = Stack(folder)
        self.settings = {"revocation__address": "127.0.0.1", "revocation__port": self.port, "revocation__url": self.url, **more}

    def __enter__(self):
        self.stack.__enter__()
        self.stack.seed()
        self.stack.stop()
        self.stack.sql("DELETE FROM crl")
        self.change()
        self.folder = self.stack.folder
        self.issuer = x509.load_pem_x509_certificate(self.stack.v1("GET", "/cas/issuing-1")["pem"].encode())
        self.issuer_file, self.root_file = self.folder / "issuing.pem", self.stack.cafile
        self.issuer_file.write_bytes(cert_pem(self.issuer))
        (self.folder / "chain.pem").write_bytes(cert_pem(self.issuer) + self.root_file.read_bytes())
        return self

    def __exit__(self, *exc):
        self.stack.__exit__(*exc)

    def change(self, **more):
        self.settings.update(more)
        self.stack.stop()
        self.stack.configure(**self.settings)
        self.stack.start()

    def get(self, url, method="GET", body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, url.removeprefix(self.url), body, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            return answer.status, dict((k.lower(), v) for k, v in answer.getheaders()), answer.read()

    def tick(self):
        """The job runs now; SIGHUP wakes it."""
        self.stack.process.send_signal(signal.SIGHUP)

    def crl(self, url):
        status, _, body = self.get(url)
        assert status == 200, (status, body)
        return x509.load_der_x509_crl(body)

    def listed(self, cert, url):
        return self.crl(url).get_revoked_certificate_by_serial_number(cert.serial_number)

    def enrolled(self, template="open"):
        d = Device(self.stack, template=template, token=self.stack.mint(template))
        d.enrol()
        return d

    def revoke(self, cert, reason="keyCompromise"):
        self.stack.cli("cert", "revoke", fingerprint(cert), "--reason", reason)

    def full_again(self):
        """As if half of the full CRLs' life were over."""
        self.stack.sql("UPDATE crl SET this_update = this_update - interval '30 hours' WHERE NOT is_delta")
        self.tick()

    def run(self, *command):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def openssl_ocsp(self, cert, *more):
        (self.folder / "ask.pem").write_bytes(cert_pem(cert))
        return self.run("openssl", "ocsp", "-issuer", self.issuer_file, "-cert", self.folder / "ask.pem", "-url", self.url + "/ocsp", "-CAfile", self.root_file,
                        "-verify_other", self.issuer_file, *more)[1]

    def openssl_verify(self, cert, *crls):
        (self.folder / "leaf.pem").write_bytes(cert_pem(cert))
        files = []
        for i, url in enumerate(crls):
            (self.folder / f"{i}.crl").write_bytes(self.crl(url).public_bytes(serialization.Encoding.PEM))
            files += ["-CRLfile", self.folder / f"{i}.crl"]
        return self.run("openssl", "verify", "-crl_check", "-extended_crl", *(["-use_deltas"] if len(crls) > 1 else []), *files,
                        "-CAfile", self.root_file, "-untrusted", self.issuer_file, self.folder / "leaf.pem")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with Place(tmp_path_factory.mktemp("revocation")) as made:
        wait_for("the first CRLs", lambda: made.stack.one("SELECT count(*) FROM crl") == 2)
        yield made


def points(cert):
    return [p.full_name[0].value for p in cert.extensions.get_extension_for_class(x509.CRLDistributionPoints).value]


def access(cert):
    return {a.access_method: a.access_location.value for a in cert.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value}


def delta_of(url):
    return url.removesuffix(".crl") + ".delta.crl"


def test_certificates_say_where_and_it_is_there(place):
    d = place.enrolled()
    (crl,) = points(d.cert)
    assert crl.startswith(place.url + "/crl/") and access(d.cert)[AuthorityInformationAccessOID.OCSP] == place.url + "/ocsp"
    status, headers, body = place.get(access(d.cert)[AuthorityInformationAccessOID.CA_ISSUERS])
    assert status == 200 and headers["content-type"] == "application/pkix-cert" and body == place.issuer.public_bytes(DER)
    status, headers, body = place.get(crl)
    assert status == 200 and headers["content-type"] == "application/pkix-crl"
    age = int(re.fullmatch(r"public, max-age=(\d+), no-transform", headers["cache-control"]).group(1))
    assert 172000 < age <= 172800 and headers["expires"] and headers["last-modified"]
    assert place.get(crl, If_None_Match=headers["etag"])[0::2] == (304, b"")
    assert place.get(crl, If_None_Match='"1", ' + headers["etag"])[0] == 304
    assert place.get(crl, If_None_Match='"1"')[0] == 200
    renewed = d.cert
    d.renew()
    assert points(d.cert) == points(renewed)


def test_a_template_may_say_other_addresses(place):
    own = {"CrlUrls": ["http://crl.example/a.crl"], "OcspUrl": "http://ocsp.example", "CaIssuersUrl": "http://ca.example/ca.crt"}
    d = template(place, own)
    assert points(d.cert) == own["CrlUrls"] and access(d.cert) == {AuthorityInformationAccessOID.OCSP: own["OcspUrl"], AuthorityInformationAccessOID.CA_ISSUERS: own["CaIssuersUrl"]}


def template(place, muster):
    """A device of a template like `open` with that said besides."""
    import json
    import pathlib
    document = json.loads((pathlib.Path(__file__).parent / "templates" / "open.json").read_text())
    document["Muster"].update(muster)
    name = unique("own")
    place.stack.v1("PUT", f"/templates/{name}?product=pump", json.dumps(document).encode())
    return place.enrolled(name)


def test_openssl_reads_the_crl_and_believes_it(place):
    good, bad = place.enrolled(), place.enrolled()
    (url,) = points(good.cert)
    rc, said = place.openssl_verify(good.cert, url)
    assert rc == 0, said
    place.revoke(bad.cert)
    place.tick()
    wait_for("the delta CRL", lambda: place.listed(bad.cert, delta_of(url)))
    assert not place.listed(bad.cert, url), "the full one is signed hourly"
    rc, said = place.openssl_verify(bad.cert, url, delta_of(url))
    assert rc != 0 and "certificate revoked" in said, said
    assert place.openssl_verify(good.cert, url, delta_of(url))[0] == 0
    place.full_again()
    wait_for("the full CRL", lambda: place.listed(bad.cert, url))
    rc, said = place.openssl_verify(bad.cert, url)
    assert rc != 0 and "certificate revoked" in said, said
    (place.folder / "f.crl").write_bytes(place.crl(url).public_bytes(DER))
    rc, said = place.run("openssl", "crl", "-inform", "DER", "-in", place.folder / "f.crl", "-CAfile", place.folder / "chain.pem", "-noout", "-text")
    assert rc == 0 and "verify OK" in said and "Key Compromise" in said and f"{bad.cert.serial_number:X}" in said.replace(":", "").upper()


def test_gnutls_reads_them_too(place):
    d = place.enrolled()
    (url,) = points(d.cert)
    (place.folder / "g.crl").write_bytes(place.crl(url).public_bytes(serialization.Encoding.PEM))
    rc, said = place.run("certtool", "--verify-crl", "--load-ca-certificate", place.issuer_file, "--infile", place.folder / "g.crl")
    assert rc == 0 and "Verified" in said, said
    (place.folder / "g.pem").write_bytes(cert_pem(d.cert))
    ask = ("ocsptool", f"--ask={place.url}/ocsp", "--load-cert", place.folder / "g.pem", "--load-issuer", place.issuer_file, "--load-signer", place.issuer_file)
    rc, said = place.run(*ask)
    assert rc == 0 and "Certificate Status: good" in said and "Verifying OCSP Response: Success" in said, said
    place.revoke(d.cert, "cessationOfOperation")
    rc, said = place.run(*ask)
    assert "Certificate Status: revoked" in said and "Verifying OCSP Response: Success" in said, said


def test_the_numbers_grow_and_a_delta_says_its_base(place):
    d = place.enrolled()
    (url,) = points(d.cert)

    def pair():
        """Each is served as it was for up to a second after another was signed."""
        full, delta = place.crl(url), place.crl(delta_of(url))
        number = full.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        base = delta.extensions.get_extension_for_class(x509.DeltaCRLIndicator)
        return (full, delta, number, base) if base.value.crl_number == number else None
    full, delta, number, base = wait_for("a delta CRL of that full one", pair)
    assert base.critical
    assert delta.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number >= number
    freshest = full.extensions.get_extension_for_class(x509.FreshestCRL).value
    assert [p.full_name[0].value for p in freshest] == [delta_of(url)]
    place.full_again()
    wait_for("another full CRL", lambda: place.crl(url).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number > number)
    place.stack.sql("UPDATE crl SET number = number + 1000000")
    ahead = place.crl(url).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    place.revoke(d.cert)
    place.full_again()
    wait_for("a number beyond it", lambda: place.crl(url).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number > ahead + 999999)


def test_one_replica_leads_and_a_slower_one_cannot_go_back(place):
    d = place.enrolled()
    (url,) = points(d.cert)
    with contextlib.closing(psycopg2.connect(host="127.0.0.1", port=place.stack.pg_port, user="muster", dbname="muster")) as leader, leader.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(1836413810)")
        place.revoke(d.cert)
        signed = place.stack.log_text().count('"crl.signed"')
        reloads = place.stack.log_text().count('"config.reloaded"')
        place.tick()
        wait_for("the job", lambda: place.stack.log_text().count('"config.reloaded"') > reloads)
        assert place.stack.log_text().count('"crl.signed"') == signed
        leader.rollback()
    place.tick()
    wait_for("the delta CRL", lambda: place.listed(d.cert, delta_of(url)))
    number = place.stack.one("SELECT number FROM crl WHERE is_delta")
    place.stack.sql("SELECT crl_store(issuer_id, shards, shard, true, number - 1, 0, 1, 0, '', '') FROM crl WHERE is_delta")
    assert place.stack.one("SELECT number FROM crl WHERE is_delta") == number


# what gets on the list


def reason(place, cert):
    rows = place.stack.sql("SELECT reason FROM revocation WHERE serial_number = %s", cert.serial_number.to_bytes(20, "big").lstrip(b"\0"))
    return rows[0][0] if rows else None


def test_who_retires_a_device_revokes_its_certificates(place):
    for said, wanted in ((), "cessationOfOperation"), (("--reason", "affiliationChanged"), "affiliationChanged"), (("--reason", "keyCompromise"), "keyCompromise"):
        d = place.enrolled()
        place.stack.cli("device", "retire", d.serial, *said, "--yes")
        assert reason(place, d.cert) == wanted
    d = place.enrolled()
    with pytest.raises(Refused) as e:
        place.stack.v1("POST", f"/devices/{d.serial}/retire", {"reason": "boredom"})
    assert e.value.code == "request.malformed" and reason(place, d.cert) is None
    place.stack.v1("POST", f"/devices/{d.serial}/retire", {"reason": "privilegeWithdrawn"})
    assert reason(place, d.cert) == "privilegeWithdrawn"


def test_every_door_agrees_within_two_seconds(place):
    """One device that may use them all, and a revocation."""
    scep = Scep(place.stack)
    serial, token = unique("doors"), place.stack.mint("open")
    key, reply = scep.enrol(serial, token)
    d = Device(place.stack, serial, "open")
    d.key, d.cert = key, reply.certs[0]
    asker = Asker(place.stack, place.stack.cli_json("admin-token", "create", unique("broker"), "--role", "broker")["token"])
    renewal = csr(new_key("RSA-2048"), serial)
    assert d.config()["state"] == "PROVISIONED" and asker.auth(cert_fingerprint=fingerprint(d.cert)) == "allow" and ": good" in place.openssl_ocsp(d.cert)
    place.revoke(d.cert, "privilegeWithdrawn")
    done = time.monotonic()
    for attempt in (d.config, d.renew):
        with pytest.raises(Refused) as e:
            attempt()
        assert e.value.code == "cert.revoked"
    refused = scep.ask(RENEWAL_REQ, renewal, key, d.cert)
    assert refused.status == "2" and "cert.revoked" in refused.text
    assert asker.auth(cert_fingerprint=fingerprint(d.cert)) == "deny" and ": revoked" in place.openssl_ocsp(d.cert)
    assert time.monotonic() - done < 2


def test_the_crl_comes_by_scep_too(place):
    scep = Scep(place.stack)
    serial = unique("scep")
    key, reply = scep.enrol(serial, place.stack.mint("open"))
    dead = place.enrolled().cert
    place.revoke(dead)
    place.full_again()
    (url,) = points(dead)
    wait_for("the CRL", lambda: place.listed(dead, url))
    (listed,) = scep.ask(GET_CRL, issuer_and_serial(dead), key, reply.certs[0]).crls
    assert dead.serial_number in {c["user_certificate"].native for c in listed["tbs_cert_list"]["revoked_certificates"]}


def test_a_renewal_is_on_the_list_only_where_the_template_says_so(place):
    for said, wanted in ((None, None), (False, None), (True, "superseded")):
        d = template(place, {} if said is None else {"CrlSuperseded": said})
        old = d.cert
        d.config()
        d.renew()
        assert reason(place, old) is None, "not before the new one was used"
        d.config()
        assert reason(place, old) == wanted
        assert (f"{'revoked' if wanted else 'good'}" in place.openssl_ocsp(old))
    place.revoke(old)
    assert reason(place, old) == "keyCompromise", "worse than superseded"


def test_a_claim_is_on_the_list_once_it_is_revoked_hard(place):
    for mode, wanted in (("stop-new", None), ("hard", "cessationOfOperation")):
        claim = Claim(place.stack, "claimopen")
        assert "good" in place.openssl_ocsp(claim.cert) and points(claim.cert)
        place.stack.cli("claim", "revoke", claim.name, "--mode", mode)
        assert reason(place, claim.cert) == wanted


def test_factory_certificates_are_their_own_cas(place):
    maker = Authority(unique("Maker "))
    maker.register(place.stack, unique("maker"))
    d = Device(place.stack, template="factory")
    cert, key = maker.device(d.serial)
    place.stack.allow(d.serial)
    d.enrol_factory([cert], key)
    before = place.stack.one("SELECT count(*) FROM revocation")
    place.stack.cli("cert", "revoke", fingerprint(cert))
    assert place.stack.one("SELECT count(*) FROM revocation") == before


# OCSP


def test_a_revocation_counts_with_the_next_question(place):
    d = place.enrolled()
    said = place.openssl_ocsp(d.cert)
    assert "Response verify OK" in said and ": good" in said, said
    place.revoke(d.cert)
    said = place.openssl_ocsp(d.cert)
    assert ": revoked" in said and "Reason: keyCompromise" in said and "Revocation Time" in said, said


def test_what_we_did_not_sign_is_unknown_and_what_is_not_ours_is_not_answered(place):
    stranger, _ = Authority("Stranger").device("x")
    ours = x509.load_pem_x509_certificate((place.folder / "server.pem").read_bytes())
    assert ours.issuer == place.issuer.subject and ": unknown" in place.openssl_ocsp(ours), "it is in no registry"
    request = ocsp.OCSPRequestBuilder().add_certificate(stranger, stranger, hashes.SHA256()).build().public_bytes(DER)
    answer = ocsp.load_der_ocsp_response(ask(place, request))
    assert answer.response_status == ocsp.OCSPResponseStatus.UNAUTHORIZED


def request_of(place, cert, nonce=None, digest=None):
    builder = ocsp.OCSPRequestBuilder().add_certificate(cert, place.issuer, digest or hashes.SHA1())
    if nonce:
        builder = builder.add_extension(x509.OCSPNonce(nonce), False)
    return builder.build().public_bytes(DER)


def ask(place, request):
    status, headers, body = place.get("/ocsp", "POST", request, Content_Type="application/ocsp-request")
    assert status == 200 and headers["content-type"] == "application/ocsp-response"
    return body


def test_the_responder_is_delegated(place):
    answer = ocsp.load_der_ocsp_response(ask(place, request_of(place, place.enrolled().cert)))
    (signer,) = answer.certificates
    place.issuer.public_key().verify(signer.signature, signer.tbs_certificate_bytes, ec.ECDSA(signer.signature_hash_algorithm))
    assert ExtendedKeyUsageOID.OCSP_SIGNING in signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert signer.extensions.get_extension_for_class(x509.OCSPNoCheck)
    assert (signer.not_valid_after - signer.not_valid_before).days == 7


def test_by_get_with_and_without_escapes(place):
    d = place.enrolled()
    for digest in (hashes.SHA1(), hashes.SHA256()):
        text = base64.b64encode(request_of(place, d.cert, digest=digest)).decode()
        answers = []
        for path in (urllib.parse.quote(text, safe=""), text):
            status, headers, body = place.get("/ocsp/" + path)
            assert status == 200 and ocsp.load_der_ocsp_response(body).certificate_status == ocsp.OCSPCertStatus.GOOD
            assert headers["cache-control"].startswith("public, max-age=") and headers["etag"] and headers["expires"]
            answers.append(body)
        assert answers[0] == answers[1], "signed once"
        assert place.get("/ocsp/" + text, If_None_Match=headers["etag"])[0] in (200, 304)


def test_answers_are_kept_until_the_state_is_another(place):
    d = place.enrolled()
    request = request_of(place, d.cert)
    first = ask(place, request)
    assert ask(place, request) == first
    place.revoke(d.cert)
    answer = ocsp.load_der_ocsp_response(ask(place, request))
    assert answer.certificate_status == ocsp.OCSPCertStatus.REVOKED and answer.revocation_reason == x509.ReasonFlags.key_compromise


def test_a_nonce_comes_back_until_a_source_asks_for_too_many(place):
    d = place.enrolled()
    nonces = [bytes([i] * 16) for i in range(200)]
    back = []
    for n in nonces:
        answer = ocsp.load_der_ocsp_response(ask(place, request_of(place, d.cert, n)))
        assert answer.certificate_status == ocsp.OCSPCertStatus.GOOD
        back.append([e.value.nonce for e in answer.extensions if isinstance(e.value, x509.OCSPNonce)])
    assert back[0] == [nonces[0]] and all(b in ([n], []) for b, n in zip(back, nonces))
    assert [] in back, "past the limit it is left out"


@pytest.mark.parametrize("body", [b"", b"x", b"\x30\x00", b"\x30\x82\xff\xff", bytes(4000)])
def test_what_is_no_request_is_malformed(place, body):
    assert ocsp.load_der_ocsp_response(ask(place, body)).response_status == ocsp.OCSPResponseStatus.MALFORMED_REQUEST
    text = urllib.parse.quote(base64.b64encode(body).decode() or "%", safe="")
    assert ocsp.load_der_ocsp_response(place.get("/ocsp/" + text)[2]).response_status == ocsp.OCSPResponseStatus.MALFORMED_REQUEST


def test_a_nonce_that_is_too_long_is_malformed(place):
    d = place.enrolled()
    assert ocsp.load_der_ocsp_response(ask(place, request_of(place, d.cert, bytes(33)))).response_status == ocsp.OCSPResponseStatus.MALFORMED_REQUEST
    assert ocsp.load_der_ocsp_response(ask(place, request_of(place, d.cert, bytes(32)))).response_status == ocsp.OCSPResponseStatus.SUCCESSFUL


# the listener


@pytest.mark.parametrize("method, path, status", [
    ("GET", "/", 404), ("GET", "/crl/none.crl", 404), ("GET", "/crl/{slug}/2-0.crl", 404), ("GET", "/crl/{slug}/2-2.crl", 404), ("GET", "/crl/{slug}/x.crl", 404),
    ("GET", "/crl/{slug}/1-0.crl", 404), ("GET", "/ca/none.crt", 404), ("POST", "/crl/{slug}.crl", 405), ("GET", "/ocsp", 405), ("GET", "/.well-known/est/cacerts", 404),
    ("GET", "/admin/v1/devices", 404), ("POST", "/v1/enroll", 404), ("GET", "/healthz", 200)])
def test_it_serves_nothing_else(place, method, path, status):
    (url,) = points(place.enrolled().cert)
    slug = url.removeprefix(place.url + "/crl/").removesuffix(".crl")
    assert place.get(path.replace("{slug}", slug), method)[0] == status


def test_too_large_and_of_another_kind(place):
    assert place.get("/ocsp", "POST", bytes(5000), Content_Type="application/ocsp-request")[0] == 413
    assert place.get("/ocsp", "POST", b"x", Content_Type="text/plain")[0] == 415


def test_crls_are_served_while_the_database_is_away(place):
    d = place.enrolled()
    (url,) = points(d.cert)
    before = place.get(url)[2]
    request = request_of(place, d.cert)
    ask(place, request)
    place.stack.pg_stop("immediate")
    try:
        assert place.get(url)[2] == before
        assert ocsp.load_der_ocsp_response(ask(place, request)).response_status == ocsp.OCSPResponseStatus.TRY_LATER
    finally:
        place.stack.pg_start()
    wait_for("the registry", lambda: ocsp.load_der_ocsp_response(ask(place, request)).response_status == ocsp.OCSPResponseStatus.SUCCESSFUL)


# the desk


def test_an_operator_sees_them_and_has_them_signed(place):
    d = place.enrolled()
    (url,) = points(d.cert)
    place.revoke(d.cert)
    before = {(r["issuer"], r["kind"]): r for r in place.stack.cli_json("crl", "list")}
    assert set(before) == {("issuing-1", "full"), ("issuing-1", "delta")} and all(r["bytes"] > 200 and r["shards"] == 1 for r in before.values())
    assert [r for page in place.stack.pages("/crls?limit=1") for r in page] == list(before.values())
    assert not place.listed(d.cert, url)
    assert place.stack.cli_json("crl", "sign") == {"crls": 1}
    wait_for("the full CRL", lambda: place.listed(d.cert, url))
    after = {r["kind"]: r for r in place.stack.cli_json("crl", "list")}
    assert after["full"]["number"] > before["issuing-1", "full"]["number"] and after["full"]["number"] == after["delta"]["number"]


def test_the_doctor_and_the_metrics_tell_of_one_that_is_late(place):
    from test_metrics import scrape, values

    def finding():
        return next(f for f in place.stack.v1("GET", "/doctor") if f["check"] == "CRL of issuing-1")

    assert finding()["severity"] == "ok"
    ends = values(scrape(place.stack))['muster_crl_next_update_timestamp_seconds{issuer="issuing-1"}']
    assert ends == place.stack.one("SELECT floor(extract(epoch FROM min(next_update)))::bigint FROM crl")
    with contextlib.closing(psycopg2.connect(host="127.0.0.1", port=place.stack.pg_port, user="muster", dbname="muster")) as leader, leader.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(1836413810)")
        place.stack.sql("UPDATE crl SET this_update = now() - interval '2 days', next_update = now() + interval '1 minute' WHERE NOT is_delta")
        assert finding()["severity"] == "warning"
        place.stack.sql("UPDATE crl SET next_update = now() - interval '1 minute' WHERE NOT is_delta")
        assert finding()["severity"] == "error"
        leader.rollback()
    place.stack.cli("crl", "sign")
    wait_for("the CRL", lambda: finding()["severity"] == "ok")


# the matrix


def test_no_credential_changes_an_answer(tmp_path_factory):
    """Each route of matrix.REVOCATION_ROUTES; and the listeners of devices and operators do not have it."""
    with Place(tmp_path_factory.mktemp("matrix")) as place:
        d = place.enrolled()
        place.change(revocation__crl_shards=2)
        wait_for("both divisions", lambda: place.stack.one("SELECT count(*) FROM crl") == 6)
        slug = points(d.cert)[0].removeprefix(place.url + "/crl/").removesuffix(".crl")
        ca = access(d.cert)[AuthorityInformationAccessOID.CA_ISSUERS].removeprefix(place.url + "/ca/").removesuffix(".crt")
        asked = request_of(place, d.cert)
        names = {"slug": slug, "ca": ca, "asked": urllib.parse.quote(base64.b64encode(asked).decode(), safe="")}
        for (method, _), path in matrix.REVOCATION_ROUTES.items():
            answers = [place.get(path.format(**names), method, asked if method == "POST" else None, Content_Type="application/ocsp-request", **headers)
                       for headers in ({}, {"Authorization": f"Bearer {place.stack.token}"}, {"Authorization": "Digest x"}, {"Client_Cert": ":AAAA:"})]
            assert [a[0] for a in answers] == [200, 200, 200, 400], path
            assert answers[0][2] == answers[1][2] == answers[2][2] and b"proxy.header_refused" in answers[3][2], path
            for port in (place.stack.port, place.stack.admin_port):
                headers = {"Authorization": f"Bearer {place.stack.token}", "Content-Type": "application/ocsp-request"}
                assert client.request(place.stack, method, path.format(**names), asked if method == "POST" else None, headers, port=port)[0] == 404, path


# size


def test_shards_are_ranges_that_certificates_name(tmp_path_factory):
    with Place(tmp_path_factory.mktemp("shards"), revocation__crl_shards=4) as place:
        wait_for("the CRLs", lambda: place.stack.one("SELECT count(*) FROM crl") == 8)
        devices = [place.enrolled() for _ in range(6)]
        urls = {d.serial: points(d.cert)[0] for d in devices}
        assert all(re.search(r"/4-[0-3]\.crl$", u) for u in urls.values()) and len(set(urls.values())) > 1
        scope = place.crl(urls[devices[0].serial]).extensions.get_extension_for_class(x509.IssuingDistributionPoint)
        assert scope.critical and [n.value for n in scope.value.full_name] == [urls[devices[0].serial]]
        for d in devices[1:]:
            place.revoke(d.cert)
        place.full_again()
        wait_for("all to be listed", lambda: all(place.listed(d.cert, urls[d.serial]) for d in devices[1:]))
        other = next(u for u in urls.values() if u != urls[devices[1].serial])
        assert not place.listed(devices[1].cert, other)
        assert place.openssl_verify(devices[0].cert, urls[devices[0].serial])[0] == 0
        rc, said = place.openssl_verify(devices[1].cert, urls[devices[1].serial])
        assert rc != 0 and "certificate revoked" in said
        # certificates name the division they were made under: it is kept up beside the new one
        place.change(revocation__crl_shards=2)
        wait_for("the new division", lambda: place.stack.one("SELECT count(*) FROM crl") == 12)
        place.revoke(devices[0].cert)
        place.full_again()
        wait_for("the old division", lambda: place.listed(devices[0].cert, urls[devices[0].serial]))


def test_fifty_thousand(place):
    d = place.enrolled()
    (url,) = points(d.cert)
    place.stack.sql("INSERT INTO revocation (issuer_id, serial_number, part, reason, not_after)"
                    " SELECT (SELECT id FROM ca WHERE name = 'issuing-1'), decode(md5(i::text), 'hex') || '\\x0102'::bytea, i % 256, 'keyCompromise', now() + interval '1 year'"
                    " FROM generate_series(1, 50000) i")
    place.full_again()
    wait_for("the CRL", lambda: len(place.crl(url)) >= 50000, 120)
    rc, said = place.openssl_verify(d.cert, url)
    assert rc == 0, said
    place.stack.sql("DELETE FROM revocation WHERE length(serial_number) = 18")


@pytest.mark.parametrize("settings, reason", [({"revocation__crl_shards": 3}, "power of two"), ({"revocation__crl_shards": 2, "revocation__url": ""}, "url must be given")])
def test_what_cannot_be_configured(place, settings, reason):
    place.stack.configure(**{**place.settings, **settings})
    try:
        done = place.stack.musterd("serve", check=False)
        assert done.returncode != 0 and reason in done.stderr
    finally:
        place.stack.configure(**place.settings)
