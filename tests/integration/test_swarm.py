"""The swarm against a real server: short forms of its scenarios, and an audit that can fail."""
import json
import os
import re
import subprocess
import threading

import pytest

from dps import endpoint, group
from stack import BUILD, MUSTER, ROOT, SCOPE, wait_for

SWARM = BUILD / "loadtest" / "swarm"


def swarm(stack, out, *args, template="strict", **env):
    environment = {**os.environ, "MUSTER_URL": f"https://127.0.0.1:{stack.port}", "MUSTER_CACERT": str(stack.cafile),
                   "MUSTER_ADMIN_URL": f"https://127.0.0.1:{stack.admin_port}", "MUSTER_ADMIN_TOKEN": stack.token,
                   "MUSTER_DATABASE": f"postgresql://muster@127.0.0.1:{stack.pg_port}/muster", "MUSTER_TEMPLATE": template,
                   "MUSTER_DPS_ID_SCOPE": SCOPE, "MUSTER_SCEP_URL": f"http://127.0.0.1:{stack.scep_port}/scep",
                   "PATH": f"{MUSTER.parent}:{os.environ['PATH']}", **env}
    return subprocess.run([SWARM, *map(str, args), "--out", out, "--keys", out.parent / "keys"], capture_output=True, text=True, env=environment)


def pids(stack):
    leader = (stack.folder / "pg" / "data" / "postmaster.pid").read_text().split()[0]
    return ["--server-pid", stack.process.pid, "--database-pid", leader]


def result(out):
    report = (out / "report.html").read_text()
    assert report.startswith("<!doctype html>") and report.count("<polyline") >= 7 and "http://" not in report and "https://" not in report
    return json.loads((out / "result.json").read_text())


@pytest.mark.parametrize("scenario,settings", [
    ("steady", ["devices=60", "rate=40"]),
    ("burst", ["devices=100"]),
    ("factory", ["devices=150"]),
    ("renewal-herd", ["devices=40", "fixtures=16"]),
    ("powerloss", ["devices=80", "rate=80"]),
    ("claims-https", ["devices=100", "template=claimed"]),
    ("jitp-https", ["devices=60", "renewals=1"]),
    ("scep", ["devices=40", "renewals=1"]),
    ("soak", ["devices=8", "seconds=3"])])
def test_a_scenario(stack, tmp_path, scenario, settings):
    out = tmp_path / "out"
    done = swarm(stack, out, "run", scenario, *pids(stack), *[x for s in settings for x in ("--set", s)])
    assert done.returncode == 0, (done.stdout, done.stderr)
    r = result(out)
    devices = int(settings[0].split("=")[1])
    assert r["cost"]["server_cpu_us_per_device"] > 0 and r["cost"]["server_kib_after"] > 10000
    assert r["passed"] and r["failed"] == 0 and r["devices"] == devices and r["audit"]["clean"] and r["audit"]["held"] == devices
    assert r["outcomes"]["device done"] == devices
    if scenario == "powerloss":
        assert r["outcomes"]["power lost"] > devices / 16
    if scenario == "renewal-herd":
        assert r["latency"]["renew"]["count"] == 2 * devices
    if scenario == "soak":
        assert r["latency"]["renew"]["count"] > devices


def test_claims_whose_power_fails_and_what_is_left_of_them(stack, tmp_path):
    """A certificate may wait for its registration only where its device's power failed."""
    out = tmp_path / "out"
    done = swarm(stack, out, "run", "claims-https", "--set", "devices=80", "--set", "rate=80", "--set", "powerloss_percent=60", "--set", "forget_percent=0",
                 template="claimed")
    assert done.returncode == 0, (done.stdout, done.stderr)
    r = result(out)
    assert r["passed"] and r["outcomes"]["power lost"] > 5 and r["audit"]["held"] == 80
    done = swarm(stack, out, "run", "claims-https", "--set", "devices=5", "--set", "allowlist=0", template="claimed")
    assert done.returncode == 1 and "made for the claim but not registered" in done.stderr
    r = result(out)
    assert r["failed"] == 5 and r["outcomes"]["enrol.refused"] == 5 and r["audit"]["orphaned"] == 5 and r["audit"]["devices"] == 0


