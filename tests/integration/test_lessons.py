"""The bugs of this field that Muster could have, each with the tests that would catch it."""
import ast
import base64
import http.client
import json
import re
import subprocess

import psycopg2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from client import EST, Device, basic, fingerprint, new_csr, new_key, request, tls_context, unique
from stack import ROOT, Refused, Stack

# lesson: the tests that would catch it
LESSONS = {
    "the old certificate is revoked although the new one failed": [
        "test_takeover::test_a_pending_renewal_over_the_same_key_does_not_kill_it", "test_identity::test_at_most_one_current_and_one_pending_certificate_a_purpose",
        "test_crash::test_a_certificate_leaves_only_after_the_commit"],
    "every failure is answered 500": ["test_openapi::test_last_every_answer_of_the_run_fitted", "test_est::test_every_problem_names_its_code_and_request"],
    "check-then-create races and deadlocks": [
        "test_concurrency::test_one_serial_64_keys_one_live_certificate", "test_concurrency::test_64_renewals_with_one_key", "test_identity::test_uniqueness_is_in_the_schema"],
    "an unknown revocation status counts as good": ["test_credentials::test_a_certificate_of_ours_that_the_registry_lost", "test_lessons::test_a_restored_registry",
        "test_foreign_crl::test_what_is_required_and_missing_or_overdue_closes_the_ca", "test_revocation::test_what_we_did_not_sign_is_unknown_and_what_is_not_ours_is_not_answered"],
    "client-certificate headers are believed from anyone": ["test_device::test_a_proxys_header_is_believed_from_nobody", "test_matrix::test_device_cell"],
    "a token is used up before signing": ["test_identity::test_a_denied_request_consumes_nothing", "test_crash::test_kill_under_two_thousand_enrolments"],
    "tokens of before the process start are refused": ["test_replicas::test_tokens_and_revocations_outlive_a_restart"],
    "a certificate without a device": ["test_identity::test_everything_of_an_enrolment_is_one_transaction", "test_crash::test_kill_under_two_thousand_enrolments"],
    "limits multiply by the number of replicas": ["test_replicas::test_the_uses_of_a_token_hold_across_replicas", "test_limits::test_two_replicas_keep_one_limit"],
    "renewal by mTLS is impossible behind a balancer": ["test_balancer::test_the_header_is_the_clients_chain", "test_balancer::test_a_long_chain_with_long_keys_fits"],
    "EST is anonymous by default": ["test_matrix::test_device_cell", "test_est::test_no_credential_is_401_with_a_challenge_on_an_open_connection"],
    "the registration authority's path skips a check": ["test_pop::test_a_registration_authority_is_excepted"],
    "a denied request consumes a use": ["test_matrix::test_device_cell", "test_identity::test_a_denied_request_consumes_nothing"],
    "enrolling again un-revokes a device": [
        "test_identity::test_a_revoked_key_is_dead_forever", "test_states::test_retired_for_good", "test_lessons::test_revoked_stays_revoked_whatever_is_asked"],
    "handshakes and provisioning fail silently": [
        "test_credentials::test_an_unregistered_ca_gets_an_answer_and_is_listed_and_can_be_registered", "test_states::test_device_show_prints_the_trail_and_explain_the_reason",
        "test_jit::test_a_certificate_that_lacks_a_declared_field_fails_with_a_reason"],
    "throttling kills the session": ["test_lessons::test_a_throttled_connection_stays_open", "test_dps_waiting::test_a_rate_is_waiting", "test_dps_waiting::test_without_its_database_it_lets_devices_wait"],
    "the same identity twice at once fails": ["test_concurrency::test_one_serial_one_key_64_clients", "test_replicas::test_one_serial_one_key_at_two_replicas",
        "test_dps_owner::test_one_device_that_registers_many_times_at_once"],
    "listing walks the inventory": ["test_lessons::test_nothing_walks_the_inventory"],
    "a mass renewal comes as a herd": ["test_est::test_backdated_jittered_and_never_beyond_the_issuer"],
    "losing the database forgets revocations": ["test_lessons::test_a_restored_registry", "test_recovery::test_who_was_kept_out_stays_out", "test_recovery::test_revocations_come_back_from_the_last_crl"],
    "intermediates are missing": ["test_credentials::test_an_intermediate_may_be_sent_or_registered_as_helper", "test_credentials::test_an_incomplete_chain",
        "test_foreign_crl::test_a_helper_has_a_crl_of_its_own"],
    "answers are too big for small devices, and PEM in JSON breaks at newlines": [
        "test_lessons::test_answers_to_devices_are_small", "test_lessons::test_pem_in_json_survives_any_newline", "test_est::test_enroll_answer_shape_and_only_the_certificate"],
}


