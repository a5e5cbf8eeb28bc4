"""The stack as devices and strangers meet it: both doors of the balancer, and what must not pass."""
import base64
import json
import os
import re
import socket
import ssl
import subprocess
import urllib.error
import urllib.request

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from containers import (PASSTHROUGH, ROOT, RUN, STATE, TERMINATED, Door, Refused, address, containers, gateway, log_records, sql,
                        stack, token, wait_for)
from claims import csr_pem
from client import Device, cert_pem, fingerprint, key_pem, name_of, new_key, request, unique
from factory import Authority

DOORS = [pytest.param(PASSTHROUGH, id="passthrough"), pytest.param(TERMINATED, id="terminated")]


def client_cert(device):
    """RFC 9440, 2.1."""
    return ":" + base64.b64encode(device.cert.public_bytes(Encoding.DER)).decode() + ":"


def enrolled(door, prefix="door"):
    device = Device(door, unique(f"{prefix}-{RUN}"), token=token())
    device.enrol()
    device.config()
    return device


@pytest.mark.parametrize("door", DOORS)
def test_a_device_enrols_and_renews(door):
    device = enrolled(door)
    first = device.cert
    device.renew(key=new_key())
    assert device.cert.serial_number != first.serial_number
    assert device.config()["state"] == "PROVISIONED"
    assert sql(f"SELECT c.status FROM device d JOIN certificate c ON c.device_id = d.id WHERE d.serial = '{device.serial}' ORDER BY c.id") == [
        ["superseded"], ["current"]]


@pytest.mark.parametrize("flag", [(), ("--terminated",)], ids=["passthrough", "terminated"])
def test_one_command_enrols_a_device(flag):
    serial = unique(f"shell-{RUN}")
    assert f'"serial":"{serial}"' in stack("enrol", *flag, serial)
    assert serial in stack("muster", "device", "list")


@pytest.mark.parametrize("door", DOORS)
def test_the_log_has_the_address_of_the_device(door):
    device = enrolled(door, "source")
    sources = {r["source"] for r in wait_for("its log records", lambda: log_records(device.serial))}
    assert sources == {gateway("doors")}


def test_a_client_cert_header_is_refused_where_tls_passes_through():
    victim = enrolled(PASSTHROUGH)
    header = client_cert(victim)
    status, _, body = request(PASSTHROUGH, "GET", "/v1/device/config", headers={"Client-Cert": header})
    assert (status, json.loads(body)["code"]) == (400, "proxy.header_refused")


@pytest.mark.parametrize("name", ["Client-Cert", "client-cert", "CLIENT-CERT"])
def test_a_client_cert_header_is_taken_away_where_tls_ends(name):
    victim = enrolled(TERMINATED)
    header = client_cert(victim)
    status, _, body = request(TERMINATED, "GET", "/v1/device/config", headers={name: header})
    assert (status, json.loads(body)["code"]) == (401, "auth.required")
    other = enrolled(TERMINATED)
    status, _, body = request(TERMINATED, "GET", "/v1/device/config", headers={name: header}, chain=[other.cert], key=other.key)
    assert (status, json.loads(body)["serial"]) == (200, other.serial)


def test_a_certificate_of_an_unknown_ca_is_explained_behind_either_door():
    cert, key = Authority("Nobody's CA").device("stranger")
    codes = set()
    for door in (PASSTHROUGH, TERMINATED):
        status, _, body = request(door, "GET", "/v1/device/config", chain=[cert], key=key)
        codes.add((status, json.loads(body)["code"]))
    assert codes == {(403, "ca.not_registered")}


