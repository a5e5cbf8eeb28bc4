"""Trust on reconnect: certificates of our own CA that the registry lost register themselves while an operator lets them."""
import json
import time

import pytest

from claims import Claim, ClaimDevice
from client import Device, cert_pem, fingerprint, new_key, request
from journal import device, lose, refused
from stack import Refused, Stack


@pytest.fixture(scope="module")
def trusting(tmp_path_factory):
    """Devices of a registry that was lost without a journal; only its CA and templates are there again."""
    with Stack(tmp_path_factory.mktemp("trusting")) as stack:
        stack.seed()
        stack.devices = {name: device(stack) for name in ("config", "renewal", "broker", "late", "retired", "quarantined", "listed", "newer", "stolen", "other", "strict")}
        stack.devices["strict"] = Device(stack, None, "strict")
        stack.allow(stack.devices["strict"].serial)
        stack.devices["strict"].token = stack.mint("strict", stack.devices["strict"].serial)
        stack.devices["strict"].enrol()
        stack.claim = Claim(stack)
        stack.unregistered = ClaimDevice(stack.claim)
        stack.unregistered.create()
        stack.old = {name: (stack.devices[name].key, stack.devices[name].cert) for name in ("newer", "stolen")}
        for name in stack.old:
            time.sleep(1.1)
            stack.devices[name].renew(new_key())
        stack.stop()
        cas = stack.sql("SELECT kind, name, certificate, fingerprint, spki_sha256, subject, key_reference, not_after FROM ca ORDER BY id")
        lose(stack)
        for ca in cas:
            stack.sql("INSERT INTO ca (kind, name, certificate, fingerprint, spki_sha256, subject, key_reference, not_after) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)", *ca)
        stack.token = stack.musterd("admin-token", "--admin", "again").stdout.strip()
        stack.start()
        stack.seed()
        yield stack


def trust(stack, **body):
    made = stack.v1("POST", "/registry:trust-own", body)
    stack.catalog_caught_up()
    return made


def test_nobody_is_trusted_before_an_operator_says_so(trusting):
    for d in trusting.devices.values():
        refused("cert.unknown", d.config)
    assert all(ca["trusted_until"] is None for ca in trusting.v1("GET", "/cas"))
    assert trusting.cli("doctor", check=False).stdout.count("trust in lost certificates") == 0
    for body in ({}, {"off": True, "for_s": 60}):
        refused("request.malformed", trusting.v1, "POST", "/registry:trust-own", body)
    refused("object.not_found", trusting.v1, "POST", "/registry:trust-own", {"for_s": 60, "template": "nothing"})


def test_what_a_certificate_of_ours_says_is_believed_for_a_while(trusting):
    devices = trusting.devices
    said = trusting.cli_json("registry", "trust-own", "--for", "7d", "--template", "open")
    assert said["cas"] == ["issuing-1"] and said["template"] == "open" and said["trusted_until"]
    trusting.catalog_caught_up()
    assert "trust in lost certificates" in trusting.cli("doctor", check=False).stdout
    assert [ca["name"] for ca in trusting.v1("GET", "/cas") if ca["trusted_until"]] == ["issuing-1"]
    assert devices["config"].config()["thing_name"] == f"open-{devices['config'].serial}"
    shown = trusting.device(devices["config"].serial)
    (certificate,) = shown["certificates"]
    assert shown["recovered_at"] and shown["state"] == "PROVISIONED" and certificate["recovered_at"] and certificate["origin"] == "issued" and certificate["status"] == "current"
    first = fingerprint(devices["renewal"].cert)
    devices["renewal"].renew(new_key())
    devices["renewal"].config()
    assert {c["fingerprint"]: c["status"] for c in trusting.device(devices["renewal"].serial)["certificates"]}[first] == "superseded"
    token = trusting.v1("POST", "/admin-tokens", {"name": "emqx", "role": "broker"})["token"]
    answer = trusting.v1("POST", "/broker/auth", {"clientid": f"open-{devices['broker'].serial}", "cert_pem": cert_pem(devices["broker"].cert).decode()}, token=token)
    assert answer["result"] == "allow" and trusting.device(devices["broker"].serial)["state"] == "PROVISIONED"
    # a second contact changes nothing
    devices["config"].config()
    assert len(trusting.device(devices["config"].serial)["certificates"]) == 1


def test_what_is_known_against_a_certificate_keeps_it_out(trusting):
    devices, issuer = trusting.devices, trusting.one("SELECT id FROM ca WHERE kind = 'issuing'")
    number = devices["listed"].cert.serial_number
    trusting.sql("INSERT INTO revocation (issuer_id, serial_number, part, reason, not_after) VALUES (%s, %s, NULL, 'keyCompromise', now() + interval '1 year')",
                 issuer, number.to_bytes((number.bit_length() + 7) // 8, "big"))
    refused("cert.revoked", devices["listed"].config)
    refused("cert.revoked", devices["listed"].renew)
    # of two certificates the newer is the device's, in whichever order they come
    devices["newer"].config()
    refused("cert.superseded", devices["newer"].config, trusting.old["newer"][1], trusting.old["newer"][0])
    key, cert = trusting.old["stolen"]
    devices["stolen"].config(cert, key)
    devices["stolen"].config()
    refused("cert.superseded", devices["stolen"].config, cert, key)
    # a key that was revoked, a device that is shut out
    trusting.v1("POST", f"/certs/{fingerprint(devices['stolen'].cert)}/revoke")
    refused("cert.revoked", devices["stolen"].config)
    for name, act in (("retired", "retire"), ("quarantined", "quarantine")):
        d = devices[name]
        again = Device(trusting, d.serial, "open", trusting.mint("open", d.serial))
        again.enrol()
        trusting.v1("POST", f"/devices/{d.serial}/{act}")
        refused("device.retired" if act == "retire" else "device.quarantined", d.config)
    # what was made for claims is no device's; another product's is not the template's
    refused("cert.wrong_purpose", lambda: ask_config(trusting, trusting.claim.cert, trusting.claim.key))
    refused("cert.no_serial", lambda: ask_config(trusting, trusting.unregistered.cert, trusting.unregistered.key))
    devices["strict"].config()  # its allowlist admitted it once


def ask_config(stack, cert, key):
    status, headers, body = request(stack, "GET", "/v1/device/config", chain=[cert], key=key)
    if status != 200:
        raise Refused(status, headers, body)
    return json.loads(body)


def test_afterwards_nobody_is_trusted_again(trusting):
    d = trusting.devices["other"]
    trust(trusting, for_s=86400)
    refused("template.no_default", d.config)  # the product has many templates
    trust(trusting, for_s=86400, template="folded")
    refused("template.credential_not_allowed", d.config)
    trust(trusting, off=True)
    refused("cert.unknown", d.config)
    refused("cert.unknown", d.renew)
    trust(trusting, for_s=86400, template="open")
    trusting.sql("UPDATE ca SET trusted_until = now() - interval '1 second' WHERE kind = 'issuing'")
    trusting.catalog_caught_up()
    refused("cert.unknown", trusting.devices["late"].config)
    actions = [row["action"] for page in trusting.pages("/audit") for row in page]
    assert {"registry.trust_own", "registry.trust_own_end"} <= set(actions)
    trusting.devices["config"].config()
