"""Plays the authorization matrix of matrix.py: every route with every kind of credential."""
import base64
import hashlib
import http.client
import json
import pathlib
import re
import socket
import ssl
import struct

import psycopg2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

import matrix
import openapi
from claims import CREATE_FROM_CSR, Claim
from client import Device, basic, cert_pem, certs_of, fingerprint, name_of, new_csr, new_key, request, tls_context, unique
from dps import Registrant, derive, endpoint, enrollment, group, pinned, sas
from factory import NDJSON, Authority, Station, lines_of, unit
from psk import NoHandshake, PskDevice
from scep import PKCS_REQ, Reply, Scep, csr as csr_of, self_signed
from stack import ROOT, Refused, Stack
from test_foreign_crl import crl_of

CODES = openapi.fault_table()


# the server's own route tables

def routes(file):
    """(method, pattern) of a route table in C, as tests/house reads it."""
    text = file.read_text()
    found = {(m, ("/admin/v1" if v1 else "") + p) for m, v1, p in re.findall(r'\{\s*HTTP_(\w+),\s*(V1 )?"([^"]+)"', text)}
    found |= {(m, p) for p in re.findall(r'^    PATH\("([^"]+)"\),', text, re.M) for m in ("GET", "POST")}  # of SCEP
    return found | {("POST" if macro == "ACT" else macro, "/admin/v1" + p) for macro, p in re.findall(r'\b(GET|POST|ACT)\(\s*"([^"]+)"', text)}


def test_every_route_has_its_row():
    served = set().union(*(routes(f) for f in sorted((ROOT / "server/proto").rglob("*.c"))))
    assert len(served) > 50
    rows = set(matrix.DEVICE_ROUTES) | set(matrix.ADMIN_ROUTES) | set(matrix.REVOCATION_ROUTES)
    assert served - rows == set(), "give these routes a row in DEVICE_ROUTES, ADMIN_ROUTES or REVOCATION_ROUTES of tests/integration/matrix.py, and their column cells where none fits"
    assert rows - served == set(), "rows of tests/integration/matrix.py whose routes are gone"


@pytest.mark.parametrize("name", ["DEVICE", "ADMIN"])
def test_every_column_is_used_and_every_cell_is_a_code(name):
    rows, table = getattr(matrix, name + "_ROUTES"), getattr(matrix, name)
    columns = {column for row in table.values() for column in row}
    assert {row[0] for row in rows.values()} == columns
    assert {cell for row in table.values() for cell in row.values()} - {"ok", "hung up"} <= set(CODES)


# what must not move

SNAPSHOT = """SELECT (SELECT row(coalesce(sum(uses), 0), count(*), count(revoked_at), max(replaced_by)) FROM token), (SELECT count(*) FROM token_use),
    (SELECT row(count(*), count(claimed_at), count(*) FILTER (WHERE blocked)) FROM allowlist),
    (SELECT json_object_agg(s, n) FROM (SELECT status, count(*) FROM certificate GROUP BY status ORDER BY status) x(s, n)),
    (SELECT md5(string_agg(row(id, state, retired_at, reset_at, quarantine_reason)::text, ',' ORDER BY id)) FROM device WHERE EXISTS
        (SELECT 1 FROM certificate c WHERE c.device_id = device.id AND c.purpose = 'operational') OR quarantine_reason IS NOT NULL),
    (SELECT row(count(*), count(*) FILTER (WHERE enabled), sum(default_version)) FROM template), (SELECT count(*) FROM product),
    (SELECT row(count(*), count(*) FILTER (WHERE active)) FROM ca), (SELECT count(*) FROM unknown_issuer WHERE issuer NOT LIKE 'CN=Matrix%'),
    (SELECT row(count(*), count(revoked_at)) FROM admin_token), (SELECT count(*) FROM audit),
    (SELECT row(count(*), count(revoked_at), count(supersedes_id)) FROM claim)"""


