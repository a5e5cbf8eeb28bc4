"""What is left of a line, alerts that are told once, and the command that writes a claim's files."""
import json
import re
import resource
import signal
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from client import cert_pem, new_key, spki_sha256, unique
from factory import Authority
from stack import wait_for
from test_claims_desk import DAY, certs_in, create, pem_csr, pending, put_template, refused, revoke, rotate, used
from test_cli import run
from test_doctor import findings
from test_metrics import scrape, values
from test_reload import records


def left(stack, name, **interval):
    (unit, n), = interval.items()
    stack.sql(f"UPDATE claim SET enrol_until = clock_timestamp() + interval '{n} {unit}' WHERE name = %s", name)


def stock_of(stack, name):
    return next(c for c in stack.v1("GET", "/claims:stock?limit=1000") if c["name"] == name)


def listed(stack, product, batch, count, seen=0):
    serials = [unique("stock") for _ in range(count)]
    stack.v1("POST", f"/products/{product}/allowlist?batch={batch}", "\n".join(serials).encode(), kind="text/csv")
    stack.sql("""UPDATE allowlist SET device_id = (SELECT min(id) FROM device), claimed_at = now() WHERE serial = ANY (%s)""", serials[:seen])


@pytest.fixture(scope="module")
def line(stack):
    """A product of its own, whose counts are known: 1,200 serials of batch one, 3 of batch two."""
    stack.v1("POST", "/products", {"name": "stocked"})
    put_template(stack, "stocked-claim", "stocked")
    used(stack, create(stack)["name"])
    listed(stack, "stocked", "one", 1200, seen=17)
    listed(stack, "stocked", "two", 3, seen=1)


def test_stock_counts_the_batch_or_the_whole_product(stack, line):
    whole = create(stack, template="stocked-claim", enrol_for_s=60 * DAY)
    one = create(stack, template="stocked-claim", batch="one", budget=100)
    row = stock_of(stack, whole["name"])
    assert (row["product"], row["batch"], row["serials"], row["never_seen"], row["days_left"], row["state"]) == ("stocked", None, 1203, 1185, 60, "active")
    row = stock_of(stack, one["name"])
    assert (row["serials"], row["never_seen"], row["devices"], row["budget"]) == (1200, 1183, 0, 100)
    assert [c["name"] for c in stack.v1("GET", "/claims:stock?product=stocked")] == sorted([whole["name"], one["name"]])
    assert stack.v1("GET", f"/claims:stock?product=stocked&limit=1&after={min(whole['name'], one['name'])}")[0]["name"] == max(whole["name"], one["name"])


def sentences(stack):
    return stack.cli("claim", "stock").stdout.splitlines()


def test_stock_in_sentences(stack, line):
    stack.v1("POST", "/products", {"name": "bare-line"})
    put_template(stack, "bare-claim", "bare-line")
    name = create(stack, unique("told"), template="stocked-claim", grace_s=5 * DAY)["name"]
    left(stack, name, days=60)
    assert f"{name} expires in 60 days, 1,185 of 1,203 serials never seen" in sentences(stack)
    left(stack, name, hours=20)
    assert f"{name} expires in 1 day, 1,185 of 1,203 serials never seen" in sentences(stack)
    left(stack, name, hours=-20)
    assert f"{name} expired within the last day and is in its grace, 1,185 of 1,203 serials never seen" in sentences(stack)
    left(stack, name, hours=-220)
    assert f"{name} expired 9 days ago, 1,185 of 1,203 serials never seen" in sentences(stack)
    revoke(stack, name, "stop-new")
    assert f"{name} is revoked, 1,185 of 1,203 serials never seen" in sentences(stack)
    bare = create(stack, template="bare-claim", budget=12345)["name"]
    assert any(re.fullmatch(f"{bare} expires in [0-9,]+ days, no serials on its allowlist, 0 of 12,345 devices of its budget used", s) for s in sentences(stack))
    stack.sql("UPDATE claim SET devices = budget WHERE name = %s", bare)
    assert f"{bare} is exhausted, no serials on its allowlist, 12,345 of 12,345 devices of its budget used" in sentences(stack)
    assert stock_of(stack, bare) in json.loads(stack.cli("claim", "stock", "--json").stdout)
    assert sentences(stack) == stack.cli("claim", "stock", "--limit", "1000").stdout.splitlines()