def registered(stack, tmp_path, *args, **kw):
    """Runs a scenario of DPS that must pass; its result."""
    endpoint(stack, "broker-a.example.com")
    endpoint(stack, "broker-b.example.com")
    done = swarm(stack, tmp_path / "out", "run", *args, **kw)
    assert done.returncode == 0, (done.stdout, done.stderr)
    r = result(tmp_path / "out")
    assert r["passed"] and r["failed"] == 0 and r["audit"]["clean"] and r["outcomes"]["device done"] == r["audit"]["assigned"] == r["audit"]["devices"] == r["devices"]
    return r


def sets(*settings):
    return [a for s in settings for a in ("--set", s)]


@pytest.mark.parametrize("scenario,csr,settings", [
    ("dps-sas", 0, ["devices=60"]), ("dps-sas", 1, ["devices=40", "renewals=1"]),
    ("dps-x509", 1, ["devices=40", "renewals=1"]), ("dps-x509", 0, ["devices=40"])])
def test_registrations_with_dps(stack, tmp_path, scenario, csr, settings):
    """With a certificate the first use is the configuration; without, the assignment is looked up."""
    before = stack.one("SELECT count(*) FROM dps_registration")
    r = registered(stack, tmp_path, scenario, *sets(f"csr={csr}", *settings))
    devices = r["devices"]
    assert r["audit"]["held"] == (devices if csr else 0) and r["latency"]["verify"]["count"] == devices
    assert r["latency"].get("renew", {"count": 0})["count"] == (devices if csr else 0)
    assert stack.one("SELECT count(*) FROM dps_registration") == before + devices
    name, kind = stack.sql("SELECT e.name, e.attestation FROM enrollment e WHERE e.grouped ORDER BY e.id DESC LIMIT 1")[0]
    assert name.startswith("swarm-") and kind == ("symmetric-key" if scenario == "dps-sas" else "x509")
    assert stack.v1("GET", f"/enrollment-groups/{name}")["devices"] == devices


def test_registrations_by_the_key_of_a_group_that_is_there(stack, tmp_path):
    made, file = group(stack, template="strict"), tmp_path / "group.key"
    file.write_text(made["primary_key"] + "\n")
    file.chmod(0o600)
    registered(stack, tmp_path, "dps-sas", *sets("devices=8", f"group_key={file}", f"id_scope={SCOPE}"), MUSTER_DPS_ID_SCOPE="0ne99999999")
    assert stack.v1("GET", f"/enrollment-groups/{made['name']}")["devices"] == 8
    other = tmp_path / "other.key"
    other.write_text("MDEyMzQ1Njc4OWFiY2RlZg==")
    other.chmod(0o600)
    done = swarm(stack, tmp_path / "other", "run", "dps-sas", *sets("devices=3", f"group_key={other}"))
    assert done.returncode == 1, (done.stdout, done.stderr)
    r = result(tmp_path / "other")
    assert r["failed"] == r["outcomes"]["enrol.refused"] == 3 and r["audit"]["assigned"] == r["audit"]["devices"] == 0


def test_registrations_that_wait_are_polled(stack, tmp_path):
    """The operator approves each when it has been told to wait; its certificate comes with a poll."""
    def approve():
        def waiting():
            return [r[0] for r in stack.sql("SELECT serial FROM device WHERE serial LIKE 'swarm-%%' AND state <> 'PROVISIONED' AND template_id ="
                                            " (SELECT id FROM template WHERE name = 'waiting')")]
        wait_for("three devices that wait", lambda: len(waiting()) == 3)
        for serial in waiting():
            stack.v1("POST", f"/devices/{serial}/approve")
    desk = threading.Thread(target=approve)
    desk.start()
    try:
        r = registered(stack, tmp_path, "dps-sas", *sets("devices=3", "csr=1", "allowlist=0"), template="waiting")
    finally:
        desk.join()
    assert r["outcomes"]["assigning"] >= 3 and r["audit"]["held"] == 3 and r["seconds"] >= 3, "no device asks before Retry-After"


