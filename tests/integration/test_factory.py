"""The factory: batches certified together, and stations."""
import base64
import contextlib
import json
import subprocess
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

from client import Device, fingerprint, new_csr, new_key, request, spki_sha256, unique
from factory import NDJSON, Station, b64, lines_of, unit
from stack import Refused

FIXTURES = 16


def batch(stack, template="open", **more):
    name = unique("batch")
    stack.v1("POST", "/factory-batches", {"name": name, "template": template, **more})
    return name


def certify(stack, name, units, again=False, **kw):
    return stack.admin("POST", f"/admin/v1/factory-batches/{name}/certificates{'?again=accept' if again else ''}", lines_of(units), kind=NDJSON, **kw)


def counts(done):
    return done["issued"], done["replayed"], done["rejected"]


def certificate(line):
    return x509.load_der_x509_certificate(base64.b64decode(line["certificate"]))


def first_of(pem):
    return x509.load_pem_x509_certificate(pem)


def device_of(stack, serial, key, line, template="open"):
    d = Device(stack, serial, template)
    d.key, d.cert = key, certificate(line)
    return d


def rows(stack, path):
    return [row for page in stack.pages(path) for row in page]


def station(stack, name, budget=1000):
    s = Station(stack)
    s.create(name, budget)
    return s


# Batches


def test_a_batch_is_certified_together(stack):
    name = batch(stack, note="lot 7")
    units = [unit(unique("fb")) for _ in range(20)]
    done = certify(stack, name, units)
    assert counts(done) == (20, 0, 0) and done["batch"] == name
    again = certify(stack, name, units)
    assert counts(again) == (0, 20, 0)
    assert [x["certificate"] for x in again["lines"]] == [x["certificate"] for x in done["lines"]]
    assert stack.v1("GET", f"/factory-batches/{name}")["certified"] == 20
    assert name in [b["name"] for b in rows(stack, "/factory-batches?limit=100")]


