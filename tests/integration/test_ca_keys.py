"""Issuing keys: encrypted files, a PKCS#11 token (SoftHSM), a root that is elsewhere; and changing the CA under load."""
import glob
import os
import subprocess
import threading
import time

import pytest
from cryptography import x509

from client import Device, cert_pem, fingerprint, new_key, unique
from dps import Registrant, endpoint, enrollment
from scep import Scep
from stack import ROOT, Refused, Stack, wait_for

PASSPHRASE, PIN = "correct horse battery", "824731"


def secret(folder, name, text):
    path = folder / name
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def enrolled(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    return d


def issuer_of(stack, cert):
    found = [c["name"] for c in stack.v1("GET", "/cas") if c["kind"] == "issuing" and x509.load_pem_x509_certificate(
        stack.v1("GET", f"/cas/{c['name']}")["pem"].encode()).subject == cert.issuer]
    return found[0] if len(found) == 1 else found


class Made(Stack):
    """A stack whose init is the test's."""

    def __init__(self, folder, **settings):
        super().__init__(folder)
        self.settings = settings

    def configure(self, **extra):
        super().configure(**{**self.settings, **extra})

    def init(self, *args, check=True):
        self.pg_start()
        self.configure()
        self.migrate()
        done = self.musterd("init", "--organization", "Test", *args, check=check)
        self.token = done.stdout.strip()
        return done

    def __enter__(self):
        return self


# encrypted files


def test_keys_are_encrypted_where_there_is_a_passphrase(tmp_path):
    with Made(tmp_path, ca__passphrase_file=secret(tmp_path, "passphrase", PASSPHRASE)) as stack:
        stack.init()
        for name in ("root", "issuing-1"):
            assert (tmp_path / f"ca/{name}.key").read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        assert "ENCRYPTED" not in (tmp_path / "server.key").read_text()
        done = subprocess.run(["openssl", "pkey", "-in", tmp_path / "ca/issuing-1.key", "-passin", f"pass:{PASSPHRASE}", "-noout"], capture_output=True)
        assert done.returncode == 0
        stack.start()
        stack.seed()
        assert enrolled(stack).cert
        stack.musterd("add-issuer", "--name", "issuing-2", "--organization", "Test")
        assert "ENCRYPTED" in (tmp_path / "ca/issuing-2.key").read_text()


@pytest.mark.parametrize("passphrase", [None, "another passphrase"])
def test_without_the_passphrase_there_is_no_issuer(tmp_path, passphrase):
    with Made(tmp_path, ca__passphrase_file=secret(tmp_path, "passphrase", PASSPHRASE)) as stack:
        stack.init()
        stack.settings = {} if passphrase is None else {"ca__passphrase_file": secret(tmp_path, "other", passphrase)}
        stack.configure()
        stack.start()
        stack.seed()
        with pytest.raises(Refused) as e:
            enrolled(stack)
        assert e.value.code == "ca.no_issuer" and e.value.status == 503
        assert [r for r in stack.log_records() if r["event"] == "catalog.issuer_unusable" and r["ca"] == "issuing-1"]


def test_a_passphrase_that_others_can_read_ends_the_start(tmp_path):
    path = secret(tmp_path, "passphrase", PASSPHRASE)
    with Made(tmp_path, ca__passphrase_file=path) as stack:
        stack.init()
        path.chmod(0o644)
        done = stack.musterd("serve", check=False)
        assert done.returncode == 1 and "passphrase of the issuing keys" in done.stderr


# a token


class Token:
    """A SoftHSM of one's own."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "tokens").mkdir()
        (folder / "softhsm.conf").write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
        os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm.conf")
        (self.module,) = glob.glob("/usr/lib/softhsm/libsofthsm2.so")
        self.run("softhsm2-util", "--init-token", "--free", "--label", "muster", "--so-pin", "1234567", "--pin", PIN)

    def run(self, *command):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stdout, done.stderr)

    def key(self, label, kind="EC:prime256v1"):
        """Made in the token; its URI."""
        self.run("pkcs11-tool", "--module", self.module, "--login", "--pin", PIN, "--token-label", "muster", "--keypairgen", "--key-type", kind, "--label", label,
                 "--id", label.encode().hex())
        return f"pkcs11:token=muster;object={label};type=private"

    def settings(self, folder):
        return {"ca__pkcs11_module": self.module, "ca__pkcs11_pin_file": secret(folder, "pin", PIN)}


@pytest.fixture
def token(tmp_path):
    folder = tmp_path / "hsm"
    folder.mkdir()
    yield Token(folder)
    del os.environ["SOFTHSM2_CONF"]


@pytest.mark.parametrize("kind", ["EC:prime256v1", "EC:secp384r1", "RSA:2048"])
def test_an_issuing_key_in_a_token(tmp_path, token, kind):
    uri = token.key("issuing", kind)
    with Made(tmp_path, **token.settings(tmp_path)) as stack:
        stack.init("--key-uri", uri)
        assert not (tmp_path / "ca/issuing-1.key").exists() and stack.one("SELECT key_reference FROM ca WHERE kind = 'issuing'") == uri
        stack.start()
        stack.seed()
        d = enrolled(stack)
        done = subprocess.run(["openssl", "verify", "-CAfile", tmp_path / "ca/root.pem", "-untrusted", tmp_path / "ca/issuing-1.pem", "/dev/stdin"],
                              input=cert_pem(d.cert), capture_output=True)
        assert done.returncode == 0, done.stderr
        assert d.config()["state"] == "PROVISIONED" and d.renew(key=new_key())
        failures = together(lambda: enrolled(stack), 40)
        assert failures == []
        stack.stop()


def together(call, count, threads=8):
    """What went wrong in so many calls."""
    failures, left = [], list(range(count))

    def work():
        while left:
            left.pop()
            try:
                call()
            except Exception as e:
                failures.append(e)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    [w.start() for w in workers]
    [w.join() for w in workers]
    return failures


def test_a_token_that_is_away_is_asked_again(tmp_path, token):
    uri = token.key("issuing")
    with Made(tmp_path, **token.settings(tmp_path)) as stack:
        stack.init("--key-uri", uri)
        (token.folder / "tokens").rename(token.folder / "away")
        (token.folder / "tokens").mkdir()
        stack.start()
        stack.seed()
        with pytest.raises(Refused) as e:
            enrolled(stack)
        assert e.value.code == "ca.no_issuer"
        stack.musterd("add-issuer", "--name", "issuing-file", "--organization", "Test")
        wait_for("another issuer", lambda: works(stack))
        assert issuer_of(stack, enrolled(stack).cert) == "issuing-file"
        (token.folder / "tokens").rmdir()
        (token.folder / "away").rename(token.folder / "tokens")
        stack.v1("POST", "/cas/issuing-file/deactivate")
        wait_for("the token's key", lambda: works(stack))
        assert issuer_of(stack, enrolled(stack).cert) == "issuing-1"


def test_when_a_token_fails_under_way_another_issuer_signs(tmp_path, token):
    uri = token.key("issuing")
    with Made(tmp_path, **token.settings(tmp_path)) as stack:
        stack.init("--key-uri", uri)
        stack.start()
        stack.seed()
        enrolled(stack)
        (token.folder / "tokens").rename(token.folder / "away")
        (token.folder / "tokens").mkdir()
        with pytest.raises(Refused) as e:
            enrolled(stack)
        assert e.value.code == "ca.no_issuer" and e.value.status == 503
        stack.musterd("add-issuer", "--name", "issuing-file", "--organization", "Test")
        wait_for("the other issuer", lambda: works(stack))
        assert issuer_of(stack, enrolled(stack).cert) == "issuing-file"
        (token.folder / "tokens").rmdir()
        (token.folder / "away").rename(token.folder / "tokens")
        stack.stop()
        stack.start()
        stack.v1("POST", "/cas/issuing-file/deactivate")
        assert issuer_of(stack, enrolled(stack).cert) == "issuing-1"


def works(stack):
    try:
        return bool(enrolled(stack))
    except Refused:
        return False


def test_a_wrong_pin_or_no_module(tmp_path, token):
    uri = token.key("issuing")
    with Made(tmp_path, **{**token.settings(tmp_path), "ca__pkcs11_pin_file": secret(tmp_path, "wrong", "00000000")}) as stack:
        done = stack.init("--key-uri", uri, check=False)
        assert done.returncode == 1 and "opening the key" in done.stderr and stack.one("SELECT count(*) FROM ca") == 0
        stack.settings = {}
        stack.configure()
        done = stack.musterd("init", "--key-uri", uri, check=False)
        assert done.returncode == 1 and "opening the key" in done.stderr
        stack.pg_stop("immediate")


def test_the_keys_of_secrets_and_scep_in_a_token(tmp_path, token):
    """What seals symmetric keys, and the registration authority's, which deciphers: neither is a file."""
    sealing, ra = token.key("sealing", "RSA:2048"), token.key("ra", "RSA:2048")
    scep = {"scep__certificate": tmp_path / "ra.pem", "scep__key": ra, "scep__address": "127.0.0.1", "scep__port": 0}
    with Made(tmp_path, secrets__key=sealing, **scep, **token.settings(tmp_path)) as stack:
        stack.init()
        stack.musterd("add-ra", "--organization", "Test")
        stack.start()
        stack.seed()
        endpoint(stack, "broker.example.com")
        made = enrollment(stack)
        device = Registrant(stack, made["registration_id"], made["primary_key"])
        device.assigned()
        stack.stop()
        stack.start()
        device.assigned()  # opened once more
        assert Scep(stack).enrol(unique("hsm"), stack.mint("open"))[1].status == "0"
        assert together(lambda: Scep(stack).enrol(unique("hsm"), stack.mint("open"))[1].certs[0], 20) == []
        stack.stop()
        stack.settings["secrets__key"] = token.key("another", "RSA:2048")
        stack.configure()
        done = stack.musterd("serve", check=False)
        assert done.returncode == 1 and "not the one that the registry's secrets are sealed under" in done.stderr
        stack.settings["secrets__key"] = token.key("curve")
        stack.configure()
        done = stack.musterd("serve", check=False)
        assert done.returncode == 1 and "must be an RSA key" in done.stderr
        stack.pg_stop("immediate")


# a root that is elsewhere


def ceremony(stack, name, *more, root="root"):
    """The request, signed where the root's key is; the certificate's file."""
    request = stack.folder / f"{name}.csr"
    request.write_text(stack.musterd("issuer-request", "--name", name, "--organization", "Test", *more).stdout)
    cert = stack.folder / f"{name}.crt"
    with open(cert, "w") as out:
        done = subprocess.run([ROOT / "deploy/root-ceremony", "--yes", request, stack.folder / f"ca/{root}.pem", stack.folder / f"ca/{root}.key"],
                              stdout=out, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    assert f"Issuing CA {name}" in done.stderr and "key, SHA-256" in done.stderr
    return cert


def test_a_ceremony_with_an_offline_root(fresh):
    assert fresh.musterd("add-issuer", "--name", "issuing-2", "--import-issuing", fresh.folder / "ca/issuing-1.pem", check=False).returncode == 1
    cert = ceremony(fresh, "issuing-2")
    assert fresh.one("SELECT count(*) FROM ca WHERE name = 'issuing-2'") == 0 and (fresh.folder / "ca/issuing-2.key").stat().st_mode & 0o777 == 0o600
    fresh.musterd("add-issuer", "--name", "issuing-2", "--import-issuing", cert)
    fresh.v1("POST", "/cas/issuing-1/deactivate")
    wait_for("the new issuer", lambda: issuer_of(fresh, enrolled(fresh).cert) == "issuing-2")
    made = x509.load_pem_x509_certificate(cert.read_bytes())
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    done = fresh.musterd("add-issuer", "--name", "issuing-3", "--import-issuing", cert, check=False)
    assert done.returncode == 1 and "issuing-3" in done.stderr, "there is no key of that name"


def test_a_ceremony_for_a_key_in_a_token(fresh, token, tmp_path):
    uri = token.key("hsm-issuing")
    fresh.configure(**token.settings(tmp_path))
    cert = ceremony(fresh, "issuing-hsm", "--key-uri", uri)
    assert not (fresh.folder / "ca/issuing-hsm.key").exists()
    fresh.musterd("add-issuer", "--name", "issuing-hsm", "--import-issuing", cert, "--key-uri", uri)
    fresh.stop()
    fresh.start()
    fresh.v1("POST", "/cas/issuing-1/deactivate")
    wait_for("the new issuer", lambda: issuer_of(fresh, enrolled(fresh).cert) == "issuing-hsm")
    fresh.stop()


@pytest.mark.parametrize("what, said", [("leaf", "asks for no issuing CA"), ("broken", "not signed by its own key")])
def test_what_the_ceremony_does_not_sign(fresh, tmp_path, what, said):
    request = tmp_path / "r.csr"
    subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=x", "-out", request],
                   check=True, capture_output=True)
    if what == "broken":
        request.write_text("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n")
    done = subprocess.run([ROOT / "deploy/root-ceremony", "--yes", request, fresh.folder / "ca/root.pem", fresh.folder / "ca/root.key"], capture_output=True, text=True)
    assert done.returncode == 1 and said in done.stderr and done.stdout == ""


# rotation


def test_an_issuing_ca_is_changed_without_a_failed_enrolment(fresh):
    """A new one comes in, both sign, the old one goes: enrolments and renewals go on all the time."""
    stop, failures, issuers = threading.Event(), [], set()
    old = enrolled(fresh)
    old.config()

    def load():
        while not stop.is_set():
            try:
                d = enrolled(fresh)
                d.config()
                d.renew(key=new_key())
                issuers.add(d.cert.issuer)
            except Exception as e:
                failures.append(e)

    workers = [threading.Thread(target=load) for _ in range(4)]
    [w.start() for w in workers]
    try:
        wait_for("some load", lambda: len(issuers) == 1)
        fresh.musterd("add-issuer", "--name", "issuing-2", "--organization", "Test")
        time.sleep(2)
        fresh.v1("POST", "/cas/issuing-1/deactivate")
        time.sleep(2)
        wait_for("the new one alone", lambda: issuer_of(fresh, enrolled(fresh).cert) == "issuing-2")
    finally:
        stop.set()
        [w.join() for w in workers]
    assert failures == [] and len(issuers) == 2
    assert old.config() and fresh.v1("GET", f"/certs/{fingerprint(old.cert)}")["status"] == "current"
    old.renew(key=new_key())
    assert issuer_of(fresh, old.cert) == "issuing-2"
