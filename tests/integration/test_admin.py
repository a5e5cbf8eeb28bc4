"""The operator's first tools: the admin API and the CLI over it."""
import hashlib
import json
import subprocess

import psycopg2
import pytest

from client import Device, cert_pem, fingerprint, request, spki_sha256, new_key, unique
from factory import Authority
from stack import MUSTER, ROOT, Refused


def refused(code, call, *args, **kw):
    with pytest.raises(Refused) as e:
        call(*args, **kw)
    assert e.value.code == code, e.value
    return e.value


# who may

def test_no_token_an_unknown_and_a_revoked_one(stack):
    status, headers, body = request(stack, "GET", "/admin/v1/whoami", port=stack.admin_port)
    assert (status, headers["www-authenticate"]) == (401, "Bearer") and b"admin.denied" in body
    refused("admin.denied", stack.v1, "GET", "/whoami", token="mat_unknown")
    name = unique("gone")
    token = stack.cli_json("admin-token", "create", name, "--role", "viewer")["token"]
    assert stack.v1("GET", "/whoami", token=token) == {"name": name, "role": "viewer", "product": None}
    stack.cli("admin-token", "revoke", name)
    refused("admin.denied", stack.v1, "GET", "/whoami", token=token)


def test_admin_tokens_are_stored_hashed(stack):
    name = unique("hashed")
    token = stack.v1("POST", "/admin-tokens", {"name": name, "role": "viewer"})["token"]
    assert bytes(stack.one("SELECT hash FROM admin_token WHERE name = %s", name)) == hashlib.sha256(token.encode()).digest()


@pytest.mark.parametrize("role,allowed", [("viewer", ()), ("operator", ("token",)), ("admin", ("token", "product"))])
def test_roles(stack, role, allowed):
    token = stack.v1("POST", "/admin-tokens", {"name": unique(role), "role": role})["token"]
    assert stack.v1("GET", "/devices", token=token) is not None
    calls = {"token": ("POST", "/tokens", {"template": "open"}), "product": ("POST", "/products", {"name": unique("p")})}
    for name, call in calls.items():
        if name in allowed:
            stack.v1(*call, token=token)
        else:
            assert refused("admin.forbidden", stack.v1, *call, token=token).status == 403


def test_the_admin_listener_serves_no_device_and_the_other_way_round(stack):
    assert request(stack, "GET", "/.well-known/est/cacerts", port=stack.admin_port)[0] == 404
    assert request(stack, "GET", "/admin/v1/whoami")[0] == 404


def test_every_change_has_its_audit_row_in_the_same_transaction(stack):
    serial = unique()
    stack.allow(serial)
    changes = [
        ("POST", f"/products/pump/allowlist/{serial}/block", None, "allowlist.block"),
        ("POST", f"/products/pump/allowlist/{serial}/unblock", None, "allowlist.unblock"),
        ("POST", "/tokens", {"template": "open", "note": serial}, "token.create"),
    ]
    d = Device(stack, serial, "open", stack.mint("open"))
    d.enrol()
    changes += [
        ("POST", f"/devices/{serial}/quarantine", {"reason": "r"}, "device.quarantine"),
        ("POST", f"/devices/{serial}/release", None, "device.release"),
        ("POST", f"/devices/{serial}/reset", None, "device.reset"),
        ("POST", f"/certs/{fingerprint(d.cert)}/revoke", {"reason": "unspecified"}, "cert.revoke"),
        ("POST", f"/devices/{serial}/retire", None, "device.retire"),
    ]
    for method, path, body, action in changes:
        before = stack.one("SELECT coalesce(max(id), 0) FROM audit")
        stack.v1(method, path, body)
        (row,) = stack.sql("SELECT action, actor, source FROM audit WHERE id > %s", before)
        assert row == (action, "admin", "127.0.0.1")
    with pytest.raises(psycopg2.errors.RestrictViolation):
        stack.sql("UPDATE audit SET actor = 'x'")


def test_a_refused_change_has_none(stack):
    before = stack.one("SELECT count(*) FROM audit")
    refused("object.not_found", stack.v1, "POST", "/devices/nobody/release")
    refused("request.exists", stack.v1, "POST", "/products", {"name": "pump"})
    assert stack.one("SELECT count(*) FROM audit") == before


# strictness

