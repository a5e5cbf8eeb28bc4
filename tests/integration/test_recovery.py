"""The journal beside the registry, and a lost registry made again from it."""
import contextlib
import http.client
import json
import random
import resource
import signal
import subprocess
import threading
import time

import pytest
from cryptography import x509

from claims import Claim, ClaimDevice
from client import Device, cert_pem, fingerprint, new_key, request
from journal import JournaledReplica, JournaledStack, from_journals, lose, mode, rebuild, sealed
from stack import MUSTERD, Refused, free_port, wait_for


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    with JournaledStack(tmp_path_factory.mktemp("kept")) as stack:
        stack.seed()
        yield stack


def device(stack, template="open", serial=None):
    d = Device(stack, serial, template)
    d.token = stack.mint(template, d.serial)
    d.enrol()
    return d


def issued(stack, serial):
    return [e for e in stack.lines("issued") if e["serial"] == serial]


def ended(stack, serial):
    return [(e["kind"], e.get("reason")) for e in stack.lines() if e.get("serial") == serial and e["kind"] != "issued"]


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
        stack.limit(stack.files()[-1].stat().st_size + 100)
        d = Device(stack, None, "open")
        d.token = stack.mint("open", d.serial)
        with pytest.raises(Refused) as refused:
            d.enrol()
        assert refused.value.code == "journal.unavailable" and refused.value.status == 503
        with pytest.raises(Refused) as refused:
            first.renew(keep=False)
        assert refused.value.code == "journal.unavailable"
        status, _, body = request(stack, "GET", "/readyz")
        assert status == 503 and b"journal.unavailable" in body
        assert "muster_journal_up 0" in stack.admin("GET", "/metrics", raw=True)[2].decode()
        with pytest.raises(Refused) as refused:
            stack.v1("POST", f"/devices/{first.serial}/quarantine", {"reason": "x"})
        assert refused.value.code == "journal.unavailable" and stack.state(first.serial) == "QUARANTINE"
        made = stack.one("SELECT encode(fingerprint, 'hex') FROM certificate JOIN device d ON d.id = device_id WHERE d.serial = %s", d.serial)
        stack.limit(resource.RLIM_INFINITY)
        wait_for("the journal", lambda: request(stack, "GET", "/readyz")[0] == 200)
        d.enrol()
        assert fingerprint(d.cert) == made and [e["fingerprint"] for e in issued(stack, d.serial)] == [made]
        wait_for("what was due", lambda: ended(stack, first.serial) == [("quarantined", "x")])
        assert stack.log_text().count("journal.unavailable\"") >= 1


