"""The journal beside the registry: every certificate before its device has it, every end before anybody is told."""
import base64
import hashlib
import json
import resource
import signal
import subprocess

import pytest

from claims import Claim, ClaimDevice
from client import Device, fingerprint, new_csr, new_key, request, unique
from dps import Registrant, endpoint, enrollment
from factory import Authority, unit
from journal import JournaledStack, device, ended, issued, mode, rebuild, refused, sealed
from stack import MUSTERD, Refused, wait_for
from test_factory import batch, certificate, certify


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    with JournaledStack(tmp_path_factory.mktemp("kept")) as stack:
        stack.seed()
        yield stack


def test_each_certificate_is_in_the_journal_before_its_device_has_it(kept):
    d = device(kept)
    first = fingerprint(d.cert)
    (line,) = issued(kept, d.serial)
    assert line["fingerprint"] == first and line["thing_name"] == f"open-{d.serial}" and line["template"] == "open@1" and line["credential"] == "token"
    assert line["groups"] == ["g-open"] and [p["name"] for p in line["policies"]] == ["p-open"] and line["issuer"] == "issuing-1"
    d.renew(new_key())
    renewal = issued(kept, d.serial)[1]
    assert renewal["supersedes"] == first and renewal["fingerprint"] == fingerprint(d.cert) and "thing_name" not in renewal
    named = {(e["of"], e.get("name") or e["template"]) for e in kept.lines("configuration")}
    assert {("product", "pump"), ("template", "open"), ("version", "open"), ("ca", "root"), ("ca", "issuing-1")} <= named
    assert all(mode(f) == 0o600 for f in kept.files())


def test_a_line_says_by_which_credential(kept):
    """Of a token only what the registry has of it."""
    serial = unique("by")
    token = kept.mint("open", serial)
    Device(kept, serial, "open", token).enrol()
    (line,) = issued(kept, serial)
    assert (line["by"], line["source"]) == (hashlib.sha256(token.encode()).hexdigest(), "127.0.0.1") and token not in str(kept.lines())
    maker, d = Authority(unique("Maker")), Device(kept, unique("by"), "factory")
    maker.register(kept, unique("maker"))
    cert, key = maker.device(d.serial)
    kept.allow(d.serial)
    d.enrol_factory([cert], key)
    assert issued(kept, d.serial)[0]["by"] == fingerprint(cert)
    endpoint(kept, "broker.example.com")
    made = enrollment(kept)
    r = Registrant(kept, made["registration_id"], made["primary_key"])
    r.assigned({"csr": base64.b64encode(new_csr(new_key(), r.id)).decode()})
    assert issued(kept, r.id)[0]["by"] == made["registration_id"]


def test_what_a_claim_makes_is_there_before_and_after_it_has_a_device(kept):
    d = ClaimDevice(Claim(kept))
    kept.allow(d.serial)
    d.create()
    (created,) = [e for e in kept.lines("created") if e["fingerprint"] == d.created["certificateId"]]
    assert created["claim"] == d.claim.name
    for times in (1, 2):
        d.register()
        assert [e["fingerprint"] for e in issued(kept, d.serial)] == [d.created["certificateId"]] * times


def test_what_ends_is_in_the_journal_before_anybody_is_told(kept):
    d, other, third = device(kept), device(kept), device(kept)
    kept.v1("POST", f"/certs/{fingerprint(d.cert)}/revoke", {"reason": "privilegeWithdrawn"})
    assert ended(kept, d.serial) == [("revoked", "privilegeWithdrawn")]
    kept.v1("POST", f"/devices/{other.serial}/quarantine", {"reason": "odd"})
    kept.v1("POST", f"/devices/{other.serial}/release")
    assert ended(kept, other.serial) == [("quarantined", "odd"), ("released", None)]
    kept.v1("POST", f"/devices/{third.serial}/retire")
    assert ended(kept, third.serial) == [("revoked", "cessationOfOperation"), ("retired", None)]
    assert kept.one("SELECT count(*) FROM journal_due") == 0


def test_a_batch_is_in_the_journal_before_anybody_has_it(kept):
    name, units = batch(kept), [(unique("jb"), new_key()) for _ in range(3)]
    for times in (1, 2):
        done = certify(kept, name, [unit(*u) for u in units])
        made = [fingerprint(certificate(line)) for line in done["lines"]]
        assert [[e["fingerprint"] for e in issued(kept, serial)] for serial, _ in units] == [[fp] * times for fp in made]
    serial = units[0][0]
    certify(kept, name, [unit(serial, new_key())], again=True)
    assert ended(kept, serial) == [("revoked", "superseded")] and len(issued(kept, serial)) == 3


def test_what_others_left_is_written_within_seconds(kept):
    d = device(kept)
    kept.sql("SELECT certificate_revoke(id, 'superseded') FROM certificate WHERE fingerprint = decode(%s, 'hex')", fingerprint(d.cert))
    wait_for("the line", lambda: ended(kept, d.serial) == [("revoked", "superseded")])