@pytest.mark.parametrize("scenario", ["dps-sas", "dps-x509"])
def test_registrations_whose_power_fails(stack, tmp_path, scenario):
    r = registered(stack, tmp_path, scenario, *sets("devices=60", "rate=80", "csr=1", "powerloss_percent=60"))
    assert r["outcomes"]["power lost"] > 5 and r["audit"]["held"] == 60


def test_the_audit_finds_registrations_that_were_undone(stack, tmp_path):
    """When the fourth device comes, one is moved, one loses its device, one becomes nobody's; the fifth is refused, and registered none the less."""
    endpoint(stack, "broker-a.example.com")
    stack.sql("CREATE FUNCTION muster.sabotage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
              " INSERT INTO muster.dps_registration SELECT replace(NEW.serial, '-000003', '-000004'), r.enrollment_id, r.product_id, r.serial_canonical, r.device_name,"
              " r.endpoint, r.first_endpoint, r.substatus FROM muster.dps_registration r WHERE r.registration_id = replace(NEW.serial, '-000003', '-000000');"
              " UPDATE muster.enrollment SET enabled = false WHERE grouped AND name = replace(NEW.serial, '-000003', '');"
              " UPDATE muster.dps_registration SET endpoint = 'elsewhere.example.com' WHERE registration_id = replace(NEW.serial, '-000003', '-000000');"
              " UPDATE muster.dps_registration SET serial_canonical = 'nobody' WHERE registration_id = replace(NEW.serial, '-000003', '-000001');"
              " UPDATE muster.dps_registration SET registration_id = replace(NEW.serial, '-000003', '-000099') WHERE registration_id ="
              " replace(NEW.serial, '-000003', '-000002'); RETURN NULL; END $$")
    stack.sql("CREATE TRIGGER sabotage AFTER INSERT ON muster.history FOR EACH ROW WHEN (NEW.serial LIKE 'swarm-%%-000003') EXECUTE FUNCTION muster.sabotage()")
    try:
        done = swarm(stack, tmp_path / "out", "run", "dps-sas", *sets("devices=5", "rate=2", "verify=0"))
    finally:
        stack.sql("DROP TRIGGER sabotage ON muster.history; DROP FUNCTION muster.sabotage()")
    assert done.returncode == 1, (done.stdout, done.stderr)
    audit = result(tmp_path / "out")["audit"]
    assert (audit["assigned"], audit["lost"], audit["doubled"], audit["orphaned"]) == (4, 2, 1, 2), audit
    for complaint in ("assigned but not so in the registry", "registered but never told so", "registered without one device for it", "registrations of no device of the run"):
        assert complaint in done.stderr


def scep(stack, tmp_path, *settings, **kw):
    out = tmp_path / "out"
    done = swarm(stack, out, "run", "scep", *sets(*settings), **kw)
    return done, result(out)


def test_scep_is_what_its_devices_spoke(stack, tmp_path):
    """Over HTTPS too; the token is spent, and the trail has the protocol."""
    done, r = scep(stack, tmp_path, "devices=10", MUSTER_SCEP_URL=f"https://127.0.0.1:{stack.port}/scep")
    assert done.returncode == 0 and r["audit"]["clean"] and r["audit"]["held"] == 10 and r["latency"]["handshake"]["count"] == 20, (done.stderr, r)
    serial = stack.one("SELECT max(serial) FROM device WHERE serial LIKE 'swarm-%%'")
    trail = stack.v1("GET", f"/devices/{serial}")["trail"]
    assert [t for t in trail if t["protocol"] == "scep" and t["operation"] == "PKCSReq" and t["credential"] == "token" and t["outcome"] == "ok"], trail
    done, r = scep(stack, tmp_path, "devices=10", "bound_tokens=0")
    assert done.returncode == 0 and r["audit"]["clean"] and r["latency"]["handshake"]["count"] == 10, "plain, but for the configuration"


