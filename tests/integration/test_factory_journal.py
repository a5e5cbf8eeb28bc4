"""Journals of stations that work without a connection, and reconciling."""
import base64
import json
import os
import re
import subprocess
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from client import Device, cert_pem, key_pem, new_key, unique
from factory import NDJSON, Authority, Station
from stack import MUSTER, ROOT, Refused
from test_factory import batch, certificate, certify, device_of, muster, rows, station, unit


def reconcile(stack, name, query=""):
    return stack.v1("GET", f"/factory-batches/{name}/reconcile{query}")


def factory_ca(stack, **more):
    ca = Authority(unique("factory-ca"))
    ca.register(stack, unique("ca"), **more)
    return ca


def test_a_journal_registers_what_the_registry_missed(stack):
    """The field's race: 3 % of a batch were certified by the factory's CA, and never registered."""
    name, ca = batch(stack, "factory"), factory_ca(stack)
    s = station(stack, name)
    units = [(serial, *ca.device(serial)) for serial in (unique("j") for _ in range(100))]
    for serial, cert, _ in units[3:]:
        stack.v1("POST", "/certs", {"pem": cert_pem(cert).decode(), "template": "factory"})
    for serial, cert, _ in units:
        s.record(serial, cert)
    s.seal()
    done = s.upload()
    assert (done["recorded"], done["registered"], done["lines"]) == (100, 3, [])
    again = s.upload()
    assert (again["recorded"], again["known"], again["registered"], again["head"]) == (0, 100, 0, 101)
    found = reconcile(stack, name)
    assert (found["journal_lines"], found["not_registered"], found["missing_lines"]) == (100, 0, 0)
    assert stack.one("SELECT count(*) FROM device WHERE serial = ANY (%s)", [u[0] for u in units]) == 100
    serial, cert, key = units[0]
    device = Device(stack, serial)
    device.cert, device.key = cert, key
    assert device.config()["state"] == "PROVISIONED"


def test_reconcile_tells_and_the_first_contact_repairs(stack):
    name, ca = batch(stack, "factory"), Authority(unique("late-ca"))
    s = station(stack, name)
    units = [(serial, *ca.device(serial)) for serial in (unique("r") for _ in range(4))]
    for serial, cert, _ in units:
        s.record(serial, cert)
    s.seal()
    done = s.upload()
    assert [line["reason"].split(":")[0] for line in done["lines"]] == ["ca.not_registered"] * 4
    found = reconcile(stack, name)
    assert found["not_registered"] == 4 and {f["problem"] for f in found["findings"]} == {"ca.not_registered"}
    ca.register(stack, unique("ca"), auto_registration=True, jit="jitp")
    serial, cert, key = units[0]
    device = Device(stack, serial)
    device.cert, device.key = cert, key
    device.config()
    assert reconcile(stack, name)["not_registered"] == 3
    assert s.upload()["registered"] == 3
    assert reconcile(stack, name)["not_registered"] == 0


def test_duplicate_keys_and_other_serials(stack):
    name, ca = batch(stack, "factory"), factory_ca(stack)
    s = station(stack, name)
    one, two, three, four = (unique("dup") for _ in range(4))
    cert, key = ca.device(one)
    s.record(one, cert)
    s.record(two, ca.device(two, key=key)[0])
    elsewhere, _ = ca.device(three)
    s.record(three, elsewhere)
    s.record(four, elsewhere)
    s.seal()
    reasons = {line["serial"]: line["reason"].split(":")[0] for line in s.upload()["lines"]}
    assert reasons == {two: "key.reused", four: "serial.mismatch"}
    found = reconcile(stack, name)
    assert (found["duplicate_key"], found["other_serial"]) == (1, 1)
    assert {f["serial"]: f["problem"] for f in found["findings"]} == {two: "key.reused", four: "serial.mismatch"}


def carry(s, lines=None, query=""):
    """By an operator's hand."""
    return s.stack.admin("POST", f"/admin/v1/factory-stations/{s.name}/journal{query}", s.journal(lines), kind=NDJSON)


def filled(stack, count=3):
    """A station with a sealed journal, nothing of it uploaded."""
    name, ca = batch(stack, "factory"), factory_ca(stack)
    s = station(stack, name)
    for _ in range(count):
        serial = unique("line")
        s.record(serial, ca.device(serial)[0])
    s.seal()
    return name, ca, s


def refused(s, lines=None, query=""):
    with pytest.raises(Refused) as e:
        s.upload(lines, query)
    assert s.stack.one("SELECT count(*) FROM factory_entry e JOIN factory_station s ON s.id = e.station_id WHERE s.name = %s AND e.n > s.journal_n", s.name) == 0
    return e.value.code


