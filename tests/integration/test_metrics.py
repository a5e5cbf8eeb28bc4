"""GET /metrics: the text format, and numbers that move as they should."""
import re

import pytest

from client import Device, request
from stack import Refused


def scrape(stack, token=None):
    status, headers, body = request(stack, "GET", "/metrics", headers={"Authorization": f"Bearer {token or stack.token}"}, port=stack.admin_port)
    if status != 200:
        raise Refused(status, headers, body)
    assert headers["content-type"] == "text/plain; version=0.0.4"
    return body.decode()


def values(text):
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP [a-z_]+ .+|TYPE [a-z_]+ (counter|gauge|histogram))", line), line
            continue
        m = re.fullmatch(r'([a-z_]+(?:\{[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*\})?) (-?[0-9.]+)', line)
        assert m, line
        assert m.group(1) not in found, line
        found[m.group(1)] = float(m.group(2))
    return found


def test_requests_and_steps_are_counted(stack):
    before = values(scrape(stack))
    Device(stack, token=stack.mint("open")).enrol()
    with pytest.raises(Refused):
        Device(stack, token="mst_wrong").enrol()
    after = values(scrape(stack))

    def grew(name):
        return after[name] - before.get(name, 0)

    assert grew('muster_requests_total{listener="device",outcome="ok"}') == 1
    assert grew('muster_requests_total{listener="device",outcome="token.unknown"}') == 1
    assert grew('muster_step_seconds_count{step="record"}') == 2
    assert grew('muster_request_seconds_count{listener="device"}') == 2
    assert grew('muster_devices{state="VERIFY"}') == 1
    assert after['muster_gate_waiting{listener="device"}'] == 0
    assert after['muster_issuer_days_left{issuer="issuing-1"}'] > 3000


def test_histograms_add_up(stack):
    text = scrape(stack)
    for name in re.findall(r'muster_request_seconds_count\{listener="(\w+)"\}', text):
        buckets = [int(n) for n in re.findall(rf'muster_request_seconds_bucket\{{listener="{name}",le="[^"]+"\}} (\d+)', text)]
        assert buckets == sorted(buckets)
        assert f'muster_request_seconds_count{{listener="{name}"}} {buckets[-1]}\n' in text


def test_who_may_look(stack):
    with pytest.raises(Refused) as e:
        scrape(stack, "mat_wrong")
    assert e.value.status == 401
    scoped = stack.v1("POST", "/admin-tokens", {"name": "metrics-scoped", "role": "admin", "product": "pump"})["token"]
    with pytest.raises(Refused) as e:
        scrape(stack, scoped)
    assert e.value.code == "admin.forbidden"
    assert request(stack, "GET", "/metrics")[0] == 404


def test_a_scrape_while_the_registry_is_away(fresh):
    assert "muster_devices_verify_overdue" in scrape(fresh)
    fresh.pg_stop("immediate")
    with pytest.raises(Refused) as e:
        scrape(fresh)
    assert e.value.code == "db.unavailable"
    fresh.pg_start()