class Loss:
    """Two replicas with journals, devices of every fate, and what each of them holds when the database goes."""

    def __init__(self, folder):
        self.first = JournaledStack(folder)
        self.first.more = {"revocation__address": "127.0.0.1", "revocation__port": free_port()}
        self.folder = folder

    def __enter__(self):
        self.first.__enter__()
        self.first.seed()
        (self.folder / "second").mkdir()
        self.second = JournaledReplica(self.first, self.folder / "second")
        self.second.more = {}
        self.second.__enter__()
        self.live()
        return self

    def __exit__(self, *exc):
        self.second.__exit__(*exc)
        self.first.__exit__(*exc)

    def live(self):
        a, b = self.first, self.second
        self.plain = [device(s) for s in (a, b, a, b)]
        self.used = [device(s) for s in (a, b)]
        for d in self.used:
            d.config()
        # renewed twice, on both replicas, the last not used yet; the device may hold it, or the one before
        self.renewed = device(a)
        self.renewed.renew(new_key())
        self.renewed.config()
        self.before = (self.renewed.key, self.renewed.cert)
        self.renewed.stack = b
        self.renewed.renew(new_key())
        # renewed once and used: the first is over
        self.moved = device(b)
        self.moved_old = (self.moved.key, self.moved.cert)
        self.moved.renew(new_key())
        self.moved.config()
        # the same key again
        self.same = device(a)
        self.same.renew()
        self.revoked, self.quarantined, self.released, self.retired, self.off = (device(s) for s in (a, b, a, b, a))
        a.v1("POST", f"/certs/{fingerprint(self.revoked.cert)}/revoke", {"reason": "privilegeWithdrawn"})
        b.v1("POST", f"/devices/{self.quarantined.serial}/quarantine", {"reason": "odd"})
        b.v1("POST", f"/devices/{self.released.serial}/quarantine", {"reason": "odd"})
        a.v1("POST", f"/devices/{self.released.serial}/release")
        a.v1("POST", f"/devices/{self.retired.serial}/retire")
        a.v1("POST", f"/certs/{fingerprint(self.off.cert)}/deactivate")
        self.claimed = ClaimDevice(Claim(a))
        a.allow(self.claimed.serial)
        self.claimed.provision()
        self.unregistered = ClaimDevice(self.claimed.claim)
        self.unregistered.create()
        wait_for("what ended", lambda: a.one("SELECT count(*) FROM journal_due") == 0)
        self.serials = {row[0] for row in a.sql("SELECT serial FROM device")}
        self.fingerprints = {row[0] for row in a.sql("SELECT encode(fingerprint, 'hex') FROM certificate")}

    def crl(self):
        """The issuing CA's, signed now."""
        self.first.v1("POST", "/crls:sign")
        wait_for("a CRL", lambda: self.first.one("SELECT count(*) FROM crl WHERE NOT is_delta AND entries > 0"))
        file = self.folder / "last.crl"
        file.write_bytes(bytes(self.first.one("SELECT der FROM crl WHERE NOT is_delta")))
        return file

    def stop(self):
        self.second.stop()
        self.first.stop()

    def start(self):
        self.first.token = self.first.musterd("admin-token", "--admin", "again").stdout.strip()
        self.second.token = self.first.token
        self.first.start()
        self.second.start()

    def sources(self):
        return from_journals(self.first, self.second)


def refused(code, call, *args, **kw):
    with pytest.raises(Refused) as caught:
        call(*args, **kw)
    assert caught.value.code == code, caught.value


@pytest.fixture(scope="module")
def loss(tmp_path_factory):
    with Loss(tmp_path_factory.mktemp("loss")) as made:
        made.stop()
        lose(made.first)
        made.dry = rebuild(made.first, *made.sources(), "--dry-run")
        made.empty = made.first.one("SELECT count(*) FROM device") == 0
        made.report = rebuild(made.first, *made.sources())
        made.again = rebuild(made.first, *made.sources())
        made.dump = dump(made.first)
        made.start()
        yield made


def dump(stack):
    return {table: stack.sql(f"SELECT * FROM {table} ORDER BY 1, 2") for table in ("product", "template", "template_version", "ca", "device", "certificate", "certificate_der",
                                                                               "key_owner", "thing", "device_group", "policy", "certificate_policy", "revocation")}


def test_a_lost_registry_is_made_again(loss):
    report = loss.report
    assert report["gaps"] == [] and report["before"]["devices"] == 0 and report["seals"] == report["files"] == 2
    assert {row[0] for row in loss.first.sql("SELECT serial FROM device")} == loss.serials
    assert {row[0] for row in loss.first.sql("SELECT encode(fingerprint, 'hex') FROM certificate")} == loss.fingerprints
    assert loss.first.one("SELECT count(*) FROM certificate c JOIN certificate_der x ON x.certificate_id = c.id WHERE c.fingerprint <> pg_catalog.sha256(x.der)") == 0


def test_a_dry_run_says_the_same_and_does_nothing(loss):
    assert loss.empty and loss.dry["dry_run"] and loss.dry["after"] == loss.report["after"]


def test_a_second_run_changes_nothing(loss):
    assert loss.again["before"] == loss.again["after"] == loss.report["after"] and loss.again["gaps"] == []