@pytest.mark.parametrize("method,path,body", [
    ("GET", "/devices?colour=red", None), ("GET", "/devices?limit=0", None), ("GET", "/devices?limit=1001", None), ("GET", "/devices?limit=5&limit=6", None),
    ("GET", "/devices?state=HAPPY", None), ("GET", "/tokens/abc", None), ("GET", "/certs/zz", None), ("GET", "/tokens?state=%zz", None),
    ("POST", "/products", {"nom": "x"}), ("POST", "/products", {}), ("POST", "/products", {"name": 1}), ("POST", "/products", {"name": "a b"}),
    ("POST", "/products", []), ("POST", "/tokens", {"template": "open", "uses": 0}), ("POST", "/tokens", {"template": "open", "serial": "a", "count": 2}),
    ("POST", "/tokens", {"template": "open", "serial": "a", "uses": 2}), ("POST", "/devices/x/release", {"x": 1}),
    ("POST", "/cas", {"name": "x", "pem": "nonsense"}), ("POST", "/admin-tokens", {"name": "x", "role": "god"})])
def test_what_does_not_parse_is_refused(stack, method, path, body):
    assert refused("request.malformed", stack.v1, method, path, body).status == 400


def test_a_body_that_is_no_json_or_has_a_member_twice(stack):
    refused("request.malformed", stack.v1, "POST", "/products", b"{")
    refused("request.malformed", stack.v1, "POST", "/products", b'{"name":"a","name":"b"}')
    refused("request.type_unsupported", stack.v1, "POST", "/products", b"name=x", kind="application/x-www-form-urlencoded")


def test_paths_are_decoded_once(stack):
    refused("object.not_found", stack.v1, "GET", "/devices/a%252Db")
    assert refused("object.not_found", stack.v1, "GET", "/devices/a%2Fb").status == 404


# templates

def test_template_versions(stack, tmp_path):
    name, file = unique("versions"), tmp_path / "t.json"
    file.write_text('{"DeviceConfiguration": {"v": "1"}}')
    assert stack.cli_json("template", "put", name, file, "--product", "pump") == {"name": name, "product": "pump", "version": 1, "changed": True}
    assert stack.cli_json("template", "put", name, file)["changed"] is False
    file.write_text('{"DeviceConfiguration": {"v": "2"}}')
    assert stack.cli_json("template", "put", name, file)["version"] == 2
    assert '"1"' in stack.cli("template", "show", name, "--number", "1", "--body").stdout
    assert stack.cli("template", "show", name, "--body").stdout == file.read_text()
    with pytest.raises(psycopg2.errors.RestrictViolation):
        stack.sql("UPDATE template_version SET body = '{}'")
    token = stack.mint(name)
    stack.allow("v-device")
    Device(stack, "v-device", name, token).enrol()
    assert stack.one("SELECT template_version FROM device WHERE serial = 'v-device'") == 2


def test_a_bad_template_is_refused_at_load_with_the_path_of_the_fault(stack, tmp_path):
    file = tmp_path / "bad.json"
    file.write_text('{"Resources": {"t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "Missing"}}}}}')
    for command in (["put", unique("bad"), file, "--product", "pump"], ["validate", file]):
        done = stack.cli("template", *command, check=False)
        assert done.returncode == 1 and "template.invalid" in done.stderr
        assert "$.Resources.t.Properties.ThingName.Ref" in done.stderr
    assert stack.cli_json("template", "validate", ROOT / "templates" / "claim.json") == {"valid": True}


def test_template_render(stack):
    shown = stack.cli_json("template", "render", "open", "--serial", "SN-9")
    assert shown["registration"]["thing_name"] == "open-SN-9"
    assert shown["certificate"]["subject"] == {"CN": "SN-9"}


def test_a_template_keeps_its_product(stack, tmp_path):
    file = tmp_path / "t.json"
    file.write_text("{}")
    assert "request.conflict" in stack.cli("template", "put", "open", file, "--product", "folded", check=False).stderr


# allowlists

