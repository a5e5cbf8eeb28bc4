"""One identity, whatever happens: a test for each sentence of that section of the design."""
import re
import threading

import psycopg2
import pytest

from client import Device, fingerprint, name_of, new_key, spki_sha256, unique
from factory import Authority
from stack import Refused, Stack


def refused(code, call, *args, **kw):
    with pytest.raises(Refused) as e:
        call(*args, **kw)
    assert e.value.code == code, e.value
    return e.value


def why(stack, serial):
    """The reason that only the operator sees."""
    return stack.last_attempt(serial)[0]


def expire_grace(stack, serial):
    """Puts the use of its token and the issuing of its certificates into the past."""
    stack.sql("UPDATE token_use u SET used_at = used_at - interval '2 hours' FROM device d WHERE d.id = u.device_id AND d.serial = %s", serial)
    stack.sql("UPDATE certificate c SET issued_at = issued_at - interval '2 hours' FROM device d WHERE d.id = c.device_id AND d.serial = %s", serial)


@pytest.fixture(scope="module")
def maker(stack):
    """A registered factory CA."""
    ca = Authority("Maker CA")
    ca.register(stack, "maker")
    return ca


# identity

def test_the_serial_is_kept_as_given_and_compared_in_its_canonical_form(stack):
    token = stack.mint("folded", uses=5)
    first = Device(stack, serial="ab-12:cd", template="folded", token=token)
    cert = first.enrol()
    again = Device(stack, serial="AB12.CD", template="folded", token=token)
    again.key = first.key
    assert fingerprint(again.enrol(subject="ab-12:cd")) == fingerprint(cert)
    rows = stack.sql("SELECT serial, serial_canonical FROM device WHERE serial_canonical = 'AB12CD'")
    assert rows == [("ab-12:cd", "AB12CD")]


def test_the_rule_of_serials_is_the_same_in_c_and_in_the_schema(stack):
    token = stack.mint("folded", uses=20)
    for serial in ("a.b", "x_y-z:1", "MiXeD.09", "q"):
        Device(stack, serial=serial, template="folded", token=token).enrol()
        same = stack.one("SELECT serial_canonical(p, d.serial) = d.serial_canonical FROM device d JOIN product p ON p.id = d.product_id WHERE d.serial = %s", serial)
        assert same


def test_the_same_serial_in_two_products_is_two_devices(stack):
    serial = unique("twin")
    Device(stack, serial=serial, template="open", token=stack.mint("open")).enrol()
    Device(stack, serial=serial, template="folded", token=stack.mint("folded")).enrol()
    assert len(stack.sql("SELECT 1 FROM device WHERE lower(serial) = lower(%s)", serial)) == 2
    refused("device.ambiguous", stack.device, serial)
    assert stack.device(serial, product="pump")["product"] == "pump"


@pytest.mark.parametrize("serial", ["", "x" * 65, "a b", "ü", "a/b", "a;b"])
def test_length_and_charset_of_serials(stack, serial):
    d = Device(stack, serial=serial or "-", template="open", token=stack.mint("open"))
    d.serial = serial
    e = refused("serial.malformed", d.enrol, subject=serial or "a b")
    assert e.status == 400
    with pytest.raises(psycopg2.errors.CheckViolation):
        stack.sql("INSERT INTO device (product_id, serial, serial_canonical, state, template_id, template_version)"
                  " SELECT p.id, %s, %s, 'UNPROVISIONED', t.id, 1 FROM product p JOIN template t ON t.product_id = p.id LIMIT 1", serial, serial)


def test_uniqueness_is_in_the_schema(stack):
    serial = unique()
    Device(stack, serial=serial, token=stack.mint("open")).enrol()
    with pytest.raises(psycopg2.errors.UniqueViolation):
        stack.sql("INSERT INTO device (product_id, serial, serial_canonical, state, template_id, template_version)"
                  " SELECT product_id, serial, serial_canonical, 'UNPROVISIONED', template_id, 1 FROM device WHERE serial = %s", serial)
    with pytest.raises(psycopg2.errors.CheckViolation):
        stack.sql("UPDATE device SET serial_canonical = 'other' WHERE serial = %s", serial)