def test_scep_requests_whose_power_fails(stack, tmp_path):
    done, r = scep(stack, tmp_path, "devices=40", "rate=80", "powerloss_percent=60")
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert r["passed"] and r["outcomes"]["power lost"] > 5 and r["audit"]["held"] == 40


def test_scep_requests_that_are_refused(stack, tmp_path):
    done, r = scep(stack, tmp_path, "devices=4", "allowlist=0")
    assert done.returncode == 1 and r["failed"] == r["outcomes"]["enrol.refused"] == 4 and r["audit"]["clean"] and r["audit"]["held"] == 0


def test_scep_requests_that_wait_are_asked_again(stack, tmp_path):
    """The operator approves each once it is there."""
    def waiting():
        return [s for s, in stack.sql("SELECT d.serial FROM device d JOIN template t ON t.id = d.template_id WHERE t.name = 'waiting'"
                                      " AND d.state = 'ENROLL' AND d.serial LIKE 'swarm-%%'")]

    def approve():
        wait_for("three devices that wait", lambda: len(waiting()) == 3)
        for serial in waiting():
            stack.v1("POST", f"/devices/{serial}/approve")
    desk = threading.Thread(target=approve)
    desk.start()
    done, r = scep(stack, tmp_path, "devices=3", "allowlist=0", "tries=30", template="waiting")
    desk.join()
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert r["outcomes"]["pending"] >= 3 and r["audit"]["clean"] and r["audit"]["held"] == 3


def test_scep_devices_come_again_when_they_are_told_to(fresh, tmp_path):
    fresh.stop()
    fresh.configure(limits__enrolments_per_second=2, limits__burst=2)
    fresh.start()
    done, r = scep(fresh, tmp_path, "devices=12", "tries=20")
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert r["audit"]["clean"] and r["audit"]["held"] == 12 and sum(n for k, n in r["outcomes"].items() if "limit" in k) > 0, r["outcomes"]


@pytest.mark.parametrize("door", ["scep", "dps-sas", "dps-x509"])
def test_other_doors_among_the_hostile(stack, tmp_path, door):
    endpoint(stack, "broker-a.example.com")
    done = swarm(stack, tmp_path / "out", "run", "hostile", *sets(f"door={door}", "csr=1", "devices=40", "rate=20"))
    assert done.returncode == 0, (done.stdout, done.stderr)
    r = result(tmp_path / "out")
    assert r["failed"] == 0 and r["audit"]["clean"] and r["hostile"]["garbage: closed by the server"] > 0
    assert not any(name.endswith(": HTTP 200") for name in r["hostile"])


def test_the_honest_among_the_hostile(stack, tmp_path):
    out = tmp_path / "out"
    done = swarm(stack, out, "run", "hostile", "--set", "devices=90", "--set", "rate=30")
    assert done.returncode == 0, (done.stdout, done.stderr)
    r = result(out)
    assert r["audit"]["clean"] and r["failed"] == 0
    hostile = r["hostile"]
    assert hostile["wrong CA: ca.not_registered"] > 0 and hostile["oversized: request.too_large"] > 0
    assert sum(n for name, n in hostile.items() if name.startswith("replay: ")) > 0
    assert not any(name.endswith(": HTTP 200") for name in hostile), "none of them may succeed"
    assert hostile["garbage: closed by the server"] > 0
    assert any(name.startswith("half-open: ") for name in hostile) and any(name.startswith("slow: ") for name in hostile)