def test_every_device_is_served_again(loss):
    for d in [*loss.plain, *loss.used, loss.same, loss.released]:
        d.stack = loss.second
        assert d.config()["thing_name"] == f"open-{d.serial}" and d.config()["configuration"] == {"prefix": f"devices/{d.serial}"}
        d.renew(new_key())
        d.config()
    loss.claimed.config()
    loss.moved.config()
    loss.moved.renew(new_key())
    shown = loss.first.device(loss.plain[0].serial)
    assert shown["recovered_at"] and shown["groups"] == ["g-open"] and shown["attributes"]["line"] == "A" and shown["certificates"][-1]["policies"] == ["p-open"]
    assert shown["state"] == "PROVISIONED" and shown["certificates"][-1]["recovered_at"]


def test_whichever_of_two_certificates_a_device_holds(loss):
    d = loss.renewed
    d.config(loss.before[1], loss.before[0])
    d.config()
    refused("cert.superseded", d.config, loss.before[1], loss.before[0])
    refused("cert.superseded", loss.moved.config, loss.moved_old[1], loss.moved_old[0])


def test_who_was_kept_out_stays_out(loss):
    refused("cert.revoked", loss.revoked.config)
    refused("cert.revoked", loss.revoked.renew)
    refused("device.quarantined", loss.quarantined.config)
    refused("device.quarantined", loss.quarantined.renew)
    refused("cert.revoked", loss.retired.config)
    refused("cert.inactive", loss.off.config)
    assert loss.first.device(loss.quarantined.serial)["quarantine_reason"] == "odd" and loss.first.device(loss.retired.serial)["retired_at"]
    (certificate,) = loss.first.device(loss.revoked.serial)["certificates"]
    assert certificate["revoke_reason"] == "privilegeWithdrawn" and certificate["ended_at"] < certificate["recovered_at"]
    again = Device(loss.first, None, "open")
    again.token, again.key = loss.first.mint("open", again.serial), loss.revoked.key
    refused("key.reused", again.enrol)
    number = "%x" % loss.unregistered.cert.serial_number
    assert loss.first.one("SELECT reason FROM revocation WHERE encode(serial_number, 'hex') = %s", number) == "cessationOfOperation"


def test_a_recovered_device_is_nobody_elses(loss):
    """A shared credential takes over no device whose certificate may have been used."""
    victim = Device(loss.first, loss.plain[1].serial, "open")
    victim.token = loss.first.v1("POST", "/tokens", {"template": "open", "uses": 5})[0]["token"]
    refused("device.already_provisioned", victim.enrol)


def test_the_journals_go_on(loss):
    loss.first.lines()
    loss.second.lines()
    d = device(loss.second)
    assert issued(loss.second, d.serial)


def test_what_was_done_to_a_file_is_told_with_its_line(loss, tmp_path):
    source = next(f for f in loss.first.files() if len(f.read_bytes().splitlines()) > 60)
    lines = source.read_bytes().splitlines(keepends=True)

    def told(changed, name=source.name):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / name).write_bytes(b"".join(changed))
        report = rebuild(loss.first, "--journal", folder, "--journal-key", loss.first.journal_public, "--dry-run", "--onto-existing", code=1)
        return [(g["kind"], g.get("line")) for g in report["gaps"]]

    at = next(i for i, line in enumerate(lines) if b'"kind":"issued"' in line)
    assert told([*lines[:at], lines[at].replace(b'"credential":"token"', b'"credential":"other"'), *lines[at + 1:]]) == [("line.changed", at + 2)]
    assert told([*lines[:at], *lines[at + 1:]])[0] == ("lines.missing", at + 1)
    assert told([*lines[:at], lines[at + 1], lines[at], *lines[at + 2:]])[0] == ("lines.missing", at + 1)
    assert told([*lines[:at], b"x" + lines[at][1:], *lines[at + 1:]])[:2] == [("line.unusable", at + 1), ("lines.missing", at + 2)]
    assert ("line.torn", len(lines)) in told([*lines[:-1], lines[-1][:-20]]) and ("unsealed", None) in told(lines[:-1])
    forged = lines[-1].replace(b'"seal":"MEU', b'"seal":"MEQ').replace(b'"seal":"MEY', b'"seal":"MEQ')
    assert ("seal.bad", len(lines)) in told([*lines[:-1], forged if forged != lines[-1] else lines[-1][:-12] + b'AAAAAAAA"}\n'])
    assert told(lines, source.name[:-12] + "000004.jsonl") == [("file.missing", None), ("file.renamed", 1)]
    other = tmp_path / "other.pem"
    other.write_bytes(loss.second.journal_public.read_bytes())
    report = rebuild(loss.first, "--journal", loss.first.journal, "--journal-key", other, "--dry-run", "--onto-existing", code=1)
    assert {"seal.bad", "unsealed"} <= {g["kind"] for g in report["gaps"]}


