"""musterd at the broker: requests by MQTT, the trail of what claims try, and a table of certificates that follows the registry."""
import contextlib
import json
import time

import pytest
from cryptography import x509

from broker import REFUSED, Credential
from claims import csr_pem
from client import Device, fingerprint, name_of, new_key, unique
from fleet import Client, joined
from mqtt import Closed
from replica import Replica
from stack import free_port, wait_for
from test_metrics import scrape, values
from test_swarm import result, swarm

FROM_CSR = "$aws/certificates/create-from-csr/json"
REGISTER = "$aws/provisioning-templates/claimopen/provision/json"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A stack for this file: the session's has no broker."""
    with joined(tmp_path_factory.mktemp("mqtt")) as place:
        yield place


# requests

def provision(place, cert, key):
    """The two steps of AWS; the device's certificate and key, and the thing."""
    device_key, serial = new_key(), unique()
    with Client(place, cert, key) as c:
        kind, made = c.ask(FROM_CSR, {"certificateSigningRequest": csr_pem(device_key, name_of())})
        assert kind == "accepted", made
        kind, told = c.ask(REGISTER, {"certificateOwnershipToken": made["certificateOwnershipToken"], "parameters": {"SerialNumber": serial, "Region": "eu"}})
        assert kind == "accepted", told
    return x509.load_pem_x509_certificate(made["certificatePem"].encode()), device_key, serial, told["thingName"]


def test_a_device_provisions_itself_by_mqtt(place):
    cert, key, serial, thing = provision(place, *place.claim())
    place.admitted(cert, key, 5)
    assert place.stack.device(serial)["thing_name"] == thing
    wait_for("the first use to be noted", lambda: place.stack.state(serial) == "PROVISIONED")
    row = place.stack.one("SELECT protocol, credential FROM history WHERE serial = %s AND operation = 'verify'", serial)
    assert row == ("broker", "device")
    operations = {r[0] for r in place.stack.sql("SELECT operation FROM history WHERE protocol = 'mqtt' AND outcome = 'ok'")}
    assert operations >= {"CreateCertificateFromCsr", "RegisterThing"}


def test_a_rejection_is_answered_logged_and_counted(place):
    before = values(scrape(place.stack))
    with Client(place, *place.claim(), "a-client") as c:
        kind, told = c.ask(FROM_CSR, {"certificateSigningRequest": "nonsense"})
    assert (kind, told["statusCode"], told["errorCode"]) == ("rejected", 400, "InvalidCsr")
    (record,) = [r for r in place.stack.log_records() if r["event"] == "request" and r.get("client_id") == "a-client"]
    assert (record["listener"], record["protocol"], record["path"], record["outcome"], record["status"]) == ("mqtt", "mqtt", FROM_CSR, "csr.malformed", 400)
    assert record["source"] == "127.0.0.1" and record["bytes_in"] > 0 and record["bytes_out"] > 0 and record["us"] > 0 and "delivered" not in record
    assert record["request_id"] in told["errorMessage"]
    after = values(scrape(place.stack))
    name = 'muster_requests_total{listener="mqtt",protocol="fleet",outcome="csr.malformed"}'
    assert after[name] == before.get(name, 0) + 1
    assert after['muster_mqtt_answers_total{result="rejected"}'] == before['muster_mqtt_answers_total{result="rejected"}'] + 1
    assert after["muster_mqtt_queue_length"] == 0
    assert not any("mqtt" in n for n in after if n.startswith("muster_connections"))


def test_what_a_claim_may_not_is_in_the_trail(place):
    cert, key = place.claim()
    with Client(place, cert, key) as c:
        def noted():
            with contextlib.suppress(Closed):
                c.publish("dt/pump/7", b"data")
            return place.stack.sql("SELECT operation, credential, detail, source, claim IS NOT NULL FROM history WHERE outcome = 'claim.topic_denied' AND fingerprint = decode(%s, 'hex')",
                                   fingerprint(cert))
        assert wait_for("a row of the trail", noted)[0] == ("publish", "claim", "dt/pump/7", "127.0.0.1", True)