def test_the_audit_finds_what_was_done_to_the_registry(stack, tmp_path):
    """A certificate revoked behind the devices' backs is one they hold and the registry does not."""
    out = tmp_path / "out"
    stack.sql("CREATE FUNCTION muster.sabotage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
              " UPDATE muster.certificate SET status = 'revoked', revoke_reason = 'unspecified', ended_at = now()"
              " WHERE id = NEW.certificate_id; RETURN NULL; END $$")
    stack.sql("CREATE TRIGGER sabotage AFTER INSERT ON muster.token_use FOR EACH ROW EXECUTE FUNCTION muster.sabotage()")
    try:
        done = swarm(stack, out, "run", "burst", "--set", "devices=10", "--set", "verify=0")
    finally:
        stack.sql("DROP TRIGGER sabotage ON muster.token_use; DROP FUNCTION muster.sabotage()")
    assert done.returncode == 1, (done.stdout, done.stderr)
    r = result(out)
    assert not r["passed"] and r["audit"]["lost"] == 10 and "held but not live" in done.stderr


@pytest.mark.parametrize("args,why", [
    (["run", "nosuch"], "cannot be read"), (["run", "burst", "--set", "devices=0"], "from 1 to 20000"),
    (["run", "burst", "--set", "color=red"], "there is no key"), (["run", "burst", "--set", "door=fax"], "door must be"),
    (["run", "dps-sas", "--set", "renewals=1"], "csr=1"), (["run", "dps-sas", "--set", "group_key=nosuch"], "group_key is not a file"),
    (["run", "dps-x509", "--set", "template=nosuch", "--set", "allowlist=0"], "no enrollment group was made"),
    (["run", "scep", "--set", "devices=1", "--set", "template=nosuch", "--set", "allowlist=0"], "no tokens were minted"),
    (["run", "claims-mqtt"], "MUSTER_MQTT_HOST"), (["run", "jitp"], "MUSTER_MQTT_HOST"), (["run", "jitp-https", "--set", "powerloss_percent=1"], "powerloss_percent"), (["run", "claims-https", "--set", "template=nosuch", "--set", "allowlist=0"], "no claim was made"), (["jump", "burst"], "expected")])
def test_wrong_usage(stack, tmp_path, args, why):
    done = swarm(stack, tmp_path / "out", *args)
    assert done.returncode == 2 and why in done.stderr


def test_keys_made_ahead_are_taken_once(tmp_path):
    file = tmp_path / "keys"

    def make(count):
        return subprocess.run([SWARM, "keys", str(count), "--keys", file], capture_output=True, text=True)
    assert make(20).returncode == 0 and file.stat().st_mode & 0o777 == 0o600
    first = file.read_bytes()
    assert len(first) == 20 * 138 and len({first[i:i + 138] for i in range(0, len(first), 138)}) == 20
    make(25)
    assert file.read_bytes().startswith(first) and file.stat().st_size == 25 * 138
    assert make("many").returncode == 2


def test_rsa_keys_are_beside_the_others(tmp_path):
    file = tmp_path / "keys"

    def make(count):
        return subprocess.run([SWARM, "keys", str(count), "--rsa", "--keys", file], capture_output=True, text=True)
    done = make(2)
    assert done.returncode == 0 and done.stdout == f"2 keys in {file}.rsa\n" and not file.exists()
    rsa = file.with_name("keys.rsa")
    assert rsa.stat().st_mode & 0o777 == 0o600 and rsa.stat().st_size == 2 * 1280
    first = rsa.read_bytes()
    assert make(3).returncode == 0 and rsa.read_bytes().startswith(first)


@pytest.mark.parametrize("url,why", [
    (None, "MUSTER_SCEP_URL must be"), ("ftp://127.0.0.1:1/scep", "must be http or https"), ("http://127.0.0.1:1/scep", "was not answered"),
    ("http://127.0.0.1", "must be http://HOST:PORT/PATH")])
