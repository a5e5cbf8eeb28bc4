"""muster enrollment, enrollment-group and endpoint."""
import base64
import json

from client import unique
from dps import Registrant, derive, pinned


def test_an_enrollment_from_the_first_command_to_the_last(stack, tmp_path):
    stack.cli("endpoint", "put", "cli-broker.example.com", "--weight", "2")
    made = stack.cli_json("enrollment", "create", unique("cli"), "--attestation", "symmetric-key", "--endpoints", "cli-broker.example.com")
    name = made["registration_id"]
    d = Registrant(stack, name, made["primary_key"])
    assert d.assigned()["assignedHub"] == "cli-broker.example.com" and made["template"] == "open"
    shown = stack.cli_json("enrollment", "show", name)
    assert shown["registration"]["endpoint"] == "cli-broker.example.com" and "primary_key" not in shown
    assert name in [e["registration_id"] for e in stack.cli_json("enrollment", "list", "--attestation", "symmetric-key")]
    (tmp_path / "payload.json").write_text('{"interval": 60}')
    stack.cli("enrollment", "update", name, "--payload", tmp_path / "payload.json", "--note", "lab", "--migrate", "off", "--reprovision", "sticky")
    assert d.assigned()["payload"] == {"interval": 60}
    rotated = stack.cli_json("enrollment", "rotate", name, "primary")
    assert Registrant(stack, name, rotated["primary_key"]).assigned() and d.register()[0] == 401
    stack.cli("enrollment", "disable", name)
    assert Registrant(stack, name, rotated["primary_key"]).refused()[1] == "enrollment.disabled"
    stack.cli("enrollment", "enable", name)
    etag = stack.cli_json("enrollment", "show", name)["etag"]
    stack.cli("enrollment", "update", name, "--note", "mine", "--etag", etag)
    late = stack.cli("enrollment", "delete", name, "--etag", etag, check=False)
    assert late.returncode == 1 and "request.etag_mismatch" in late.stderr
    stack.cli("enrollment", "delete", name)
    assert stack.cli("enrollment", "show", name, check=False).returncode == 1
    stack.cli("endpoint", "delete", "cli-broker.example.com")
    assert stack.cli("enrollment", "rotate", name, "third", check=False).returncode == 1


def test_a_group_with_a_key_from_a_file(stack, tmp_path):
    key = base64.b64encode(bytes(range(32))).decode()
    (tmp_path / "master").write_text(key + "\n")
    made = stack.cli_json("enrollment-group", "create", unique("cligroup"), "--attestation", "symmetric-key", "--primary-key", tmp_path / "master",
                          "--max-devices", "10", "--warn-devices", "5", "--template", "open")
    assert made["primary_key"] == key
    stack.cli("endpoint", "put", "broker-a.example.com")
    device = unique("clidev")
    assert Registrant(stack, device, derive(key, device)).assigned()
    assert stack.cli_json("enrollment-group", "show", made["name"])["devices"] == 1
    assert made["name"] in [g["name"] for g in stack.cli_json("enrollment-group", "list", "--template", "open", "--product", "pump")]
    for verb in ("disable", "enable"):
        stack.cli("enrollment-group", verb, made["name"])
    rotated = stack.cli_json("enrollment-group", "rotate", made["name"], "secondary")
    assert Registrant(stack, device, derive(rotated["secondary_key"], device)).assigned()
    assert stack.cli_json("enrollment-group", "update", made["name"], "--max-devices", "20")["max_devices"] == 20
    stack.cli("enrollment-group", "delete", made["name"])


def test_many_from_a_file(stack, tmp_path):
    stack.cli("endpoint", "put", "broker-a.example.com")
    ids = [unique("many") for _ in range(2300)]
    (tmp_path / "many.ndjson").write_text("".join(json.dumps({"registration_id": i, "attestation": "symmetric-key"}) + "\n" for i in [*ids, ids[0]]))
    done = stack.cli("enrollment", "import", tmp_path / "many.ndjson", "--out", tmp_path / "keys.ndjson", check=False)
    assert done.returncode == 1 and "2301 enrollments, 1 refused" in done.stderr
    assert (tmp_path / "keys.ndjson").stat().st_mode & 0o777 == 0o600
    rows = [json.loads(line) for line in (tmp_path / "keys.ndjson").read_text().splitlines()]
    assert [r["name"] for r in rows[:2300]] == ids and rows[2300]["code"] == "request.exists"
    assert Registrant(stack, ids[2250], rows[2250]["primary_key"]).assigned()
    again = stack.cli("enrollment", "import", tmp_path / "many.ndjson", "--out", tmp_path / "keys.ndjson", check=False)
    assert again.returncode == 2 and "nothing was imported" in again.stderr
    (tmp_path / "bad.ndjson").write_text("{}\n[]\n")
    assert stack.cli("enrollment", "import", tmp_path / "bad.ndjson", check=False).returncode == 2
    group = unique("imported")
    out = stack.cli("enrollment-group", "import", "-", stdin=json.dumps({"name": group, "attestation": "symmetric-key"}) + "\n").stdout
    assert json.loads(out)["result"] == "created"