# alerts; the server is stopped where its own job could tell first

def alerts(stack, name):
    """What one run tells of a claim: (kind, threshold, days left, percent)."""
    return [row[2:6] for row in stack.sql("SELECT * FROM claim_alerts()") if row[0] == name]


def events(stack, name):
    return [(e, p["threshold"]) for e, p in stack.sql(
        "SELECT event, payload FROM outbox WHERE payload->>'claim' = %s AND event IN ('claim.expiring', 'claim.budget') ORDER BY id", name)]


def test_each_threshold_is_told_once(fresh):
    name = create(fresh)["name"]
    fresh.stop()
    told = []
    for days in (181, 179, 91, 90, 89, 31, 30, 8, 7, 3, 0, -4):
        left(fresh, name, days=days)
        told += [(days, *a[:3]) for a in alerts(fresh, name)]
        assert alerts(fresh, name) == []
    assert told == [(179, "expiring", 180, 179), (90, "expiring", 90, 90), (30, "expiring", 30, 30), (7, "expiring", 7, 7)]
    assert events(fresh, name) == [("claim.expiring", n) for n in (180, 90, 30, 7)]
    payload = fresh.one("SELECT payload FROM outbox WHERE event = 'claim.expiring' AND payload->>'threshold' = '90'")
    assert payload == {"claim": name, "product": "pump", "threshold": 90, "days_left": 90, "percent": None, "serials": 0, "never_seen": 0}


def test_a_claim_made_late_begins_with_the_nearest_threshold(fresh):
    name = create(fresh, enrol_for_s=25 * DAY)["name"]
    fresh.stop()
    alerts(fresh, name)
    assert events(fresh, name) == [("claim.expiring", 30)]
    left(fresh, name, days=5)
    alerts(fresh, name)
    assert events(fresh, name) == [("claim.expiring", 30), ("claim.expiring", 7)]


def test_budgets(fresh):
    name, at_once = create(fresh, budget=10)["name"], create(fresh, budget=1)["name"]
    fresh.stop()
    for devices, expected in ((7, []), (8, [80]), (9, [80]), (10, [80, 100])):
        fresh.sql("UPDATE claim SET devices = %s WHERE name = %s", devices, name)
        alerts(fresh, name)
        assert events(fresh, name) == [("claim.budget", n) for n in expected]
    fresh.sql("UPDATE claim SET devices = 1 WHERE name = %s", at_once)
    alerts(fresh, at_once)
    assert events(fresh, at_once) == [("claim.budget", 80), ("claim.budget", 100)]


def test_claims_nobody_needs_to_hear_of(fresh):
    temporary = create(fresh, temporary=True)["name"]
    revoked, replaced = (create(fresh, enrol_for_s=200 * DAY)["name"] for _ in range(2))
    revoke(fresh, revoked, "stop-new")
    successor = rotate(fresh, replaced)["name"]
    fresh.stop()
    left(fresh, revoked, days=3)
    left(fresh, replaced, days=-1)
    assert [alerts(fresh, n) for n in (temporary, revoked, replaced, successor)] == [[]] * 4
    assert [events(fresh, n) for n in (temporary, revoked, replaced, successor)] == [[]] * 4
    left(fresh, replaced, days=3)
    alerts(fresh, replaced)
    assert events(fresh, replaced) == [("claim.expiring", 7)], "devices still carry it"


def test_the_job_tells_and_sweeps(fresh):
    name = create(fresh, enrol_for_s=200 * DAY)["name"]
    spki = pending(fresh, name, "-1 second")
    left(fresh, name, days=20)
    fresh.process.send_signal(signal.SIGHUP)
    wait_for("the alert in the log", lambda: [r for r in records(fresh, "claim.alert") if r["claim"] == name], 90)
    (record,) = [r for r in records(fresh, "claim.alert") if r["claim"] == name]
    assert (record["level"], record["kind"], record["threshold"], record["days_left"], record["never_seen"]) == ("warn", "expiring", 30, 20, 0)
    assert fresh.one("SELECT status FROM claim_certificate WHERE spki_sha256 = %s", spki) == "revoked"
    assert records(fresh, "claim.certificates_revoked")[-1]["count"] == 1
    fresh.process.send_signal(signal.SIGHUP)
    wait_for("another reload", lambda: len(records(fresh, "tls.reload")) >= 2)
    fresh.stop()
    assert len([r for r in records(fresh, "claim.alert") if r["claim"] == name]) == 1 and events(fresh, name) == [("claim.expiring", 30)]