def test_what_is_refused(loss, tmp_path):
    stack = loss.first
    for args in (["--dry-run"], ["--certificates", stack.cafile], ["--journal", stack.journal, "--product", "pump"]):
        assert stack.musterd("registry", "rebuild", *args, check=False).returncode == 2
    assert stack.musterd("registry", check=False).returncode == 2
    done = stack.musterd("registry", "rebuild", "--journal", tmp_path, check=False)
    assert done.returncode == 3 and "no files of a journal in" in done.stderr
    done = stack.musterd("registry", "rebuild", "--journal", loss.second.journal, "--journal-key", loss.second.journal_public, check=False)
    assert done.returncode == 3 and "devices that no journal tells of" in done.stderr
    done = stack.musterd("registry", "rebuild", "--crl", stack.cafile, check=False)
    assert done.returncode == 3 and "it is no CRL" in done.stderr


def crl_number(stack):
    return x509.load_der_x509_crl(bytes(stack.one("SELECT der FROM crl WHERE NOT is_delta"))).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def test_revocations_come_back_from_the_last_crl(tmp_path_factory):
    """No journal was kept: certificates come from a bundle, revocations from the CRL, and what nobody knows stays revoked."""
    with JournaledStack(tmp_path_factory.mktemp("crl")) as stack:
        loss = Loss(stack.folder)
        loss.first = stack
        stack.more = {"revocation__address": "127.0.0.1", "revocation__port": free_port()}
        stack.stop()
        stack.configure()
        stack.start()
        stack.seed()
        good, revoked, lost = device(stack), device(stack), device(stack)
        for d in (revoked, lost):
            stack.v1("POST", f"/certs/{fingerprint(d.cert)}/revoke", {"reason": "cessationOfOperation"})
        crl = loss.crl()
        number = crl_number(stack)
        bundle = stack.folder / "bundle.pem"
        bundle.write_bytes(cert_pem(good.cert) + cert_pem(revoked.cert) + stack.cafile.read_bytes())
        configuration = stack.folder / "configuration"
        stack.stop()
        begun = stack.files()[-1].read_bytes().splitlines(keepends=True)
        lines = [line for line in begun if b'"kind":"begin"' in line or b'"kind": "configuration"' in line]
        configuration.mkdir()
        (configuration / stack.files()[-1].name).write_bytes(b"".join(lines))
        lose(stack)
        report = rebuild(stack, "--journal", configuration, "--crl", crl, "--certificates", bundle, "--product", "pump", "--template", "open", code=1)
        kinds = [(g["kind"], g["detail"]) for g in report["gaps"]]
        unknown = "%x" % lost.cert.serial_number
        assert [d for k, d in kinds if k == "revocation.unknown"] == [f"serial number {unknown} of issuing-1 is revoked (cessationOfOperation), and no certificate has it"]
        assert [k for k, _ in kinds if k == "certificate.unusable"] == ["certificate.unusable"]
        assert report["after"]["devices"] == 2 and report["after"]["revoked"] == 1
        again = rebuild(stack, "--crl", crl, "--onto-existing", code=1)
        assert again["before"] == again["after"]
        stack.token = stack.musterd("admin-token", "--admin", "again").stdout.strip()
        stack.sql("UPDATE ca SET crl_floor = %s WHERE name = 'issuing-1'", number + 1000)
        stack.start()
        good.config()
        good.renew(new_key())
        refused("cert.revoked", revoked.config)
        refused("cert.unknown", lost.config)
        wait_for("a CRL", lambda: stack.one("SELECT count(*) FROM crl WHERE NOT is_delta AND entries > 0"))
        made = x509.load_der_x509_crl(bytes(stack.one("SELECT der FROM crl WHERE NOT is_delta")))
        assert {lost.cert.serial_number, revoked.cert.serial_number} == {r.serial_number for r in made} and crl_number(stack) > number + 1000