def test_requests_of_one_claim_leave_room_for_another(place):
    """A claim whose requests wait for its rate does not hold up the next one."""
    with place.changed(mqtt__workers=4, limits__queue_wait_ms=20000):
        place.stack.start()
        place.ready()
        slow, quick = place.claim(rate_per_second=1, rate_burst=1), place.claim()
        with Client(place, *slow) as c, Client(place, *quick) as other:
            for _ in range(12):
                c.publish(FROM_CSR, json.dumps({"certificateSigningRequest": csr_pem(new_key(), name_of())}).encode())
            wait_for("them to wait", lambda: place.metric("muster_limit_waiting") >= 2)
            began = time.monotonic()
            assert other.ask(FROM_CSR, {"certificateSigningRequest": csr_pem(new_key(), name_of())})[0] == "accepted"
            assert time.monotonic() - began < 5
            assert place.metric("muster_mqtt_queue_length") > 0, "the slow ones are still there"


def test_a_full_queue_is_told_so_at_once(place):
    with place.changed(mqtt__workers=1, mqtt__max_queued=1, limits__queue_wait_ms=20000):
        place.stack.start()
        place.ready()
        claim = place.claim(rate_per_second=1, rate_burst=1)
        with Client(place, *claim) as c:
            for kind in ("accepted", "rejected"):
                c.subscribe(f"{FROM_CSR}/{kind}", 0)
            for _ in range(10):
                c.publish(FROM_CSR, json.dumps({"certificateSigningRequest": csr_pem(new_key(), name_of())}).encode())
            m = c.message()
            while m.topic.endswith("accepted"):
                m = c.message()
            assert json.loads(m.payload)["statusCode"] == 503 and json.loads(m.payload)["errorCode"] == "ServiceUnavailable"
        assert place.metric('muster_requests_total{listener="mqtt",protocol="fleet",outcome="load.overloaded"}') > 0


def test_a_swarm_of_devices_by_mqtt(place, tmp_path):
    both = tmp_path / "cas.pem"
    both.write_bytes(place.stack.cafile.read_bytes() + place.broker.cafile.read_bytes())
    done = swarm(place.stack, tmp_path / "out", "run", "claims-mqtt", "--set", "devices=60", template="claimed",
                 MUSTER_CACERT=str(both), MUSTER_MQTT_HOST="127.0.0.1", MUSTER_MQTT_PORT=str(place.broker.port))
    assert done.returncode == 0, (done.stdout, done.stderr)
    r = result(tmp_path / "out")
    assert r["passed"] and r["failed"] == 0 and r["audit"]["clean"] and r["audit"]["held"] == 60


# the table

def test_an_enrolment_is_admitted_within_a_second(place):
    slowest = 0
    for _ in range(3):
        d = place.enrolled()
        began = time.monotonic()
        place.admitted(d.cert, d.key)
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 1.5, slowest  # with a connection's own time


def test_a_revoked_certificate_is_put_out(place):
    d = place.enrolled()
    place.admitted(d.cert, d.key)
    with Client(place, d.cert, d.key) as c:
        place.stack.cli("cert", "revoke", fingerprint(d.cert), "--reason", "privilegeWithdrawn")
        done = time.monotonic()
        c.ended()
        assert time.monotonic() - done < 2
    assert place.code(d.cert, d.key) == REFUSED


def test_deactivation_puts_out_and_activation_admits(place):
    d = place.enrolled()
    place.admitted(d.cert, d.key)
    with Client(place, d.cert, d.key) as c:
        place.stack.cli("cert", "deactivate", fingerprint(d.cert))
        done = time.monotonic()
        c.ended()
        assert time.monotonic() - done < 2
    assert place.code(d.cert, d.key) == REFUSED
    place.stack.cli("cert", "activate", fingerprint(d.cert))
    place.admitted(d.cert, d.key)