def test_a_changed_line_is_seen(stack):
    _, _, s = filled(stack)
    changed = list(s.lines)
    changed[1] = changed[1].replace('"at":1700000000', '"at":1700000001')
    assert refused(s, changed) == "journal.chain_broken"
    assert refused(s, [s.lines[0], s.lines[2], s.lines[3]]) == "journal.chain_broken"
    assert s.upload()["recorded"] == 3


def test_a_seal_by_another_key(stack):
    _, _, s = filled(stack)
    s.seal(new_key())
    assert refused(s) == "journal.seal_invalid"


def test_a_seal_as_the_manual_makes_it(stack, tmp_path):
    name, ca = batch(stack, "factory"), factory_ca(stack)
    s = station(stack, name)
    serial = unique("openssl")
    s.record(serial, ca.device(serial)[0])
    (tmp_path / "line-3.jsonl").write_bytes(s.journal())
    (tmp_path / "line-3.key").write_bytes(key_pem(s.key))
    (script,) = re.findall(r"```sh\n(printf .*?)```", (ROOT / "docs" / "factory.md").read_text(), re.S)
    subprocess.run(["bash", "-ec", script.replace('"n":8', '"n":2')], cwd=tmp_path, check=True)
    assert s.upload((tmp_path / "line-3.jsonl").read_text().splitlines())["recorded"] == 1


def test_lines_behind_the_last_seal_wait(stack):
    _, ca, s = filled(stack)
    serial = unique("open")
    s.record(serial, ca.device(serial)[0])
    assert refused(s, s.lines[:2]) == "journal.unsealed"
    done = s.upload()
    assert (done["recorded"], done["unsealed"], done["head"]) == (3, 1, 4)
    s.seal()
    done = s.upload(s.lines[4:])
    assert (done["recorded"], done["unsealed"], done["head"]) == (1, 0, 6)


def test_another_journal_by_the_same_name(stack):
    _, ca, s = filled(stack)
    s.upload()
    other = Station(stack, s.name, s.key)
    serial = unique("fork")
    other.record(serial, ca.device(serial)[0])
    other.seal()
    other.cert = s.cert
    assert refused(other) == "journal.forked"


def test_a_seal_in_another_spelling_is_the_same_seal(stack):
    """Of a signature there are two (r, s) and (r, n - s); whoever carries the journal could write the other, and nothing is lost by it."""
    _, ca, s = filled(stack)
    r_, s_ = decode_dss_signature(base64.b64decode(json.loads(s.lines[-1])["seal"]))
    other = encode_dss_signature(r_, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551 - s_)
    spelled = s.lines[-1].split(',"seal"')[0] + f',"seal":"{base64.b64encode(other).decode()}"}}'
    assert s.upload([*s.lines[:-1], spelled])["recorded"] == 3
    serial = unique("after")
    s.record(serial, ca.device(serial)[0])
    s.seal()
    assert s.upload()["recorded"] == 1
    assert refused(s, [line.replace('"seal":"M', '"seal":" M') for line in s.lines]) == "journal.malformed"


def test_hearsay_harms_no_device(stack):
    """Swapped labels, however often they are told of; a device that is there keeps what it has."""
    name, ca = batch(stack, "factory"), factory_ca(stack)
    s = station(stack, name)
    one, two, there = unique("one"), unique("two"), unique("there")
    (cert_one, key_one), (cert_two, _) = ca.device(one), ca.device(two)
    live, live_key = ca.device(there)
    stack.v1("POST", "/certs", {"pem": cert_pem(live).decode(), "template": "factory"})
    s.record(one, cert_two)
    s.record(two, cert_one)
    s.record(there, ca.device(there)[0])
    s.seal()
    for _ in range(7):
        reasons = {line["serial"]: line["reason"].split(":")[0] for line in s.upload()["lines"]}
        assert reasons == {one: "serial.mismatch", two: "serial.mismatch", there: "device.key_conflict"}
    assert stack.sql("SELECT 1 FROM history WHERE serial = ANY (%s) AND outcome <> 'ok'", [one, two, there]) == []
    stack.v1("POST", "/certs", {"pem": cert_pem(cert_one).decode(), "template": "factory"})
    for serial, cert, key in ((one, cert_one, key_one), (there, live, live_key)):
        d = Device(stack, serial)
        d.cert, d.key = cert, key
        assert d.config()["state"] == "PROVISIONED"