def names_of(file):
    return {n.name for n in ast.parse(file.read_text()).body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")}


@pytest.mark.parametrize("lesson", LESSONS)
def test_each_lesson_has_its_tests(lesson):
    for test in LESSONS[lesson]:
        file, name = test.split("::")
        assert name in names_of(ROOT / "tests/integration" / f"{file}.py"), test


# small devices

def test_answers_to_devices_are_small(stack):
    """Microcontrollers have buffers of 2 to 4 KiB."""
    serial = unique("small")
    token, key = stack.mint("open", serial), new_key()
    csr = new_csr(key, serial)
    headers = {"Content-Type": "application/pkcs10", "Authorization": basic(serial, token)}
    answers = [request(stack, "POST", EST + "/open/simpleenroll", base64.b64encode(csr), headers)]
    body = json.dumps({"csr": base64.b64encode(csr).decode()}).encode()
    answers.append(request(stack, "POST", "/v1/enroll", body, {**headers, "Content-Type": "application/json"}))
    cert = x509.load_pem_x509_certificate(json.loads(answers[-1][2])["certificate"].encode())
    answers.append(request(stack, "GET", "/v1/device/config", chain=[cert], key=key))
    answers.append(request(stack, "GET", EST + "/cacerts"))
    answers.append(request(stack, "GET", EST + "/csrattrs"))
    answers.append(request(stack, "POST", EST + "/simpleenroll", b"x", {"Content-Type": "application/pkcs10"}))
    assert [a[0] for a in answers] == [200, 200, 200, 200, 200, 401]
    for status, got, text in answers:
        assert len(text) <= 4096 and sum(len(k) + len(v) + 4 for k, v in got.items()) < 1024, (status, len(text))
    assert len(answers[0][2]) <= 2048, "the leaf alone fits two KiB"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r\n\r\n", ""], ids=["lf", "crlf", "doubled", "none"])
def test_pem_in_json_survives_any_newline(stack, newline):
    serial, key = unique("pem"), new_key()
    csr = x509.load_der_x509_csr(new_csr(key, serial))
    text = csr.public_bytes(Encoding.PEM).decode().strip()
    if newline == "":
        text = "".join(text.splitlines()[1:-1])
    text = text.replace("\n", newline)
    headers = {"Content-Type": "application/json", "Authorization": basic(serial, stack.mint("open"))}
    status, _, body = request(stack, "POST", "/v1/enroll", json.dumps({"csr": text}).encode(), headers)
    assert status == 200, body
    pem = json.loads(body)["certificate"]
    assert re.fullmatch(r"-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=]{1,64}\n)+-----END CERTIFICATE-----\n", pem), "RFC 7468, lines of 64"
    assert "\n" not in body.decode().rstrip("\n"), "newlines are escaped within JSON"


# sessions and throttling

def test_a_throttled_connection_stays_open(tmp_path):
    with Stack(tmp_path) as stack:
        stack.stop()
        stack.configure(admin__login_failures_per_minute=1)
        stack.start()
        c = http.client.HTTPSConnection("127.0.0.1", stack.admin_port, context=tls_context(stack), timeout=20)
        c.connect()
        kept, statuses = c.sock, []
        for token in ("mat_1", "mat_2", "mat_3", stack.token):
            c.request("GET", "/admin/v1/whoami", headers={"Authorization": f"Bearer {token}"})
            answer = c.getresponse()
            answer.read()
            statuses.append(answer.status)
        assert statuses == [401, 429, 429, 200] and c.sock is kept
        c.close()


# revocation

def test_revoked_stays_revoked_whatever_is_asked(stack):
    d = Device(stack, token=stack.mint("open", uses=9))
    dead, key = d.enrol(), d.key
    d.config()
    stack.v1("POST", f"/certs/{fingerprint(dead)}/revoke", {"reason": "superseded"})
    for call, code in ((lambda: d.config(cert=dead, key=key), "cert.revoked"), (lambda: d.renew(chain=[dead], with_key=key, key=new_key(), keep=False), "cert.revoked"),
                       (lambda: d.enrol(key=key, keep=False), "key.reused")):
        with pytest.raises(Refused) as e:
            call()
        assert e.value.code == code
    stack.v1("POST", f"/devices/{d.serial}/reset")
    d.enrol(key=new_key())
    d.config()
    with pytest.raises(Refused) as e:
        d.config(cert=dead, key=key)
    assert e.value.code == "cert.revoked"
    with pytest.raises(psycopg2.Error):
        stack.sql("UPDATE certificate SET status = 'current', ended_at = NULL, revoke_reason = NULL WHERE fingerprint = decode(%s, 'hex')", fingerprint(dead))


def test_a_restored_registry(fresh, tmp_path):
    """What the backup has revoked stays so; what it does not know is refused, not believed."""
    revoked, kept, later = (Device(fresh, token=fresh.mint("open", uses=3)) for _ in range(3))
    for d in (revoked, kept):
        d.enrol()
    fresh.v1("POST", f"/certs/{fingerprint(revoked.cert)}/revoke")
    where = ["-h", "127.0.0.1", "-p", str(fresh.pg_port), "-U", "muster"]
    dump = tmp_path / "registry.dump"
    subprocess.run(["pg_dump", *where, "-Fc", "-f", dump, "muster"], check=True, capture_output=True)
    later.enrol()
    fresh.stop()
    subprocess.run(["dropdb", *where, "muster"], check=True, capture_output=True)
    subprocess.run(["createdb", *where, "muster"], check=True, capture_output=True)
    subprocess.run(["pg_restore", *where, "-d", "muster", dump], check=True, capture_output=True)
    fresh.start()
    for d, code in ((revoked, "cert.revoked"), (later, "cert.unknown")):
        for call in (d.config, lambda d=d: d.renew(key=new_key(), keep=False)):
            with pytest.raises(Refused) as e:
                call()
            assert e.value.code == code
    with pytest.raises(Refused) as e:
        revoked.enrol(keep=False)
    assert e.value.code == "key.reused"
    assert kept.config()["state"] == "PROVISIONED"


# size of the inventory

ROWS = 100000
FILL = """SET session_replication_role = replica; SET auto_explain.log_min_duration = -1;
INSERT INTO device (product_id, serial, serial_canonical, state, thing_name, template_id, template_version)
    SELECT t.product_id, 'bulk-' || n, 'bulk-' || n, 'PROVISIONED', 'bulk-' || n, t.id, 1 FROM generate_series(1, {0}) n, template t WHERE t.name = 'open';
INSERT INTO certificate (fingerprint, device_id, purpose, status, issuer_id, serial_number, spki_sha256, not_before, not_after, template_id, template_version, request_id)
    SELECT sha256(('f' || d.id)::bytea), d.id, 'operational', 'current', c.id, substr(sha256(('n' || d.id)::bytea), 1, 16), sha256(('k' || d.id)::bytea),
        now(), now() + interval '1 year', d.template_id, 1, md5('r' || d.id) FROM device d, ca c WHERE c.kind = 'issuing';
INSERT INTO certificate_der (certificate_id, der) SELECT id, '\\x30' FROM certificate;
INSERT INTO key_owner (spki_sha256, kind, device_id) SELECT spki_sha256, 'device', device_id FROM certificate;
INSERT INTO allowlist (product_id, serial, serial_canonical, device_id, claimed_at) SELECT product_id, serial, serial_canonical, id, now() FROM device;
INSERT INTO allowlist (product_id, serial, serial_canonical) SELECT p.id, 'new-' || n, 'new-' || n FROM generate_series(1, {0}) n, product p WHERE p.name = 'pump';
UPDATE device SET state = 'QUARANTINE', quarantine_reason = 'bulk' WHERE serial LIKE 'bulk-7777_';
INSERT INTO token (hash, template_id, serial, serial_canonical, expires_at, grace_s, created_by)
    SELECT sha256(('t' || n)::bytea), t.id, 'bulk-' || n, 'bulk-' || n, now() + interval '1 day', 60, 'bulk' FROM generate_series(1, {0}) n, template t WHERE t.name = 'open';
INSERT INTO history (request_id, product_id, device_id, serial, protocol, operation, credential, source, outcome, reached)
    SELECT md5('r' || d.id), d.product_id, d.id, d.serial, 'est', 'simpleenroll', 'token', '192.0.2.1', 'ok', 'REGISTER' FROM device d;
INSERT INTO audit (id, actor, source, action, object, detail, prev, hash)
    SELECT n + 1000000, 'bulk', '192.0.2.1', 'token.create', 'bulk-' || n, '{{}}', sha256('p'::bytea), sha256('h'::bytea) FROM generate_series(1, {0}) n"""
PLANS = " ".join("-c " + o for o in ("session_preload_libraries=auto_explain", "auto_explain.log_min_duration=0", "auto_explain.log_analyze=on", "auto_explain.log_timing=off",
                                     "auto_explain.log_format=json", "auto_explain.log_nested_statements=on", "auto_explain.log_level=LOG"))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    with Stack(tmp_path_factory.mktemp("large"), pg_options=PLANS) as running:
        running.seed()
        running.sql(FILL.format(ROWS))
        running.sql("SET auto_explain.log_min_duration = -1; ANALYZE")
        yield running


def nodes(plan):
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


def walked(log):
    """(relation, rows) of every node of the logged plans that touched more than a thousandth of the inventory's rows."""
    found = set()
    for text in re.findall(r"plan:\n((?:\t.*\n)+)", log):
        for node in nodes(json.loads(text)["Plan"]):
            rows = (node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)) * node.get("Actual Loops", 1)
            if "Relation Name" in node and rows > ROWS / 20:
                found.add((node["Node Type"], node["Relation Name"], rows))
    return found


