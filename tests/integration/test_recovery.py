"""A lost registry is made again: from journals, from CRLs and certificates, onto a backup."""
import base64
import contextlib
import http.client
import random
import signal
import subprocess
import threading
import time

import pytest
from cryptography import x509

from claims import Claim, ClaimDevice
from client import Device, cert_pem, fingerprint, new_key
from journal import JournaledReplica, JournaledStack, device, from_journals, issued, lose, rebuild, refused
from stack import Refused, free_port, wait_for


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


@pytest.fixture(scope="module")
def loss(tmp_path_factory):
    with Loss(tmp_path_factory.mktemp("loss")) as made:
        made.stop()
        lose(made.first)
        time.sleep(1.1)  # what ended before is told apart from what is recovered, both in whole seconds
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
    start = lines[-1].index(b'"seal":"') + 8
    seal = base64.b64decode(lines[-1][start:-3])
    forged = lines[-1][:start] + base64.b64encode(seal[:-1] + bytes([seal[-1] ^ 1])) + lines[-1][-3:]
    assert ("seal.bad", len(lines)) in told([*lines[:-1], forged])
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
        for _ in range(4):
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