def test_import_tells_each_line(stack, tmp_path):
    known, fresh, pinned = unique(), unique(), unique()
    stack.allow(known)
    pin = spki_sha256(new_key()).hex()
    file = tmp_path / "list.csv"
    file.write_text(f"serial,pin,batch\n{fresh}\n{known}\n# comment\n\n{pinned},{pin},lot-7\nbad serial\n{fresh}\n{unique()},nopin\n")
    done = stack.cli("allowlist", "import", file, "--product", "pump", "--batch", "week-12", "--json", check=False)
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert (report["imported"], report["duplicate"], report["rejected"]) == (2, 2, 2)
    lines = {line["line"]: (line["result"], line["reason"]) for line in report["lines"]}
    assert lines[2][0] == "imported" and lines[3][0] == "duplicate" and lines[6][0] == "imported" and lines[8][0] == "duplicate"
    assert lines[7][0] == "rejected" and "serial" in lines[7][1] and lines[9][0] == "rejected" and "pin" in lines[9][1]
    rows = dict((r[0], r[1:]) for r in stack.sql("SELECT serial, encode(spki_pin, 'hex'), batch FROM allowlist WHERE serial IN (%s, %s)", fresh, pinned))
    assert rows == {fresh: (None, "week-12"), pinned: (pin, "lot-7")}
    text = stack.cli("allowlist", "import", file, "--product", "pump", check=False).stdout
    assert "line 7:" in text and text.endswith("0 imported, 4 duplicate, 2 rejected\n")


def test_import_json_lines_from_standard_input(stack):
    a, b = unique(), unique()
    text = json.dumps({"serial": a}) + "\n" + json.dumps({"serial": b, "batch": "x"}) + "\n"
    assert stack.cli("allowlist", "import", "-", "--product", "pump", stdin=text).stdout == "2 imported, 0 duplicate, 0 rejected\n"


def test_a_file_larger_than_one_request_keeps_its_line_numbers(stack):
    text = "".join(f"big-{n:06d}\n" for n in range(60000)) + "bad line\n"
    done = stack.cli("allowlist", "import", "-", "--product", "pump", stdin=text, check=False)
    assert done.returncode == 1 and done.stdout == "line 60001: bad line: the serial is not 1 to 64 characters of A-Z a-z 0-9 . _ : -\n60000 imported, 0 duplicate, 1 rejected\n"
    stack.sql("DELETE FROM allowlist WHERE serial LIKE 'big-%%'")


def test_block_and_unblock(stack):
    serial = unique()
    stack.allow(serial)
    d = Device(stack, serial, "strict", stack.mint("strict", uses=3))
    stack.cli("allowlist", "block", serial, "--product", "pump")
    assert serial in [r["serial"] for r in stack.cli_json("allowlist", "list", "--product", "pump", "--state", "blocked")]
    with pytest.raises(Refused):
        d.enrol()
    stack.cli("allowlist", "unblock", serial, "--product", "pump")
    d.enrol()
    assert serial in [r["serial"] for r in stack.cli_json("allowlist", "list", "--product", "pump", "--state", "claimed")]


# CAs and certificates

def test_registering_cas(stack, tmp_path):
    ca, name = Authority(unique("Reg")), unique("reg")
    file = tmp_path / "ca.pem"
    file.write_bytes(cert_pem(ca.cert))
    made = stack.cli_json("ca", "register", name, file, "--template", "factory", "--without-proof")
    assert (made["kind"], made["template"], made["active"]) == ("registered", "factory", True)
    assert stack.cli("ca", "show", name, "--pem").stdout.encode() == cert_pem(ca.cert)
    assert "request.exists" in stack.cli("ca", "register", unique("again"), file, "--without-proof", check=False).stderr
    leaf, _ = ca.device("x")
    file.write_bytes(cert_pem(leaf))
    assert "CA:TRUE" in stack.cli("ca", "register", unique("leaf"), file, "--without-proof", check=False).stderr
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    stolen = Authority("Stolen", key=d.key)
    file.write_bytes(cert_pem(stolen.cert))
    assert "key.reused" in stack.cli("ca", "register", unique("stolen"), file, "--without-proof", check=False).stderr


def test_certificates_list_show_revoke(stack, tmp_path):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    (row,) = stack.cli_json("cert", "list", "--serial", d.serial)
    assert (row["status"], row["purpose"], row["fingerprint"]) == ("pending", "operational", fingerprint(d.cert))
    assert stack.cli("cert", "show", row["fingerprint"], "--pem").stdout.encode() == cert_pem(d.cert)
    assert stack.cli_json("cert", "show", row["fingerprint"])["serial"] == d.serial
    assert row in stack.cli_json("cert", "list", "--expires-before", "2099-01-01T00:00:00Z", "--status", "pending")
    assert stack.cli_json("cert", "revoke", row["fingerprint"], "--reason", "privilegeWithdrawn")["status"] == "revoked"
    assert "request.conflict" in stack.cli("cert", "revoke", row["fingerprint"], check=False).stderr


