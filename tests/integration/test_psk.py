"""TLS-PSK: devices with an initial key and nothing else, and every door that it must not open."""
import base64
import concurrent.futures
import contextlib
import json
import re
import subprocess

import pytest

import dps
from client import EST, Device, certs_of, fingerprint, new_csr, new_key, request, unique
from psk import FORWARD_SECRET, TLS12, TLS13, NoHandshake, PskDevice, answer_of, derive, http, s_client
from stack import Refused, wait_for
from test_pop import linked_csr


def group_make(stack, template="open", **more):
    return stack.v1("POST", "/enrollment-groups", {"name": unique("psk-group"), "attestation": "psk", "template": template, **more})


def group_delete(stack, made):
    stack.v1("DELETE", f"/enrollment-groups/{made['name']}")


@contextlib.contextmanager
def group_of(stack, **more):
    made = group_make(stack, **more)
    try:
        yield made
    finally:
        with contextlib.suppress(Refused):
            group_delete(stack, made)


@pytest.fixture
def group(stack):
    with group_of(stack) as made:
        opens(stack, made)
        yield made


def opened(device):
    with contextlib.suppress(NoHandshake):
        return device.handshake()


def opens(stack, made, seconds=5, **kw):
    """The replica has seen the group, or what became of it."""
    wait_for("the PSK group to be known", lambda: opened(PskDevice(stack, made, **kw)), seconds)


def shuts(device, seconds=3):
    wait_for("the PSK group to be shut", lambda: not opened(device), seconds)


def refused(call):
    with pytest.raises(Refused) as e:
        call()
    return e.value.status, e.value.code


def uncertified(stack, serial):
    return stack.sql("SELECT 1 FROM device d JOIN certificate c ON c.device_id = d.id WHERE d.serial = %s", serial) == []


def no_handshake(device, how=None):
    with pytest.raises(NoHandshake) as e:
        device.handshake(how=how)
    return re.findall(r"SSL routines:(\w+:[^:\n]*)", str(e.value))


def refused_for(device, reason):
    """What the log says of its handshake; of one source it tells once a second, so it is tried until then."""
    def look():
        no_handshake(device)
        return any(r["event"] == "connection.without_request" and r.get("psk_identity") == device.identity and r["reason"] == reason
                   for r in device.stack.log_records())
    wait_for(f"a record of {device.identity}: {reason}", look, 15)


# Enrolling


@pytest.mark.parametrize("how", FORWARD_SECRET.values(), ids=FORWARD_SECRET)
def test_a_device_enrols_and_goes_on_with_its_certificate(stack, group, how):
    d = PskDevice(stack, group, how=how)
    cert = d.enrol()
    shown = stack.device(d.serial)
    assert shown["state"] == "VERIFY" and shown["certificates"][0]["fingerprint"] == fingerprint(cert)
    assert (shown["trail"][0]["protocol"], shown["trail"][0]["credential"]) == ("est", "enrollment")
    own = Device(stack, d.serial)
    own.key, own.cert = d.key, cert
    assert own.config()["serial"] == d.serial and stack.state(d.serial) == "PROVISIONED"
    own.renew()
    assert stack.v1("GET", f"/enrollment-groups/{group['name']}")["devices"] == 1
    assert stack.sql("SELECT 1 FROM dps_registration WHERE serial_canonical = %s", d.serial) == []


@pytest.mark.parametrize("how", FORWARD_SECRET.values(), ids=FORWARD_SECRET)
def test_exchanges_are_forward_secret(stack, group, how):
    version, cipher = PskDevice(stack, group, how=how).handshake()
    assert (version, cipher) == (("TLSv1.3", "TLS_AES_128_GCM_SHA256") if how == TLS13 else ("TLSv1.2", how[2]))