def test_a_device_of_a_batch_is_like_any_other(stack):
    name, serial, key = batch(stack), unique("fd"), new_key()
    (line,) = certify(stack, name, [unit(serial, key)])["lines"]
    above = first_of(certify(stack, name, [unit(serial, key)])["chain_pem"].encode())
    assert certificate(line).issuer == above.subject
    above.public_key().verify(certificate(line).signature, certificate(line).tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    assert stack.state(serial) == "VERIFY"
    shown = stack.device(serial)
    assert (shown["certificates"][0]["status"], shown["trail"][-1]["credential"], shown["trail"][-1]["outcome"]) == ("pending", "station", "ok")
    assert [p for p in rows(stack, "/devices:stuck?limit=100") if p["serial"] == serial] == []
    d = device_of(stack, serial, key, line)
    assert d.config()["serial"] == serial and stack.state(serial) == "PROVISIONED"
    d.renew()
    assert d.config()["state"] == "PROVISIONED"


def test_each_refusal_is_its_own_line(stack):
    name, good = batch(stack), unique("good")
    taken = new_key()
    other = unique("owner")
    certify(stack, name, [unit(other, taken)])
    blocked = unique("blocked")
    stack.allow(blocked)
    stack.v1("POST", f"/products/pump/allowlist/{blocked}/block")
    broken = bytearray(new_csr(new_key(), "x"))
    broken[-1] ^= 1
    done = certify(stack, name, [unit(good), unit(unique("bad"), csr="AAAA"), unit(unique("sig"), csr=b64(bytes(broken))), unit("no serial!"),
                                 unit(unique("key"), taken), unit(blocked), unit(unique("good"))])
    reasons = [line.get("reason", "").split(":")[0] for line in done["lines"]]
    assert reasons == ["", "csr.malformed", "csr.signature_invalid", "serial.malformed", "key.reused", "allowlist.blocked", ""]
    assert counts(done) == (2, 0, 5)
    assert stack.v1("GET", f"/factory-batches/{name}")["certified"] == 3
    assert stack.device(blocked)["trail"][0]["outcome"] == "allowlist.blocked"


def test_the_same_serial_twice_in_one_request(stack):
    name, serial, first, second = batch(stack), unique("twice"), new_key(), new_key()
    done = certify(stack, name, [unit(serial, first), unit(serial, second), unit(unique("b"), first)])
    assert sorted(done["lines"][n]["result"] for n in (0, 2)) == ["issued", "rejected"]  # one key, one device
    assert len([c for c in stack.device(serial)["certificates"] if c["status"] == "pending"]) == 1


def test_pins_and_allowlists_hold(stack):
    name, mine, pinned = batch(stack, "strict"), new_key(), unique("pin")
    stack.admin("POST", "/admin/v1/products/pump/allowlist", f"{pinned},{spki_sha256(mine).hex()}\n".encode(), kind="text/csv")
    done = certify(stack, name, [unit(pinned, new_key()), unit(unique("nobody"))])
    assert ["allowlist.key_mismatch", "allowlist.unknown_serial"] == [line["reason"].split(":")[0] for line in done["lines"]]
    assert counts(certify(stack, name, [unit(pinned, mine)])) == (1, 0, 0)


def test_a_unit_is_made_again_until_it_was_used(stack):
    name, serial, first, second, third = batch(stack, "refuse"), unique("again"), new_key(), new_key(), new_key()
    (old,) = certify(stack, name, [unit(serial, first)])["lines"]
    assert "device.key_conflict" in certify(stack, name, [unit(serial, second)])["lines"][0]["reason"]  # nobody said that it is meant
    (line,) = certify(stack, name, [unit(serial, second)], again=True)["lines"]
    assert line["result"] == "issued"
    with pytest.raises(Refused) as e:
        device_of(stack, serial, first, old).config()
    assert e.value.code == "cert.revoked"
    other = batch(stack, "refuse")
    assert "not of batch" in certify(stack, other, [unit(serial, third)], again=True)["lines"][0]["reason"]
    device_of(stack, serial, second, line).config()
    assert "device.already_provisioned" in certify(stack, name, [unit(serial, third)], again=True)["lines"][0]["reason"]
    assert stack.v1("GET", f"/factory-batches/{name}")["certified"] == 1


def test_a_batch_has_no_more_devices_than_it_may(stack):
    name = batch(stack, size=5)
    assert counts(certify(stack, name, [unit(unique("size")) for _ in range(3)])) == (3, 0, 0)
    more = [unit(unique("size")) for _ in range(3)]
    with pytest.raises(Refused) as e:
        certify(stack, name, more)
    assert (e.value.status, e.value.code) == (403, "factory.budget_exhausted")
    assert stack.sql("SELECT 1 FROM device WHERE serial = ANY (%s)", [u["serial"] for u in more]) == []
    assert counts(certify(stack, name, more[:2])) == (2, 0, 0)
    assert stack.v1("GET", f"/factory-batches/{name}")["state"] == "full"
    assert counts(certify(stack, name, more[:2])) == (0, 2, 0)


def test_a_closed_batch(stack):
    name = batch(stack)
    assert stack.v1("POST", f"/factory-batches/{name}/close")["state"] == "closed"
    with pytest.raises(Refused) as e:
        certify(stack, name, [unit(unique("late"))])
    assert (e.value.status, e.value.code) == (409, "factory.batch_closed")


def test_a_disabled_template(stack):
    name = batch(stack, "refuse")
    stack.v1("POST", "/templates/refuse/disable")
    try:
        with pytest.raises(Refused) as e:
            certify(stack, name, [unit(unique("off"))])
        assert e.value.code == "template.unknown"
    finally:
        stack.v1("POST", "/templates/refuse/enable")


@pytest.mark.parametrize("body", [b"", b"SN-1\n", b"[]\n", b'{"serial":"SN-1"}\n', b'{"serial":"a","csr":"b","more":1}\n', b'{"serial":"a","serial":"b","csr":"c"}\n', b"\xff\n"])
def test_what_is_no_request(stack, body):
    with pytest.raises(Refused) as e:
        stack.admin("POST", f"/admin/v1/factory-batches/{batch(stack)}/certificates", body, kind=NDJSON)
    assert (e.value.status, e.value.code) == (400, "request.malformed")


def test_too_many_at_once(stack):
    with pytest.raises(Refused) as e:
        certify(stack, batch(stack), [{"serial": f"SN-{n}", "csr": "AA"} for n in range(501)])
    assert (e.value.status, e.value.code) == (413, "request.too_large")


def test_objects_of_other_products_do_not_exist(stack):
    unscoped = unique("product")
    stack.v1("POST", "/products", {"name": unscoped})
    token = stack.v1("POST", "/admin-tokens", {"name": unique("scoped"), "role": "operator", "product": unscoped})["token"]
    name = batch(stack)
    s = station(stack, name)
    for method, path, body in (("GET", f"/factory-batches/{name}", None), ("GET", f"/factory-batches/{name}/reconcile", None),
                               ("POST", f"/factory-batches/{name}/close", None), ("POST", f"/factory-stations/{s.name}/revoke", None)):
        with pytest.raises(Refused) as e:
            stack.v1(method, path, body, token=token)
        assert e.value.code == "object.not_found"
    with pytest.raises(Refused) as e:
        certify(stack, name, [unit(unique())], token=token)
    assert e.value.code == "object.not_found"
    assert [b for b in rows(stack, "/factory-batches?limit=100&product=pump") if b["name"] == name] != []


# Stations


def test_fixtures_share_a_station_and_its_budget(stack):
    """Sixteen at once, each unit twice; the budget is met exactly."""
    name = batch(stack)
    s = station(stack, name, budget=FIXTURES * 5)
    results, barrier = [], threading.Barrier(FIXTURES)

    def fixture(number):
        units = [(serial, key) for serial, key in ((unique(f"fx{number}"), new_key()) for _ in range(6))]
        barrier.wait()
        for serial, key in units:
            try:
                first = s.certify([unit(serial, key)])["lines"][0]
                again = s.certify([unit(serial, key)])["lines"][0]
                results.append((first["result"], again["result"], first["certificate"] == again["certificate"]))
            except Refused as e:
                results.append(e.code)

    threads = [threading.Thread(target=fixture, args=(n,)) for n in range(FIXTURES)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results.count(("issued", "replayed", True)) == FIXTURES * 5
    assert results.count("factory.budget_exhausted") == FIXTURES
    (shown,) = [x for x in rows(stack, f"/factory-stations?batch={name}&limit=10")]
    assert (shown["certified"], shown["state"]) == (FIXTURES * 5, "exhausted")
    assert stack.one("SELECT count(*) FROM factory_unit u JOIN factory_batch b ON b.id = u.batch_id WHERE b.name = %s", name) == FIXTURES * 5


def test_answers_stay_whole_while_the_catalog_changes(stack):
    """The CAs of the answer were once those of a catalog that another request had dropped meanwhile."""
    s = station(stack, batch(stack), budget=FIXTURES * 10)
    chains, done = [], threading.Event()

    def fixture():
        for _ in range(10):
            chains.append(s.certify([unit(unique("live"), new_key())])["chain_pem"])

    def change():
        while not done.is_set():
            stack.sql("UPDATE registry_epoch SET epoch = epoch + 1")

    threads = [threading.Thread(target=fixture) for _ in range(FIXTURES)]
    changing = threading.Thread(target=change)
    for t in [changing, *threads]:
        t.start()
    for t in threads:
        t.join()
    done.set()
    changing.join()
    assert len(chains) == FIXTURES * 10 and len(set(chains)) == 1
    assert first_of(chains[0].encode())


@pytest.mark.parametrize("template", ["refuse", "replace"])
def test_a_station_takes_nothing_beyond_its_batch_and_budget(stack, template):
    """Whatever the template says of other keys: units of its batch that were never used, one of the budget each, and nothing else."""
    name, elsewhere = batch(stack, template), unique("elsewhere")
    s = station(stack, name, budget=3)
    enrolled = Device(stack, unique("enrolled"), template, stack.mint(template))
    enrolled.enrol()
    certify(stack, batch(stack, template), [unit(elsewhere)])
    lines = s.certify([unit(enrolled.serial), unit(elsewhere)])["lines"]
    assert ["not of batch" in line["reason"] for line in lines] == [True, True]
    mine = unique("mine")
    for n in range(3):
        (line,) = s.certify([unit(mine, key := new_key())])["lines"]
        assert line["result"] == "issued"
    with pytest.raises(Refused) as e:
        s.certify([unit(mine)])
    assert e.value.code == "factory.budget_exhausted"
    assert s.certify([unit(mine, key)])["lines"][0]["result"] == "replayed"
    assert device_of(stack, mine, key, line).config()["state"] == "PROVISIONED"
    assert enrolled.config() and stack.v1("GET", f"/factory-batches/{name}")["certified"] == 1
    assert f"station {s.name}" in stack.device(mine)["trail"][-1]["source"]
    with pytest.raises(Refused) as e:
        s.post("certificates?again=accept", lines_of([unit(mine)]))
    assert e.value.code == "request.malformed"


def test_a_full_request_of_large_registrations(stack):
    """A hundred units under the largest template there may be, almost."""
    policies = {f"P{n}": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": f"large-{n}", "PolicyDocument": {
        "Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:Publish", "Resource": [f"arn:aws:iot:*:*:topic/{'x' * 60}/{n}/{i}" for i in range(10)]}]}}}
        for n in range(10)}
    document = {"Parameters": {"SerialNumber": {"Type": "String"}}, "Resources": {
        "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "SerialNumber"}}},
        "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}}, **policies}, "Muster": {"Allowlist": "optional"}}
    template = unique("large")
    stack.v1("PUT", f"/templates/{template}?product=pump", document)
    s = station(stack, batch(stack, template))
    done = s.certify([unit(unique("l")) for _ in range(100)])
    assert counts(done) == (100, 0, 0), done["lines"][0]


def test_two_stations_ask_for_the_same_units_at_once(stack):
    name = batch(stack)
    units = [unit(unique("same")) for _ in range(30)]
    a, b = station(stack, name), station(stack, name)
    done, barrier = [], threading.Barrier(2)

    def ask(s, which):
        barrier.wait()
        done.append(s.certify(which))

    threads = [threading.Thread(target=ask, args=(a, units)), threading.Thread(target=ask, args=(b, units[::-1]))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(counts(d) for d in done) == [(0, 30, 0), (30, 0, 0)]
    serials = [{line["serial"]: line["certificate"] for line in d["lines"]} for d in done]
    assert serials[0] == serials[1]


def test_a_station_and_an_ordinary_enrolment_race(stack):
    """The registry decides once: whoever comes second is told, and nothing is doubled."""
    name = batch(stack)
    s = station(stack, name)
    serials = [unique("race") for _ in range(20)]
    keys = {serial: new_key() for serial in serials}
    token = stack.mint("open", uses=100)
    barrier, refused = threading.Barrier(2), []

    def devices():
        barrier.wait()
        for serial in serials:
            with contextlib.suppress(Refused):
                Device(stack, serial, "open", token).enrol(key=keys[serial])

    def fixture():
        barrier.wait()
        refused.extend(line for line in s.certify([unit(serial, keys[serial]) for serial in serials])["lines"] if line["result"] == "rejected")

    threads = [threading.Thread(target=devices), threading.Thread(target=fixture)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert refused == []
    rows = stack.sql("SELECT d.serial, count(c.id) FROM device d JOIN certificate c ON c.device_id = d.id WHERE d.serial = ANY (%s) GROUP BY 1", serials)
    assert sorted(rows) == sorted((serial, 1) for serial in serials)


def test_who_is_no_station(stack):
    s = Station(stack)
    for path in ("certificates", "journal"):
        with pytest.raises(Refused) as e:
            s.post(path, lines_of([unit(unique())]))
        assert (e.value.status, e.value.code) == (403, "station.unknown")
        status, _, text = request(stack, "POST", f"/v1/factory/{path}", lines_of([unit(unique())]), {"Content-Type": NDJSON})
        assert status == 401 and b"auth.required" in text
    d = Device(stack, unique("dev"), "open", stack.mint("open"))
    d.enrol()
    status, _, text = request(stack, "POST", "/v1/factory/certificates", lines_of([unit(unique())]), {"Content-Type": NDJSON}, [d.cert], d.key)
    assert status == 403 and b"station.unknown" in text


def test_a_station_is_no_device(stack):
    s = station(stack, batch(stack))
    status, _, text = request(stack, "GET", "/v1/device/config", None, {}, [s.cert], s.key)
    assert status == 403 and b"ca.not_registered" in text


def test_a_revoked_and_an_expired_station(stack):
    name = batch(stack)
    s = station(stack, name)
    assert stack.v1("POST", f"/factory-stations/{s.name}/revoke")["state"] == "revoked"
    with pytest.raises(Refused) as e:
        s.certify([unit(unique())])
    assert (e.value.status, e.value.code) == (403, "station.revoked")
    old = Station(stack, days=0)
    with pytest.raises(Refused) as e:
        old.create(name)
    assert e.value.code == "cert.expired"
    stack.sql("INSERT INTO factory_station (name, batch_id, fingerprint, certificate, subject, not_after, budget, created_by)"
              " SELECT %s, id, %s, %s, 'old', now(), 5, 'test' FROM factory_batch WHERE name = %s", old.name, bytes.fromhex(fingerprint(old.cert)),
              old.cert.public_bytes(serialization.Encoding.DER), name)
    with pytest.raises(Refused) as e:
        old.certify([unit(unique())])
    assert e.value.code == "station.revoked"


def test_a_station_is_made_once(stack):
    s = station(stack, batch(stack))
    with pytest.raises(Refused) as e:
        s.create(batch(stack))
    assert e.value.code == "request.exists"
    with pytest.raises(Refused) as e:
        stack.v1("POST", "/factory-stations", {"name": unique(), "batch": batch(stack), "budget": 1, "certificate": "no PEM"})
    assert e.value.code == "request.malformed"


# The command


def muster(stack, *args, check=True):
    return stack.cli("factory", *args, check=check)


def test_the_command_makes_a_batch(stack, tmp_path):
    name, out = unique("cli"), tmp_path / "out"
    muster(stack, "create", name, "--template", "open", "--size", "700")
    serials = [unique("c") for _ in range(600)]
    requests = tmp_path / "requests.ndjson"
    requests.write_bytes(lines_of([unit(s) for s in serials]))
    assert "600 issued, 0 replayed, 0 rejected" in muster(stack, "batch", name, requests, "--out", out).stdout
    manifest = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert sorted(m["serial"] for m in manifest) == sorted(serials)
    assert certificate(manifest[0]).issuer == first_of((out / "chain.pem").read_bytes()).subject
    assert "exists" in muster(stack, "batch", name, requests, "--out", out, check=False).stderr.lower()
    again = muster(stack, "batch", name, requests, "--out", tmp_path / "other", check=False)
    assert "0 issued, 600 replayed" in again.stdout  # the same requests are the same devices
    # the run broke in the middle of a line
    text = (out / "manifest.jsonl").read_bytes()
    (out / "manifest.jsonl").write_bytes(text[:len(text) // 2])
    left = text[:len(text) // 2].count(b"\n")
    done = muster(stack, "batch", name, requests, "--out", out, "--resume").stdout
    assert f"0 issued, {600 - left} replayed, 0 rejected, {left} done before" in done
    assert sorted(json.loads(line)["serial"] for line in (out / "manifest.jsonl").read_text().splitlines()) == sorted(serials)
    whole = (out / "manifest.jsonl").read_text().splitlines(True)
    (out / "manifest.jsonl").write_text("".join([whole[0], "\n", *whole[2:]]))
    done = muster(stack, "batch", name, requests, "--out", out, "--resume", check=False)
    assert done.returncode == 2 and "cannot be read" in done.stderr and len((out / "manifest.jsonl").read_text().splitlines()) == 600
    assert not (out / "chain.pem.new").exists()
    muster(stack, "close", name)
    assert json.loads(muster(stack, "list", "--json").stdout)[-1] and "closed" in muster(stack, "show", name).stdout


def test_the_command_makes_keys_that_no_server_sees(stack, tmp_path):
    name, serials = batch(stack), [unique("k") for _ in range(12)]
    (tmp_path / "serials").write_text("# lot 7\n" + "\n".join(serials) + "\n\n")
    (tmp_path / "secret").write_text("correct horse battery\n")
    for keys, read in (("p12", lambda data: pkcs12.load_key_and_certificates(data, b"correct horse battery")[:2]),
                       ("pem", lambda data: (serialization.load_pem_private_key(data, b"correct horse battery"), x509.load_pem_x509_certificate(data)))):
        out = tmp_path / keys
        if keys == "pem":
            done = muster(stack, "batch", name, tmp_path / "serials", "--out", tmp_path / "by-mistake", "--keys", keys, "--passphrase-file", tmp_path / "secret", check=False)
            assert done.returncode == 1 and "0 issued, 0 replayed, 12 rejected" in done.stdout and "device.key_conflict" in done.stdout
        muster(stack, "batch", name, tmp_path / "serials", "--out", out, "--again", "--keys", keys, "--passphrase-file", tmp_path / "secret", "--parallel", "2")
        for serial in serials:
            file = out / f"{serial}.{keys}"
            assert file.stat().st_mode & 0o777 == 0o600
            key, cert = read(file.read_bytes())
            assert spki_sha256(key) == spki_sha256(cert)
            with pytest.raises(ValueError):
                read(file.read_bytes().replace(b"x", b"y") if keys == "none" else b"")
        d = Device(stack, serial)
        d.key, d.cert = key, cert
        if keys == "pem":
            assert d.config()["state"] == "PROVISIONED"
    assert subprocess.run(["openssl", "pkcs12", "-in", tmp_path / "p12" / f"{serials[0]}.p12", "-passin", "pass:wrong", "-noout"], capture_output=True).returncode != 0


def test_the_command_says_what_is_wrong(stack, tmp_path):
    name, out = batch(stack), tmp_path / "out"
    (tmp_path / "serials").write_text("SN-1\n")
    (tmp_path / "odd").write_text("../../etc/passwd\n")
    (tmp_path / "chain").write_text("chain\n")
    (tmp_path / "short").write_text("short\n")
    (tmp_path / "secret").write_text("long enough\n")
    for args, said in ((["serials"], "no key"), (["serials", "--keys", "der"], "p12 or pem"), (["serials", "--keys", "p12"], "--passphrase-file"),
                       (["serials", "--keys", "p12", "--passphrase-file", "short"], "at least 8"),
                       (["chain", "--keys", "pem", "--passphrase-file", "secret"], "no serial"), (["odd", "--keys", "p12", "--passphrase-file", "secret"], "no serial"), (["serials", "--parallel", "99"], "1 to 16"),
                       (["missing"], "No such file")):
        files = [tmp_path / a if a in ("serials", "odd", "chain", "short", "secret", "missing") else a for a in args]
        done = muster(stack, "batch", name, *files, "--out", out, "--resume", check=False)
        assert done.returncode == 2 and said in done.stderr, (args, done.stderr)
    (tmp_path / "double").write_text("\n".join(["D-1", "D-2", "D-1"]) + "\n")
    done = muster(stack, "batch", name, tmp_path / "double", "--out", tmp_path / "d", "--keys", "pem", "--passphrase-file", tmp_path / "secret", check=False)
    assert done.returncode == 1 and "line 3: D-1: it is in line 1 already" in done.stdout and "2 issued, 0 replayed, 1 rejected" in done.stdout
    (tmp_path / "bad.ndjson").write_bytes(lines_of([unit(unique("ok")), unit(unique("bad"), csr="AAAA")]))
    done = muster(stack, "batch", name, tmp_path / "bad.ndjson", "--out", tmp_path / "bad", check=False)
    quiet = muster(stack, "batch", name, tmp_path / "bad.ndjson", "--out", tmp_path / "json", "--json", check=False)
    assert json.loads(quiet.stdout) == {"issued": 0, "replayed": 1, "rejected": 1, "done_before": 0} and "line 2" in quiet.stderr
    assert done.returncode == 1 and "line 2" in done.stdout and "csr.malformed" in done.stdout and "1 issued" in done.stdout