# doctor and metrics

def test_the_doctor_and_the_metrics(fresh):
    name = create(fresh, budget=4, batch="week-1")["name"]
    checks = ("claims", "claim budgets", "expired claims")
    assert {findings(fresh)[c]["severity"] for c in checks} == {"ok"}
    quiet = values(scrape(fresh))
    assert quiet['muster_claims{state="active"}'] == 1 and quiet['muster_claims_expiring{within="180d"}'] == 0
    assert quiet["muster_claim_budget_used_ratio"] == 0 and quiet["muster_claim_certificates_pending"] == 0
    left(fresh, name, days=20)
    pending(fresh, name)
    fresh.sql("UPDATE claim SET devices = 3 WHERE name = %s", name)
    seen = values(scrape(fresh))
    assert [seen[f'muster_claims_expiring{{within="{w}"}}'] for w in ("7d", "30d", "90d", "180d")] == [0, 1, 1, 1]
    assert seen["muster_claim_budget_used_ratio"] == 0.75 and seen["muster_claim_certificates_pending"] == 1
    fresh.sql("UPDATE claim SET devices = 4 WHERE name = %s", name)
    seen = values(scrape(fresh))
    assert seen['muster_claims{state="exhausted"}'] == 1 and seen["muster_claim_budget_used_ratio"] == 1
    found = findings(fresh)
    assert [found[c]["severity"] for c in checks] == ["warning", "warning", "ok"] and found["claims"]["remedy"]
    left(fresh, name, days=-1)
    assert [findings(fresh)[c]["severity"] for c in checks] == ["ok"] * 3, "no serial of its batch is left"
    listed(fresh, "pump", "week-1", 1)
    assert [findings(fresh)[c]["severity"] for c in checks] == ["ok", "ok", "warning"]
    rotate(fresh, name, enrol_for_s=60 * DAY)
    assert [findings(fresh)[c]["severity"] for c in checks] == ["ok"] * 3
    seen = values(scrape(fresh))
    assert seen['muster_claims{state="expired"}'] == 1 and seen["muster_claim_budget_used_ratio"] == 0


# the command

def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_files_of_a_claim(stack, tmp_path):
    name, prefix = unique("filed"), tmp_path / "line"
    put_template(stack, "claimed-files", "pump")
    told = stack.cli("claim", "create", name, "--template", "claimed", "--templates", "claimed,claimed-files", "--budget", 9, "--rate", 3, "--burst", 4,
                     "--max-pending", 5, "--expires", "90d", "--validity", "1y", "--grace", "2d", "--batch", "b", "--note", "n", "--out", prefix).stdout
    assert "PRIVATE" not in told and "BEGIN" not in told and re.search(f"^name +{name}$", told, re.M)
    assert mode(tmp_path / "line.key") == 0o600
    leaf, *above = certs_in((tmp_path / "line.pem").read_text())
    assert len(above) == 2 and spki_sha256(serialization.load_pem_private_key((tmp_path / "line.key").read_bytes(), None)) == spki_sha256(leaf)
    shown = stack.cli_json("claim", "show", name)
    got = {k: shown[k] for k in ("templates", "budget", "rate_per_second", "rate_burst", "max_pending", "days_left", "grace_s", "batch", "note")}
    assert got == {"templates": ["claimed", "claimed-files"], "budget": 9, "rate_per_second": 3, "rate_burst": 4, "max_pending": 5, "days_left": 90,
                   "grace_s": 2 * DAY, "batch": "b", "note": "n"}
    assert stack.cli("claim", "show", name, "--pem").stdout == cert_pem(leaf).decode()


