"""Enrolments that commit together leave what each by itself would have left."""
import hashlib
import json

import psycopg2
import pytest

from client import Device, unique
from stack import Stack

FIELDS = {
    "age_us": 1000, "protocol": "est", "operation": "simpleenroll", "source": "192.0.2.7", "template_version": 1,
    "certificate": "\\x3000", "not_before": 1700000000, "not_after": 4000000000, "peer_not_before": 1700000000, "peer_not_after": 4000000000,
    "attributes": {"colour": "red"}, "attributes_override": "REPLACE", "type_override": "REPLACE", "groups_override": "DO_NOTHING",
    "configuration": {"host": "broker"}, "inactive": False, "allowlist_required": False, "replace": False,
    "verify": "call", "verify_within_s": 3600, "renew_before_s": 60, "grace_s": 60, "replay_s": 60, "approval": False, "server_key": False,
    "steps": [{"step": "record", "us": 5}],
}
# what a registry holds, without the numbers and times that differ from run to run
CONTENTS = {
    "device": "SELECT serial, serial_canonical, state, thing_name, thing_type, attributes, configuration, verify_mode, verify_by IS NULL, last_seen IS NULL, failures FROM device",
    "certificate": "SELECT d.serial, c.purpose, c.status, c.active, c.fingerprint, c.spki_sha256, c.serial_number, c.request_id, c.verified_at IS NULL FROM certificate c JOIN device d ON d.id = c.device_id",
    "certificate_der": "SELECT c.fingerprint, x.der FROM certificate_der x JOIN certificate c ON c.id = x.certificate_id",
    "key_owner": "SELECT k.spki_sha256, k.kind, d.serial FROM key_owner k JOIN device d ON d.id = k.device_id",
    "thing": "SELECT t.name, d.serial FROM thing t JOIN device d ON d.id = t.device_id",
    "device_group": "SELECT d.serial, g.name FROM device_group m JOIN device d ON d.id = m.device_id JOIN thing_group g ON g.id = m.group_id",
    "certificate_policy": "SELECT c.fingerprint, p.name, p.document FROM certificate_policy m JOIN certificate c ON c.id = m.certificate_id JOIN policy p ON p.id = m.policy_id",
    "token": "SELECT note, uses FROM token",
    "token_use": "SELECT t.note, d.serial, c.fingerprint FROM token_use u JOIN token t ON t.id = u.token_id JOIN device d ON d.id = u.device_id JOIN certificate c ON c.id = u.certificate_id",
    "allowlist": "SELECT a.serial, d.serial, a.claimed_at IS NULL FROM allowlist a LEFT JOIN device d ON d.id = a.device_id",
    "history": "SELECT h.request_id, h.serial, d.serial, h.outcome, h.reached, h.state, h.fingerprint, h.steps FROM history h LEFT JOIN device d ON d.id = h.device_id WHERE protocol = 'est'",
    "outbox": "SELECT event, payload FROM outbox WHERE event LIKE 'device.%'",
}


def sha(text):
    return f"\\x{hashlib.sha256(text.encode()).hexdigest()}"


class Registry:
    """enrol_batch as the server calls it, in a registry without a server."""

    def __init__(self, stack):
        self.stack = stack
        self.product, self.template = stack.one("SELECT product_id, id FROM template WHERE name = 'open'")
        self.issuer = stack.one("SELECT min(id) FROM ca WHERE kind = 'issuing'")

    def token(self, name, uses=1, serial=None):
        self.stack.sql("INSERT INTO token (hash, template_id, max_uses, serial, serial_canonical, expires_at, grace_s, note, created_by)"
                       " VALUES (%s, %s, %s, %s, %s, now() + interval '1 day', 60, %s, 'test')", sha(name), self.template, uses, serial, serial, name)

    def request(self, serial, token=None, **more):
        rest = {"credential": "token", "token_hash": sha(token)} if token else {
            "credential": "factory", "peer_fingerprint": sha("pf" + serial), "peer_der": "\\x3001", "peer_serial_number": sha("pn" + serial)[:34],
            "peer_spki": sha("pk" + serial), "peer_ca": self.issuer}
        return {**FIELDS, "request_id": f"r-{serial}", "serial": serial, "serial_canonical": serial, "product_id": self.product,
                "template_id": self.template, "template_label": "open@1", "issuer_id": self.issuer, "spki": sha("k" + serial),
                "fingerprint": sha("f" + serial), "serial_number": sha("n" + serial)[:34], "thing_name": f"thing-{serial}",
                "groups": ["red", "blue"], "policies": [{"name": "talk", "document": {"Statement": []}}], **rest, **more}

    def batch(self, requests):
        numbered = [{**r, "ord": n} for n, r in enumerate(requests)]
        rows = self.stack.sql("SELECT ord, code, proven, certificate, state FROM enrol_batch(%s)", json.dumps(numbered))
        return [(code, proven, bytes(certificate or b""), state) for _, code, proven, certificate, state in sorted(rows)]

    def contents(self):
        return {name: [row for (row,) in self.stack.sql(f"SELECT x::text FROM ({text}) x ORDER BY 1")] for name, text in CONTENTS.items()}