def ari_name(cert):
    """RFC 9773 4.1: the certificate's name in /renewal-info."""
    aki = cert.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    serial = cert.serial_number.to_bytes(cert.serial_number.bit_length() // 8 + 1, "big")
    return ".".join(base64.urlsafe_b64encode(b).decode().rstrip("=") for b in (aki, serial))


class World:
    """What the cells use: objects of the product matrix, devices and credentials of every kind."""

    def __init__(self, stack):
        self.stack = stack
        self.db = psycopg2.connect(host="127.0.0.1", port=stack.pg_port, user="muster", dbname="muster", options="-c search_path=muster")
        self.db.autocommit = True
        stack.v1("POST", "/products", {"name": "matrix"})
        for name, muster in (("matrix", matrix.TEMPLATE), ("matrix-waiting", {**matrix.TEMPLATE, "Approval": "manual"}),
                             ("matrix-claim", {**matrix.TEMPLATE, "Credentials": ["claim"]})):
            stack.v1("PUT", f"/templates/{name}?product=matrix", {"Muster": muster})
        self.maker, self.closed = Authority("Matrix Maker"), Authority("Matrix Closed")
        self.maker.register(stack, "matrix-maker", "matrix")
        self.closed.register(stack, "matrix-closed", "matrix")
        stack.v1("POST", "/cas/matrix-closed/deactivate")
        self.tokens = {template: self.bad_tokens(template) for template in ("matrix", "open")}
        self.chains = self.bad_chains()
        self.claim = Claim(stack, "matrix-claim")
        stack.v1("POST", "/factory-batches", {"name": "matrix-batch", "template": "open"})
        station = self.station("matrix-batch")
        self.chains["station"] = ([station.cert], station.key, self.allowed())
        self.journal = station.journal()
        self.scep_key = new_key("RSA-2048")
        endpoint(stack, "broker.example.com")
        self.registrant = Registrant(stack, unique("mx-dps"))
        self.registrant.symmetric = enrollment(stack, self.registrant.id)["primary_key"]
        self.registrant.assigned()
        derived = group(stack)
        self.registrants = {"symmetric key": self.registrant, "derived key": Registrant(stack, derived_id := unique("mx-dps"), derive(derived["primary_key"], derived_id)), "pinned certificate": pinned(stack, unique("Matrix-pinned"))}
        for d in self.registrants.values():
            d.assigned()
        self.psk = group(stack, attestation="psk", template="matrix")
        self.lasting = self.enrolled()
        self.name = ari_name(self.lasting.cert)

    def close(self):
        self.db.close()

    def snapshot(self):
        with self.db.cursor() as cursor:
            cursor.execute(SNAPSHOT)
            return cursor.fetchone()

    def allowed(self):
        serial = unique("mx")
        self.stack.allow(serial, product="matrix")
        return serial

    def mint(self, template, serial=None, **kw):
        return self.stack.v1("POST", "/tokens", {"template": template, **({"serial": serial} if serial else {}), **kw})[0]

    def enrolled(self):
        """A device with its current certificate."""
        serial = self.allowed()
        d = Device(self.stack, serial, "matrix", self.mint("matrix", serial)["token"])
        d.enrol()
        d.config()
        return d

    def station(self, batch):
        """With a journal that has a seal and nothing else."""
        s = Station(self.stack, cn="Matrix Station")
        s.create(batch)
        s.seal()
        return s

    def bad_tokens(self, template):
        """{kind: (serial, token)} for a template."""
        tokens = {}
        for kind in ("expired", "used up", "revoked", "foreign serial"):
            serial = self.allowed()
            made = self.mint(template, self.allowed() if kind == "foreign serial" else serial, grace_s=0)
            tokens["token " + kind] = (serial, made["token"])
            if kind == "expired":
                self.stack.sql("UPDATE token SET expires_at = clock_timestamp() - interval '1 s' WHERE id = %s", made["id"])
            elif kind == "used up":
                Device(self.stack, serial, template, made["token"]).enrol()
            elif kind == "revoked":
                self.stack.v1("POST", f"/tokens/{made['id']}/revoke")
        serial = self.allowed()
        tokens["token other template"] = (serial, self.mint("open" if template == "matrix" else "matrix", serial)["token"])
        tokens["token unknown"] = (serial, "mst_unknown")
        tokens["admin token"] = (serial, self.stack.token)
        return tokens

    def bad_chains(self):
        """{kind: (chain, key, serial)} of client certificates."""
        stack, own = self.stack, self.enrolled()
        old, old_key = own.cert, own.key
        own.renew(key=new_key())
        own.config()
        chains = {"device superseded": ([old], old_key, own.serial), "device current": ([own.cert], own.key, own.serial)}
        for kind, path, body in (("revoked", "/certs/{fp}/revoke", None), ("quarantined", "/devices/{sn}/quarantine", None), ("retired", "/devices/{sn}/retire", None)):
            d = self.enrolled()
            stack.v1("POST", path.format(fp=fingerprint(d.cert), sn=d.serial), body)
            chains["device " + kind] = ([d.cert], d.key, d.serial)
        for kind, ca, span in (("unregistered CA", Authority("Matrix Stranger"), {}), ("deactivated CA", self.closed, {}),
                               ("expired", self.maker, {"begin": -9, "end": -2}), ("not yet valid", self.maker, {"begin": 2, "end": 9})):
            serial = self.allowed()
            cert, key = ca.device(serial, **span)
            chains["factory " + kind] = ([cert], key, serial)
        d = Device(stack, self.allowed(), "matrix")
        cert, key = self.maker.device(d.serial)
        d.enrol_factory([cert], key)
        stack.v1("POST", f"/certs/{fingerprint(cert)}/revoke")
        chains["factory revoked"] = ([cert], key, d.serial)
        folder = stack.folder
        for kind, pem, private in (("server certificate", folder / "server.pem", folder / "server.key"),
                                   ("issuing CA's certificate", next((folder / "ca").glob("issuing*.pem")), next((folder / "ca").glob("issuing*.key")))):
            cert = x509.load_pem_x509_certificate(pathlib.Path(pem).read_bytes())
            chains[kind] = ([cert], load_pem_private_key(pathlib.Path(private).read_bytes(), None), self.allowed())
        return chains


PROXY_NAME = "balancer.example"
HAS_PROXY = "TEXT(proxy, address" in (ROOT / "server/ops/config_table.h").read_text()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """On a stack of its own, whose registry is small: each cell looks at all of it, twice. Where the server has a listener for proxies it is open."""
    with Stack(tmp_path_factory.mktemp("matrix")) as stack:
        stack.seed()
        if HAS_PROXY:
            stack.proxy_ca = Authority("Matrix Proxies")
            (stack.folder / "proxies.pem").write_bytes(cert_pem(stack.proxy_ca.cert))
            stack.stop()
            stack.configure(proxy__address="127.0.0.1", proxy__port=0, proxy__client_ca=stack.folder / "proxies.pem", proxy__names=PROXY_NAME,
                            listen__proxy_protocol_from="127.0.0.9")
            stack.start()
        made = World(stack)
        yield made
        made.close()


# the device listener

def credential(world, kind, template):
    """(serial, headers, chain, key, name in the CSR) of a row."""
    if kind == "none":
        return world.lasting.serial, {}, None, None, None
    if kind.startswith("psk"):
        serial = world.allowed()
        return serial, {}, PskDevice(world.stack, world.psk, serial, "matrix", key=bytes(32) if kind == "psk wrong" else None), None, None
    if kind in world.registrants:
        d = world.registrants[kind]
        return d.id, {"Authorization": sas(d.symmetric, d.id)} if d.symmetric else {}, d.chain, d.tls_key, None
    if kind == "authorization malformed":
        return world.lasting.serial, {"Authorization": "Digest x"}, None, None, None
    if kind in ("basic", "bearer", "Client-Cert header"):
        serial = world.allowed()
        token = world.mint(template, serial)["token"]
        headers = {"Authorization": f"Bearer {token}" if kind == "bearer" else basic(serial, token)}
        if kind == "Client-Cert header":
            own = world.lasting.cert.public_bytes(Encoding.DER)
            headers = {"Client-Cert": f":{base64.b64encode(own).decode()}:", **headers}
        return serial, headers, None, None, None
    if kind in world.tokens[template]:
        serial, token = world.tokens[template][kind]
        return serial, {"Authorization": basic(serial, token)}, None, None, None
    if kind in ("factory own", "factory of another"):
        serial = world.allowed()
        cert, key = world.maker.device(serial)
        return serial, {}, [cert], key, world.allowed() if kind == "factory of another" else None
    if kind == "claim":
        return world.allowed(), {}, world.claim.chain, world.claim.key, None
    if kind == "device of another":
        other = world.enrolled()
        return other.serial, {}, [other.cert], other.key, world.lasting.serial
    chain, key, serial = world.chains[kind]
    return serial, {}, chain, key, None


def proxy(stack, who):
    """(chain, key) of a peer of the listener for proxies."""
    if who == "proxy without certificate":
        return None, None
    key = new_key()
    ca = Authority("Matrix False Proxies") if who == "proxy of another CA" else stack.proxy_ca
    return [ca.sign(name_of("proxy"), key.public_key(), san=[x509.DNSName("other.example" if who == "proxy of another name" else PROXY_NAME)])], key


def forwarded(cert):
    return {"Client-Cert": f":{base64.b64encode(cert.public_bytes(Encoding.DER)).decode()}:"}


def through_passthrough(stack, method, path, body, headers):
    """A balancer of 127.0.0.9 passes TLS on and says by PROXY v2 who is there."""
    raw = socket.create_connection(("127.0.0.1", stack.port), timeout=20, source_address=("127.0.0.9", 0))
    raw.sendall(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([192, 0, 2, 7, 127, 0, 0, 1]) + b"\x9c\x40\x01\xbb")
    c = http.client.HTTPSConnection("127.0.0.1", stack.port, timeout=20)
    c.sock = tls_context(stack).wrap_socket(raw, server_hostname="127.0.0.1")
    try:
        c.request(method, path, body, headers)
        answer = c.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        c.close()


def send(world, who, method, path, body, headers, chain, key):
    """The request by itself (who is None), or by way of somebody who forwards the chain."""
    stack = world.stack
    if isinstance(chain, PskDevice):
        return chain.exchange(method, path, body or b"", headers)
    if who is None:
        return request(stack, method, path, body, headers, chain, key)
    headers = {**headers, **forwarded(chain[0])}
    if who == "passthrough":
        return through_passthrough(stack, method, path, body, headers)
    peer = (world.lasting.cert, world.lasting.key) if who == "device as proxy" else None
    chain, key = ([peer[0]], peer[1]) if peer else proxy(stack, who)
    return request(stack, method, path, body, headers, chain, key, port=stack.proxy_port)


def fleet_body(world, path, kind, serial, csr):
    """Of AWS's operations; a registration by the claim is of a certificate that it has."""
    if path.endswith("/create"):
        return {}
    if not path.endswith("/provision"):
        return {"certificateSigningRequest": base64.b64encode(csr).decode()}
    token = "mot_none"
    if kind == "claim":
        token = world.claim.call(CREATE_FROM_CSR, {"certificateSigningRequest": base64.b64encode(csr).decode()})["certificateOwnershipToken"]
    return {"certificateOwnershipToken": token, "parameters": {"SerialNumber": serial}}


def dps_names(world, kind):
    """Registration id and an operation of it."""
    name = world.registrants[kind].id if kind in world.registrants else "mx-nobody"
    return {"dps": name, "operation": f"4.{hashlib.sha256(name.lower().encode()).hexdigest()[:16]}.{'0' * 32}"}


def tpm_body(world, path):
    """Of a TPM whose keys are as they should be."""
    public = struct.pack(">HHIH", 1, 11, 0x000300B2, 32) + bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
    public += struct.pack(">HHHHHIH", 6, 128, 0x43, 0x10, 2048, 0, 256) + new_key("RSA-2048").public_key().public_numbers().n.to_bytes(256, "big")
    ek = base64.b64encode(struct.pack(">H", len(public)) + public).decode()
    body = {"registration_id": world.registrant.id, "endorsement_key": ek, "attestation_key": ek}
    if path.endswith("/challenge"):
        return body
    return {**body, "activated": ek, "key": ek, "attest": ek, "signature": ek, "csr": base64.b64encode(new_csr(new_key(), world.registrant.id)).decode()}


def scep_message(world):
    """A request of a client that has no token, for the RA of this stack."""
    client = Scep(world.stack)
    name = unique("mx-scep")
    return client.message(PKCS_REQ, csr_of(world.scep_key, name), world.scep_key, self_signed(world.scep_key, name)), client


def code_of(column, status, answer, client):
    if column == "scep" and status == 200:
        return Reply(client, answer).text.split(":")[0]
    if status == 200:
        return "ok"
    problem = json.loads(answer)
    return problem["info"]["code"] if "info" in problem else problem["code"]


def ask_device(world, route, kind, who=None):
    column, path = matrix.DEVICE_ROUTES[route]
    client = None
    serial, headers, chain, key, other = credential(world, kind, "matrix" if "/matrix/" in path else "open")
    body = None
    if column == "dps":
        body = b"{}" if route[0] != "GET" else None
        headers = {"Content-Type": "application/json", **headers}
    elif column == "scep":
        body, client = scep_message(world)
        headers = {"Content-Type": "application/x-pki-message", **headers}
    elif route[0] == "POST":
        csr = new_csr(new_key(), other or serial)
        if column == "json":
            body = json.dumps({"csr": base64.b64encode(csr).decode(), **({"serial": other} if other else {})}).encode()
            headers = {"Content-Type": "application/json", **headers}
        elif column == "tpm":
            body, headers = json.dumps(tpm_body(world, path)).encode(), {"Content-Type": "application/json", **headers}
        elif column in ("create", "register"):
            body = json.dumps(fleet_body(world, path, kind, serial, csr)).encode()
            headers = {"Content-Type": "application/json", **headers}
        elif column == "station":
            body = world.journal if path.endswith("journal") else lines_of([unit(serial)])
            headers = {"Content-Type": NDJSON, **headers}
        else:
            body = base64.b64encode(csr)
            headers = {"Content-Type": "application/pkcs10", **headers}
    before = world.snapshot()
    try:
        status, _, answer = send(world, who, route[0], path.format(name=world.name, **dps_names(world, kind)), body, headers, chain, key)
    except (ConnectionError, ssl.SSLError, NoHandshake):
        return "hung up", before, serial, b""
    return code_of(column, status, answer, client), before, serial, answer


@pytest.mark.parametrize("kind", matrix.DEVICE)
@pytest.mark.parametrize("route", matrix.DEVICE_ROUTES, ids=" ".join)
def test_device_cell(world, route, kind):
    column = matrix.DEVICE_ROUTES[route][0]
    code, before, serial, answer = ask_device(world, route, kind)
    assert code == matrix.DEVICE[kind][column]
    if code != "ok" or column in ("public", "info", "config"):
        assert world.snapshot() == before, "something was consumed or changed"
    elif column in ("enrol", "label", "renew"):
        (cert,) = certs_of(answer)
        assert cert.subject == name_of(serial)


if HAS_PROXY:
    @pytest.mark.parametrize("kind", matrix.BY_PROXY)
    @pytest.mark.parametrize("route", matrix.DEVICE_ROUTES, ids=" ".join)
    def test_proxied_cell(world, route, kind):
        column = matrix.DEVICE_ROUTES[route][0]
        code, before, _, _ = ask_device(world, route, kind, "proxy")
        assert code == matrix.DEVICE[kind][column]
        if code != "ok" or column in ("public", "info", "config"):
            assert world.snapshot() == before, "something was consumed or changed"

    @pytest.mark.parametrize("who", matrix.PROXIES)
    @pytest.mark.parametrize("route", matrix.DEVICE_ROUTES, ids=" ".join)
    def test_proxy_cell(world, route, who):
        column, path = matrix.DEVICE_ROUTES[route]
        group = "health" if path in openapi.BOTH else {"public": "public", "info": "public", "cmc": "cmc", "station": "station", "scep": "scep", "tpm": "tpm"}.get(column, "others")
        if who == "issuing CA's certificate by proxy":
            code, before, _, _ = ask_device(world, route, "issuing CA's certificate", "proxy")
        else:
            code, before, _, _ = ask_device(world, route, "device current", "passthrough" if who == "Client-Cert through passthrough" else who)
        assert code == matrix.PROXIES[who][group]
        assert world.snapshot() == before, "something was consumed or changed"


# the admin listener

class Desk:
    """One kept connection, which tells what it asked to the judge of docs/openapi.yaml."""

    def __init__(self, stack):
        self.connection = http.client.HTTPSConnection("127.0.0.1", stack.admin_port, context=tls_context(stack), timeout=60)

    def ask(self, method, path, body, kind, headers):
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        self.connection.request(method, path, data, {**headers, **({"Content-Type": kind} if method in ("POST", "PUT") else {})})
        answer = self.connection.getresponse()
        text = answer.read()
        openapi.SPEC.seen("admin", method, path, kind, data, answer.status, answer.headers, text)
        return "ok" if answer.status < 300 else json.loads(text)["code"]


@pytest.fixture(scope="module")
def desk(world):
    made = Desk(world.stack)
    yield made
    made.connection.close()


@pytest.fixture(scope="module")
def admins(world):
    """{row: headers}"""
    headers = {"none": {}, "authorization malformed": {"Authorization": "Basic x"}, "token unknown": {"Authorization": "Bearer mat_unknown"}}
    for role in ("viewer", "operator", "admin"):
        for scope, product in (("", None), (" own product", "matrix"), (" other product", "pump")):
            body = {"name": unique("mx-admin"), "role": role, **({"product": product} if product else {})}
            headers[role + scope] = {"Authorization": "Bearer " + world.stack.v1("POST", "/admin-tokens", body)["token"]}
    headers["broker"] = {"Authorization": "Bearer " + world.stack.v1("POST", "/admin-tokens", {"name": unique("mx-broker"), "role": "broker"})["token"]}
    gone = world.stack.v1("POST", "/admin-tokens", {"name": unique("mx-gone"), "role": "admin"})
    world.stack.v1("POST", f"/admin-tokens/{gone['name']}/revoke")
    headers["admin revoked"] = {"Authorization": "Bearer " + gone["token"]}
    headers["device token"] = {"Authorization": "Bearer " + world.mint("matrix")["token"]}
    headers["Client-Cert header"] = {"Client-Cert": ":AAAA:", **headers["admin"]}
    return headers


class Objects:
    """What the paths of ADMIN_ROUTES name: lasting where the call is going to be refused, new where it takes effect."""

    def __init__(self, world):
        self.world, self.lasting, self.authorities, self.named = world, {}, {}, None

    def fill(self, value, lasting):
        """value with each <name> in it replaced by such an object."""
        if isinstance(value, dict):
            return {k: self.fill(v, lasting) for k, v in value.items()}
        if isinstance(value, list):
            return [self.fill(v, lasting) for v in value]
        if isinstance(value, bytes):
            return self.fill(value.decode(), lasting).encode()
        return re.sub("<([a-z]+)>", lambda m: str(self.object(m[1], lasting)), value) if isinstance(value, str) else value

    def object(self, name, lasting):
        if lasting and name not in self.lasting:
            self.lasting[name] = getattr(self, name)()
        value = self.lasting[name] if lasting else getattr(self, name)()
        self.named = value if name == "ca" else self.named
        return value

    def serial(self):
        return self.world.enrolled().serial

    def held(self):
        serial = self.serial()
        self.world.stack.v1("POST", f"/devices/{serial}/quarantine")
        return serial

    def waiting(self):
        serial = self.world.allowed()
        with pytest.raises(Refused):
            Device(self.world.stack, serial, "matrix-waiting", self.world.mint("matrix-waiting", serial)["token"]).enrol()
        return serial

    def batch(self):
        name = unique("mx-batch")
        self.world.stack.v1("POST", "/factory-batches", {"name": name, "template": "matrix"})
        return name

    def station(self):
        self.made = self.world.station(self.batch())
        return self.made.name

    def journal(self):
        """Of the station that was named before it."""
        return self.made.journal().decode()

    def unit(self):
        return lines_of([unit(self.world.allowed())]).decode()

    def listed(self):
        return self.world.allowed()

    def token(self):
        return self.world.mint("matrix")["id"]

    def claim(self):
        return self.world.stack.v1("POST", "/claims", {"name": unique("mx-claim"), "template": "matrix-claim"})["name"]

    def fingerprint(self):
        return fingerprint(self.world.enrolled().cert)

    def pem(self):
        return cert_pem(Authority(unique("Matrix CA")).cert).decode()

    def enrollment(self):
        return enrollment(self.world.stack, unique("mx-en"), template="matrix")["registration_id"]

    def engroup(self):
        return group(self.world.stack, unique("mx-group"), template="matrix")["name"]

    def endpoint(self):
        return endpoint(self.world.stack, unique("mx-ep") + ".example.com")["host"]

    def hook(self):
        name = unique("mx-hook")
        self.world.stack.v1("POST", "/webhooks", {"name": name, "url": "http://127.0.0.1:9/x"})
        return name

    def signer(self):
        name = unique("mx-signer")
        self.world.stack.v1("POST", "/manifest-signers", {"name": name, "pem": self.pem()})
        return name

    def cert(self):
        """Of a device that may register."""
        return cert_pem(self.world.maker.device(self.world.allowed())[0]).decode()

    def line(self):
        """The same inside a JSON text."""
        return self.cert().replace("\n", "\\n")

    def off(self):
        fp = self.fingerprint()
        self.world.stack.v1("POST", f"/certs/{fp}/deactivate")
        return fp

    def ca(self):
        name = unique("matrix-ca")
        self.authorities[name] = Authority(name)
        self.authorities[name].register(self.world.stack, name, "matrix")
        return name

    def crl(self):
        """Of the CA that was named before it; PEM."""
        return x509.load_der_x509_crl(crl_of(self.authorities[self.named])).public_bytes(Encoding.PEM).decode()

    def issuer(self):
        cert, key = Authority(unique("Matrix Unknown")).device(self.world.allowed())
        request(self.world.stack, "POST", "/v1/enroll", b'{"csr":"x"}', {"Content-Type": "application/json"}, [cert], key)
        return self.world.stack.v1("GET", "/unknown-cas?limit=1")[0]["issuer_hash"]

    def attempt(self):
        return self.world.stack.device(self.world.lasting.serial)["trail"][0]["request_id"]

    def admin(self):
        return self.world.stack.v1("POST", "/admin-tokens", {"name": unique("mx-victim"), "role": "viewer", "product": "matrix"})["name"]

    def new(self):
        return unique("mx-new")


@pytest.fixture(scope="module")
def objects(world):
    return Objects(world)


@pytest.mark.parametrize("kind", matrix.ADMIN)
@pytest.mark.parametrize("route", matrix.ADMIN_ROUTES, ids=" ".join)
def test_admin_cell(world, desk, admins, objects, route, kind):
    column, path, *rest = matrix.ADMIN_ROUTES[route]
    expected = matrix.ADMIN[kind][column]
    changes = route[0] != "GET" and column not in matrix.CHANGES_NOTHING
    path, body = (objects.fill(v, expected != "ok" or not changes) for v in (path, rest[0] if rest else None))
    before = world.snapshot()
    code = desk.ask(route[0], path, body, rest[1] if len(rest) > 1 else "application/json", admins[kind])
    assert code == expected
    if code != "ok" or not changes:
        assert world.snapshot() == before, "something was consumed or changed"
    else:
        assert world.snapshot() != before, "nothing changed"