def test_a_restored_backup_gets_what_came_after_it(tmp_path_factory):
    with JournaledStack(tmp_path_factory.mktemp("backup")) as stack:
        stack.seed()
        renewed, revoked, moved = device(stack), device(stack), device(stack)
        moved.renew(new_key())  # is pending in the backup
        backup = stack.folder / "backup.sql"
        at = ["-h", "127.0.0.1", "-p", str(stack.pg_port), "-U", "muster"]
        backup.write_bytes(subprocess.run(["pg_dump", *at, "muster"], check=True, capture_output=True).stdout)
        renewed.renew(new_key())
        moved.renew(new_key())
        new = device(stack)
        stack.v1("POST", f"/certs/{fingerprint(revoked.cert)}/revoke")
        stack.v1("POST", f"/devices/{new.serial}/quarantine", {"reason": "x"})
        stack.stop()
        lose(stack)
        stack.sql("DROP SCHEMA muster CASCADE")
        subprocess.run(["psql", "-q", *at, "-v", "ON_ERROR_STOP=1", "muster"], input=backup.read_bytes(), check=True, capture_output=True)
        report = rebuild(stack, *from_journals(stack))
        assert report["gaps"] == [] and report["after"]["devices"] - report["before"]["devices"] == 1 and report["after"]["certificates"] - report["before"]["certificates"] == 3
        assert rebuild(stack, *from_journals(stack))["before"] == report["after"]
        stack.start()
        for d in (renewed, moved):
            d.config()
        refused("cert.revoked", revoked.config)
        refused("device.quarantined", new.config)


def test_whatever_a_client_received_is_in_the_journal(tmp_path_factory):
    """musterd is killed again and again under load, the database lost at the end: every certificate that came through is known."""
    with JournaledStack(tmp_path_factory.mktemp("killed")) as stack:
        stack.seed()
        stack.more = {"listen__device_port": free_port()}
        stack.stop()
        stack.configure()
        stack.start()
        held, over = [], threading.Event()

        def client():
            while not over.is_set():
                with contextlib.suppress(OSError, http.client.HTTPException, Refused):
                    d = Device(stack, None, "open")
                    d.token = token
                    d.enrol()
                    held.append(d)
                    d.renew(new_key(), keep=True)

        token = stack.v1("POST", "/tokens", {"template": "open", "uses": 100000})[0]["token"]
        threads = [threading.Thread(target=client) for _ in range(4)]
        for t in threads:
            t.start()
        for _ in range(5):
            time.sleep(random.uniform(0.3, 0.8))
            stack.stop(signal.SIGKILL)
            stack.start()
        time.sleep(0.3)
        stack.stop(signal.SIGKILL)
        over.set()
        for t in threads:
            t.join()
        lose(stack)
        report = rebuild(stack, *from_journals(stack), code=1)
        assert {g["kind"] for g in report["gaps"]} <= {"unsealed", "line.torn"} and len(held) > 50
        stack.start()
        known = {row[0] for row in stack.sql("SELECT encode(fingerprint, 'hex') FROM certificate WHERE status IN ('pending', 'current')")}
        assert {fingerprint(d.cert) for d in held} - known == set()
        for d in random.sample(held, 20):
            d.config()