def test_a_journal_is_no_operator(stack):
    """What an operator set inactive stays so; a CA of no product vouches for none; a revoked station's journal is nobody's word."""
    name, ca, anywhere = batch(stack, "factory"), factory_ca(stack), Authority(unique("any-ca"))
    anywhere.register(stack, unique("ca"), template=None)
    s = station(stack, name)
    off, foreign = unique("off"), unique("foreign")
    cert = ca.device(off)[0]
    stack.v1("POST", "/certs", {"pem": cert_pem(cert).decode(), "status": "inactive"})
    s.record(off, cert)
    s.record(foreign, anywhere.device(foreign)[0])
    s.seal()
    assert {line["serial"]: line["reason"].split(":")[0] for line in s.upload()["lines"]} == {off: "cert.inactive", foreign: "template.credential_not_allowed"}
    stack.v1("POST", f"/factory-stations/{s.name}/revoke")
    with pytest.raises(Refused) as e:
        carry(s)
    assert e.value.code == "station.revoked"


def test_a_journal_has_an_end(stack):
    s = station(stack, batch(stack, "factory"), budget=1)
    for _ in range(506):
        s.add('"serial":"x"')
        s.seal()
    assert refused(s) == "factory.budget_exhausted"
    assert s.upload(s.lines[:1010])["head"] == 1010
    assert refused(s, [s.lines[0], s.lines[1009]]) == "journal.chain_broken"


def test_a_unit_with_the_file_of_its_first_try(stack):
    name, serial = batch(stack), unique("old")
    s = station(stack, name)
    (old,) = s.certify([unit(serial)])["lines"]
    (new,) = s.certify([unit(serial)])["lines"]
    s.record(serial, certificate(old))
    s.record(serial, certificate(new))
    s.seal()
    s.upload()
    found = reconcile(stack, name)
    assert found["ended_unused"] == 1 and [(f["n"], f["problem"]) for f in found["findings"]] == [(1, "cert.revoked")]


def test_lists_page(stack):
    for path in ("/factory-batches", "/factory-stations"):
        first = rows(stack, path + "?limit=1000")
        assert [r["name"] for page in stack.pages(path + "?limit=7") for r in page] == [r["name"] for r in first] and len(first) > 7


def test_lines_that_never_came(stack):
    name, ca, s = filled(stack)
    s.upload()
    lost = unique("lost")
    s.record(lost, ca.device(lost)[0])
    s.seal()
    kept = len(s.lines)
    serial = unique("kept")
    s.record(serial, ca.device(serial)[0])
    s.seal()
    assert refused(s, s.lines[kept:]) == "journal.gap"
    assert refused(s, s.lines[kept:], "?gap=accept") == "request.malformed"  # an operator's word, not the station's
    with pytest.raises(Refused) as e:
        carry(s, s.lines[kept:], "?gap=maybe")
    assert e.value.code == "request.malformed"
    done = carry(s, s.lines[kept:], "?gap=accept")
    assert (done["missing"], done["recorded"]) == (2, 1)
    found = reconcile(stack, name)
    assert found["missing_lines"] == 2 and found["gaps"] == [{"station": s.name, "after_n": 4, "next_n": 7}]
    assert refused(s) == "journal.forked"  # what was given up is not taken any more


@pytest.mark.parametrize("body", [b"\n", b"{}\n", b'{"n":1}\n', b"\xff\xfe\n"])
def test_what_is_no_journal(stack, body):
    s = station(stack, batch(stack))
    with pytest.raises(Refused) as e:
        s.post("journal", body)
    assert e.value.code == "journal.malformed"


def test_a_line_that_tells_nothing(stack):
    name = batch(stack, "factory")
    s = station(stack, name)
    s.add('"serial":"SN-1"')
    s.add('"serial":"no serial!","certificate":"AAAA"')
    s.add('"serial":"SN-2","certificate":"AAAA"')
    s.seal()
    assert {line["reason"].split(":")[0] for line in s.upload()["lines"]} == {"journal.entry_invalid"}
    assert reconcile(stack, name)["not_registered"] == 3


def test_two_uploads_of_one_journal(stack):
    _, _, s = filled(stack, 40)
    done, barrier = [], threading.Barrier(4)

    def run():
        barrier.wait()
        try:
            done.append(s.upload()["recorded"])
        except Refused as e:
            done.append(e.code)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert done.count(40) == 1 and set(done) <= {40, 0, "journal.busy", "device.busy"}, done
    assert s.upload()["known"] == 40


def test_an_operator_carries_a_journal(stack):
    name, _, s = filled(stack)
    done = carry(s)
    assert (done["recorded"], done["registered"]) == (3, 3)
    (row,) = [x for x in rows(stack, "/audit?limit=100&object=" + s.name) if x["action"] == "factory.journal"]
    assert row["detail"]["lines"] == 4
    assert [x["journal_lines"] for x in rows(stack, f"/factory-stations?batch={name}&limit=10")] == [4]


