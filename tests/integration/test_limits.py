"""Rate limits: a queue that smooths, refusals that spread, a share for renewals, one limit for all replicas."""
import base64
import http.client
import json
import signal
import threading
import time

import pytest

from client import Device, EST, basic, certs_of, new_csr, new_key, request, tls_context, unique
from stack import TEMPLATES, Refused, wait_for
from test_metrics import scrape, values
from replica import Replica

LATE_S = 0.25  # from the passing to the commit that is counted, under a sanitizer on a busy machine


def limited(stack, name, per_second, burst=None, **more):
    """A template like `open` with a rate."""
    document = json.loads((TEMPLATES / "open.json").read_text())
    document["Muster"]["Rate"] = {"PerSecond": per_second, **({"Burst": burst} if burst else {}), **more}
    stack.v1("PUT", f"/templates/{name}?product=pump", document)
    return stack.mint(name, uses=100000)


def restarted(stack, **limits):
    stack.stop()
    stack.configure(**{f"limits__{k}": v for k, v in limits.items()})
    stack.start()
    return stack


class Fixture:
    """Devices that share one connection: a place in the factory."""

    def __init__(self, stack, template, token):
        self.template, self.token = template, token
        self.c = http.client.HTTPSConnection("127.0.0.1", stack.port, context=tls_context(stack), timeout=60)
        self.c.connect()

    def prepare(self):
        serial = unique("rate")
        return serial, base64.b64encode(new_csr(new_key(), serial))

    def send(self, serial, csr):
        """(status, Retry-After, code, seconds)"""
        began = time.monotonic()
        self.c.request("POST", f"{EST}/{self.template}/simpleenroll", csr,
                       {"Content-Type": "application/pkcs10", "Authorization": basic(serial, self.token)})
        answer = self.c.getresponse()
        body = answer.read()
        if answer.status == 200:
            assert len(certs_of(body)) == 1
            return 200, None, "ok", time.monotonic() - began
        return answer.status, answer.getheader("Retry-After"), json.loads(body)["code"], time.monotonic() - began


def at_once(stacks, template, token, count):
    """One device each on connections that stand already."""
    places = [Fixture(stacks[n % len(stacks)], template, token) for n in range(count)]
    prepared = [p.prepare() for p in places]
    answers, barrier = [], threading.Barrier(count)

    def run(place, device):
        barrier.wait()
        answers.append(place.send(*device))

    in_threads(run, zip(places, prepared))
    return answers


def in_threads(run, arguments):
    threads = [threading.Thread(target=run, args=a) for a in arguments]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


def hammer(stacks, template, token, threads, seconds):
    """Devices one after another from each thread, without a pause; the answers."""
    answers, end = [], time.monotonic() + seconds

    def run(n):
        place = Fixture(stacks[n % len(stacks)], template, token)
        while time.monotonic() < end:
            answers.append(place.send(*place.prepare()))

    in_threads(run, [(n,) for n in range(threads)])
    return answers


def issued(stack, template):
    rows = stack.sql("SELECT extract(epoch FROM c.issued_at)::float8 FROM certificate c JOIN device d ON d.id = c.device_id"
                     " JOIN template t ON t.id = d.template_id WHERE t.name = %s ORDER BY 1", template)
    return [row[0] for row in rows]


def assert_bound(times, per_second, burst):
    for i, first in enumerate(times):
        for k in range(i, len(times)):
            assert k - i + 1 <= per_second * (times[k] - first + LATE_S) + burst, (i, k)
    for second in range(int(times[0]), int(times[-1]) + 1):
        assert sum(second <= t < second + 1 for t in times) <= per_second + burst


def test_a_burst_is_smoothed(fresh):
    token = limited(fresh, "smooth", 50)
    answers = at_once([fresh], "smooth", token, 200)
    assert [a for a in answers if a[0] != 200] == []
    assert max(a[3] for a in answers) < 6
    assert_bound(issued(fresh, "smooth"), 50, 50)
    m = values(scrape(fresh))
    assert m['muster_limit_waits_total{kind="template"}'] > 100
    assert m['muster_limit_refusals_total{kind="template"}'] == 0
    assert m["muster_limit_waiting"] == 0
    assert m['muster_limit_leases_total{kind="template"}'] < 100


