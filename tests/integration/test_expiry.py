"""What ends soon: told once for each threshold, listed, forecast."""
import contextlib
import datetime

import psycopg2
import pytest

from client import Device, fingerprint, unique
from factory import Authority
from stack import Refused

DAY = 86400


class Fleet:
    """Devices of a template of their own, whose certificates are put to end when the test says."""

    def __init__(self, leader, **muster):
        stack = leader.stack
        self.leader, self.stack, self.template = leader, stack, unique("expiry")
        stack.v1("PUT", f"/templates/{self.template}?product=pump", {"Muster": {"Credentials": ["token"], "Allowlist": "optional", "Validity": "365d", **muster}})

    def device(self, days_left, last_seen_days=0, renewed=False):
        d = Device(self.stack, None, self.template, self.stack.mint(self.template))
        d.enrol()
        d.config()
        if renewed:
            old = d.cert
            d.renew()
            d.old = old
        self.ends(d, days_left, old if renewed else d.cert)
        self.stack.sql("UPDATE device SET last_seen = now() - make_interval(days => %s) WHERE serial = %s", last_seen_days, d.serial)
        return d

    def ends(self, d, days_left, cert):
        """It keeps its length."""
        self.stack.sql("UPDATE certificate SET not_after = now() + make_interval(secs => %s), not_before = now() + make_interval(secs => %s) - (not_after - not_before)"
                       " WHERE fingerprint = decode(%s, 'hex')", days_left * DAY, days_left * DAY, fingerprint(cert))

    def look(self, days=1):
        """The events of what is told when so much time has gone by."""
        template = "(SELECT id FROM template WHERE name = %s)"
        self.stack.sql(f"UPDATE expiry_mark SET looked_at = looked_at - make_interval(secs => %s), told_through = told_through - make_interval(secs => %s) WHERE template_id = {template}",
                       days * DAY, days * DAY, self.template)
        self.stack.sql(f"UPDATE certificate SET not_after = not_after - make_interval(secs => %s), not_before = not_before - make_interval(secs => %s) WHERE template_id = {template}",
                       days * DAY, days * DAY, self.template)
        return self.tell()

    def tell(self):
        rows = [e for e in self.leader.tell() if e.get("template") == self.template]
        assert [e for e in self.leader.outbox(len(rows))] == [{k: v for k, v in e.items() if k != "event"} for e in rows]
        return rows

    def listed(self, *args):
        return self.stack.cli_json("cert", "expiring", "--template", self.template, *args)


class Leader:
    """Does the replicas' job of telling, and they do not meanwhile."""

    def __init__(self, stack):
        self.stack, self.db = stack, connect(stack)
        self.db.autocommit = True
        self.ask("SELECT pg_advisory_lock(1836413811)")

    def ask(self, text, *args):
        with self.db.cursor() as c:
            c.execute(text, args or None)
            return [row[0] for row in c.fetchall()]

    def tell(self, server_days=400):
        return self.ask("SELECT e FROM expiry_tell((extract(epoch FROM now()) + %s)::bigint) e", server_days * DAY)

    def outbox(self, most):
        """The latest of the events about certificates, oldest first."""
        return self.ask("SELECT payload FROM outbox WHERE event = 'certificate.expiring' ORDER BY id DESC LIMIT %s", most)[::-1]


def connect(stack):
    return psycopg2.connect(host="127.0.0.1", port=stack.pg_port, user="muster", dbname="muster", options="-c search_path=muster")


@pytest.fixture
def leader(stack):
    made = Leader(stack)
    yield made
    made.db.close()


@pytest.fixture
def fleet(leader):
    return Fleet(leader)


# certificates


def test_each_threshold_is_one_event_for_all(fleet):
    near = [fleet.device(20), fleet.device(29, last_seen_days=70)]
    fleet.device(75)
    (event,) = fleet.look()
    assert (event["threshold_s"], event["devices"], event["silent"], event["silent_days"]) == (30 * DAY, 2, 1, 60)
    assert event["serials"] == [d.serial for d in near] and event["product"] == "pump" and event["first_end"] < event["last_end"]
    assert fleet.look() == []
    (event,) = fleet.look(12)  # one has 6 days left, the other 15
    assert (event["threshold_s"], event["devices"], event["serials"]) == (7 * DAY, 1, [near[0].serial])
    (event,) = fleet.look(5.5)
    assert (event["threshold_s"], event["serials"]) == (DAY, [near[0].serial]) and fleet.look(0.1) == []


def test_a_look_comes_after_a_thirtieth_of_the_threshold(fleet):
    fleet.look()
    fleet.device(29)
    fleet.stack.sql("UPDATE expiry_mark SET looked_at = now() - interval '23 hours' WHERE threshold_s = 2592000")
    assert fleet.tell() == []
    fleet.stack.sql("UPDATE expiry_mark SET looked_at = now() - interval '25 hours', told_through = now() + interval '28 days' WHERE threshold_s = 2592000")
    assert len(fleet.tell()) == 1