CALLS = {
    "an enrolment": lambda s: Device(s, token=s.mint("open")).enrol(),
    "products": lambda s: s.v1("GET", "/products"),
    "devices": lambda s: s.v1("GET", "/devices?limit=10"),
    "devices, a page in the middle": lambda s: s.v1("GET", f"/devices?limit=10&after=d:{ROWS // 2}"),
    "a device": lambda s: s.device(f"bulk-{ROWS // 2}"),
    "unseen devices": lambda s: s.v1("GET", "/devices?state=UNPROVISIONED&limit=10"),
    "devices of a product": lambda s: s.v1("GET", "/devices?product=pump&limit=10"),
    "the allowlist": lambda s: s.v1("GET", "/products/pump/allowlist?limit=10"),
    "tokens": lambda s: s.v1("GET", "/tokens?limit=10"),
    "certificates": lambda s: s.v1("GET", "/certs?limit=10"),
    "certificates of a device": lambda s: s.v1("GET", "/certs?serial=bulk-77&limit=10"),
    "tokens of a device": lambda s: s.v1("GET", "/tokens?serial=bulk-77&limit=10"),
    "unseen serials": lambda s: s.v1("GET", "/products/pump/allowlist?state=unseen&limit=10"),
    "devices in quarantine": lambda s: s.v1("GET", "/devices?state=QUARANTINE&limit=10"),
    "an attempt": lambda s: s.v1("GET", "/attempts/" + s.one("SELECT request_id FROM history WHERE serial = 'bulk-7'")),
    "the audit": lambda s: s.v1("GET", "/audit?limit=10"),
    "enrollments": lambda s: s.v1("GET", "/enrollments?limit=10"),
    "batches": lambda s: s.v1("GET", "/factory-batches?limit=10"),
    "certificates that wait": lambda s: s.v1("GET", "/certs:waiting?limit=10"),
}