def test_by_token_today_and_by_factory_certificate_tomorrow_is_one_device(stack, maker):
    serial = unique()
    token = stack.mint("both", serial=serial)
    d = Device(stack, serial=serial, template="both", token=token)
    d.enrol()
    d.config()
    cert, key = maker.device(serial)
    d.key = new_key()
    d.enrol_factory([cert], key)
    assert len(stack.sql("SELECT 1 FROM device WHERE serial = %s", serial)) == 1


# thing names

def test_a_thing_name_belongs_to_its_first_identity_forever(stack):
    token = stack.mint("samename", uses=5)
    first = Device(stack, template="samename", token=token)
    first.enrol()
    second = Device(stack, template="samename", token=token)
    refused("thing.name_taken", second.enrol)
    assert stack.sql("SELECT 1 FROM device WHERE serial = %s", second.serial) == []
    stack.v1("POST", f"/devices/{first.serial}/retire")
    refused("thing.name_taken", second.enrol)
    with pytest.raises(psycopg2.errors.RestrictViolation):
        stack.sql("DELETE FROM thing WHERE name = 'the-one-name'")


def test_key_pins_are_checked_on_the_final_key(stack):
    serial, right = unique(), new_key()
    stack.v1("POST", "/products/pump/allowlist", f"{serial},{spki_sha256(right).hex()}\n".encode(), kind="text/csv")
    d = Device(stack, serial=serial, template="strict", token=stack.mint("strict", serial=serial))
    refused("enrol.refused", d.enrol)
    assert why(stack, serial) == "allowlist.key_mismatch"
    d.enrol(key=right)


# one transaction

def test_one_round_trip_and_one_commit_per_enrolment(tmp_path):
    with Stack(tmp_path, pg_options="-c log_statement=all -c log_duration=off") as stack:
        stack.seed()
        token = stack.mint("open", uses=50)
        Device(stack, token=token).enrol()
        log = tmp_path / "pg" / "log"
        mark = log.stat().st_size
        for _ in range(10):
            Device(stack, token=token).enrol()
        text = log.read_text()[mark:]
        statements = [line for line in text.splitlines() if " execute " in line or "statement:" in line]
        enrolling = [line for line in statements if "enrol_batch:" in line]
        assert len(enrolling) == 10
        besides = [line for line in statements if line not in enrolling and not re.search(" execute (catalog_epoch|maintain_|event_)", line)]
        assert besides == [], "only what is done every so often, whoever comes"


def test_everything_of_an_enrolment_is_one_transaction(stack):
    serial = unique()
    stack.allow(serial)
    token = stack.mint("strict", serial=serial)
    Device(stack, serial=serial, template="strict", token=token).enrol()
    xmins = stack.one("""SELECT array_agg(DISTINCT x::text) FROM (
        SELECT c.xmin x FROM certificate c JOIN device d ON d.id = c.device_id WHERE d.serial = %(s)s
        UNION ALL SELECT d.xmin FROM device d WHERE d.serial = %(s)s
        UNION ALL SELECT a.xmin FROM allowlist a WHERE a.serial = %(s)s
        UNION ALL SELECT t.xmin FROM token t WHERE t.serial = %(s)s
        UNION ALL SELECT h.xmin FROM history h WHERE h.serial = %(s)s
        UNION ALL SELECT o.xmin FROM outbox o WHERE o.payload->>'serial' = %(s)s) q""".replace("%(s)s", f"'{serial}'"))
    # PL/pgSQL's exception block is a subtransaction: its rows carry a number of their own, and
    # belong to one transaction when they became visible at one moment
    assert len(xmins) == 1


