"""The audit as a chain: what is done to it in the database shows, there and in an export."""
import hashlib
import json

import pytest

from stack import ROOT, Stack

ZEROS = "0" * 64


@pytest.fixture
def audited(tmp_path):
    with Stack(tmp_path) as stack:
        stack.seed()
        for n in range(8):
            stack.v1("POST", "/tokens", {"template": "open", "note": f"Zürich {n} \\u0041 \"x\""})
        yield stack


def tamper(stack, text, *args):
    """As its owner, who can switch triggers off."""
    stack.sql("ALTER TABLE audit DISABLE TRIGGER ALL")
    stack.sql(text, *args)
    stack.sql("ALTER TABLE audit ENABLE TRIGGER ALL")


def verdict(stack):
    told = stack.v1("GET", "/audit:verify")
    done = stack.cli("audit", "verify", check=False)
    assert done.returncode == (0 if told["intact"] else 1), done.stderr
    return told


def export(stack, tmp_path):
    file = tmp_path / "audit.ndjson"
    file.write_text(stack.cli("audit", "export").stdout)
    return file, [json.loads(line) for line in file.read_text().splitlines()]


def offline(stack, tmp_path, rows):
    file = tmp_path / "changed.ndjson"
    file.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    return stack.cli("audit", "verify", "--export", file, "--url", "https://127.0.0.1:1", check=False)


def test_the_chain_is_whole_and_anybody_can_recompute_it(audited, tmp_path):
    _, rows = export(audited, tmp_path)
    last = ZEROS
    for n, row in enumerate(rows, 1):
        record = json.loads(row["record"])
        assert (row["id"], record[0], record[1]) == (n, last, n)
        last = hashlib.sha256(row["record"].encode()).hexdigest()
        assert row["hash"] == last
    told = verdict(audited)
    assert told == {"intact": True, "rows": len(rows), "first": 1, "last": len(rows), "hash": last, "broken": None, "reason": None}
    assert audited.v1("GET", "/audit?limit=1")[0]["hash"] == last
    done = offline(audited, tmp_path, rows)
    assert done.returncode == 0 and f"{len(rows)} rows" in done.stdout and last in done.stdout


def test_an_export_goes_on_where_an_older_one_ended(audited, tmp_path):
    older = export(audited, tmp_path)[0].read_text()
    audited.v1("POST", "/tokens", {"template": "open"})
    assert export(audited, tmp_path)[0].read_text().startswith(older)


def test_more_rows_than_a_page(audited, tmp_path):
    audited.sql("INSERT INTO audit (actor, source, action, object, detail) SELECT 'bulk', '192.0.2.1', 'token.create', n::text, '{}'"
                " FROM generate_series(1, 2500) n")
    rows = export(audited, tmp_path)[1]
    assert rows == [r for page in audited.pages("/audit:export?limit=900") for r in page]
    assert len(rows) > 2500 and offline(audited, tmp_path, rows).returncode == 0 and verdict(audited)["intact"]


@pytest.mark.parametrize("text,broken,reason", [
    ("UPDATE audit SET actor = 'nobody' WHERE id = 4", 4, "the row was changed"),
    ("UPDATE audit SET detail = '{}' WHERE id = 4", 4, "the row was changed"),
    ("DELETE FROM audit WHERE id = 4", 5, "rows before it are missing"),
    ("UPDATE audit SET id = 400 WHERE id = 4", 5, "rows before it are missing"),
    ("UPDATE audit u SET hash = sha256(convert_to(audit_record(prev, id, at, 'nobody', source, action, object, detail), 'UTF8')), actor = 'nobody'"
     " WHERE id = 4", 5, "it does not follow the row before it"),
])
def test_what_was_done_to_a_row_shows(audited, text, broken, reason):
    tamper(audited, text)
    told = verdict(audited)
    assert (told["intact"], told["broken"], told["reason"]) == (False, broken, reason)


def test_a_cut_at_the_end_shows(audited):
    last = audited.one("SELECT max(id) FROM audit")
    tamper(audited, "DELETE FROM audit WHERE id = %s", last)
    told = verdict(audited)
    assert (told["intact"], told["broken"], told["reason"]) == (False, last, "the newest rows are missing")


def test_an_audit_without_rows_does_not_pass_for_one_that_never_had_any(audited):
    tamper(audited, "DELETE FROM audit")
    assert not verdict(audited)["intact"]


def test_retention_leaves_a_chain_that_begins_later(audited):
    tamper(audited, "DELETE FROM audit WHERE id <= 3")
    told = verdict(audited)
    assert told["intact"] and told["first"] == 4


@pytest.mark.parametrize("change,why", [
    (lambda rows: rows[3].update(record=rows[3]["record"].replace("admin", "nobody")), "line 4: the row was changed"),
    (lambda rows: rows.pop(3), "line 4: rows before it are missing"),
    (lambda rows: rows[3].update(id=9), "line 4: the record is of another row"),
    (lambda rows: rows.insert(3, {"id": 4}), "line 4: it is no row of an export"),
    (lambda rows: rows.insert(3, rows[2]), "line 4: rows before it are missing"),
    (lambda rows: rows.clear(), "line 1: there are no rows"),
])
def test_what_was_done_to_an_export_shows(audited, tmp_path, change, why):
    rows = export(audited, tmp_path)[1]
    change(rows)
    done = offline(audited, tmp_path, rows)
    assert done.returncode == 1 and why in done.stderr, done.stderr


def test_rows_from_before_the_chain_are_chained(tmp_path):
    stack = Stack(tmp_path)
    stack.pg_start()
    try:
        stack.configure()
        for file in sorted((ROOT / "schema").glob("*.sql"))[:4]:
            stack.sql(file.read_text())
            stack.sql("INSERT INTO muster.schema_migration (version, name, oldest_binary) VALUES (%s, %s, 1)", int(file.name[:4]), file.stem[5:])
        stack.sql("INSERT INTO audit (actor, source, action, object, detail) SELECT 'old', '192.0.2.1', 'token.create', n::text, '{}' FROM generate_series(1, 30) n")
        stack.migrate()
        assert stack.sql("SELECT object FROM audit ORDER BY id") == [(str(n),) for n in range(1, 31)]
        stack.musterd("init", "--organization", "Test")
        told = stack.one("SELECT desk_audit_verify('{}', '{}')")
        assert told["intact"] and (told["first"], told["last"]) == (1, told["rows"]) and told["rows"] >= 30, told
    finally:
        stack.pg_stop("immediate")
