"""Things go wrong under load: what devices notice, how long, and whether the registry still agrees with them."""
import threading
import time

import pytest

from containers import Load, all_healthy, containers, docker, healthy, inspect, kill_hard, measured, stack, wait_for


@pytest.fixture(autouse=True)
def well():
    """Each drill begins and ends with everything healthy."""
    wait_for("the stack to be well", all_healthy, 90)
    yield
    wait_for("the stack to be well again", all_healthy, 90)


def finish(load, what):
    measured(f"{what}: longest time without an answer", load.longest_gap(), "s")
    measured(f"{what}: devices enrolled", len(load.held), "")
    measured(f"{what}: tries that failed", len(load.troubles), "")
    load.audit()


def test_a_replica_is_killed():
    victim = containers("musterd")[0]
    began = time.monotonic()
    with Load("kill", tries=5) as load:
        before = inspect(victim)["RestartCount"]
        kill_hard(victim)
        load.go_on()
        wait_for("it to be restarted", lambda: inspect(victim)["RestartCount"] > before and healthy(victim), 60)
        measured("replica killed: healthy again", time.monotonic() - began, "s")
        load.go_on()
    assert load.given_up == []
    finish(load, "replica killed")


def test_a_replica_is_stopped_and_started():
    victim = containers("musterd")[0]
    with Load("stop", tries=1) as load:
        began = time.monotonic()
        docker("stop", "-t", "40", victim)
        measured("replica stopped: drained", time.monotonic() - began, "s")
        assert inspect(victim)["State"]["ExitCode"] == 0
        load.go_on()
        docker("start", victim)
        wait_for("it to be healthy", lambda: healthy(victim), 60)
        load.go_on()
    assert (load.given_up, load.troubles) == ([], [])
    finish(load, "replica stopped")


def test_the_replicas_are_rolled():
    before = {inspect(n)["Id"] for n in containers("musterd")}
    with Load("roll", tries=1) as load:
        began = time.monotonic()
        stack("roll")
        measured("rolling restart", time.monotonic() - began, "s")
        load.go_on()
    assert not before & {inspect(n)["Id"] for n in containers("musterd")}
    assert (load.given_up, load.troubles) == ([], [])
    finish(load, "rolling restart")


def test_postgresql_is_paused():
    (postgres,) = containers("postgres")
    with Load("pause", tries=5) as load:
        docker("pause", postgres)
        threading.Event().wait(3)
        docker("unpause", postgres)
        began = time.monotonic()
        load.go_on()
        measured("PostgreSQL paused 3 s: enrolling again", time.monotonic() - began, "s")
    assert load.given_up == []
    # the devices are told by Muster, not left alone by the balancer
    assert {what for _, what in load.troubles} <= {"503 db.unavailable", "503 load.overloaded"}
    finish(load, "PostgreSQL paused 3 s")


def test_postgresql_is_killed():
    (postgres,) = containers("postgres")
    with Load("crash", tries=5) as load:
        began, before = time.monotonic(), inspect(postgres)["RestartCount"]
        kill_hard(postgres)
        wait_for("it to be restarted", lambda: inspect(postgres)["RestartCount"] > before and healthy(postgres), 60)
        load.go_on()
        measured("PostgreSQL killed: enrolling again", time.monotonic() - began, "s")
    assert load.given_up == []
    finish(load, "PostgreSQL killed")


def test_postgresql_is_unplugged():
    (postgres,) = containers("postgres")
    network = next(n for n in inspect(postgres)["NetworkSettings"]["Networks"])
    with Load("plug", tries=5) as load:
        docker("network", "disconnect", network, postgres)
        threading.Event().wait(3)
        docker("network", "connect", "--alias", "postgres", network, postgres)
        began = time.monotonic()
        load.go_on()
        measured("PostgreSQL unplugged 3 s: enrolling again", time.monotonic() - began, "s")
    assert load.given_up == []
    finish(load, "PostgreSQL unplugged 3 s")
