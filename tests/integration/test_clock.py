"""A server whose clock is not PostgreSQL's: here PostgreSQL's is behind, by libfaketime. tests/drills steps a server's."""
import glob
import re
import signal

import pytest

from client import Device, request
from stack import Refused, Stack, shell, wait_for


class Behind(Stack):
    def pg_start(self):
        (library,) = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
        # around the server alone: below a shell its programs take the library's semaphore from each other
        shell(f'pg_start "{self.folder}/pg" {self.pg_port}', PG_OPTIONS="-c fsync=off",
              MUSTER_PG_ENV=f"LD_PRELOAD={library} FAKETIME=-300s FAKETIME_DONT_FAKE_MONOTONIC=1")


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    with Behind(tmp_path_factory.mktemp("behind")) as stack:
        stack.seed()
        yield stack


def ahead_s(stack):
    return stack.metric("muster_clock_ahead_seconds")


def allow_skew(stack, seconds):
    stack.configure(enrol__max_clock_skew_s=seconds)
    stack.process.send_signal(signal.SIGHUP)
    status = 200 if seconds == 0 or seconds > 300 else 503
    wait_for("the reload", lambda: request(stack, "GET", "/readyz")[0] == status)


def test_nothing_is_judged_or_signed_by_a_wrong_clock(behind):
    assert 299 < ahead_s(behind) < 310
    allow_skew(behind, 0)
    verified = Device(behind, token=behind.mint("open"))
    verified.enrol()
    allow_skew(behind, 299)
    before = behind.one("SELECT count(*) FROM history")
    token = behind.mint("open")
    late = Device(behind, token=token)
    for ask in (late.enrol, verified.renew, verified.config):
        with pytest.raises(Refused) as e:
            ask()
        assert (e.value.status, e.value.code) == (503, "server.clock_wrong") and 1 <= int(e.value.headers["retry-after"]) <= 60
        assert re.search(r"clock is 30\d s ahead of the registry's", e.value.problem["detail"])
    with pytest.raises(Refused) as e:
        behind.v1("POST", "/claims", {"name": "late", "template": "claimed"})
    assert e.value.code == "server.clock_wrong"
    assert behind.one("SELECT count(*) FROM history") == before, "that says nothing of the device"
    allow_skew(behind, 400)
    late.enrol()
    verified.config()
    verified.renew()


def test_a_clock_that_is_right(stack):
    assert abs(ahead_s(stack)) < 2