def test_concurrent_enrolments_share_a_commit(stack):
    token = stack.mint("open", uses=200)
    devices = [Device(stack, token=token) for _ in range(48)]
    threads = [threading.Thread(target=d.enrol) for d in devices]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(d.cert for d in devices)
    moments = stack.one("SELECT count(DISTINCT now_) FROM (SELECT c.xmin::text now_ FROM certificate c JOIN device d ON d.id = c.device_id WHERE d.serial = ANY(%s)) q",
                        [d.serial for d in devices])
    assert moments <= 48


# the same key

def test_the_same_key_gets_the_same_certificate_and_no_new_row(stack):
    serial = unique()
    d = Device(stack, serial=serial, token=stack.mint("open", uses=5))
    first = d.enrol()
    assert fingerprint(d.enrol()) == fingerprint(first)
    d.config()
    assert fingerprint(d.enrol()) == fingerprint(first)
    assert len(stack.sql("SELECT 1 FROM certificate c JOIN device d ON d.id = c.device_id WHERE d.serial = %s", serial)) == 1


def test_a_single_use_token_gives_the_same_certificate_within_its_grace(stack):
    serial = unique()
    stack.allow(serial)
    d = Device(stack, serial=serial, template="strict", token=stack.mint("strict", serial=serial))
    first = d.enrol()
    assert fingerprint(d.enrol()) == fingerprint(first)
    expire_grace(stack, serial)
    refused("enrol.refused", d.enrol)
    assert why(stack, serial) == "token.consumed"


def test_the_same_key_inside_the_renewal_window_gets_a_new_certificate(stack):
    d = Device(stack, template="short", token=stack.mint("short", uses=5))
    first = d.enrol()
    stack.sql("UPDATE certificate c SET not_before = not_before - interval '8 days', not_after = not_after - interval '8 days'"
              " FROM device d WHERE d.id = c.device_id AND d.serial = %s", d.serial)
    assert fingerprint(d.enrol()) != fingerprint(first)


# renewal

def test_a_renewal_asked_again_within_its_replay_window_gets_the_same_new_certificate(stack):
    d = Device(stack, token=stack.mint("open"))
    first, key = d.enrol(), d.key
    fresh = new_key()
    second = d.renew(key=fresh, keep=False)
    assert fingerprint(d.renew(key=fresh, keep=False)) == fingerprint(second)
    assert fingerprint(second) != fingerprint(first)
    stack.sql("UPDATE certificate c SET issued_at = issued_at - interval '2 hours' FROM device d WHERE d.id = c.device_id AND d.serial = %s AND c.status = 'pending'", d.serial)
    assert fingerprint(d.renew(key=fresh, keep=False)) != fingerprint(second)
    assert d.key is key


# a new key

def test_power_loss_before_the_key_was_saved_a_bound_token_comes_back(stack):
    serial = unique()
    stack.allow(serial)
    d = Device(stack, serial=serial, template="strict", token=stack.mint("strict", serial=serial))
    lost = d.enrol()
    second = d.enrol(key=new_key())
    assert fingerprint(second) != fingerprint(lost)
    assert stack.one("SELECT status, revoke_reason FROM certificate WHERE fingerprint = decode(%s, 'hex')", fingerprint(lost)) == ("revoked", "superseded")
    assert stack.one("SELECT uses FROM token WHERE serial = %s", serial) == 1
    d.config()


def test_power_loss_outside_the_grace_is_refused_with_the_reason_in_the_trail(stack):
    serial = unique()
    stack.allow(serial)
    d = Device(stack, serial=serial, template="strict", token=stack.mint("strict", serial=serial))
    d.enrol()
    expire_grace(stack, serial)
    e = refused("enrol.refused", d.enrol, key=new_key(), keep=False)
    outcome, detail = stack.last_attempt(serial)
    assert outcome == "token.consumed" and "grace" in detail
    told = stack.v1("GET", f"/attempts/{e.problem['request_id']}")[0]
    assert told["outcome"] == "token.consumed" and told["remedy"]