def test_what_was_superseded_or_retired_is_no_matter(fleet):
    renewed, waits = fleet.device(20, renewed=True), fleet.device(20, renewed=True)
    renewed.config()  # the new one is used: the old one is superseded
    gone, dead = fleet.device(20), fleet.device(20)
    fleet.stack.v1("POST", f"/devices/{gone.serial}/retire")
    fleet.stack.v1("POST", f"/certs/{fingerprint(dead.cert)}/revoke", {"reason": "superseded"})
    assert fleet.look() == [] and fleet.listed() == []
    counts = fleet.device(20)
    assert [e["serials"] for e in fleet.look()] == [] and [r["serial"] for r in fleet.listed()] == [counts.serial]
    assert waits.serial


def test_one_that_lives_no_longer_than_the_threshold_is_never_told(leader):
    short = Fleet(leader, Validity="20d")
    d = short.device(19)
    assert short.look() == []
    (event,) = short.look(12)
    assert event["threshold_s"] == 7 * DAY and event["serials"] == [d.serial]


def test_what_ended_while_nobody_looked_is_told(fleet):
    d = fleet.device(40)
    fleet.look()
    told = fleet.look(50)
    assert [e["threshold_s"] for e in told] == [30 * DAY, 7 * DAY, DAY] and all(e["serials"] == [d.serial] for e in told)


@pytest.mark.parametrize("alerts", [[], ["60d", "12h"]])
def test_a_template_says_when(leader, alerts):
    own = Fleet(leader, ExpiryAlerts=alerts)
    own.device(59)
    own.device(0.4)
    assert sorted(e["threshold_s"] for e in own.look(0)) == ([DAY // 2, 60 * DAY] if alerts else [])


@pytest.mark.parametrize("alerts", ["30d", [30], ["30m"], ["1d", "7d"], ["7d", "7d"], ["100y"], ["30d"] * 9])
def test_wrong_thresholds(stack, alerts):
    with pytest.raises(Refused) as refused:
        stack.v1("PUT", f"/templates/{unique('expiry')}?product=pump", {"Muster": {"ExpiryAlerts": alerts}})
    assert refused.value.code == "template.invalid" and "ExpiryAlerts" in refused.value.problem["detail"]


def test_one_replica_tells(fleet):
    fleet.device(20)
    with contextlib.closing(connect(fleet.stack)) as db, db.cursor() as c:
        c.execute("SELECT count(*) FROM expiry_tell(0) e WHERE e->>'event' = 'certificate.expiring'")
        assert c.fetchone()[0] == 0
    assert len(fleet.look()) == 1 and fleet.look() == []


# everything else that ends


def test_the_servers_own_certificate(leader):
    leader.stack.sql("DELETE FROM expiry_told WHERE subject = 'server'")

    def told(days):
        return [e["threshold_s"] for e in leader.tell(days) if e["event"] == "server.expiring"]

    assert told(400) == []
    assert told(20) == [30 * DAY]  # not 90 days as well
    assert told(21) == [30 * DAY]  # another certificate
    leader.stack.sql("UPDATE expiry_told SET ends = date_trunc('day', ends) WHERE subject = 'server'")
    ends = leader.stack.one("SELECT extract(epoch FROM min(ends))::bigint FROM expiry_told WHERE subject = 'server'")
    assert leader.ask("SELECT count(*) FROM expiry_tell(%s) e WHERE e->>'event' = 'server.expiring'", ends) == [0]


def test_a_ca_that_ends(leader):
    stack, name = leader.stack, unique("ending-ca")
    Authority(name).register(stack, name, "open")

    def told(days):
        stack.sql("UPDATE ca SET not_after = to_timestamp(%s) WHERE name = %s", now + days * DAY, name)
        return [(e["event"], e["kind"], e["threshold_s"]) for e in leader.tell() if e.get("ca") == name]

    now = stack.one("SELECT floor(extract(epoch FROM now()))::bigint")
    assert told(91) == [] and told(6) == [("ca.expiring", "registered", 7 * DAY)] and told(6) == []
    stack.v1("POST", f"/cas/{name}/deactivate")
    assert told(0.5) == []


def test_a_crl_that_was_not_signed_again(leader):
    stack = leader.stack
    issuer = stack.one("SELECT id FROM ca WHERE name = 'issuing-1'")
    stack.sql("INSERT INTO crl VALUES (%s, 256, 7, false, 1, now() - interval '4 days', now() + interval '1 day', 0, '', '')", issuer)
    try:
        assert [(e["ca"], e["kind"], e["shards"], e["shard"]) for e in leader.tell() if e["event"] == "crl.expiring"] == [("issuing-1", "full", 256, 7)]
        assert [e for e in leader.tell() if e["event"] == "crl.expiring"] == []
    finally:
        stack.sql("DELETE FROM crl WHERE shards = 256")


# the list


def test_the_list_is_by_the_end(fleet):
    late, soon, silent = fleet.device(25), fleet.device(3), fleet.device(28, last_seen_days=61)
    fleet.device(40)
    rows = fleet.listed()
    assert [r["serial"] for r in rows] == [soon.serial, late.serial, silent.serial]
    assert rows[0]["days_left"] in (2, 3) and rows[0]["fingerprint"] == fingerprint(soon.cert) and rows[2]["silent_days"] == 61
    assert [r["serial"] for r in fleet.listed("--within", "7d")] == [soon.serial]
    assert [r["serial"] for r in fleet.listed("--silent", "60d")] == [silent.serial]
    assert len(fleet.listed("--within", "50d", "--product", "pump")) == 4 and fleet.listed("--product", "other") == []
    asked = f"/certs:expiring?template={fleet.template}&limit=2"
    assert [r["serial"] for page in fleet.stack.pages(asked) for r in page] == [r["serial"] for r in rows]


@pytest.mark.parametrize("query", ["seconds=x", "seconds=59", "silent_s=0", "by=year"])
def test_wrong_questions(stack, query):
    with pytest.raises(Refused) as refused:
        stack.v1("GET", f"/certs:{'forecast' if 'by' in query else 'expiring'}?{query}")
    assert refused.value.status == 400


def test_a_duration_that_is_none_is_a_usage_error(stack):
    done = stack.cli("cert", "expiring", "--within", "soon", check=False)
    assert done.returncode == 2 and "--within must be a duration" in done.stderr


# the forecast


def day(n):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=n)).date().isoformat()