@pytest.mark.parametrize("what", CALLS)
def test_nothing_walks_the_inventory(large, what):
    log = large.folder / "pg" / "log"
    for _ in range(3):
        start = log.stat().st_size
        CALLS[what](large)
    with open(log) as file:
        file.seek(start)
        text = file.read()
    assert "plan:" in text, "no plan was logged"
    assert walked(text) == set()


RENEWED_OFTEN = """SET session_replication_role = replica;
INSERT INTO certificate (fingerprint, device_id, purpose, status, issuer_id, serial_number, spki_sha256, not_before, not_after, template_id, template_version, request_id, ended_at)
    SELECT sha256(('o' || n)::bytea), c.device_id, c.purpose, 'superseded', c.issuer_id, substr(sha256(('p' || n)::bytea), 1, 16), sha256(('q' || n)::bytea),
        c.not_before, c.not_after, c.template_id, 1, md5('s' || n), now()
    FROM generate_series(1, 6000) n, certificate c JOIN device d ON d.id = c.device_id WHERE d.serial = %s; ANALYZE certificate"""


def test_renewing_and_verifying_walk_nothing_either(large):
    d = Device(large, token=large.mint("open", uses=3))
    d.enrol()
    d.config()
    large.sql(RENEWED_OFTEN, d.serial)
    log = large.folder / "pg" / "log"
    start = log.stat().st_size
    d.enrol()
    d.renew(key=new_key())
    d.config()
    d.renew(key=new_key())
    with open(log) as file:
        file.seek(start)
        text = file.read()
    assert "plan:" in text and walked(text) == set()
