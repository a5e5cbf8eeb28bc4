"""A new root beside the old one: /cacerts tells the way between them (RFC 7030 4.1.3)."""
import subprocess

from cryptography import x509

from client import EST, Device, cert_pem, certs_of, new_key, request


def cacerts(stack):
    return certs_of(request(stack, "GET", EST + "/cacerts")[2])


def named(certs, subject, issuer):
    found = [c for c in certs if subject in c.subject.rfc4514_string() and issuer in c.issuer.rfc4514_string()]
    assert len(found) == 1, (subject, issuer)
    return found[0]


def verify(tmp_path, root, between, leaf):
    for name, certs in (("root", [root]), ("between", between), ("leaf", [leaf])):
        (tmp_path / name).write_bytes(b"".join(map(cert_pem, certs)))
    done = subprocess.run(["openssl", "verify", "-CAfile", "root", "-untrusted", "between", "leaf"], cwd=tmp_path, capture_output=True)
    return done.returncode == 0


def test_rollover(fresh, tmp_path):
    before = Device(fresh, token=fresh.mint("open"))
    before.enrol()
    assert len(cacerts(fresh)) == 2
    fresh.musterd("add-root", "--name", "root-2", "--organization", "Test")
    fresh.musterd("add-issuer", "--name", "issuing-2", "--root", "root-2", "--organization", "Test")
    fresh.v1("POST", "/cas/issuing-1/deactivate")
    fresh.v1("GET", "/templates/open")
    after = Device(fresh, token=fresh.mint("open"))
    after.enrol()

    certs = cacerts(fresh)
    old, new = named(certs, "CN=Test Root CA,", "CN=Test Root CA,"), named(certs, "root-2", "root-2")
    new_with_old, old_with_new = named(certs, "root-2", "CN=Test Root CA,"), named(certs, "CN=Test Root CA,", "root-2")
    first, second = named(certs, "issuing-1", "CN=Test Root CA,"), named(certs, "issuing-2", "root-2")
    assert len(certs) == 6
    assert new_with_old.public_key().public_numbers() == new.public_key().public_numbers()
    assert new.not_valid_after >= old.not_valid_after, "the newest root is the present one"
    assert after.cert.issuer == second.subject

    assert verify(tmp_path, new, [second], after.cert)
    assert verify(tmp_path, old, [second, new_with_old], after.cert), "who trusts the old root follows to the new"
    assert verify(tmp_path, new, [first, old_with_new], before.cert), "and the other way"
    assert not verify(tmp_path, old, [second], after.cert)
    before.renew(key=new_key())
    assert before.cert.issuer == second.subject, "what the old issuer signed renews under the new one"
    assert before.config()["state"] == "PROVISIONED"


def test_what_it_refuses(fresh):
    done = fresh.musterd("add-root", "--name", "root", check=False)
    assert done.returncode == 1 and "exists already" in done.stderr
    done = fresh.musterd("add-root", "--name", "../x", check=False)
    assert done.returncode == 1 and "a name is" in done.stderr
    done = fresh.musterd("add-root", "--name", "r2", "--root", "nosuch", check=False)
    assert done.returncode == 1 and not (fresh.folder / "ca" / "r2.key").exists()
    assert len(fresh.sql("SELECT 1 FROM ca")) == 2
    assert isinstance(cacerts(fresh)[0], x509.Certificate)
