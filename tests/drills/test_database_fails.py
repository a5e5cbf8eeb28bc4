"""PostgreSQL that stalls, dies, fills its disk, or hands over to its standby."""
import signal
import threading
import time

from place import TOLD, Load, measured
from stack import wait_for

def test_postgresql_is_paused(place):
    with Load(place, "PostgreSQL paused 3 s") as load:
        place.first.pg_signal(signal.SIGSTOP)
        threading.Event().wait(3)
        place.first.pg_signal(signal.SIGCONT)
        measured("PostgreSQL paused 3 s: a second's worth enrolled again after", load.go_on())
    assert load.told() <= TOLD, load.result["outcomes"]


def test_every_connection_to_postgresql_is_cut(place):
    with Load(place, "connections cut for 2 s") as load:
        end = time.monotonic() + 2
        cut = 0
        while time.monotonic() < end:
            cut += place.first.one("SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'musterd'")
        assert cut > 20
        measured("connections cut for 2 s: a second's worth enrolled again after", load.go_on())
    assert load.told() <= TOLD, load.result["outcomes"]


def test_postgresql_is_killed(place):
    with Load(place, "PostgreSQL killed") as load:
        place.first.pg_kill()
        began = time.monotonic()
        wait_for("the replicas to notice", lambda: {r.ready() for r in place.replicas} == {503})
        place.first.pg_start()
        measured("PostgreSQL killed: it accepts connections again after", time.monotonic() - began)
        wait_for("the replicas to be ready", lambda: {r.ready() for r in place.replicas} == {200})
        measured("PostgreSQL killed: the replicas are ready after", time.monotonic() - began)
        load.go_on()
    assert load.told() <= TOLD, load.result["outcomes"]
