"""Two replicas on one registry, and what outlives a restart."""
import threading

import pytest

from client import Device, fingerprint, new_key, unique
from replica import Replica
from stack import Refused, wait_for


@pytest.fixture
def pair(fresh, tmp_path):
    with Replica(fresh, tmp_path) as second:
        yield fresh, second


def at_both(pair, serial, template, token, keys):
    """Each key enrols at one replica or the other, all at once; certificates and codes."""
    answers, barrier = [], threading.Barrier(len(keys))

    def run(n, key):
        d = Device(pair[n % 2], serial, template, token)
        barrier.wait()
        try:
            answers.append(fingerprint(d.enrol(key=key)))
        except Refused as e:
            answers.append(e.code)

    threads = [threading.Thread(target=run, args=item) for item in enumerate(keys)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return answers


def test_one_serial_one_key_at_two_replicas(pair):
    serial, token = unique("both"), pair[0].mint("refuse", uses=32)
    answers = at_both(pair, serial, "refuse", token, [new_key()] * 32)
    assert len(set(answers)) == 1 and len(answers[0]) == 64
    assert pair[0].one("SELECT count(*) FROM certificate") == 1
    assert pair[0].one("SELECT uses FROM token WHERE max_uses = 32") == 1


def test_one_serial_many_keys_at_two_replicas(pair):
    serial, token = unique("both"), pair[0].mint("refuse", uses=32)
    answers = at_both(pair, serial, "refuse", token, [new_key() for _ in range(32)])
    assert answers.count("device.key_conflict") == 31
    assert pair[0].one("SELECT count(*) FROM certificate WHERE status = 'pending'") == 1


def test_the_uses_of_a_token_hold_across_replicas(pair):
    token = pair[0].mint("open", uses=10)
    results, lock = [], threading.Lock()

    def run(n):
        try:
            Device(pair[n % 2], token=token).enrol()
            good = True
        except Refused:
            good = False
        with lock:
            results.append(good)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(30)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results.count(True) == 10


def test_a_change_at_one_replica_is_seen_by_the_other(pair):
    first, second = pair
    Device(second, token=first.mint("open")).enrol()
    first.v1("PUT", "/templates/newest?product=pump", {"Muster": {"Allowlist": "optional"}})
    token = first.mint("newest", uses=5)

    def enrol():
        try:
            return Device(second, template="newest", token=token).enrol()
        except Refused as e:
            assert e.code == "template.unknown"
            return None

    wait_for("the template at the other replica", enrol, 5)
    first.cli("template", "disable", "newest")

    def refused():
        try:
            Device(second, template="newest", token=token).enrol()
        except Refused as e:
            return e.code == "template.unknown"
        return False

    wait_for("its end at the other replica", refused, 5)


def test_tokens_and_revocations_outlive_a_restart(fresh):
    token = fresh.mint("open", uses=3)
    d = Device(fresh, token=token)
    d.enrol()
    fresh.v1("POST", f"/certs/{fingerprint(d.cert)}/revoke")
    fresh.stop()
    fresh.start()
    with pytest.raises(Refused) as e:
        d.config()
    assert e.value.code == "cert.revoked"
    Device(fresh, token=token).enrol()