def test_two_replicas_keep_one_limit(fresh, tmp_path):
    token = limited(fresh, "shared", 20, 30)
    with Replica(fresh, tmp_path) as second:
        answers = hammer([fresh, second], "shared", token, 24, 8)
        leases = [values(scrape(s))['muster_limit_leases_total{kind="template"}'] for s in (fresh, second)]
    assert min(leases) > 0
    times = issued(fresh, "shared")
    assert len(times) == sum(a[0] == 200 for a in answers)
    assert_bound(times, 20, 30)
    steady = [t for t in times if times[0] + 2 <= t < times[0] + 7]
    assert len(steady) >= 0.8 * 20 * 5


def test_a_global_limit_is_for_all_templates(fresh):
    restarted(fresh, enrolments_per_second=10, burst=10)
    one, two = limited(fresh, "one", 100), limited(fresh, "two", 100)
    answers = []
    in_threads(lambda t, token: answers.extend(hammer([fresh], t, token, 6, 4)), [("one", one), ("two", two)])
    assert all(a[0] in (200, 429) for a in answers)
    times = sorted(issued(fresh, "one") + issued(fresh, "two"))
    assert_bound(times, 10, 10)
    assert len(times) >= 0.8 * 10 * 4


def test_past_the_queue_refusals_spread_and_consume_nothing(fresh):
    restarted(fresh, queue_wait_ms=200)
    token = limited(fresh, "narrow", 5, 5)
    answers = at_once([fresh], "narrow", token, 60)
    refused = [a for a in answers if a[0] != 200]
    assert len(refused) > 45
    assert {a[0] for a in refused} == {429} and {a[2] for a in refused} == {"load.rate_limited"}
    waits = sorted(int(a[1]) for a in refused)
    assert waits[0] >= 1
    # four slots a second are everybody's; the slower they are refused the fewer seconds lie between
    assert waits[-1] - waits[0] >= 6
    assert max(waits.count(w) for w in set(waits)) <= 8
    done = len(answers) - len(refused)
    assert fresh.one("SELECT uses FROM token WHERE max_uses = 100000") == done
    assert fresh.one("SELECT count(*) FROM device") == done
    assert fresh.one("SELECT count(*) FROM history WHERE outcome <> 'ok'") == 0


def test_a_refused_device_succeeds_later_and_is_not_counted(fresh):
    restarted(fresh, queue_wait_ms=100)
    limited(fresh, "once", 1, 4)
    place = Fixture(fresh, "once", fresh.mint("once", uses=1000))
    codes = [place.send(*place.prepare())[2] for _ in range(12)]
    serial = unique("once")
    d = Device(fresh, serial, "once", fresh.mint("once", serial=serial))
    assert set(codes) == {"ok", "load.rate_limited"}
    waited = 0
    while d.cert is None:
        try:
            d.enrol()
        except Refused as e:
            assert e.code == "load.rate_limited" and int(e.headers["retry-after"]) >= 1
            waited += 1
            assert waited < 2000
    assert fresh.device(serial)["failures"] == 0


def test_a_share_is_kept_for_renewals(fresh):
    restarted(fresh, renewal_share=30, queue_wait_ms=1000)
    token = limited(fresh, "busy", 10, 10)
    devices = []
    for _ in range(6):
        d = Device(fresh, template="busy", token=token)
        d.enrol()
        d.config()
        devices.append(d)
    flood = threading.Thread(target=hammer, args=([fresh], "busy", token, 24, 6))
    flood.start()
    while values(scrape(fresh))['muster_limit_refusals_total{kind="template"}'] < 5:
        assert flood.is_alive()
    took = []
    for d in devices:
        began = time.monotonic()
        d.renew(key=new_key())
        took.append(time.monotonic() - began)
    assert flood.is_alive()
    status = request(fresh, "GET", "/healthz")[0]
    assert status == 200 and fresh.v1("GET", "/products")
    flood.join()
    assert sorted(took)[3] < 0.8, took


