"""W3C traceparent, and the one id that joins answer, log record, trail and explain."""
import base64
import http.client
import re

import pytest

from client import EST, Device, basic, new_csr, new_key, request, tls_context, unique
from stack import wait_for

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def record_of(stack, headers):
    """The log record of an answer; it is written once the answer is out."""
    number = headers["muster-request-id"]

    def find():
        return [r for r in stack.log_records() if r["event"] == "request" and r["request_id"] == number]
    (record,) = wait_for("the log record", find)
    return record


@pytest.mark.parametrize("listener", ["device", "admin"])
def test_a_trace_goes_on_under_a_span_of_ours(stack, listener):
    port = stack.admin_port if listener == "admin" else stack.port
    _, headers, _ = request(stack, "GET", "/healthz", headers={"TraceParent": f"00-{TRACE}-{SPAN}-01"}, port=port)
    version, trace, span, flags = headers["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert re.fullmatch("[0-9a-f]{16}", span) and span != SPAN
    record = record_of(stack, headers)
    assert (record["trace_id"], record["span_id"], record["parent_span_id"]) == (TRACE, span, SPAN)
    assert record["listener"] == listener


def test_a_refusal_carries_it_too(stack):
    status, headers, _ = request(stack, "GET", "/nowhere", headers={"traceparent": f"cc-{TRACE}-{SPAN}-02-later"})
    assert status == 404 and headers["traceparent"].startswith(f"00-{TRACE}-") and headers["traceparent"].endswith("-00")
    assert record_of(stack, headers)["protocol"] == "none"


@pytest.mark.parametrize("value", [f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{SPAN}-01",
                                   f"00-{TRACE}-{SPAN}-01-more", f"00-{TRACE.upper()}-{SPAN}-01", "", "x" * 300])
def test_what_is_no_traceparent_is_ignored(stack, value):
    status, headers, _ = request(stack, "GET", "/healthz", headers={"traceparent": value})
    assert status == 200 and "traceparent" not in headers
    assert "trace_id" not in record_of(stack, headers)


def test_two_traceparents_are_none(stack):
    c = http.client.HTTPSConnection("127.0.0.1", stack.port, context=tls_context(stack), timeout=30)
    c.putrequest("GET", "/healthz")
    for span in (SPAN, SPAN[::-1]):
        c.putheader("traceparent", f"00-{TRACE}-{span}-01")
    c.endheaders()
    answer = c.getresponse()
    assert answer.status == 200 and answer.getheader("traceparent") is None
    c.close()


def test_one_id_joins_answer_log_trail_and_explain(stack):
    serial, token = unique(), stack.mint("open")
    body = base64.b64encode(new_csr(new_key(), serial))
    status, headers, answer = request(stack, "POST", f"{EST}/open/simpleenroll", body, {
        "Content-Type": "application/pkcs10", "Authorization": basic(serial, token), "traceparent": f"00-{TRACE}-{SPAN}-00"})
    assert status == 200
    number = headers["muster-request-id"]
    record = record_of(stack, headers)
    assert (record["protocol"], record["credential"], record["serial"], record["outcome"]) == ("est", "token", serial, "ok")
    assert record["template"].startswith("open@")
    assert (record["bytes_in"], record["bytes_out"]) == (len(body), len(answer))
    assert record["trace_id"] == TRACE
    assert stack.one("SELECT serial FROM history WHERE request_id = %s", number) == serial
    assert f"for serial {serial}" in stack.cli("explain", number).stdout


def test_a_refused_one_is_joined_as_well(stack):
    device = Device(stack, token="mst_wrong")
    status, headers, _ = request(stack, "POST", f"{EST}/open/simpleenroll", base64.b64encode(new_csr(device.key, device.serial)),
                                 {"Content-Type": "application/pkcs10", "Authorization": basic(device.serial, "mst_wrong")})
    assert status == 403
    record = record_of(stack, headers)
    assert record["outcome"] == "token.unknown" and record["told"] == "enrol.refused"
    assert stack.one("SELECT outcome FROM history WHERE request_id = %s", headers["muster-request-id"]) == "token.unknown"
