"""Data that will be expensive to change: a test for each sentence of that section of the design."""
import contextlib
import hashlib
import subprocess
import threading

import psycopg2
import pytest

from client import Device, unique
from stack import BUILD, ROOT, Refused, Stack


def test_certificate_der_has_its_own_table(stack):
    columns = [r[0] for r in stack.sql("SELECT column_name FROM information_schema.columns WHERE table_schema = 'muster' AND table_name = 'certificate'")]
    assert "der" not in columns
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    assert stack.one("SELECT count(*) FROM certificate c LEFT JOIN certificate_der x ON x.certificate_id = c.id WHERE x.der IS NULL") == 0


@pytest.mark.parametrize("table", ["history", "audit", "outbox"])
def test_partitioned_by_time_with_retention(stack, table):
    assert stack.one("SELECT partstrat FROM pg_partitioned_table WHERE partrelid = ('muster.' || %s)::regclass", table) == "r"
    stack.sql("SELECT partition_ensure(%s, '2001-05-01')", table)
    child = f"{table}_200105"
    assert stack.one("SELECT to_regclass('muster.' || %s)::text", child) in (child, f"muster.{child}")
    assert stack.one("SELECT partition_maintain(%s, 3650)", table) == 1
    assert stack.one("SELECT to_regclass('muster.' || %s)", child) is None
    assert stack.one(f"SELECT count(*) FROM {table}_default") == 0


def test_the_next_months_partitions_exist(stack):
    names = [r[0] for r in stack.sql("SELECT relname FROM pg_class WHERE relname ~ '^history_2[0-9]{5}$'")]
    assert len(names) >= 3


def test_admin_roles_are_scoped_by_product_and_there_is_no_tenant(stack):
    assert stack.one("SELECT count(*) FROM information_schema.columns WHERE table_schema = 'muster' AND column_name LIKE '%%tenant%%'") == 0
    name = unique("scoped")
    scoped = stack.v1("POST", "/admin-tokens", {"name": name, "role": "operator", "product": "pump"})["token"]
    inside, outside = Device(stack, token=stack.mint("open")), Device(stack, template="folded", token=stack.mint("folded"))
    inside.enrol()
    outside.enrol()
    assert stack.v1("GET", f"/devices/{inside.serial}", token=scoped)["serial"] == inside.serial
    with pytest.raises(Refused) as e:
        stack.v1("GET", f"/devices/{outside.serial}", token=scoped)
    assert e.value.code == "object.not_found"
    assert {d["product"] for d in stack.v1("GET", "/devices?limit=1000", token=scoped)} == {"pump"}
    assert [p["name"] for p in stack.v1("GET", "/products", token=scoped)] == ["pump"]
    for method, path, body in (("POST", "/tokens", {"template": "folded"}), ("GET", "/products/folded/allowlist", None),
                               ("GET", "/templates/folded", None)):
        with pytest.raises(Refused) as e:
            stack.v1(method, path, body, token=scoped)
        assert e.value.code == "object.not_found", (method, path)
    with pytest.raises(Refused) as e:
        stack.v1("POST", "/products", {"name": "x"}, token=scoped)
    assert e.value.code == "admin.forbidden"


def test_lists_page_by_key(stack):
    serials = {unique("page") for _ in range(25)}
    stack.allow(*serials)
    pages = list(stack.pages("/products/pump/allowlist?limit=7&state=unseen"))
    assert all(len(page) <= 7 for page in pages)
    seen = [row["serial"] for page in pages for row in page]
    assert len(seen) == len(set(seen)) and serials <= set(seen)
    assert "OFFSET" not in (ROOT / "server" / "store" / "desk.c").read_text()


@pytest.mark.parametrize("what", [["device", "list"], ["token", "list"], ["claim", "list"], ["claim", "stock"], ["cert", "list"], ["template", "list"], ["product", "list"],
                                  ["ca", "list"], ["audit"], ["admin-token", "list"], ["ca", "unknown"]])
def test_every_list_gives_the_same_by_pages_as_at_once(stack, what):
    names = {"cert": "/certs", "device": "/devices", "token": "/tokens", "claim": "/claims:stock" if what[-1] == "stock" else "/claims", "template": "/templates", "product": "/products",
             "ca": "/unknown-cas" if what == ["ca", "unknown"] else "/cas", "audit": "/audit", "admin-token": "/admin-tokens"}
    full = [row for page in stack.pages(f"{names[what[0]]}?limit=2", most=60) for row in page]
    at_once = stack.cli_json(*what)
    assert full == at_once[:len(full)]


def test_unprovisioned_devices_page_over_devices_and_allowlist(stack):
    serials = {unique("unseen") for _ in range(5)}
    stack.allow(*serials)
    seen = [row["serial"] for page in stack.pages("/devices?state=UNPROVISIONED&limit=3") for row in page]
    assert len(seen) == len(set(seen)) and serials <= set(seen)


