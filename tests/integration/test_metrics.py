"""GET /metrics: the text format, and numbers that move as they should."""
import http.client
import re
import subprocess
import time

import pytest

from client import Device, request, tls_context
from stack import ROOT, Refused


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
        m = re.fullmatch(r'([a-z_]+(?:\{[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*\})?) (-?[0-9.]+(?:e[+-][0-9]+)?)', line)
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

    assert grew('muster_requests_total{listener="device",protocol="est",outcome="ok"}') == 1
    assert grew('muster_requests_total{listener="device",protocol="est",outcome="token.unknown"}') == 1
    assert grew('muster_step_seconds_count{step="record"}') == 2
    assert grew('muster_request_seconds_count{protocol="est"}') == 2
    assert grew('muster_connections_total{listener="device"}') == 2
    assert grew('muster_database_statement_seconds_count{kind="enrol_batch"}') == 2
    assert grew('muster_commit_batch_size_sum') == 2 and grew('muster_commit_batch_size_count') == 2
    assert grew('muster_database_wait_seconds_count') > 2
    assert grew('muster_devices{state="VERIFY"}') == 1
    assert after['muster_gate_waiting{listener="device"}'] == 0
    assert after['muster_gate_max_inside{listener="device"}'] == 32
    assert after['muster_issuer_not_after_timestamp_seconds{issuer="issuing-1"}'] - time.time() > 3000 * 86400
    live = stack.one("SELECT count(*) FROM certificate WHERE status IN ('pending', 'current')")
    assert sum(after[f'muster_certificates{{expires="{b}"}}'] for b in ("expired", "7d", "30d", "90d", "more")) == live


def test_protocols_are_told_apart(stack):
    before = values(scrape(stack))
    request(stack, "GET", "/healthz")
    request(stack, "GET", "/v1/device/config")
    request(stack, "POST", "/v1/enroll", b"{}", {"Content-Type": "application/json"})
    request(stack, "GET", "/nowhere")
    after = values(scrape(stack))
    for labels in ('protocol="health",outcome="ok"', 'protocol="config",outcome="auth.required"',
                   'protocol="json",outcome="request.malformed"', 'protocol="none",outcome="request.not_found"'):
        name = f'muster_requests_total{{listener="device",{labels}}}'
        assert after[name] - before.get(name, 0) == 1, name
    assert after['muster_requests_total{listener="admin",protocol="admin",outcome="ok"}'] > 0
    # a protocol that came and never succeeded has a zero, so that a rule can see that nothing succeeds
    assert 'muster_requests_total{listener="device",protocol="json",outcome="ok"}' in after


def test_connections_and_the_process(fresh):
    c = http.client.HTTPSConnection("127.0.0.1", fresh.port, context=tls_context(fresh), timeout=30)
    c.request("GET", "/healthz")
    c.getresponse().read()
    seen = values(scrape(fresh))
    assert seen['muster_connections_open{listener="device"}'] == 1
    c.close()
    assert values(scrape(fresh))["process_start_time_seconds"] == seen["process_start_time_seconds"]
    assert abs(seen["process_start_time_seconds"] - time.time()) < 600
    assert seen["process_resident_memory_bytes"] > 1 << 20 and 5 < seen["process_open_fds"] < seen["process_max_fds"]
    assert seen["muster_catalog_epoch"] > 0 and seen["muster_catalog_age_seconds"] < 5
    assert seen["muster_database_up"] == 1


def test_promtool_finds_nothing_to_say(stack):
    Device(stack, token=stack.mint("open")).enrol()
    done = subprocess.run(["promtool", "check", "metrics"], input=scrape(stack), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def metric_names(text):
    """Names of series: a histogram's are those with a suffix."""
    return {re.match(r"[a-z_]+", line).group(0) for line in text.splitlines() if line and not line.startswith("#")}


def test_rules_and_documents_name_metrics_that_exist(stack):
    Device(stack, token=stack.mint("open")).enrol()
    text = scrape(stack)
    exist = metric_names(text)
    named = re.compile(r"\b(?:muster|process)_[a-z_]+")
    rules = (ROOT / "deploy/prometheus/muster.rules.yml").read_text()
    expressions = "\n".join(re.findall(r"expr: (.+)", rules))
    families = set(re.findall(r"# TYPE (\S+)", text))
    assert set(named.findall(expressions)) - exist - families == set()  # some have values only where a broker or a webhook is
    documented = set(named.findall((ROOT / "docs/operations.md").read_text()))
    assert families - documented == set()
    assert documented - families - exist == set()


def test_histograms_add_up(stack):
    text = scrape(stack)
    for name in re.findall(r'muster_request_seconds_count\{protocol="(\w+)"\}', text):
        buckets = [int(n) for n in re.findall(rf'muster_request_seconds_bucket\{{protocol="{name}",le="[^"]+"\}} (\d+)', text)]
        assert buckets == sorted(buckets)
        assert f'muster_request_seconds_count{{protocol="{name}"}} {buckets[-1]}\n' in text


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


def test_the_scrape_token_needs_no_registry(fresh):
    fresh.stop()
    secret = fresh.folder / "scrape"
    secret.write_text("scrape-me-0123456789\n")
    secret.chmod(0o600)
    fresh.configure(admin__metrics_token_file=secret)
    fresh.start()
    assert values(scrape(fresh, "scrape-me-0123456789"))["muster_database_up"] == 1
    assert request(fresh, "GET", "/admin/v1/whoami", headers={"Authorization": "Bearer scrape-me-0123456789"}, port=fresh.admin_port)[0] == 401
    with pytest.raises(Refused) as e:
        scrape(fresh, "scrape-me-012345678")
    assert e.value.status == 401
    fresh.pg_stop("immediate")
    away = values(scrape(fresh, "scrape-me-0123456789"))
    assert away["muster_database_up"] == 0
    assert away["muster_database_connect_failures_total"] > 0
    assert "muster_devices_verify_overdue" not in away
    fresh.pg_start()