def test_never_connected(stack):
    name, serial, key = batch(stack), unique("seen"), new_key()
    lines = certify(stack, name, [unit(serial, key), unit(unique("unseen"))])["lines"]
    device_of(stack, serial, key, lines[0]).config()
    found = reconcile(stack, name)
    assert (found["never_connected"], found["silent"]) == (1, [lines[1]["serial"]])
    assert reconcile(stack, name, "?silent_s=3600")["never_connected"] == 0


def test_a_station_works_without_a_connection(stack, tmp_path):
    """Recorded and sealed by the command with no server in reach, carried by hand, and reconciled."""
    name, ca = batch(stack, "factory"), factory_ca(stack)
    s = Station(stack)
    for file, data in (("key", key_pem(s.key)), ("pem", cert_pem(s.cert))):
        (tmp_path / file).write_bytes(data)
        (tmp_path / file).chmod(0o600)
    muster(stack, "station", s.name, "--batch", name, "--budget", "10", "--certificate", tmp_path / "pem")
    journal, nowhere = tmp_path / "journal.jsonl", {"PATH": os.environ["PATH"]}

    def offline(*args):
        return subprocess.run([MUSTER, "factory", *map(str, args)], env=nowhere, capture_output=True, text=True)

    for n in range(3):
        serial = unique("off")
        (tmp_path / "cert").write_bytes(cert_pem(ca.device(serial)[0]))
        assert offline("record", journal, "--serial", serial, "--certificate", tmp_path / "cert").stdout == f"{n + 1} lines\n"
    done = muster(stack, "upload", s.name, journal, check=False)
    assert done.returncode == 1 and "0 recorded, 0 known, 0 registered, 0 missing, 3 unsealed" in done.stdout
    with open(journal, "a") as torn:
        torn.write('{"n":4,"prev":"')  # power was lost
    assert offline("seal", journal, "--private-key", tmp_path / "key").stdout == "4 lines, sealed\n"
    assert offline("seal", journal, "--private-key", tmp_path / "key").stdout == "4 lines, sealed\n"
    assert "3 recorded, 0 known, 3 registered" in muster(stack, "upload", s.name, journal).stdout
    serial = unique("off")
    (tmp_path / "cert").write_bytes(cert_pem(ca.device(serial)[0]))
    assert offline("record", journal, "--serial", serial, "--certificate", tmp_path / "cert", "--private-key", tmp_path / "key").stdout == "6 lines\n"
    assert "1 recorded, 3 known, 1 registered" in muster(stack, "upload", s.name, journal).stdout
    shown = muster(stack, "reconcile", name)
    assert shown.returncode == 0 and "4 lines of journals\n" in shown.stdout
    text = journal.read_text().splitlines()
    journal.write_text("\n".join([text[0].replace('"serial":"off', '"serial":"oof'), *text[1:]]) + "\n")
    assert "does not follow" in offline("record", journal, "--serial", "SN-1", "--certificate", tmp_path / "cert").stderr
    assert "journal.forked" in muster(stack, "upload", s.name, journal, check=False).stderr
    (tmp_path / "key").chmod(0o644)
    assert "chmod 600" in offline("record", tmp_path / "new", "--serial", "SN-1", "--certificate", tmp_path / "cert", "--private-key", tmp_path / "key").stderr
    assert "state" in muster(stack, "stations", "--batch", name).stdout and "revoked" in muster(stack, "revoke-station", s.name).stdout


def test_reconcile_ends_with_a_count(stack):
    name = batch(stack, "factory")
    s = station(stack, name)
    serial = unique("nowhere")
    s.record(serial, Authority(unique("stranger")).device(serial)[0])
    s.seal()
    s.upload()
    done = muster(stack, "reconcile", name, check=False)
    assert done.returncode == 1 and "1 certified but not registered" in done.stdout and f"{serial}: ca.not_registered" in done.stdout
    assert json.loads(muster(stack, "reconcile", name, "--json", check=False).stdout)["not_registered"] == 1
    clean = batch(stack)
    certify(stack, clean, [unit(unique("later"))])
    assert muster(stack, "reconcile", clean).returncode == 0
    stack.sql("UPDATE factory_unit SET certified_at = now() - interval '61 d' WHERE batch_id = (SELECT id FROM factory_batch WHERE name = %s)", clean)
    done = muster(stack, "reconcile", clean, "--silent", "60d", check=False)
    assert done.returncode == 1 and "1 registered but never connected" in done.stdout
