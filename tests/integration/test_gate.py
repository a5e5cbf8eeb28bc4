"""What the broker's table is fed from: the states of certificates and claims, and that no change is missed."""
import contextlib

import psycopg2
import pytest

from client import Device, fingerprint, unique
from stack import wait_for

ABSENT, CLAIM, OPERATIONAL, UNUSED = range(4)


def now(stack):
    """(stable, newest, snapshot, pruned through)"""
    return stack.one("SELECT stable, newest, snapshot, pruned_through FROM gate_now()")


def changes(stack, base, seen=None, stable=None, most=2000):
    """Rows (xid, seq, fingerprint, state, thing) of every page."""
    rows, after = [], (0, 0)
    while True:
        page = stack.sql("SELECT xid, seq, encode(fingerprint, 'hex'), state, thing FROM gate_changes(%s, %s, %s, %s, %s, %s)",
                         base, now(stack)[0] if stable is None else stable, seen, *after, most)
        rows += page
        if len(page) < most:
            return rows
        after = page[-1][:2]


def told(stack, base, print_):
    """The state of one certificate among the changes; None: it is not among them."""
    found = {(state, thing) for _, _, fp, state, thing in changes(stack, base) if fp == print_}
    assert len(found) < 2, found
    return found.pop()[0] if found else None


def whole(stack):
    """The snapshot: fingerprint to (state, thing)."""
    found = {}
    for source in ("gate_claims", "gate_certificates"):
        after = 0
        while page := stack.sql(f"SELECT id, encode(fingerprint, 'hex'), state, thing FROM {source}(%s, 3)", after):
            found |= {fp: (state, thing) for _, fp, state, thing in page}
            after = page[-1][0]
    return found


