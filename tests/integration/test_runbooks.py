"""The runbooks, run as they stand: every box that is marked, in its order."""
import datetime
import json
import os
import re
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from claims import Claim, ClaimDevice
from client import Device, cert_pem, fingerprint, unique
from factory import Authority
from journal import JournaledStack, lose
from stack import BUILD, ROOT, Refused, Stack, wait_for
from test_credentials import refused

BOOKS = ROOT / "docs" / "runbooks"


def boxes(book, mark):
    return re.findall(rf"^<!-- {mark} -->\n```sh\n(.*?)^```$", (BOOKS / book).read_text(), re.M | re.S)


def run_box(stack, folder, box, words):
    """What it prints."""
    environment = {**os.environ, "PATH": f"{BUILD / 'server'}:{os.environ['PATH']}", "MUSTER_ADMIN_URL": f"https://127.0.0.1:{stack.admin_port}",
                   "MUSTER_ADMIN_TOKEN": stack.token, "MUSTER_CACERT": str(stack.cafile), **words}
    done = subprocess.run(["bash", "-eu", "-o", "pipefail", "-c", box], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (box, done.stdout, done.stderr)
    return done.stdout


def run(stack, folder, book, mark="run", **words):
    found = boxes(book, mark)
    assert found, (book, mark)
    return "".join(run_box(stack, folder, box, words) for box in found)


def enrolled(stack, template="open"):
    d = Device(stack, None, template, stack.mint(template))
    d.enrol()
    d.config()
    return d


def test_every_box_is_run_or_a_drill():
    for book in sorted(BOOKS.glob("*.md")):
        text = book.read_text()
        assert text.count("```sh") == len(re.findall(r"^<!-- (run|drill)[^\n]* -->\n```sh$", text, re.M)), book.name


def test_a_leaked_claim(stack, tmp_path):
    claim = Claim(stack, "claimopen")
    other, serials = enrolled(stack), [unique("line") for _ in range(2)]
    for serial in serials:
        ClaimDevice(claim, serial).provision()
    (tmp_path / "FACTORY-SERIALS.txt").write_text(serials[0] + "\n" + other.serial + "\n")
    run(stack, tmp_path, "compromised-claim.md", CLAIM=claim.name)
    assert stack.v1("GET", f"/claims/{claim.name}")["state"] == "revoked"
    assert (tmp_path / "strangers.txt").read_text().split() == [serials[1]]
    assert {d["serial"] for d in stack.v1("GET", f"/devices?claim={claim.name}")} == set(serials)
    assert stack.device(serials[1])["retired_at"] and not stack.device(serials[0])["retired_at"] and not stack.device(other.serial)["retired_at"]
    assert stack.v1("GET", f"/claims/{claim.name}-2")["state"] == "active" and (tmp_path / f"{claim.name}-2.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Refused):
        ClaimDevice(claim, unique("line")).provision()


def test_a_stolen_device(stack, tmp_path):
    d, gone = enrolled(stack), enrolled(stack)
    said = run(stack, tmp_path, "compromised-device.md", SERIAL=d.serial)
    assert "QUARANTINE" in said and stack.v1("GET", f"/certs/{fingerprint(d.cert)}")["revoke_reason"] == "keyCompromise"
    refused("cert.revoked", d.config)
    said = run(stack, tmp_path, "compromised-device.md", "run back", SERIAL=d.serial, TEMPLATE="open")
    again = Device(stack, d.serial, "open", re.search(r"mst_\S+", said).group())
    again.enrol()
    assert again.config()["state"] == "PROVISIONED"
    with pytest.raises(Refused):  # the old key is dead
        Device(stack, d.serial, "open", stack.mint("open", d.serial)).enrol(key=d.key)
    run(stack, tmp_path, "compromised-device.md", "run gone", SERIAL=gone.serial)
    with pytest.raises(Refused):
        gone.config()


def test_a_stolen_issuing_key(fresh, tmp_path):
    renews, stays = enrolled(fresh), enrolled(fresh)
    first, second, third = boxes("compromised-issuing-ca.md", "run")
    words = {"CONFIG": str(fresh.config), "OLD": "issuing-1", "NEW": "issuing-2", "ORGANIZATION": "Test"}

    def box(text):
        return run_box(fresh, tmp_path, text, words)

    box(first)
    wait_for("the new issuer", lambda: enrolled(fresh).cert.issuer != stays.cert.issuer)
    renews.renew()
    renews.config()
    assert int(box(second)) >= 1
    box(third)
    refused("cert.revoked", stays.config)
    assert renews.config()["state"] == "PROVISIONED" and int(box(second)) == 0


def test_a_mass_expiry(stack, tmp_path):
    name = unique("mass")
    stack.v1("PUT", f"/templates/{name}?product=pump", {"Muster": {"Credentials": ["token"], "Allowlist": "optional", "Validity": "365d", "RenewBefore": "10d"}})
    devices = [enrolled(stack, name) for _ in range(3)]
    stack.sql("UPDATE certificate SET not_after = now() + interval '20 days', not_before = now() - interval '345 days' WHERE template_id = (SELECT id FROM template WHERE name = %s)", name)
    said = run(stack, tmp_path, "mass-expiry.md", TEMPLATE=name, PRODUCT="pump")
    assert said.startswith("3\n") and devices[0].serial in said
    body = json.loads(stack.v1("GET", f"/templates/{name}")["body"])["Muster"]
    assert (body["RenewBefore"], body["Jitter"], body["ExpiredRenewal"]) == ("60d", "30d", "30d")


def test_another_region(stack, tmp_path, tmp_path_factory):
    product, ca, name = unique("region"), Authority(unique("Factory")), unique("ca")
    stack.v1("POST", "/products", {"name": product})
    stack.v1("PUT", f"/templates/{product}-jit?product={product}", {"Parameters": {"AWS::IoT::Certificate::CommonName": {"Type": "String"}}, "Muster": {"Credentials": ["factory"], "Allowlist": "optional"}})
    ca.register(stack, name, f"{product}-jit", auto_registration=True)
    run(stack, tmp_path, "region-added.md", PRODUCT=product)
    # the registered CAs of other tests name templates that are of other products: this region gets ours only
    bundle = json.loads((tmp_path / "cas.json").read_text())
    bundle["cas"] = [c for c in bundle["cas"] if c["name"] == name]
    (tmp_path / "cas.json").write_text(json.dumps(bundle))
    folder = tmp_path_factory.mktemp("there")
    with Stack(folder) as there:
        run(there, tmp_path, "region-added.md", "run there", PRODUCT=product)
        d = Device(there)
        d.cert, d.key = ca.device(d.serial)
        assert d.config()["state"] == "PROVISIONED"
        assert there.v1("GET", f"/cas/{name}")["template"] == f"{product}-jit" and cert_pem(ca.cert)


def test_a_lost_database_without_a_backup(tmp_path_factory):
    with JournaledStack(tmp_path_factory.mktemp("lost")) as stack:
        stack.seed()
        d, gone = enrolled(stack), enrolled(stack)
        stack.v1("POST", f"/certs/{fingerprint(gone.cert)}/revoke")
        crl = stack.folder / "last.crl"
        stack.stop()
        issuer = x509.load_pem_x509_certificate((stack.folder / "ca" / "issuing-1.pem").read_bytes())
        key = serialization.load_pem_private_key((stack.folder / "ca" / "issuing-1.key").read_bytes(), None)
        now = datetime.datetime.now(datetime.timezone.utc)
        entry = x509.RevokedCertificateBuilder().serial_number(gone.cert.serial_number).revocation_date(now).build()
        made = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject).last_update(now).next_update(now + datetime.timedelta(1)).add_revoked_certificate(entry)
        crl.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        lose(stack)
        said = run(stack, stack.folder, "lost-database.md", CONFIG=str(stack.config), JOURNALS=f"--journal {stack.journal}", SEAL=str(stack.journal_public), CRL=str(crl))
        stack.token = said.split()[-1]
        stack.start()
        assert d.config()["state"] == "PROVISIONED"
        refused("cert.revoked", gone.config)
        run(stack, stack.folder, "lost-database.md", "run trust", TEMPLATE="open")
        assert stack.one("SELECT trusted_until > now() FROM ca WHERE kind = 'issuing'")