def noon(n):
    """The noon of that day, in days from now."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return (datetime.datetime.fromisoformat(day(n) + "T12:00:00+00:00") - now).total_seconds() / DAY


def forecast(fleet, *args):
    return {r["date"]: (r["renewals"], r["ends"]) for r in fleet.stack.cli_json("cert", "forecast", "--template", fleet.template, *args)}


def test_renewals_are_expected_in_the_middle_of_the_window_and_after_each_life(leader):
    fleet = Fleet(leader, Validity="120d", RenewBefore="40d")  # in the middle of its window: 30 days before the end
    fleet.device(noon(50))
    fleet.device(noon(10))  # late
    rows = forecast(fleet)
    assert len(rows) == 366 and min(rows) == day(0)
    expected = {day(n) for n in (20, 110, 200, 290)} | {day(n) for n in (0, 90, 180, 270, 360)}
    assert {d for d, (renewals, _) in rows.items() if renewals} == expected
    assert {d: ends for d, (_, ends) in rows.items() if ends} == {day(50): 1, day(10): 1}
    months = forecast(fleet, "--by", "month")
    assert sum(r for r, _ in months.values()) == 9 and all(d.endswith("-01") for d in months) and len(months) in (12, 13)
    weeks = forecast(fleet, "--by", "week")
    assert all(datetime.date.fromisoformat(d).weekday() == 0 for d in weeks) and sum(r for r, _ in weeks.values()) == 9
    pages = [r for page in leader.stack.pages(f"/certs:forecast?template={fleet.template}&by=week&limit=10") for r in page]
    assert [r["date"] for r in pages] == list(weeks)


def test_what_lives_a_day_renews_every_day(leader):
    fleet = Fleet(leader, Validity="1d", RenewBefore="16h")  # every 12 hours
    fleet.device(0.9)
    rows = forecast(fleet)
    assert {renewals for d, (renewals, _) in rows.items() if day(1) < d < day(365)} == {2}


def test_an_operator_of_another_product_sees_none_of_it(fleet):
    fleet.device(5)
    stack, name = fleet.stack, unique("elsewhere")
    stack.v1("POST", "/products", {"name": name})
    token = stack.v1("POST", "/admin-tokens", {"name": unique("viewer"), "role": "viewer", "product": name})["token"]
    asked = f"/certs:expiring?product=pump&template={fleet.template}&seconds=864000"
    assert [r["product"] for r in stack.v1("GET", asked)] == ["pump"] and stack.v1("GET", asked + "&silent_s=86400") == []
    assert {r["ends"] for r in stack.v1("GET", "/certs:forecast?product=" + name)} == {0}
    assert stack.v1("GET", "/certs:expiring", token=token) == []
    assert {r["renewals"] for r in stack.v1("GET", "/certs:forecast", token=token)} == {0}
