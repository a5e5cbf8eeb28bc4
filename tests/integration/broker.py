"""A private Mosquitto with the plugin on a free loopback port, over TLS, and a musterd that tests play."""
import hashlib
import ipaddress
import itertools
import os
import re
import signal
import struct
import subprocess
import time

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from client import cert_pem, fingerprint, key_pem, unique
from factory import Authority
from mqtt import Mqtt
from stack import BUILD, free_port, shell, wait_for

PLUGIN = BUILD / "server" / "mosquitto_muster.so"
REQUEST, DENIED, SEEN, UNKNOWN, GATE, CONTROL = (
    "muster/request", "muster/denied", "muster/seen", "muster/unknown", "muster/gate", "$CONTROL/muster/v1")
ABSENT, CLAIM, OPERATIONAL, UNUSED = range(4)
CLEAR, READY = 1, 2
REFUSED = 135


def sanitizer():
    """The environment in which a program that was built without them loads a plugin with sanitizers."""
    linked = subprocess.run(["ldd", PLUGIN], capture_output=True, text=True, check=True).stdout
    library = re.search(r"lib[at]san\S* => (\S+)", linked)
    return {"LD_PRELOAD": library.group(1), "ASAN_OPTIONS": "detect_leaks=0"} if library else {}


class Broker:
    """trust_pems are the CAs of clients, service_pems the certificates of musterd, both PEM as bytes."""

    def __init__(self, folder, trust_pems, service_pems):
        self.folder = folder
        self.port = free_port()
        self.options = ""  # more lines of mosquitto.conf
        authority = Authority("Broker CA")
        san = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        cert, key = authority.device("broker", eku=ExtendedKeyUsageOID.SERVER_AUTH, san=san)
        self.cafile, self.trust = folder / "broker-ca.pem", folder / "trust"
        self.service_file = folder / "service.pem"
        self.trust.mkdir(parents=True)
        self.cafile.write_bytes(cert_pem(authority.cert))
        (folder / "server.pem").write_bytes(cert_pem(cert))
        (folder / "server.key").write_bytes(key_pem(key))
        self.service_file.write_bytes(b"".join(service_pems))
        for pem in trust_pems:
            self.trust_add(pem)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.stop()

    def trust_add(self, pem):
        """Trusted from the next handshake on."""
        (self.trust / f"{hashlib.sha256(pem).hexdigest()[:16]}.pem").write_bytes(pem)
        subprocess.run(["openssl", "rehash", self.trust], check=True, capture_output=True)

    def start(self):
        f = self.folder
        shell(f'broker_start "{f}/run" {self.port} "{PLUGIN}" "{self.trust}" "{f}/server.pem" "{f}/server.key" "{self.service_file}"',
              BROKER_OPTIONS=self.options, **sanitizer())

    def stop(self):
        shell(f'stop_pid "{self.folder}/run/pid"')
        assert "Sanitizer" not in self.log_text() and "runtime error" not in self.log_text(), self.log_text()[-3000:]

    def restart(self):
        self.stop()
        self.start()

    @property
    def pid(self):
        return int((self.folder / "run" / "pid").read_text())

    def reload(self):
        before = self.log_text().count("Reloading config")
        os.kill(self.pid, signal.SIGHUP)
        wait_for("the reload", lambda: self.log_text().count("Reloading config") > before)

    def log_text(self):
        log = self.folder / "run" / "log"
        return log.read_text(errors="replace") if log.exists() else ""


class Credential:
    """A client certificate with its key, in files."""

    def __init__(self, folder, authority, name, **kw):
        self.cert, self.key = authority.device(name, **kw)
        self.pem, self.fingerprint = cert_pem(self.cert), fingerprint(self.cert)
        self.cert_file, self.key_file = folder / f"{name}.pem", folder / f"{name}.key"
        self.cert_file.write_bytes(self.pem)
        self.key_file.write_bytes(key_pem(self.key))

    def open(self, broker, version=5):
        """A connection after its handshake, before its CONNECT."""
        return Mqtt(broker.port, broker.cafile, self.cert_file, self.key_file, version)