def test_json_and_keys_made_here(stack, group):
    d = PskDevice(stack, group)
    answer = d.enrol_json(serial=d.serial, template="open")
    assert answer["serial"] == d.serial and answer["state"] == "VERIFY" and not answer["replayed"]
    assert d.enrol_json()["replayed"]
    k = PskDevice(stack, group)
    csr = base64.b64encode(new_csr(k.key, k.serial))
    assert b"application/pkcs8" in k.request("POST", f"{EST}/serverkeygen", csr, {"Content-Type": "application/pkcs10"})[2]


@pytest.mark.parametrize("kx", ["+ECDHE-PSK", "+DHE-PSK"])
def test_gnutls_enrols(stack, group, kx):
    """In TLS 1.3: gnutls-cli 3.7.9 itself breaks down in TLS 1.2 where a server gives no hint, its own gnutls-serv included."""
    d = PskDevice(stack, group)
    csr = base64.b64encode(new_csr(d.key, d.serial))
    data = http("POST", f"{EST}/simpleenroll", csr, {"Content-Type": "application/pkcs10"})
    p = subprocess.Popen(["gnutls-cli", "--logfile=/dev/null", "--no-ca-verification", "--priority", f"NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:{kx}", "--pskusername", d.identity, "--pskkey", d.psk.hex(),
                          "-p", str(stack.port), "127.0.0.1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    p.stdin.write(data)
    p.stdin.flush()  # and left open: at its end gnutls-cli reads no more
    answer = p.stdout.read()
    told = p.communicate(timeout=60)[1]
    assert b"HTTP/1.1 200" in answer and len(certs_of(answer_of(answer)[2])) == 1, (answer, told)


def test_a_client_that_offers_both_gets_its_psk(stack, group):
    d = PskDevice(stack, group, how=("-tls1_2",))
    assert "PSK" in d.handshake()[1]
    assert PskDevice(stack, group, how=()).handshake()[0] == "TLSv1.3"


def test_x509_clients_see_no_difference(stack, group):
    for how in (("-tls1_2",), ("-tls1_3",)):
        done = s_client(stack.port, "-CAfile", stack.cafile, "-verify_return_error", *how)
        assert done.returncode == 0 and b"Verify return code: 0 (ok)" in done.stdout, done
    d = Device(stack, template="open", token=stack.mint("open"))
    d.enrol()
    d.renew()


def test_the_request_is_linked_to_the_connection(stack, group):
    """RFC 7030 3.5 over a PSK: the exporter's value as challengePassword, and another one."""
    d = PskDevice(stack, group)
    for wrong in (False, True):
        p = subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{stack.port}", "-tls1_3", "-ign_eof", *d.options(),
                              "-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        binding = next(bytes.fromhex(m.group(1).decode()) for m in (re.search(rb"Keying material: ([0-9A-F]{64})", line) for line in p.stdout) if m)
        csr = base64.b64encode(linked_csr(d.key, d.serial, base64.b64encode(bytes(32) if wrong else binding)))
        answer, _ = p.communicate(http("POST", f"{EST}/simpleenroll", csr, {"Content-Type": "application/pkcs10"}), timeout=60)
        status, _, body = answer_of(answer)
        assert (status == 403 and b'"pop.mismatch"' in body) if wrong else status == 200, body


def test_a_serial_is_under_its_products_rule(stack):
    with group_of(stack, template="folded") as made:
        opens(stack, made, product="folded")
        d = PskDevice(stack, made, serial=unique("ab:cd"), product="folded")
        d.enrol(subject=d.serial.upper().replace(":", ""))
        assert stack.one("SELECT serial_canonical FROM device WHERE serial = %s", d.serial) == d.serial.upper().replace(":", "").replace("-", "")


def test_a_device_that_comes_again(stack, group):
    d = PskDevice(stack, group)
    first = d.enrol()
    assert d.enrol() == first  # the answer was lost
    another = new_key()
    assert d.enrol(key=another) != first  # the template says Reprovision: replace
    assert stack.v1("GET", f"/enrollment-groups/{group['name']}")["devices"] == 1
    token = Device(stack, d.serial, template="open", token=stack.mint("open"))
    for c in stack.device(d.serial)["certificates"]:
        if c["status"] in ("pending", "current"):
            stack.v1("POST", f"/certs/{c['fingerprint']}/revoke")
    assert refused(token.enrol) == (409, "device.already_provisioned")  # a shared credential takes over nobody who has a key of its own


def test_an_operator_lets_it_in(stack):
    with group_of(stack, template="waiting") as made:
        opens(stack, made)
        d = PskDevice(stack, made)
        csr = base64.b64encode(new_csr(d.key, d.serial))
        assert d.request("POST", f"{EST}/simpleenroll", csr, {"Content-Type": "application/pkcs10"})[0] == 202
        assert stack.v1("GET", f"/enrollment-groups/{made['name']}")["devices"] == 0
        assert stack.sql("SELECT 1 FROM enrollment_device WHERE serial_canonical = %s", d.serial) == []
        stack.v1("POST", f"/devices/{d.serial}/approve")
        d.enrol()
        assert stack.v1("GET", f"/enrollment-groups/{made['name']}")["devices"] == 1


# Who is not let in


@pytest.mark.parametrize("how", FORWARD_SECRET.values(), ids=FORWARD_SECRET)
def test_identities_cannot_be_told_apart(stack, group, how):
    """A wrong key, no such product, no group for it, no identity at all: one alert."""
    good = PskDevice(stack, group, how=how)
    key = derive(group["primary_key"], "elsewhere")
    serial = unique("told")
    identities = {f"pump/{serial}": "the handshake by PSK was not completed: the client has another key, or went away",
                  f"nobody/{serial}": "the product of the PSK identity has no PSK group", f"folded/{serial}": "the product of the PSK identity has no PSK group",
                  f"pump-{serial}": "the PSK identity is not product/serial", f"pump/{serial}#3": "the PSK identity is not product/serial"}
    alerts = {}
    for identity, reason in identities.items():
        d = PskDevice(stack, how=how, identity=identity, key=key)
        alerts[identity] = no_handshake(d)
        refused_for(d, reason)
    assert alerts[f"pump/{serial}"] and len(set(map(tuple, alerts.values()))) == 1, alerts
    assert good.handshake()


def test_a_refused_handshake_is_counted(stack, group):
    def counted():
        text = stack.admin("GET", "/metrics", raw=True)[2].decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("muster_connections_without_request_total") and "device" in line)
    before = counted()
    no_handshake(PskDevice(stack, how=TLS12, identity="pump/x", key=bytes(32)))
    wait_for("the handshake to be counted", lambda: counted() >= before + 1)


@pytest.mark.parametrize("cipher", ["PSK-AES128-GCM-SHA256", "PSK-CHACHA20-POLY1305", "RSA-PSK-AES128-GCM-SHA256", "ECDHE-PSK-AES128-CBC-SHA256",
                                    "DHE-PSK-AES256-CBC-SHA384", "PSK-NULL-SHA256"])
def test_other_suites_are_refused(stack, group, cipher):
    d = PskDevice(stack, group)
    assert no_handshake(d, how=("-tls1_2", "-cipher", cipher + ":@SECLEVEL=0"))
    assert d.handshake()


def test_psk_alone_is_refused_in_tls_1_3(stack, group):
    """psk_ke: a key that leaks would open what was recorded."""
    d = PskDevice(stack, group)
    base = ["gnutls-cli", "--no-ca-verification", "--pskusername", d.identity, "--pskkey", d.psk.hex(), "-p", str(stack.port), "127.0.0.1"]
    seen = {}
    for kx in ("+PSK", "+ECDHE-PSK"):
        done = subprocess.run([*base, "--priority", f"NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:{kx}"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        seen[kx] = b"- Handshake was completed" in done.stdout and b"PSK authentication" in done.stdout
    assert seen == {"+PSK": False, "+ECDHE-PSK": True}
    done = s_client(stack.port, *d.options(), "-tls1_3", "-allow_no_dhe_kex")
    assert b"Server Temp Key" in done.stdout, done  # who offers both gets the exchange


def test_a_disabled_group_is_shut_at_once(stack, group):
    d = PskDevice(stack, group)
    stack.v1("POST", f"/enrollment-groups/{group['name']}/disable")
    try:
        # until the snapshot is new the handshake may pass; the registry judges all the same
        with contextlib.suppress(NoHandshake):
            status, code = refused(d.enrol)
            assert (status, code) == (401, "enrollment.disabled")
    except pytest.fail.Exception as e:
        pytest.fail(f"a disabled group enrolled: {e}")
    shuts(d)
    refused_for(d, "the PSK group of the product is disabled")
    assert uncertified(stack, d.serial)
    stack.v1("POST", f"/enrollment-groups/{group['name']}/enable")
    opens(stack, group)
    d.enrol()


class Open:
    """A connection that is there already."""

    def __init__(self, device):
        self.device = device
        self.process = subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{device.stack.port}", "-tls1_3", "-ign_eof", *device.options()],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert any(b"Verify return code" in line for line in self.process.stdout)

    def enrol(self):
        csr = base64.b64encode(new_csr(self.device.key, self.device.serial))
        return answer_of(self.process.communicate(http("POST", f"{EST}/simpleenroll", csr, {"Content-Type": "application/pkcs10"}), timeout=60)[0])


def test_the_registry_judges_what_the_snapshot_does_not_know_yet(stack, group):
    """A connection that was there before the group was disabled, or deleted."""
    d = PskDevice(stack, group)
    for act in (lambda: stack.v1("POST", f"/enrollment-groups/{group['name']}/disable"), lambda: group_delete(stack, group)):
        stack.v1("POST", f"/enrollment-groups/{group['name']}/enable")
        opens(stack, group)
        there = Open(d)
        act()
        answer = there.enrol()
        assert answer[0] == 401, answer
    assert uncertified(stack, d.serial)


def test_without_a_group_psk_is_not_offered(stack):
    with group_of(stack) as made:
        d = PskDevice(stack, made, how=TLS12)
        opens(stack, made)
        assert d.handshake()
    shuts(d)
    assert no_handshake(d)
    bare = PskDevice(stack, made, how=TLS13)  # it is answered with the server's certificate
    assert refused(bare.enrol) == (401, "auth.required")


def test_the_database_is_not_needed_for_a_handshake(fresh):
    made = group_make(fresh)
    opens(fresh, made)
    d = PskDevice(fresh, made)
    fresh.pg_stop("immediate")
    try:
        for _ in range(3):
            assert d.handshake() and PskDevice(fresh, made, how=TLS12).handshake()
        assert refused(d.enrol)[0] == 503
        no_handshake(PskDevice(fresh, identity="pump/other", key=d.psk))
    finally:
        fresh.pg_start()
    wait_for("the registry to be back", lambda: fresh.admin("GET", "/admin/v1/products", raw=True)[0] == 200 if _up(fresh) else False)
    assert d.enrol()


def _up(stack):
    with contextlib.suppress(Refused):
        return stack.v1("GET", "/products") is not None


def test_a_new_group_is_known_where_nobody_asks(fresh):
    """Written by another replica: nothing but handshakes comes here."""
    made = group_make(fresh)
    opens(fresh, made)
    fresh.sql("UPDATE enrollment SET enabled = false, etag = etag + 1 WHERE name = %s", made["name"])
    shuts(PskDevice(fresh, made))
    epoch = fresh.one("SELECT epoch FROM registry_epoch")
    fresh.sql("UPDATE enrollment SET note = 'x' WHERE name = %s", made["name"])  # without an etag it is no change of an operator's
    assert fresh.one("SELECT epoch FROM registry_epoch") == epoch
    fresh.sql("UPDATE enrollment SET enabled = true, etag = etag + 1 WHERE name = %s", made["name"])
    opens(fresh, made)


# Keys


def test_rotation_with_the_secondary(stack, group):
    old = PskDevice(stack, group)
    by_secondary = PskDevice(stack, group, suffix="#2")
    by_secondary.enrol()
    assert stack.device(by_secondary.serial)["state"] == "VERIFY"
    there, of_secondary = Open(PskDevice(stack, group)), Open(PskDevice(stack, group, suffix="#2"))
    turned = stack.v1("POST", f"/enrollment-groups/{group['name']}/rotate", {"key": "primary"})
    assert "secondary_key" not in turned and turned["primary_key"] != group["primary_key"]
    shuts(old)
    no_handshake(old)
    answer = there.enrol()  # what it proved is worth nothing any more
    assert answer[0] == 401 and b'"auth.required"' in answer[2], answer
    assert of_secondary.enrol()[0] == 200
    assert PskDevice(stack, group, suffix="#2").handshake()  # its generation goes on
    PskDevice(stack, turned, serial=old.serial).enrol()
    no_handshake(PskDevice(stack, identity=f"{by_secondary.identity[:-2]}", key=by_secondary.psk))


def test_a_groups_devices_are_limited_and_counted_once(stack):
    with group_of(stack, max_devices=2, warn_devices=2) as made:
        opens(stack, made)
        a, b, c = (PskDevice(stack, made) for _ in range(3))
        a.enrol(), b.enrol(), a.enrol(), a.enrol(key=new_key())
        assert refused(c.enrol) == (403, "enrollment.group_full")
        assert uncertified(stack, c.serial)
        assert stack.v1("GET", f"/enrollment-groups/{made['name']}")["devices"] == 2
        assert stack.one("SELECT count(*) FROM outbox WHERE event = 'enrollment.group_large' AND payload->>'group' = %s", made["name"]) == 1
        stack.v1("POST", f"/enrollment-groups/{made['name']}/update", {"max_devices": 3})
        c.enrol()


def test_many_at_once(stack):
    with group_of(stack, max_devices=40) as made:
        opens(stack, made)
        devices = [PskDevice(stack, made, how=list(FORWARD_SECRET.values())[i % len(FORWARD_SECRET)]) for i in range(60)]

        def enrol(d):
            try:
                return d.enrol() and "ok"
            except Refused as e:
                return e.code
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            told = list(pool.map(enrol, devices))
        assert sorted(told) == ["enrollment.group_full"] * 20 + ["ok"] * 40, told
        assert stack.v1("GET", f"/enrollment-groups/{made['name']}")["devices"] == 40


# Another device, another door


def test_an_identity_enrols_no_other_device(stack, group):
    d = PskDevice(stack, group)
    other = unique("other")
    assert refused(lambda: d.enrol(subject=other)) == (403, "serial.mismatch")
    assert refused(lambda: d.enrol_json(serial=other)) == (403, "serial.mismatch")
    assert uncertified(stack, d.serial) and uncertified(stack, other)
    assert stack.last_attempt(d.serial)[0] == "serial.mismatch"


def test_a_label_is_the_groups_template_or_none(stack, group):
    d = PskDevice(stack, group)
    assert refused(lambda: d.enrol(label="strict")) == (403, "template.credential_not_allowed")
    d.enrol(label="open")


def test_no_other_door_opens(stack, group):
    d = PskDevice(stack, group)
    for how in FORWARD_SECRET.values():
        done = s_client(stack.admin_port, *d.options(), *how)
        assert b"PSK identity: pump" not in done.stdout and b"Reused" not in done.stdout
        assert b"Cipher is (NONE)" in done.stdout or b"BEGIN CERTIFICATE" in done.stdout, done  # none, or by the server's certificate
    assert refused(lambda: d.enrol(operation="simplereenroll")) == (401, "auth.required")
    assert refused(lambda: d.request("GET", "/v1/device/config"))[0] == 401
    csr = base64.b64encode(new_csr(d.key, d.serial)).decode()
    status, _, _ = _any(d, "PUT", f"/{dps.SCOPE}/registrations/{d.serial}/register?api-version={dps.VERSION}", json.dumps({"csr": csr}))
    assert status == 401
    assert uncertified(stack, d.serial)


def _any(d, method, path, body):
    done = s_client(d.stack.port, "-quiet", *d.options(), *d.how, data=http(method, path, body.encode(), {"Content-Type": dps.JSON}))
    return answer_of(done.stdout)


def test_no_key_of_one_protocol_opens_the_other(stack, group):
    serial = unique("cross")
    for key in (dps.derive(group["primary_key"], serial), base64.b64encode(derive(group["primary_key"], f"pump/{serial}")).decode(), group["primary_key"]):
        dps.Registrant(stack, serial, key).refused()
    symmetric = dps.group(stack)
    for identity in (f"pump/{serial}", f"pump/{serial}#2"):
        for master in (symmetric["primary_key"], symmetric["secondary_key"]):
            no_handshake(PskDevice(stack, identity=identity, key=derive(master, identity)))
    stack.v1("DELETE", f"/enrollment-groups/{symmetric['name']}")


def test_a_token_on_the_same_connection_counts_as_a_token(stack, group):
    """What the request itself presents goes first; the key of the connection is no second chance."""
    d = PskDevice(stack, group)
    other = unique("token")
    csr = base64.b64encode(new_csr(d.key, other))
    headers = {"Content-Type": "application/pkcs10", "Authorization": "Bearer " + stack.mint("open")}
    (cert,) = certs_of(d.request("POST", f"{EST}/open/simpleenroll", csr, headers)[2])
    assert stack.device(other)["trail"][0]["credential"] == "token" and cert
    headers["Authorization"] = "Bearer nonsense"
    assert refused(lambda: d.request("POST", f"{EST}/open/simpleenroll", base64.b64encode(new_csr(d.key, d.serial)), headers))[1] == "enrol.refused"


# The operator's desk


def test_what_a_group_may_be(stack, group):
    with pytest.raises(Refused) as e:
        group_make(stack)
    assert e.value.code == "request.exists" and "one at most" in e.value.problem["detail"]
    for more in ({"payload": {}}, {"allocation": "hashed"}, {"ca": "x"}, {"primary_key": "short"}):
        with pytest.raises(Refused) as e:
            group_make(stack, template="folded", **more)
        assert e.value.code == "request.malformed", more
    with pytest.raises(Refused) as e:
        dps.enrollment(stack, attestation="psk")
    assert e.value.code == "request.malformed"
    shown = stack.v1("GET", f"/enrollment-groups/{group['name']}")
    assert shown["attestation"] == "psk" and "primary_key" not in shown
    assert [g["name"] for g in stack.v1("GET", "/enrollment-groups?attestation=psk")] == [group["name"]]


def test_a_group_assigns_nothing_later_either(stack, group):
    for more in ({"payload": {}}, {"endpoints": []}, {"migrate": False}):
        assert refused(lambda: stack.v1("POST", f"/enrollment-groups/{group['name']}/update", more))[1] == "request.conflict"


def test_the_command(stack):
    name = unique("by-command")
    made = stack.cli_json("enrollment-group", "create", name, "--attestation", "psk", "--template", "open")
    try:
        opens(stack, made)
        d = PskDevice(stack, made)
        openssl = subprocess.run(["bash", "-c", 'printf %s "$1" | openssl mac -digest SHA256 -macopt hexkey:$(printf %s "$2" | base64 -d | od -An -v -tx1 | tr -d " \\n") HMAC', "-",
                                  d.identity, made["primary_key"]], capture_output=True, text=True, check=True)
        assert openssl.stdout.strip().lower() == d.psk.hex()  # as docs/protocols/psk.md has a factory do it
        d.enrol()
        stack.cli("enrollment-group", "disable", name)
        shuts(d)
    finally:
        stack.cli("enrollment-group", "delete", name)


def test_secrets_are_in_no_log(stack, group):
    PskDevice(stack, group).enrol()
    text = stack.log_text()
    assert group["primary_key"] not in text and base64.b64decode(group["primary_key"]).hex() not in text