def enrolled(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    return d, fingerprint(d.cert)


def make_claim(stack, name=None):
    """A claim as far as the gate looks at it; (id, fingerprint)"""
    return stack.one("INSERT INTO claim (name, product_id, template_id, fingerprint, spki_sha256, certificate, issuer_id, serial_number, not_before, not_after,"
                     " rate_per_second, rate_burst, max_pending, enrol_until, created_by)"
                     " SELECT %s, t.product_id, t.id, sha256(random()::text::bytea), sha256(random()::text::bytea), '\\x3000', i.id, '\\x01', now(),"
                     " now() + interval '1 year', 0, 0, 1, now() + interval '1 year', 'test' FROM template t, ca i WHERE t.name = 'open' AND i.kind = 'issuing' LIMIT 1"
                     " RETURNING id, encode(fingerprint, 'hex')", name or unique("claim"))


@contextlib.contextmanager
def transaction(stack):
    c = psycopg2.connect(host="127.0.0.1", port=stack.pg_port, user="muster", dbname="muster", options="-c search_path=muster")
    try:
        with c.cursor() as cursor:
            yield c, cursor
    finally:
        c.close()


def test_an_enrolment_is_told_with_its_thing(stack):
    base = now(stack)[0]
    d, print_ = enrolled(stack)
    (row,) = [r for r in changes(stack, base) if r[2] == print_]
    assert row[3:] == (UNUSED, stack.device(d.serial)["thing_name"])
    assert whole(stack)[print_] == row[3:]


def test_the_first_use_makes_it_operational(stack):
    d, print_ = enrolled(stack)
    base = now(stack)[0]
    d.config()
    assert told(stack, base, print_) == OPERATIONAL
    assert whole(stack)[print_][0] == OPERATIONAL


def test_a_device_that_others_verify_is_operational_at_once(stack):
    d, print_ = enrolled(stack)
    base = now(stack)[0]
    stack.sql("UPDATE device SET verify_mode = 'external' WHERE serial = %s", d.serial)
    assert told(stack, base, print_) == OPERATIONAL


def test_a_use_that_changes_nothing_is_not_told(stack):
    d, print_ = enrolled(stack)
    d.config()
    base = now(stack)[0]
    d.config()
    assert told(stack, base, print_) is None


def test_a_renewal_is_told_and_its_use_retires_the_old_one(stack):
    d, old = enrolled(stack)
    d.config()
    base = now(stack)[0]
    d.renew()
    new = fingerprint(d.cert)
    assert (told(stack, base, old), told(stack, base, new)) == (None, UNUSED)
    d.config()
    assert (told(stack, base, old), told(stack, base, new)) == (ABSENT, OPERATIONAL)
    assert old not in whole(stack) and new in whole(stack)


def test_revocation_is_told(stack):
    d, print_ = enrolled(stack)
    base = now(stack)[0]
    stack.cli("cert", "revoke", print_, "--reason", "privilegeWithdrawn")
    assert told(stack, base, print_) == ABSENT
    assert print_ not in whole(stack)


def test_quarantine_and_release_are_told(stack):
    d, print_ = enrolled(stack)
    base = now(stack)[0]
    stack.cli("device", "quarantine", d.serial, "--reason", "test")
    assert told(stack, base, print_) == ABSENT and print_ not in whole(stack)
    base = now(stack)[0]
    stack.cli("device", "release", d.serial)
    assert told(stack, base, print_) == UNUSED and print_ in whole(stack)


def test_retirement_is_told(stack):
    d, print_ = enrolled(stack)
    base = now(stack)[0]
    stack.cli("device", "retire", d.serial, "--yes", check=False)
    stack.sql("UPDATE device SET retired_at = now() WHERE serial = %s AND retired_at IS NULL", d.serial)
    assert told(stack, base, print_) == ABSENT


def test_an_inactive_certificate_is_not_admitted(stack):
    _, print_ = enrolled(stack)
    base = now(stack)[0]
    stack.sql("UPDATE certificate SET active = false WHERE fingerprint = decode(%s, 'hex')", print_)
    assert told(stack, base, print_) == ABSENT and print_ not in whole(stack)


def test_factory_certificates_are_never_told(stack):
    base = now(stack)[0]
    enrolled(stack)
    bootstrap = {r[0] for r in stack.sql("SELECT encode(fingerprint, 'hex') FROM certificate WHERE purpose = 'bootstrap'")}
    assert not bootstrap & {r[2] for r in changes(stack, base)} and not bootstrap & set(whole(stack))


def test_a_claim_is_told_until_it_is_revoked_hard(stack):
    base = now(stack)[0]
    number, print_ = make_claim(stack)
    assert told(stack, base, print_) == CLAIM and whole(stack)[print_] == (CLAIM, None)
    base = now(stack)[0]
    stack.sql("UPDATE claim SET devices = devices + 1, failures = 7 WHERE id = %s", number)
    assert told(stack, base, print_) is None
    stack.sql("UPDATE claim SET revoked_at = now(), revoke_mode = 'stop-new' WHERE id = %s", number)
    assert told(stack, base, print_) == CLAIM
    stack.sql("UPDATE claim SET revoke_mode = 'hard' WHERE id = %s", number)
    assert told(stack, base, print_) == ABSENT and print_ not in whole(stack)


def test_changes_come_page_by_page(stack):
    base = now(stack)[0]
    prints = [enrolled(stack)[1] for _ in range(5)]
    assert [r[2] for r in changes(stack, base, most=2) if r[2] in prints] == prints


def test_who_commits_late_is_not_missed(stack):
    """The transaction that began first, and wrote first, ends last: positions wait for it, whatever the order of rows."""
    _, a = enrolled(stack)
    _, b = enrolled(stack)
    base = now(stack)[0]
    update = "UPDATE certificate SET active = false WHERE fingerprint = decode(%s, 'hex')"
    with transaction(stack) as (late, one), transaction(stack) as (early, two):
        two.execute("SELECT pg_current_xact_id()")  # the lower number, the later row
        one.execute("SELECT pg_current_xact_id()")
        one.execute(update, (a,))
        two.execute(update, (b,))
        early.commit()
        seen = now(stack)
        assert told(stack, base, b) == ABSENT and told(stack, base, a) is None
        assert seen[0] > base, "the early one is finished"
        late.commit()
        after = now(stack)
    rows = changes(stack, seen[0], seen=seen[2], stable=after[0])
    assert a in [r[2] for r in rows], "from the position reached before it committed"


def test_what_was_told_early_is_told_again_when_it_is_final(stack):
    _, a = enrolled(stack)
    with transaction(stack) as (held, one):
        one.execute("SELECT pg_current_xact_id()")
        base, _, before, _ = now(stack)
        stack.sql("UPDATE certificate SET active = false WHERE fingerprint = decode(%s, 'hex')", a)
        stable, _, after, _ = now(stack)
        assert stable == base, "the position waits for the transaction under way"
        assert a in [r[2] for r in changes(stack, base, seen=before)]
        assert a not in [r[2] for r in changes(stack, base, seen=after)], "once is enough while the position stands"
        held.rollback()
    stable, _, last, _ = now(stack)
    assert stable > base
    assert a in [r[2] for r in changes(stack, base, seen=last)]


def test_pruning_tells_whom_it_concerns(stack):
    prints = [enrolled(stack)[1] for _ in range(6)]
    stack.sql("UPDATE gate_change SET at = at - interval '3 days'")
    before = stack.one("SELECT count(*) FROM gate_change")
    assert stack.one("SELECT gate_prune(2, 100000)") == 0
    assert stack.one("SELECT gate_prune(4, 3)") == 0
    gone = stack.one("SELECT gate_prune(2, 3)")
    assert before - gone >= 3 and stack.one("SELECT count(*) FROM gate_change") == before - gone
    assert gone > 0 and now(stack)[3] < stack.one("SELECT min(xid::text::bigint) FROM gate_change")
    assert {r[2] for r in changes(stack, now(stack)[3] + 1)} >= {prints[-1]}


def test_pruning_leaves_what_a_transaction_under_way_could_precede(stack):
    for _ in range(3):
        enrolled(stack)
    stack.sql("SELECT gate_prune(0, 0)")
    with transaction(stack) as (held, one):
        one.execute("SELECT pg_current_xact_id()")
        for _ in range(3):
            enrolled(stack)
        rows = stack.one("SELECT count(*) FROM gate_change")
        stack.sql("UPDATE gate_change SET at = at - interval '3 days'")
        stack.sql("SELECT gate_prune(2, 0)")
        assert stack.one("SELECT count(*) FROM gate_change WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())") == 3 <= rows
        held.rollback()


def test_the_maintenance_prunes(fresh):
    _, print_ = enrolled(fresh)
    fresh.sql("INSERT INTO gate_change (xid, fingerprint, at) SELECT '5', decode(%s, 'hex'), now() - interval '3 days' FROM generate_series(1, 10)", print_)
    fresh.sql("INSERT INTO gate_change (fingerprint) SELECT decode(%s, 'hex') FROM generate_series(1, 100000)", print_)
    fresh.stop()
    fresh.start()
    wait_for("the maintenance to prune", lambda: now(fresh)[3] == 5)
    assert fresh.one("SELECT count(*) FROM gate_change WHERE xid = '5'") == 0


@pytest.mark.parametrize("how,credential", [("broker", "device"), ("config", "device"), ("external", "operator")])
def test_who_showed_a_certificate_first(stack, how, credential):
    d, print_ = enrolled(stack)
    assert stack.one("SELECT code FROM certificate_seen(decode(%s, 'hex'), %s, %s, '127.0.0.1')", print_, how, unique("request")) == "ok"
    assert stack.one("SELECT credential FROM history WHERE serial = %s AND operation = 'verify'", d.serial) == credential
    assert stack.state(d.serial) == "PROVISIONED"
