"""Devices that stand in a state for longer than its limit: listed, counted, announced once."""
import pytest

from client import Device, unique
from stack import wait_for
from test_credentials import refused
from test_metrics import scrape, values


def waiting(stack, hours):
    """A device that has its certificate and has not used it."""
    d = Device(stack, None, "open", stack.mint("open"))
    d.enrol()
    stack.sql("ALTER TABLE device DISABLE TRIGGER ALL")
    stack.sql("UPDATE device SET state_since = now() - make_interval(hours => %s), verify_by = state_since + make_interval(hours => 24 - %s) WHERE serial = %s", hours, hours, d.serial)
    stack.sql("ALTER TABLE device ENABLE TRIGGER ALL")
    return d


def stuck(stack, *args):
    return {row["serial"]: row for row in stack.cli_json("device", "stuck", *args)}


def test_verify_by_is_the_limit_of_a_device_that_waits(stack):
    late, early = waiting(stack, 30), waiting(stack, 3)
    rows = stuck(stack)
    assert early.serial not in rows
    row = rows[late.serial]
    assert row["state"] == "VERIFY" and row["product"] == "pump" and row["template"] == "open" and row["last_outcome"] == "ok"
    assert 6 * 3600 - 120 < row["overdue_s"] < 6 * 3600 + 120 and row["limit_s"] and "never used it" in row["remedy"]
    assert late.serial in stuck(stack, "--state", "VERIFY", "--product", "pump", "--template", "open")
    asked = "/devices:stuck?state=VERIFY&product=pump&template=open&limit=1"
    assert row in [r for page in stack.pages(asked) for r in page] and len(stack.v1("GET", asked)) == 1
    assert late.serial not in stuck(stack, "--state", "QUARANTINE")
    late.config()  # the first use
    assert late.serial not in stuck(stack)


def test_quarantine_has_a_limit_that_can_be_changed(stack):
    d = Device(stack, None, "open", stack.mint("open"))
    d.enrol()
    stack.v1("POST", f"/devices/{d.serial}/quarantine", {"reason": "test"})
    stack.sql("ALTER TABLE device DISABLE TRIGGER ALL")
    stack.sql("UPDATE device SET state_since = now() - interval '2 days' WHERE serial = %s", d.serial)
    stack.sql("ALTER TABLE device ENABLE TRIGGER ALL")
    assert d.serial not in stuck(stack)
    try:
        assert stack.cli_json("device", "limit", "QUARANTINE", "--within", "1d") == {"state": "QUARANTINE", "limit_s": 86400}
        assert {"state": "QUARANTINE", "limit_s": 86400} in stack.cli_json("device", "limits")
        assert {"state": "QUARANTINE", "limit_s": 86400} in [r for page in stack.pages("/state-limits?limit=2") for r in page]
        assert "release" in stuck(stack)[d.serial]["remedy"]
        assert values(scrape(stack))['muster_devices_stuck{state="QUARANTINE"}'] >= 1
        assert stack.cli_json("device", "limit", "QUARANTINE", "--within", "0s")["limit_s"] is None
        assert d.serial not in stuck(stack)
    finally:
        stack.v1("POST", "/state-limits", {"state": "QUARANTINE", "seconds": 604800})
    assert stack.one("SELECT count(*) FROM audit WHERE action = 'state.limit'") >= 3


@pytest.mark.parametrize("body", [{"state": "PROVISIONED", "seconds": 60}, {"state": "VERIFY", "seconds": -1}, {"state": "VERIFY"}, {"state": "VERIFY", "seconds": 59}])
def test_what_is_no_limit(stack, body):
    refused("request.malformed", stack.v1, "POST", "/state-limits", body)


def test_each_stay_is_announced_once(fresh):
    d = waiting(fresh, 30)
    event = "SELECT count(*) FROM outbox WHERE event = 'device.stuck' AND payload->>'serial' = %s"
    fresh.sql("SELECT * FROM stuck_tell()")
    fresh.sql("SELECT * FROM stuck_tell()")
    assert fresh.one(event, d.serial) == 1
    fresh.stop()
    fresh.start()  # and by the background job, for another device
    other = waiting(fresh, 30)
    fresh.stop()
    fresh.start()
    wait_for("the job", lambda: fresh.one(event, other.serial) == 1)
    assert any(r["event"] == "device.stuck" and r["state"] == "VERIFY" for r in fresh.log_records())
    assert fresh.one(event, d.serial) == 1


def test_a_provisioned_fleet_is_not_looked_at(stack):
    plan = "\n".join(r[0] for r in stack.sql("""SET enable_seqscan = off; EXPLAIN SELECT count(*) FROM state_limit l JOIN device d ON d.state = l.state AND d.retired_at IS NULL
        WHERE d.state NOT IN ('UNPROVISIONED', 'PROVISIONED') AND stuck_since(d, l) < now()"""))
    indexed = "\n".join(r[0] for r in stack.sql("SET enable_seqscan = off; EXPLAIN SELECT count(*) FROM device d WHERE d.state NOT IN ('UNPROVISIONED', 'PROVISIONED') AND d.retired_at IS NULL"))
    assert "device_on_its_way_idx" in plan and "device_on_its_way_idx" in indexed, (plan, indexed)