def test_quarantine_puts_out_and_release_admits(place):
    d = place.enrolled()
    place.admitted(d.cert, d.key)
    with Client(place, d.cert, d.key) as c:
        place.stack.cli("device", "quarantine", d.serial, "--reason", "test")
        done = time.monotonic()
        c.ended()
        assert time.monotonic() - done < 2
    place.refused(d.cert, d.key, 2)
    place.stack.cli("device", "release", d.serial)
    place.admitted(d.cert, d.key)


def test_the_gate_decides_without_the_registry(place):
    """PostgreSQL is away: who was in order is let in and publishes, who was not stays out."""
    good, bad = place.enrolled(), place.enrolled()
    place.admitted(good.cert, good.key)
    place.admitted(bad.cert, bad.key)
    place.stack.cli("cert", "revoke", fingerprint(bad.cert), "--reason", "keyCompromise")
    place.refused(bad.cert, bad.key, 2)
    place.stack.pg_stop("immediate")
    try:
        for _ in range(3):
            assert place.code(good.cert, good.key) == 0 and place.code(bad.cert, bad.key) == REFUSED
    finally:
        place.stack.pg_start()
    wait_for("the registry", lambda: place.stack.device(good.serial)["state"] == "PROVISIONED")


def test_musterd_restarts(place):
    d = place.enrolled()
    place.admitted(d.cert, d.key)
    loads = place.stack.log_text().count("gate.loaded")
    place.stack.stop()
    with Client(place, d.cert, d.key) as c:
        assert c.code == 0, "the broker knows its devices without musterd"
    place.stack.start()
    place.ready()
    e = place.enrolled()
    place.admitted(e.cert, e.key)
    assert place.stack.log_text().count("gate.loaded") == loads, "the table was there"


def test_what_changed_while_musterd_was_away_is_told(place):
    d = place.enrolled()
    place.admitted(d.cert, d.key)
    place.stack.stop()
    place.stack.sql("UPDATE certificate SET active = false WHERE fingerprint = decode(%s, 'hex')", fingerprint(d.cert))
    assert place.code(d.cert, d.key) == 0
    place.stack.start()
    place.refused(d.cert, d.key)


def test_the_broker_restarts(place):
    d = place.enrolled()
    place.admitted(d.cert, d.key)
    place.broker.stop()
    wait_for("musterd to notice", lambda: place.metric("muster_mqtt_connected") == 0)
    assert place.metric("muster_gate_ready") == 0
    wait_for("the table to grow old", lambda: place.metric("muster_gate_behind_seconds") > 1)
    e = place.enrolled()  # HTTPS goes on
    place.broker.start()
    place.admitted(d.cert, d.key)
    place.admitted(e.cert, e.key)
    events = [r["event"] for r in place.stack.log_records() if r["event"].startswith("mqtt.")]
    assert events[-2:] == ["mqtt.away", "mqtt.connected"] and place.metric("muster_gate_behind_seconds") == 0


def test_a_table_that_is_too_far_behind_is_loaded(place):
    d = place.enrolled()
    place.admitted(d.cert, d.key)
    loads = place.stack.log_text().count("gate.loaded")
    place.stack.stop()
    place.stack.sql("UPDATE gate_head SET pruned_through = pg_current_xact_id()")
    place.stack.start()
    wait_for("a load", lambda: place.stack.log_text().count("gate.loaded") == loads + 1)
    place.ready()
    place.admitted(d.cert, d.key)


