"""The clock of a replica jumps by days and back."""
import glob
import time

import pytest

from place import Load, Place, Second, measured
from stack import wait_for

LIBRARY = "/usr/lib/*/faketime/libfaketimeMT.so.1"


class Dreaming(Second):
    """Its wall clock is what a file says; the monotonic one is not touched, as when a clock is set."""

    def __init__(self, first, folder):
        super().__init__(first, folder)
        self.clock = folder / "clock"
        self.step("+0")
        (library,) = glob.glob(LIBRARY)
        self.prefix = ["env", f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={self.clock}", "FAKETIME_NO_CACHE=1",
                       "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1"]

    def step(self, offset):
        self.clock.write_text(offset + "\n")


class Pair(Place):
    def make_second(self):
        return Dreaming(self.first, self.folder / "second")


MISDATED = "SELECT count(*) FROM certificate WHERE abs(extract(epoch FROM not_before - issued_at)) > 3600"


@pytest.mark.parametrize("offset", ["+2d", "-2d", "+90"])
def test_the_clock_of_a_replica_is_stepped(tmp_path_factory, offset):
    with Pair(tmp_path_factory.mktemp("clock")) as place:
        with Load(place, f"clock {offset}", tries=10) as load:
            step_and_back(place, load, offset)
        assert load.told() <= {"server.clock_wrong", "load.overloaded", "device.busy"}, load.result["outcomes"]
        assert place.first.one(MISDATED) == 0


def step_and_back(place, load, offset):
    replica = place.second
    assert replica.ready() == 200
    replica.step(offset)
    began = time.monotonic()
    wait_for("the replica to say that it is not ready", lambda: replica.ready() == 503)
    measured(f"clock {offset}: the replica says it is not ready after", time.monotonic() - began)
    load.go_on(60)
    replica.step("+0")
    began = time.monotonic()
    wait_for("the replica to be ready", lambda: replica.ready() == 200)
    measured(f"clock {offset}: the replica is ready after it is set right", time.monotonic() - began)
    load.go_on()