@pytest.mark.parametrize("most", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_no_session_is_resumed_where_tls_ends(most):
    """A resumed one would not show its certificate again."""
    context = ssl.create_default_context(cafile=str(Door.cafile))
    context.maximum_version = most
    session = None
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", TERMINATED.port), 10) as plain:
            with context.wrap_socket(plain, server_hostname="localhost", session=session) as s:
                s.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert s.recv(12) == b"HTTP/1.1 200" and s.session_reused is False
                session = s.session


def test_the_proxy_listener_believes_the_balancer_only():
    replica = address(containers("musterd")[0], "edge")
    victim = enrolled(TERMINATED)
    header = client_cert(victim)
    context = ssl.create_default_context(cafile=str(Door.cafile))
    context.check_hostname = False
    ask = urllib.request.Request(f"https://{replica}:8445/v1/device/config", headers={"Client-Cert": header})
    with pytest.raises(urllib.error.HTTPError) as e:
        urllib.request.urlopen(ask, context=context, timeout=10)
    assert (e.value.code, json.loads(e.value.read())["code"]) == (403, "proxy.unauthenticated")


def test_a_proxy_header_of_a_stranger_is_no_tls():
    replica = address(containers("musterd")[0], "edge")
    header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes([192, 0, 2, 77, 192, 0, 2, 78, 0, 1, 0, 2])
    with socket.create_connection((replica, 8443), 10) as s:
        s.sendall(header)
        context = ssl._create_unverified_context()
        with pytest.raises(OSError):  # which ssl.SSLError is; of a socket that was reset already wrap_socket alone says nothing
            context.wrap_socket(s, do_handshake_on_connect=False).do_handshake()


def mosquitto_pub(topic, *credentials):
    return subprocess.run(["mosquitto_pub", "-h", "127.0.0.1", "-p", os.environ.get("MUSTER_MQTT_PORT", "8883"), "--cafile", Door.cafile, "-V", "5", "-q", "1", "-t", topic, "-m", "hello",
                           *map(str, credentials)], capture_output=True, text=True, timeout=20)


def test_the_broker_knows_a_device_by_its_certificate(tmp_path):
    device = enrolled(PASSTHROUGH)
    (tmp_path / "c.pem").write_bytes(cert_pem(device.cert) + (STATE / "ca" / "issuing-1.pem").read_bytes())
    (tmp_path / "c.key").write_bytes(key_pem(device.key))
    own = ("--cert", tmp_path / "c.pem", "--key", tmp_path / "c.key")
    mine = f"things/quickstart-{device.serial}/state"
    wait_for("the broker to know the device", lambda: mosquitto_pub(mine, *own).returncode == 0)
    assert "Not authorized" in mosquitto_pub("things/another/state", *own).stderr
    assert mosquitto_pub(mine).returncode != 0
    wait_for("VERIFY at the broker", lambda: f'"{device.serial}"' in stack("muster", "device", "list", "--state", "PROVISIONED", "--json"))


def test_a_claim_provisions_through_the_balancer_and_the_broker_knows_it(tmp_path):
    name, serial = unique(f"claim-{RUN}"), unique(f"claimed-{RUN}")
    made = json.loads(stack("muster", "claim", "create", name, "--template", "sensor", "--json"))
    sql(f"INSERT INTO allowlist (product_id, serial, serial_canonical) SELECT id, '{serial}', '{serial}' FROM product WHERE name = 'quickstart'")
    (tmp_path / "claim.pem").write_text(made["certificate_pem"])
    (tmp_path / "claim.key").write_text(made["private_key_pem"])
    context = ssl.create_default_context(cafile=str(Door.cafile))
    context.load_cert_chain(tmp_path / "claim.pem", tmp_path / "claim.key")
    key = new_key()

    def call(path, body):
        asked = urllib.request.Request(f"https://127.0.0.1:{PASSTHROUGH.port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, context=context, timeout=20) as answer:
            return json.loads(answer.read())

    certificate = call("/v1/certificates/create-from-csr", {"certificateSigningRequest": csr_pem(key, name_of())})
    thing = call("/v1/provisioning-templates/sensor/provision", {"certificateOwnershipToken": certificate["certificateOwnershipToken"], "parameters": {"SerialNumber": serial}})
    (tmp_path / "c.pem").write_text(certificate["certificatePem"])
    (tmp_path / "c.key").write_bytes(key_pem(key))
    own = ("--cert", tmp_path / "c.pem", "--key", tmp_path / "c.key")
    topic = f"things/{thing['thingName']}/telemetry"
    wait_for("the broker to know the device", lambda: mosquitto_pub(topic, *own, "-i", thing["thingName"]).returncode == 0)
    assert mosquitto_pub(topic, *own, "-i", "another").returncode != 0, "its policy says which client it is"


def test_a_factory_device_registers_itself_at_the_broker(tmp_path):
    """Its CA is registered in one command after it was seen; the broker honours it without a restart."""
    ca, serial, name = Authority(unique(f"Factory {RUN}")), unique(f"bulb-{RUN}"), unique(f"jit-{RUN}")
    cert, key = ca.device(serial)
    assert request(PASSTHROUGH, "GET", "/v1/device/config", chain=[cert, ca.cert], key=key)[0] == 403
    stack("muster", "template", "put", name, "/usr/share/muster/templates/jitp.json", "--product", "quickstart")
    stack("muster", "ca", "register", "--unknown", fingerprint(ca.cert), "--template", name, "--without-proof")
    (tmp_path / "c.pem").write_bytes(cert_pem(cert))
    (tmp_path / "c.key").write_bytes(key_pem(key))
    own = ("--cert", tmp_path / "c.pem", "--key", tmp_path / "c.key", "-i", serial)
    wait_for("the broker to let it in", lambda: mosquitto_pub(f"things/{serial}/hello", *own).returncode == 0)
    wait_for("PROVISIONED", lambda: f'"{serial}"' in stack("muster", "device", "list", "--state", "PROVISIONED", "--json"))


def prometheus(path):
    with urllib.request.urlopen(f"http://127.0.0.1:{os.environ.get('MUSTER_PROMETHEUS_PORT', 9090)}/api/v1/{path}", timeout=10) as answer:
        return json.loads(answer.read())["data"]


def test_prometheus_watches_every_replica_and_the_balancer():
    def up():
        targets = prometheus("targets")["activeTargets"]
        return sorted((t["labels"]["job"], t["health"]) for t in targets) == [("haproxy", "up"), ("muster", "up"), ("muster", "up")]

    wait_for("both replicas to be scraped", up, 40)
    loaded = {r["name"] for g in prometheus("rules")["groups"] for r in g["rules"]}
    written = {name for f in (ROOT / "deploy" / "prometheus").glob("*.rules.yml") for name in re.findall(r"- (?:alert|record): *(\S+)", f.read_text())}
    assert loaded == written


def test_refusals_are_answers():
    with pytest.raises(Refused) as e:
        Device(TERMINATED, unique(f"bad-{RUN}"), token="mt_" + "A" * 43).enrol()
    assert e.value.code == "enrol.refused"