@pytest.fixture(scope="module")
def registries(tmp_path_factory):
    with Stack(tmp_path_factory.mktemp("one")) as one, Stack(tmp_path_factory.mktemp("many")) as many:
        one.seed()
        many.seed()
        yield Registry(one), Registry(many)


def test_together_as_alone(registries):
    answers = []
    for registry, together in zip(registries, (False, True)):
        registry.token("bound", serial="a1")
        registry.token("free", uses=5)
        registry.token("spent")
        registry.stack.sql("INSERT INTO allowlist (product_id, serial, serial_canonical, blocked) VALUES (%s, 'a1', 'a1', false), (%s, 'a5', 'a5', true)",
                           registry.product, registry.product)
        work = [registry.request("a1", "bound"), registry.request("a2", "free"), registry.request("a3", "free"),
                registry.request("a4", "nobody's"), registry.request("a5", "free"), registry.request("a6", "spent"),
                registry.request("a7", "free", verify="none"), registry.request("a8"), registry.request("a9", groups=[], policies=[], thing_name=None),
                registry.request("b0", "free", policies=[{"name": "never made", "document": None}]),
                registry.request("a2", "free", request_id="again"), registry.request("b1", "free", inactive=True)]
        if together:
            answers.append(registry.batch(work))
        else:  # in the order in which a batch goes through its devices
            alone = {n: registry.batch([r])[0] for n, r in sorted(enumerate(work), key=lambda x: (x[1]["serial"], x[0]))}
            answers.append([alone[n] for n in range(len(work))])
    assert answers[0] == answers[1]
    assert [a[0] for a in answers[0]] == ["ok", "ok", "ok", "token.unknown", "allowlist.blocked", "ok", "ok", "ok", "ok",
                                          "template.evaluation_failed", "replayed", "ok"]
    one, many = (r.contents() for r in registries)
    for name in CONTENTS:
        assert one[name] == many[name], name
        assert one[name], name


@pytest.mark.parametrize("clash", ["key", "thing", "token", "factory certificate"])
def test_two_that_want_the_same_fail_together(registries, clash):
    """Then the server tries each by itself, and one of them gets it."""
    registry = registries[1]
    name = unique("c")
    registry.token(name)
    registry.token(name + "2", uses=9)
    first, second = registry.request(name + "x", name + "2"), registry.request(name + "y", name + "2")
    if clash == "key":
        second["spki"] = first["spki"]
    elif clash == "thing":
        second["thing_name"] = first["thing_name"]
    elif clash == "token":
        first["token_hash"] = second["token_hash"] = sha(name)
    else:
        first, second = registry.request(name + "x"), registry.request(name + "y")
        second.update({k: v for k, v in first.items() if k.startswith("peer_")})
    before = registry.contents()
    with pytest.raises(psycopg2.IntegrityError):
        registry.batch([first, second])
    assert registry.contents() == before
    wanted = {"key": "key.reused", "thing": "thing.name_taken", "token": "token.consumed", "factory certificate": "serial.mismatch"}[clash]
    assert [registry.batch([r])[0][0] for r in (first, second)] == ["ok", wanted]


def test_what_others_refer_to_stays(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    for table in ("device", "certificate", "token"):
        with pytest.raises(psycopg2.errors.RestrictViolation):
            stack.sql(f"DELETE FROM {table}")