def test_a_lost_key_with_a_factory_certificate(stack, maker):
    serial = unique()
    cert, key = maker.device(serial)
    d = Device(stack, serial=serial, template="factory")
    first = d.enrol_factory([cert], key)
    second = d.enrol_factory([cert], key, key=new_key())
    assert fingerprint(first) != fingerprint(second)
    d.config()


def test_after_verify_the_template_refuses_another_key(stack):
    serial = unique()
    d = Device(stack, serial=serial, template="refuse", token=stack.mint("refuse", serial=serial))
    d.enrol()
    d.config()
    refused("device.already_provisioned", d.enrol, key=new_key(), keep=False)
    d.config()


def test_after_verify_the_template_lets_a_bound_credential_replace(stack):
    serial = unique()
    d = Device(stack, serial=serial, template="replace", token=stack.mint("replace", serial=serial))
    old, old_key = d.enrol(), d.key
    d.config()
    refused("enrol.refused", d.enrol, key=new_key(), keep=False)
    assert why(stack, serial) == "token.consumed"
    d.token = stack.mint("replace", serial=serial)
    new = d.enrol(key=new_key())
    # the old one is good until the new one was used once
    assert d.config(cert=old, key=old_key)["serial"] == serial
    assert stack.one("SELECT status FROM certificate WHERE fingerprint = decode(%s, 'hex')", fingerprint(old)) == "current"
    d.config()
    assert stack.one("SELECT status FROM certificate WHERE fingerprint = decode(%s, 'hex')", fingerprint(old)) == "superseded"
    assert stack.one("SELECT status FROM certificate WHERE fingerprint = decode(%s, 'hex')", fingerprint(new)) == "current"
    refused("cert.superseded", d.config, cert=old, key=old_key)


def test_a_shared_credential_never_replaces_a_verified_certificate(stack):
    token = stack.mint("open", uses=10)
    d = Device(stack, token=token)
    d.enrol()
    d.enrol(key=new_key())  # not verified yet, and the template says replace
    d.config()
    refused("device.already_provisioned", d.enrol, key=new_key(), keep=False)


def test_reset_allows_one_enrolment_with_a_new_key(stack):
    token = stack.mint("open", uses=10)
    d = Device(stack, token=token)
    d.enrol()
    d.config()
    assert stack.v1("POST", f"/devices/{d.serial}/reset")["state"] == "UNPROVISIONED"
    d.enrol(key=new_key())
    d.config()
    assert stack.state(d.serial) == "PROVISIONED"
    refused("device.already_provisioned", d.enrol, key=new_key(), keep=False)


def test_reset_with_revoke_kills_the_old_certificate_at_once(stack):
    d = Device(stack, token=stack.mint("open", uses=3))
    d.enrol()
    d.config()
    stack.v1("POST", f"/devices/{d.serial}/reset", {"revoke": True})
    refused("cert.revoked", d.config)