def test_a_file_that_is_there_is_kept_and_nothing_is_made(stack, tmp_path):
    for there in ("line.pem", "line.key"):
        name = unique("kept")
        (tmp_path / there).write_text("told before\n")
        done = stack.cli("claim", "create", name, "--template", "claimed", "--out", tmp_path / "line", check=False)
        assert done.returncode == 2 and "nothing was made" in done.stderr
        assert [f.name for f in tmp_path.iterdir()] == [there] and (tmp_path / there).read_text() == "told before\n"
        refused("object.not_found", stack.v1, "GET", f"/claims/{name}")
        (tmp_path / there).unlink()
    done = stack.cli("claim", "create", unique("kept"), "--template", "claimed", "--out", tmp_path / "line", "--json", check=False)
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    done = stack.cli("claim", "create", unique("kept"), "--template", "strict", "--out", tmp_path / "line", check=False)
    assert done.returncode == 1 and "template.credential_not_allowed" in done.stderr and not list(tmp_path.iterdir())


def test_what_no_file_takes_is_printed(stack, tmp_path):
    done = run(stack, "claim", "create", unique("full"), "--template", "claimed", "--out", tmp_path / "full", capture_output=True, restore_signals=False,
               preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)))
    assert done.returncode == 2 and "cannot be written" in done.stderr
    key = serialization.load_pem_private_key(done.stdout[done.stdout.index("-----BEGIN PRIVATE"):].encode(), None)
    assert spki_sha256(key) == spki_sha256(certs_in(done.stdout)[0])


def test_printed_where_no_file_is_named(stack):
    told = stack.cli("claim", "create", unique("printed"), "--template", "claimed").stdout
    assert re.findall("-----BEGIN (.+)-----", told) == ["CERTIFICATE"] * 3 + ["PRIVATE KEY"]
    made = stack.cli_json("claim", "create", unique("printed"), "--template", "claimed")
    assert made["private_key_pem"].startswith("-----BEGIN PRIVATE KEY") and made["chain_pem"]


def test_requests_and_certificates_from_files(stack, tmp_path):
    key, ca = new_key(), Authority(unique("Claim File"))
    ca.register(stack, unique("claim-file"))
    (tmp_path / "csr").write_text(pem_csr(key))
    (tmp_path / "cert").write_bytes(cert_pem(ca.device("x")[0]))
    stack.cli("claim", "create", unique("csr"), "--template", "claimed", "--csr", tmp_path / "csr", "--out", tmp_path / "a")
    stack.cli("claim", "create", unique("cert"), "--template", "claimed", "--certificate", tmp_path / "cert", "--out", tmp_path / "b")
    assert spki_sha256(x509.load_pem_x509_certificate((tmp_path / "a.pem").read_bytes())) == spki_sha256(key)
    assert (tmp_path / "b.pem").read_bytes() == (tmp_path / "cert").read_bytes() + cert_pem(ca.cert)
    assert not (tmp_path / "a.key").exists() and not (tmp_path / "b.key").exists()
    done = stack.cli("claim", "create", unique("csr"), "--template", "claimed", "--csr", tmp_path / "none", check=False)
    assert done.returncode == 2


def test_rotate_revoke_and_list(stack, tmp_path):
    old, new = unique("turned"), unique("turned")
    stack.cli("claim", "create", old, "--template", "claimed")
    stack.cli("claim", "rotate", old, new, "--old-expires", "1d", "--expires", "30d", "--out", tmp_path / "new")
    shown = stack.cli_json("claim", "show", new)
    assert (shown["supersedes"], shown["days_left"]) == (old, 30) and stack.cli_json("claim", "show", old)["days_left"] == 1
    assert "PRIVATE KEY" in (tmp_path / "new.key").read_text()
    assert stack.cli("claim", "revoke", old, check=False).returncode == 2
    assert re.search("^revoke_mode +hard$", stack.cli("claim", "revoke", old, "--mode", "hard").stdout, re.M)
    table = stack.cli("claim", "list", "--state", "revoked", "--product", "pump", "--template", "claimed").stdout
    assert re.search(f"^{old} +pump +claimed +shared +revoked .* {new}$", table, re.M)
    brief = stack.cli_json("claim", "create", unique("brief"), "--template", "claimed", "--temporary", "--expires", "10m")
    assert brief["kind"] == "temporary" and brief["days_left"] == 1