def test_without_a_journal_nothing_is_kept_for_one(stack):
    d = device(stack)
    stack.v1("POST", f"/devices/{d.serial}/retire")
    assert stack.one("SELECT count(*) FROM journal_due") == 0


def test_a_stop_seals_and_a_start_follows(kept):
    kept.stop()
    last = kept.files()[-1]
    assert sealed(last)
    kept.start()
    d = device(kept)
    assert issued(kept, d.serial) and kept.files()[-1] != last
    kept.stop(signal.SIGKILL)
    assert not sealed(kept.files()[-1])
    with kept.files()[-1].open("ab") as f:
        f.write(b'{"n":99,"prev":"torn')
    kept.start()
    assert issued(kept, d.serial) and "journal.torn_line_cut" in kept.log_text()


def test_a_full_file_is_sealed_and_each_can_be_read_alone(kept):
    kept.stop()
    kept.configure(journal__max_bytes=65536)
    kept.start()
    before = len(kept.files())
    while len(kept.files()) < before + 2:
        device(kept)
    dry = ["--journal-key", kept.journal_public, "--dry-run", "--onto-existing"]
    moved = kept.folder / "moved"
    moved.mkdir()
    assert {g["kind"] for g in rebuild(kept, "--journal", kept.journal, *dry, code=1)["gaps"]} == {"unsealed"}
    kept.files()[0].rename(moved / kept.files()[0].name)
    assert {g["kind"] for g in rebuild(kept, "--journal", kept.journal, "--journal", moved, *dry, code=1)["gaps"]} == {"unsealed"}
    assert {g["kind"] for g in rebuild(kept, "--journal", kept.journal, *dry, code=1)["gaps"]} >= {"file.missing", "lines.missing"}
    for file in moved.iterdir():
        file.rename(kept.journal / file.name)
    middle = kept.files()[-2]
    entries = [json.loads(line) for line in middle.read_text().splitlines()]
    assert sealed(middle) and entries[0]["kind"] == "begin" and {"product", "template", "version", "ca"} <= {e.get("of") for e in entries}
    kept.lines()


def test_one_folder_is_one_replicas(kept):
    done = subprocess.run([MUSTERD, "serve", "--config", kept.config], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "another musterd writes its journal here" in done.stderr


def test_a_changed_line_is_refused_at_the_start(kept):
    kept.stop()
    last = kept.files()[-1]
    whole = last.read_bytes()
    last.write_bytes(whole.replace(b'"kind":"begin"', b'"kind":"begun"', 1))
    done = kept.musterd("serve", check=False)
    last.write_bytes(whole)
    assert done.returncode == 1 and "line 2 does not follow the line before" in done.stderr
    kept.configure()
    kept.start()


class Small(JournaledStack):
    """Its files cannot grow past a limit; the journal is the first to meet it."""

    def limit(self, size):
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_full_disk_issues_nothing_and_loses_nothing(tmp_path_factory):
    with Small(tmp_path_factory.mktemp("small")) as stack:
        stack.seed()
        first = device(stack)
        name, units = batch(stack), [unit(unique("full")) for _ in range(2)]
        stack.limit(stack.files()[-1].stat().st_size + 100)
        d = Device(stack, None, "open")
        d.token = stack.mint("open", d.serial)
        with pytest.raises(Refused) as told:
            d.enrol()
        assert told.value.code == "journal.unavailable" and told.value.status == 503
        refused("journal.unavailable", first.renew, keep=False)
        status, _, body = request(stack, "GET", "/readyz")
        assert status == 503 and b"journal.unavailable" in body
        assert "muster_journal_up 0" in stack.admin("GET", "/metrics", raw=True)[2].decode()
        refused("journal.unavailable", stack.v1, "POST", f"/devices/{first.serial}/quarantine", {"reason": "x"})
        assert stack.state(first.serial) == "QUARANTINE"
        assert stack.mint("open")  # what ends nothing is answered: a token is told this once
        refused("journal.unavailable", certify, stack, name, units)
        made = stack.one("SELECT encode(fingerprint, 'hex') FROM certificate JOIN device d ON d.id = device_id WHERE d.serial = %s", d.serial)
        stack.limit(resource.RLIM_INFINITY)
        wait_for("the journal", lambda: request(stack, "GET", "/readyz")[0] == 200)
        assert [line["result"] for line in certify(stack, name, units)["lines"]] == ["replayed"] * 2
        assert all(len(issued(stack, u["serial"])) == 1 for u in units)
        d.enrol()
        assert fingerprint(d.cert) == made and [e["fingerprint"] for e in issued(stack, d.serial)] == [made]
        wait_for("what was due", lambda: ended(stack, first.serial) == [("quarantined", "x")])
        assert stack.log_text().count("journal.unavailable\"") >= 1