# devices

def test_any_spelling_finds_the_device(stack):
    Device(stack, "zz-77.x", "folded", stack.mint("folded")).enrol()
    assert stack.device("ZZ77X", product="folded")["serial"] == "zz-77.x"
    assert stack.cli_json("device", "show", "z.z-7_7:x", "--product", "folded")["serial"] == "zz-77.x"


def test_moves_that_make_no_sense_are_conflicts(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    assert "request.conflict" in stack.cli("device", "release", d.serial, check=False).stderr
    stack.cli("device", "quarantine", d.serial)
    assert "request.conflict" in stack.cli("device", "quarantine", d.serial, check=False).stderr
    assert "request.conflict" in stack.cli("device", "reset", d.serial, check=False).stderr


def test_operators_actions_are_in_the_trail(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    stack.cli("device", "quarantine", d.serial, "--reason", "odd")
    newest = stack.device(d.serial)["trail"][0]
    assert (newest["protocol"], newest["operation"], newest["credential"], newest["source"], newest["detail"]) == ("admin", "quarantine", "operator", "admin", "odd")
    assert stack.v1("GET", f"/attempts/{newest['request_id']}")[0]["operation"] == "quarantine"


# the command itself

def run_cli(*args, env=None):
    return subprocess.run([MUSTER, *args], capture_output=True, text=True, env={"PATH": "/usr/bin", **(env or {})})


def test_help_everywhere():
    top = run_cli("--help").stdout
    for line in top.splitlines():
        words = line.split()
        if not line.startswith("  ") or line.startswith("   ") or not words[0].islower():
            continue
        verb = [words[1]] if len(words) > 1 and words[1].islower() and line[2:36].strip().count(" ") and words[1].isalpha() else []
        done = run_cli(words[0], *verb, "--help")
        assert done.returncode == 0 and "e.g. muster" in done.stdout, line
    assert run_cli("help", "token").stdout.startswith("  token create")


def test_exit_codes(stack):
    assert run_cli("--version").returncode == 0
    assert run_cli("nonsense").returncode == 2
    assert run_cli("device", "show").returncode == 2
    assert run_cli("device", "list", "--colour").returncode == 2
    assert run_cli("device", "list").returncode == 2
    assert stack.cli("device", "list", "--uses", "3", check=False).returncode == 2
    assert stack.cli("device", "show", "nobody", check=False).returncode == 1
    closed = {"MUSTER_ADMIN_URL": "https://127.0.0.1:1", "MUSTER_ADMIN_TOKEN": "x"}
    assert run_cli("status", env=closed).returncode == 3
    assert run_cli("status", env={**closed, "MUSTER_ADMIN_URL": "http://127.0.0.1:1"}).returncode == 2
    wrong_ca = {"MUSTER_ADMIN_URL": f"https://127.0.0.1:{stack.admin_port}", "MUSTER_ADMIN_TOKEN": stack.token}
    assert run_cli("status", env=wrong_ca).returncode == 3


def test_a_token_from_a_file_and_options_anywhere(stack, tmp_path):
    file = tmp_path / "token"
    file.write_text(stack.token + "\n")
    done = run_cli("--json", "whoami", "--token-file", str(file), "--url", f"https://127.0.0.1:{stack.admin_port}", "--cacert", str(stack.cafile))
    assert json.loads(done.stdout)["role"] == "admin"


def test_lists_are_arrays_and_objects_objects(stack):
    Device(stack, token=stack.mint("open")).enrol()
    devices = stack.cli_json("device", "list", "--limit", "1")
    assert len(devices) == 1 and {"serial", "thing_name", "state"} <= set(devices[0])
    assert all("name" in t for t in stack.cli_json("template", "list"))
    assert stack.cli_json("status")["devices"]["VERIFY"] >= 1


def test_what_peers_wrote_cannot_command_the_terminal(stack):
    d = Device(stack, token=stack.mint("open"))
    d.enrol()
    stack.sql("INSERT INTO history (request_id, device_id, serial, protocol, operation, credential, source, outcome, detail, reached)"
              " SELECT 'x', id, serial, 'est', 'simpleenroll', 'none', 'x', 'csr.malformed', E'evil \\x1b[31m', 'BOOTSTRAP' FROM device WHERE serial = %s", d.serial)
    text = stack.cli("device", "show", d.serial).stdout
    assert "\x1b" not in text and "evil \\x1b[31m" in text