def test_who_waits_is_in_nobodys_way(fresh):
    fresh.stop()
    fresh.configure(listen__max_inside=2, database__pool_size=2)
    fresh.start()
    token, free = limited(fresh, "slow", 2, 4), fresh.mint("open", uses=10)
    crowd = []
    waiting = threading.Thread(target=lambda: crowd.extend(at_once([fresh], "slow", token, 12)))
    waiting.start()
    while values(scrape(fresh))["muster_limit_waiting"] < 4:
        assert waiting.is_alive()
    place = Fixture(fresh, "open", free)
    assert place.send(*place.prepare())[0] == 200
    m = values(scrape(fresh))
    assert m["muster_limit_waiting"] > 2, "they waited all the while"
    assert m['muster_gate_inside{listener="device"}'] <= 2
    assert m["muster_database_connections_busy"] <= 1, "the scrape's own"
    waiting.join()
    assert [a[0] for a in crowd].count(200) >= 8
    assert values(scrape(fresh))['muster_gate_inside{listener="device"}'] == 0


def test_one_source_is_limited_in_each_replica(fresh):
    restarted(fresh, per_source_per_second=1, per_source_burst=3)
    place = Fixture(fresh, "open", fresh.mint("open", uses=100))
    answers = [place.send(*place.prepare()) for _ in range(8)]
    assert [a[0] for a in answers[:3]] == [200] * 3
    assert [a[2] for a in answers].count("load.rate_limited") >= 3
    assert values(scrape(fresh))['muster_limit_refusals_total{kind="source"}'] >= 3


def test_a_reload_changes_the_limits(fresh):
    place = Fixture(fresh, "open", fresh.mint("open", uses=1000))
    assert [place.send(*place.prepare())[0] for _ in range(5)] == [200] * 5
    fresh.configure(limits__per_source_per_second=1, limits__per_source_burst=1)
    fresh.process.send_signal(signal.SIGHUP)
    wait_for("the limit to hold", lambda: place.send(*place.prepare())[0] == 429)
    fresh.configure()
    fresh.process.send_signal(signal.SIGHUP)
    wait_for("its end", lambda: {place.send(*place.prepare())[0] for _ in range(5)} == {200})


def test_while_the_registry_is_away(fresh):
    token = limited(fresh, "away", 5)
    Device(fresh, template="away", token=token).enrol()
    fresh.pg_stop("immediate")
    for _ in range(3):
        with pytest.raises(Refused) as e:
            Device(fresh, template="away", token=token).enrol()
        assert e.value.code == "db.unavailable"
        assert int(e.value.headers["retry-after"]) >= 1
    fresh.pg_start()


@pytest.mark.parametrize("rate", [{"PerSecond": 0}, {"PerSecond": "5"}, {"Burst": 5}, {"PerSecond": 5, "Burst": 0}, {"PerSecond": 5, "Per": 1}, 5,
                                  {"PerSecond": 100001}])
def test_a_wrong_rate_is_refused_with_its_path(stack, rate):
    with pytest.raises(Refused) as e:
        stack.v1("PUT", "/templates/wrong?product=pump", {"Muster": {"Rate": rate}})
    assert e.value.code == "template.invalid"
    assert "$.Muster.Rate" in e.value.problem["detail"]


def test_the_line_of_slots_itself(stack):
    """Both lanes, the burst, what renewals leave to others, and a database clock that was set back."""
    def lease(line, renewal, ahead=0):
        return f"SELECT granted, gap_us, first_us - now_us, now_us FROM rate_lease('claim', {line}, {renewal}, 1000, 25000, 100000, 1750000, {ahead})"

    def lines():
        """Calls of one slot's time, after which there would be another: on a busy machine the first may have taken longer."""
        for line in range(10**12, 10**12 + 50):  # no claim's
            calls = [(False,), (False,), (False,), (True,), (True,), (False, 1000000), (False, 1000000)]
            got = stack.sql(" UNION ALL ".join(lease(line, *call) for call in calls))
            if got[-1][3] - got[0][3] < 25000:
                return line, [row[:3] for row in got]
        raise AssertionError("seven leases never took less than 25 ms")

    line, got = lines()
    assert got[0] == (71, 25000, -1750000)
    assert got[1] == (9, 100000, -1750000), "half the burst of the renewals' lane"
    assert got[2][0] == 0
    assert got[3][:2] == (9, 100000), "the other half is theirs"
    assert got[4][0] == 0
    assert got[5][:2] == (40, 25000) and 0 < got[5][2] <= 25000, "a queue of a second"
    assert got[6][0] == 0
    stack.sql("UPDATE rate_line SET common_us = common_us + 7200000000, renewal_us = renewal_us + 7200000000 WHERE kind = 'claim' AND id = %s", line)
    assert stack.one(lease(line, False))[:3] == (1, 25000, 0)