def test_at_most_one_current_and_one_pending_certificate_a_purpose(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    with pytest.raises(psycopg2.errors.UniqueViolation):
        stack.sql("INSERT INTO certificate (fingerprint, device_id, purpose, status, issuer_id, serial_number, spki_sha256, not_before, not_after, template_id, template_version, request_id)"
                  " SELECT decode(repeat('ab', 32), 'hex'), device_id, purpose, status, issuer_id, '\\x01', spki_sha256, not_before, not_after, template_id, template_version, 'x'"
                  " FROM certificate c WHERE c.fingerprint = decode(%s, 'hex')", fingerprint(d.cert))


# keys

def test_another_devices_key_is_refused(stack):
    token = stack.mint("open", uses=5)
    a, b = Device(stack, token=token), Device(stack, token=token)
    a.enrol()
    e = refused("key.reused", b.enrol, key=a.key)
    assert e.status == 403
    assert stack.sql("SELECT 1 FROM device WHERE serial = %s", b.serial) == []


def test_a_cas_key_is_refused(stack, maker):
    refused("key.reused", Device(stack, token=stack.mint("open")).enrol, key=maker.key)


def test_a_bootstrap_key_is_refused(stack, maker):
    serial = unique()
    cert, key = maker.device(serial)
    d = Device(stack, serial=serial, template="factory")
    d.enrol_factory([cert], key)
    refused("key.reused", d.enrol_factory, [cert], key, key=key)


def test_a_revoked_key_is_dead_forever(stack):
    token = stack.mint("open", uses=5)
    d = Device(stack, token=token)
    d.enrol()
    stack.v1("POST", f"/certs/{fingerprint(d.cert)}/revoke")
    refused("key.reused", d.enrol)
    refused("key.reused", Device(stack, token=token).enrol, key=d.key)
    with pytest.raises(psycopg2.errors.CheckViolation):
        stack.sql("UPDATE key_owner SET dead_at = NULL WHERE spki_sha256 = %s", spki_sha256(d.key))
    with pytest.raises(psycopg2.errors.CheckViolation):
        stack.sql("UPDATE certificate SET status = 'current', revoke_reason = NULL, ended_at = NULL WHERE fingerprint = decode(%s, 'hex')", fingerprint(d.cert))


def test_key_compromise_quarantines_the_device(stack, maker):
    serial = unique()
    cert, key = maker.device(serial)
    d = Device(stack, serial=serial, template="factory")
    d.enrol_factory([cert], key)
    stack.v1("POST", f"/certs/{fingerprint(d.cert)}/revoke", {"reason": "keyCompromise"})
    assert stack.state(serial) == "QUARANTINE"
    refused("device.quarantined", d.enrol_factory, [cert], key, key=new_key())
    stack.v1("POST", f"/devices/{serial}/release")
    d.enrol_factory([cert], key, key=new_key())


# refusals

def test_a_denied_request_consumes_nothing(stack):
    serial = unique()
    token = stack.mint("strict", serial=serial)
    d = Device(stack, serial=serial, template="strict", token=token)
    refused("enrol.refused", d.enrol)
    assert why(stack, serial) == "allowlist.unknown_serial"
    assert stack.one("SELECT uses FROM token WHERE serial = %s", serial) == 0
    assert stack.sql("SELECT 1 FROM key_owner WHERE spki_sha256 = %s", spki_sha256(d.key)) == []
    stack.allow(serial)
    d.enrol()
    assert stack.one("SELECT uses FROM token WHERE serial = %s", serial) == 1


def test_a_failure_counts_when_the_credential_proves_the_device(stack):
    serial = unique()
    d = Device(stack, serial=serial, template="strict", token=stack.mint("strict", serial=serial))
    for n in (1, 2):
        refused("enrol.refused", d.enrol)
        assert stack.one("SELECT failures FROM device WHERE serial = %s", serial) == n
    refused("enrol.refused", d.enrol)
    assert stack.state(serial) == "QUARANTINE"
    stack.allow(serial)
    refused("device.quarantined", d.enrol)
    stack.v1("POST", f"/devices/{serial}/release")
    d.enrol()
    assert stack.one("SELECT failures FROM device WHERE serial = %s", serial) == 0


def test_failures_of_free_tokens_count_against_the_token(stack):
    token = stack.mint("strict", uses=5)
    serial = unique()
    for _ in range(4):
        refused("enrol.refused", Device(stack, serial=serial, template="strict", token=token).enrol)
    assert stack.sql("SELECT 1 FROM device WHERE serial = %s", serial) == []
    assert stack.one("SELECT failures, uses FROM token ORDER BY id DESC LIMIT 1") == (4, 0)


def test_a_stranger_cannot_bring_a_device_into_quarantine(stack):
    serial = unique()
    stack.allow(serial)
    d = Device(stack, serial=serial, template="strict", token=stack.mint("strict", serial=serial))
    d.enrol()
    d.config()
    for _ in range(8):
        refused("enrol.refused", Device(stack, serial=serial, template="strict", token="mst_guess").enrol)
    assert stack.one("SELECT state, failures FROM device WHERE serial = %s", serial) == ("PROVISIONED", 0)


def test_the_counter_survives_the_refused_transaction(stack):
    """The refusal rolls back what the attempt wrote; its count stands in a commit of its own."""
    serial = unique()
    d = Device(stack, serial=serial, template="strict", token=stack.mint("strict", serial=serial))
    refused("enrol.refused", d.enrol)
    assert stack.one("SELECT failures, state FROM device WHERE serial = %s", serial) == (1, "ENROLL")


def test_a_storm_of_quarantines_is_stopped_and_announced(fresh):
    serials = [unique("storm") for _ in range(14)]
    tokens = fresh.v1("POST", "/tokens", {"template": "strict", "serials": serials})
    for serial, token in zip(serials, tokens):
        d = Device(fresh, serial=serial, template="strict", token=token["token"])
        for _ in range(3):
            refused("enrol.refused", d.enrol)
    held = fresh.one("SELECT count(*) FROM device WHERE state = 'QUARANTINE'")
    assert held == 10
    assert fresh.one("SELECT count(*) FROM outbox WHERE event = 'quarantine.storm'") == 1


def test_what_the_unauthenticated_write_is_limited_per_source(tmp_path):
    stack = Stack(tmp_path)
    with stack:
        stack.seed()
        stack.stop()
        stack.configure(trail__records_per_source_s=1, trail__records_per_source_burst=5)
        stack.start()
        for n in range(40):
            refused("enrol.refused", Device(stack, token=f"mst_{n}").enrol)
        assert stack.one("SELECT count(*) FROM history WHERE outcome = 'token.unknown'") <= 12


def test_unknown_issuers_are_capped(stack):
    stack.sql("INSERT INTO unknown_issuer (issuer_hash, issuer, sample, last_source, last_seen)"
              " SELECT sha256(n::text::bytea), 'CN=' || n, 'x', 'test', clock_timestamp() - interval '1 day' FROM generate_series(1, 400) n")
    cert, key = Authority("Nobody").device("n-1")
    refused("ca.not_registered", Device(stack, template="factory").enrol_factory, [cert], key)
    assert stack.one("SELECT count(*) FROM unknown_issuer") <= 256
    stack.sql("DELETE FROM unknown_issuer WHERE last_source = 'test'")


# purposes

def test_a_factory_certificate_is_bootstrap_and_never_becomes_operational_by_est(stack, maker):
    serial = unique()
    cert, key = maker.device(serial)
    d = Device(stack, serial=serial, template="factory")
    d.enrol_factory([cert], key)
    assert stack.one("SELECT purpose FROM certificate WHERE fingerprint = decode(%s, 'hex')", fingerprint(cert)) == "bootstrap"
    assert stack.one("SELECT purpose FROM certificate WHERE fingerprint = decode(%s, 'hex')", fingerprint(d.cert)) == "operational"
    refused("cert.wrong_purpose", d.config, cert=cert, key=key)
    with pytest.raises(psycopg2.errors.CheckViolation):
        stack.sql("UPDATE certificate SET purpose = 'operational' WHERE fingerprint = decode(%s, 'hex')", fingerprint(cert))


def test_a_factory_certificate_enrols_its_own_serial_only(stack, maker):
    own, other = unique(), unique()
    cert, key = maker.device(own)
    d = Device(stack, serial=other, template="factory")
    d.enrol_factory([cert], key)
    assert d.cert.subject == name_of(own)
    assert stack.sql("SELECT 1 FROM device WHERE serial = %s", other) == []