def test_scep_where_there_is_none(stack, tmp_path, url, why):
    done = swarm(stack, tmp_path / "out", "run", "scep", "--set", "devices=1", MUSTER_SCEP_URL=url or "")
    assert done.returncode == 2 and why in done.stderr


def test_two_runs_against_one_registry(stack, tmp_path):
    for n in range(2):
        assert swarm(stack, tmp_path / f"out{n}", "run", "burst", "--set", "devices=5").returncode == 0


def test_without_a_server(stack, tmp_path):
    done = swarm(stack, tmp_path / "out", "run", "burst", MUSTER_URL="https://127.0.0.1:1")
    assert done.returncode == 2 and "does not tell its CAs" in done.stderr
    done = swarm(stack, tmp_path / "out", "run", "burst", MUSTER_URL="")
    assert done.returncode == 2 and ".dev/env" in done.stderr


def test_every_scenario_that_ships_is_tested():
    tested = {"claims-https", "claims-mqtt", "dps-sas", "dps-x509", "steady", "burst", "factory", "renewal-herd", "powerloss", "soak", "hostile", "jitp", "jitp-https", "jitr", "scep"}
    assert {p.stem for p in (ROOT / "loadtest" / "scenarios").glob("*.ini")} == tested


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    from fleet import joined
    with joined(tmp_path_factory.mktemp("jit"), ca_folder=True) as place:
        yield place


def at_the_broker(place, folder, *args, **env):
    both = folder / "cas.pem"
    both.write_bytes(place.stack.cafile.read_bytes() + place.broker.cafile.read_bytes())
    return swarm(place.stack, folder / "out", "run", *args, MUSTER_CACERT=str(both), MUSTER_MQTT_HOST="127.0.0.1",
                 MUSTER_MQTT_PORT=str(place.broker.port), **env)


@pytest.mark.parametrize("scenario", ["jitp", "jitr"])
def test_factory_certificates_at_the_broker(place, tmp_path, scenario):
    """All at once, each on two connections; of jitr none gets in before the worker has seen it."""
    done = at_the_broker(place, tmp_path, scenario, "--set", "devices=60", "--set", "twins=1")
    assert done.returncode == 0, (done.stdout, done.stderr)
    r = result(tmp_path / "out")
    assert r["passed"] and r["failed"] == 0 and r["audit"]["clean"] and r["audit"]["held"] == r["audit"]["devices"] == 60
    assert r["outcomes"]["CONNACK 5"] >= 60 and r["outcomes"]["device done"] == 60
    assert sum(n for k, n in r["outcomes"].items() if k.startswith("twin ")) == 60
    assert ("the worker activated 60, and was refused 0 times" in done.stdout) == (scenario == "jitr")


def test_factory_certificates_that_nobody_activates(place, tmp_path):
    """The audit and the exit code say so: no device came in, and their certificates are half registered."""
    done = at_the_broker(place, tmp_path, "jitr", "--set", "devices=5", "--set", "tries=3", MUSTER_ADMIN_URL="https://127.0.0.1:1")
    assert done.returncode == 2 and "MUSTER_ADMIN_URL" not in done.stderr, "muster cannot ask there either"
    viewer = place.stack.v1("POST", "/admin-tokens", {"name": "swarm-viewer", "role": "viewer"})["token"]
    place.stack.sql("UPDATE admin_token SET role = 'admin' WHERE name = 'swarm-viewer'")
    stop = threading.Timer(4, lambda: place.stack.sql("UPDATE admin_token SET role = 'viewer' WHERE name = 'swarm-viewer'"))
    stop.start()
    done = at_the_broker(place, tmp_path, "jitr", "--set", "devices=5", "--set", "rate=1", "--set", "tries=4", MUSTER_ADMIN_TOKEN=viewer)
    stop.join()
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert re.search(r"the worker activated \d, and was refused [1-9]", done.stdout) and "half registered" in done.stderr