def entry(state, fingerprint, thing="", policies=(), pairs=None):
    """A certificate; policies are numbers, pairs the thing's attributes that they name."""
    grants = b""
    if policies:
        grants = bytes([len(policies)]) + b"".join(struct.pack(">I", n) for n in policies)
        for name, value in (pairs or {}).items():
            grants += bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return bytes([state]) + bytes.fromhex(fingerprint) + bytes([len(thing)]) + struct.pack(">H", len(grants)) + thing.encode() + grants


class Service:
    """What musterd is to the plugin."""

    numbers = itertools.count(1)

    def __init__(self, broker, credential):
        self.client, self.counter = credential.open(broker), None
        assert self.client.connect(f"musterd-{next(self.numbers)}") == 0
        for topic in (f"$share/muster/{REQUEST}", f"$share/muster/{DENIED}", f"$share/muster/{SEEN}", GATE):
            assert self.client.subscribe(topic) == 1, topic

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.client.close()

    def status(self):
        """The next status of the table, as numbers; other messages are left."""
        kept = []
        while True:
            m = self.client.message()
            if m.topic == GATE:
                self.client.messages.extendleft(reversed(kept))
                status = {k: int(v) for k, v in (pair.split("=") for pair in m.payload.decode().split())}
                self.counter = status["counter"]
                return status
            kept.append(m)

    def message(self, topic):
        """The next message on that topic; statuses on the way are dropped."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            m = self.client.message()
            if m.topic != GATE:
                assert m.topic == topic, m
                return m
        raise TimeoutError(f"nothing on {topic}")

    def nothing(self):
        """Whether nothing but statuses has come."""
        self.client.ping()
        return not [m for m in self.client.messages if m.topic != GATE]

    def control(self, operation, payload=b"", **properties):
        self.client.publish(CONTROL, payload, user=[("op", operation), *properties.items()])

    def raw_batch(self, payload):
        """The status that follows."""
        self.control("gate", payload)
        kept = [m for m in self.client.messages if m.topic != GATE]
        self.client.messages.clear()
        self.client.messages.extend(kept)
        return self.status()

    def batch(self, *entries, flags=0, position=1, counter=None):
        if counter is None:
            counter = self.counter if self.counter is not None else self.status()["counter"]
        return self.raw_batch(b"MGB2" + struct.pack(">QqB", counter, position, flags) + b"".join(entries))

    def answer(self, request, payload, kind="accepted"):
        p = request.properties
        self.control("answer", payload, client=p["client"], conn=p["conn"], topic=f"{p['topic']}/{kind}")


class Place:
    """A broker, its musterd, and certificates of every kind."""

    def __init__(self, folder):
        self.ca, self.folder = Authority("Device CA"), folder
        for name in ("musterd", "claim", "claim2", "device", "device2", "stranger"):
            setattr(self, name, Credential(folder, self.ca, name))
        self.broker = Broker(folder / "broker", [cert_pem(self.ca.cert)], [self.musterd.pem])

    def __enter__(self):
        self.broker.start()
        self.service = Service(self.broker, self.musterd)
        assert self.fill()["ready"] == 1
        return self

    def __exit__(self, *exc):
        self.service.client.close()
        self.broker.stop()

    def entries(self):
        return [entry(CLAIM, self.claim.fingerprint), entry(CLAIM, self.claim2.fingerprint),
                entry(OPERATIONAL, self.device.fingerprint, "pump-1"), entry(OPERATIONAL, self.device2.fingerprint, "pump-2")]

    def fill(self):
        return self.service.batch(*self.entries(), flags=CLEAR | READY)

    def open(self, credential, client_id=None, version=5, **kw):
        """A connected client."""
        c = credential.open(self.broker, version)
        code = c.connect(client_id or unique(), **kw)
        assert code == 0, code
        return c

    def code(self, credential, client_id, version=5, **kw):
        """The answer to a CONNECT."""
        with credential.open(self.broker, version) as c:
            return c.connect(client_id, **kw)

    def again(self):
        """A musterd that begins with nothing in its queues."""
        self.service.client.close()
        self.service = Service(self.broker, self.musterd)
        self.fill()