def test_a_large_registry_is_loaded_in_batches(place):
    d = place.enrolled()
    place.stack.sql("""
        WITH devices AS (INSERT INTO device (product_id, serial, serial_canonical, state, template_id, template_version)
                SELECT d.product_id, 'many-' || n, 'many-' || n, 'PROVISIONED', d.template_id, 1 FROM device d, generate_series(1, 9000) n WHERE d.serial = %s RETURNING id)
        INSERT INTO certificate (fingerprint, device_id, purpose, status, issuer_id, serial_number, spki_sha256, not_before, not_after, template_id, template_version, request_id)
            SELECT sha256(d.id::text::bytea), d.id, 'operational', 'current', c.issuer_id, '\\x01' || int4send(d.id::integer), sha256(d.id::text::bytea), now(), now() + interval '1 day',
                c.template_id, 1, 'many' FROM devices d, certificate c WHERE c.fingerprint = decode(%s, 'hex')""", d.serial, fingerprint(d.cert))
    live = "SELECT count(*) FROM certificate c JOIN device d ON d.id = c.device_id WHERE gate_state(c, d) > 0"
    everything = place.stack.one(live) + place.stack.one("SELECT count(*) FROM claim")
    wait_for("the changes to be told", lambda: place.metric("muster_gate_entries") == everything)
    place.broker.restart()
    wait_for("the load", lambda: place.metric("muster_gate_ready") == 1 and place.metric("muster_gate_entries") == everything)


def test_two_replicas_feed_one_table(place, tmp_path):
    with contextlib.ExitStack() as stack:
        second = Replica(place.stack, tmp_path)
        second.configure(**place.settings())
        second.start()
        stack.callback(second.stop)
        place.ready(second)
        for n in range(6):
            d = place.enrolled()
            place.admitted(d.cert, d.key, 3)
        place.broker.restart()
        place.ready()
        place.ready(second)
        place.admitted(d.cert, d.key)
        place.stack.cli("cert", "revoke", fingerprint(d.cert), "--reason", "privilegeWithdrawn")
        place.refused(d.cert, d.key)
        claim = place.claim()
        answered = [provision(place, *claim) for _ in range(8)]
        assert len({a[2] for a in answered}) == 8
        both = [values(scrape(s)).get('muster_mqtt_answers_total{result="accepted"}') for s in (place.stack, second)]
        assert sum(both) >= 16 and min(both) > 0, "the broker shares the requests out"


def away(place, since):
    """The record of the log that says why there is no broker."""
    return wait_for("a word on it", lambda: next((r for r in place.stack.log_records()[since:] if r["event"] == "mqtt.away"), None))


def test_musterd_starts_without_a_broker(place):
    stack = place.stack
    with place.changed(mqtt__port=free_port()):
        since = len(stack.log_records())
        stack.start()
        assert away(place, since)["reason"]
        assert stack.admin("GET", "/readyz", raw=True)[0] == 200
        assert Device(stack, token=stack.mint("open")).enrol() is not None
        assert place.metric("muster_mqtt_connected") == 0
        wait_for("several attempts", lambda: place.metric("muster_gate_behind_seconds") > 3)
        assert [r["event"] for r in stack.log_records()[since:]].count("mqtt.away") == 1


@pytest.mark.parametrize("change", [{"mqtt__host": "localhost"}, {"mqtt__ca": "root"}], ids=["another name", "another CA"])
def test_another_broker_is_not_believed(place, change):
    with place.changed(**{k: place.stack.cafile if v == "root" else v for k, v in change.items()}):
        since = len(place.stack.log_records())
        place.stack.start()
        assert away(place, since)["reason"]
        assert place.metric("muster_mqtt_connected") == 0


def test_a_stranger_to_the_broker_says_so(place, tmp_path):
    stranger = Credential(tmp_path, place.services, "stranger")
    stranger.key_file.chmod(0o600)
    with place.changed(mqtt__certificate=stranger.cert_file, mqtt__key=stranger.key_file):
        since = len(place.stack.log_records())
        place.stack.start()
        assert "uthori" in away(place, since)["reason"]


@pytest.mark.parametrize("change,word", [({"mqtt__ca": ""}, "must be given"), ({"mqtt__key": "{open}"}, "0600")], ids=["no CA", "open key"])
def test_a_configuration_that_cannot_work_ends_the_start(place, tmp_path, change, word):
    open_key = tmp_path / "open.key"
    open_key.write_bytes(place.service.key_file.read_bytes())
    open_key.chmod(0o644)
    with place.changed(**{k: v.format(open=open_key) for k, v in change.items()}):
        for command in ("serve", "check-config"):
            done = place.stack.musterd(command, check=False)
            assert done.returncode == 1 and word in done.stderr, done.stderr