def test_migrations_are_numbered_and_each_states_the_oldest_binary():
    files = sorted((ROOT / "schema").glob("*.sql"))
    for number, file in enumerate(files, 1):
        head = file.read_text().splitlines()[:4]
        assert head[0] == f"-- migration: {number}" and file.name.startswith(f"{number:04d}_")
        assert head[1].startswith("-- name: ") and head[2].startswith("-- oldest-binary: ") and head[3] in ("-- transaction: yes", "-- transaction: no")
        assert int(head[2].split(": ")[1]) <= number


def test_migrations_are_append_only():
    """A registry has applied them: what is to be different is another migration. A new one adds its line to schema/SHA256SUMS."""
    listed = dict(reversed(line.split()) for line in (ROOT / "schema/SHA256SUMS").read_text().splitlines())
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (ROOT / "schema").glob("*.sql")}
    assert found == listed


def test_groups_keep_their_count_over_the_migration_that_moves_it(stack):
    """A registry of before migration 32 counted in the group's own row."""
    def connect(name):
        return contextlib.closing(psycopg2.connect(host="127.0.0.1", port=stack.pg_port, user="muster", dbname=name))
    with connect("muster") as c, c.cursor() as cursor:
        c.autocommit = True
        cursor.execute("CREATE DATABASE counted")
    with connect("counted") as c, c.cursor() as cursor:
        for file in sorted((ROOT / "schema").glob("*.sql")):
            assert "-- transaction: yes" in file.read_text()
            if file.name.startswith("0032_"):
                cursor.execute("INSERT INTO muster.product (name) VALUES ('p')")
                cursor.execute("INSERT INTO muster.template (product_id, name) SELECT id, 't' FROM muster.product")
                cursor.execute("INSERT INTO muster.enrollment (grouped, name, product_id, template_id, attestation, primary_key, secondary_key, registrations, created_by)"
                               " SELECT true, 'g', product_id, id, 'symmetric-key', decode(repeat('ab', 64), 'hex'), decode(repeat('cd', 64), 'hex'), 7, 'x' FROM muster.template")
                c.commit()
            cursor.execute(file.read_text())
            c.commit()
        cursor.execute("SELECT devices FROM muster.enrollment_tally")
        assert cursor.fetchall() == [(7,)]


def test_migrate_is_idempotent_and_safe_from_several_processes(tmp_path):
    stack = Stack(tmp_path)
    try:
        stack.pg_start()
        stack.configure()
        results = []
        threads = [threading.Thread(target=lambda: results.append(stack.musterd("migrate", check=False))) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert [r.returncode for r in results] == [0] * 4, [r.stderr for r in results]
        files = len(list((ROOT / "schema").glob("*.sql")))
        assert sorted(int(r.stdout.split()[0]) for r in results) == [0, 0, 0, files]
        assert stack.one("SELECT count(*), max(version) FROM schema_migration") == (files, files)
    finally:
        stack.pg_stop("immediate")


def test_a_binary_refuses_a_schema_it_cannot_work_with(fresh):
    fresh.stop()
    fresh.sql("INSERT INTO schema_migration VALUES (99, 'later', 1)")
    fresh.start()  # a later migration that bears this binary
    fresh.stop()
    fresh.sql("UPDATE schema_migration SET oldest_binary = 99 WHERE version = 99")
    done = fresh.musterd("serve", check=False)
    assert done.returncode == 1 and "needs a binary built for 99" in done.stderr
    fresh.sql("DELETE FROM schema_migration WHERE version > 1")
    done = fresh.musterd("serve", check=False)
    assert done.returncode == 1 and "run musterd migrate" in done.stderr


def test_everything_in_the_schema_has_a_comment(stack):
    tables = stack.sql("SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                       " WHERE n.nspname = 'muster' AND c.relkind IN ('r', 'p') AND obj_description(c.oid, 'pg_class') IS NULL")
    columns = stack.sql("SELECT c.relname, a.attname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid"
                        " WHERE n.nspname = 'muster' AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped"
                        " AND col_description(c.oid, a.attnum) IS NULL")
    functions = stack.sql("SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'muster'"
                          " AND p.prorettype <> 'trigger'::regtype AND obj_description(p.oid, 'pg_proc') IS NULL")
    assert (tables, columns, functions) == ([], [], [])


def test_one_leader_keeps_the_partitions(stack):
    """While one holds the lock, another does nothing."""
    with contextlib.closing(psycopg2.connect(host="127.0.0.1", port=stack.pg_port, user="muster", dbname="muster", options="-c search_path=muster")) as a, a.cursor() as c:
        c.execute("SELECT pg_try_advisory_xact_lock(1836413806)")
        assert c.fetchone()[0]
        assert not stack.one("SELECT pg_try_advisory_xact_lock(1836413806)")
        a.rollback()
    assert stack.one("SELECT pg_try_advisory_xact_lock(1836413806)")


def test_every_statement_prepares_and_the_tables_of_c_and_schema_agree(stack):
    done = subprocess.run([BUILD / "tests" / "test_registry", "127.0.0.1", str(stack.pg_port)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
