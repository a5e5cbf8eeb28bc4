"""Replicas that end, wanted or not."""
import time

from place import Load, end_hard, measured
from stack import wait_for


def come_back(place, replica):
    """It listens where it did before, or the balancer would not find it."""
    host, port = place.addresses()[place.replicas.index(replica)].rsplit(":", 1)
    replica.configure(listen__device_port=port, **({"listen__device_address": host}))
    began = time.monotonic()
    replica.start()
    wait_for("it to be ready", lambda: replica.ready() == 200)
    return time.monotonic() - began


def test_a_replica_is_killed(place):
    with Load(place, "replica killed") as load:
        end_hard(place.second)
        load.go_on(60)
        measured("replica killed: ready again after its start", come_back(place, place.second))
        load.go_on()


def test_both_replicas_are_restarted_one_after_the_other(place):
    with Load(place, "rolling restart", tries=1, powerloss=0) as load:
        for replica in place.replicas:
            began = time.monotonic()
            at = place.replicas.index(replica)
            assert replica.stop() == 0
            measured(f"rolling restart: replica {at + 1} drained", time.monotonic() - began)
            load.go_on()
            come_back(place, replica)
            load.go_on()
    assert load.troubles() == 0, load.result["outcomes"]