def ratio(stack, tmp_path, *args):
    environment = {"MUSTER_URL": f"https://127.0.0.1:{stack.port}", "MUSTER_CACERT": str(stack.cafile), "MUSTER_ADMIN_TOKEN": stack.token,
                   "MUSTER_ADMIN_URL": f"https://127.0.0.1:{stack.admin_port}", "MUSTER_TEMPLATE": "strict",
                   "MUSTER_DPS_ID_SCOPE": SCOPE, "PATH": f"{MUSTER.parent}:{os.environ['PATH']}"}
    return subprocess.run([SWARM, "ratio", *args, "--keys", tmp_path / "keys", *map(str, pids(stack))], capture_output=True, text=True,
                          env={**os.environ, **environment})


def test_ratio(stack, tmp_path):
    done = ratio(stack, tmp_path, "--clients", "4", "--requests", "20", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-2:]
    assert [line.rsplit(" ", 1)[0] for line in last] == ["ratio token", "ratio cert"] and all(float(line.split()[-1]) > 0.5 for line in last)
    assert stack.one("SELECT count(*) FROM device d JOIN template t ON t.id = d.template_id WHERE t.name = 'swarm-ratio'") == 80


def test_ratio_of_claims(stack, tmp_path):
    done = ratio(stack, tmp_path, "--claims", "--clients", "4", "--requests", "20", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-3:]
    assert [line.rsplit(" ", 1)[0] for line in last] == ["ratio claim-https", "ratio token", "ratio cert"] and all(float(line.split()[-1]) > 0.5 for line in last)
    assert len(re.findall(r"^ +4  claim over HTTPS +\d+ ", done.stdout, re.M)) == 1
    claim = re.search(r"r[0-9a-f]+", stack.one("SELECT max(name) FROM claim WHERE name ~ '^r[0-9a-f]+$'")).group()
    assert stack.one("SELECT devices FROM claim WHERE name = %s", claim) == 40


def test_ratio_of_registrations_with_dps(stack, tmp_path):
    endpoint(stack, "broker-a.example.com")
    done = ratio(stack, tmp_path, "--dps", "--clients", "4", "--requests", "20", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-5:]
    assert [line.rsplit(" ", 1)[0] for line in last] == [f"ratio {k}" for k in ("dps-sas", "dps-sas-csr", "dps-x509", "token", "cert")]
    assert all(float(line.split()[-1]) > 0.5 for line in last)
    assert len(re.findall(r"^ +4  DPS by (key|key, with CSR|certificate) +\d+ ", done.stdout, re.M)) == 3
    groups = stack.sql("SELECT name FROM enrollment WHERE grouped AND name ~ '^r[0-9a-f]+(-x509)?$' ORDER BY name")
    assert [stack.v1("GET", f"/enrollment-groups/{g[0]}")["devices"] for g in groups] == [80, 40]


def test_ratio_of_several_loads_at_a_pace_beside_idle_connections(stack, tmp_path):
    done = ratio(stack, tmp_path, "--clients", "1,3", "--requests", "12", "--rounds", "1", "--pace", "50", "--idle", "20")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines() if "  ratio: " in line] == ["1", "3"]
    assert re.search(r"^P-256 alone.* sign \d+ us, verify \d+ us$", done.stdout, re.M)
    assert re.search(r"^20 idle TLS connections: musterd \d+ KiB, before \d+, -?[0-9.]+ KiB each$", done.stdout, re.M)
    assert len(re.findall(r"^at 50 % of saturation the p99 is [0-9.]+ times the GET's$", done.stdout, re.M)) == 2


@pytest.mark.parametrize("args", [["--clients", "0"], ["--clients", "1,x"], ["--clients", ",".join("123456789")], ["--pace", "101"], ["--idle", "0"]])
def test_ratio_refuses_what_it_cannot_do(stack, tmp_path, args):
    assert ratio(stack, tmp_path, *args).returncode == 2
