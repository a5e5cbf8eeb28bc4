"""musterd joined to a broker with the plugin, and clients of that broker."""
import contextlib
import json

from broker import REFUSED, Broker, Credential
from claims import Claim
from client import Device, cert_pem, fingerprint, key_pem, unique
from factory import Authority
from mqtt import Mqtt
from stack import Stack, wait_for
from test_metrics import scrape, values


class Client(Mqtt):
    """A certificate at the broker; code is the answer to its CONNECT."""

    def __init__(self, place, cert, key, client_id=None):
        pem = place.folder / f"{fingerprint(cert)}.pem"
        own = place.folder / unique("pem")  # others of the same certificate may be reading it
        own.write_bytes(cert_pem(cert) + key_pem(key))
        own.rename(pem)
        super().__init__(place.broker.port, place.broker.cafile, pem)
        self.code = self.connect(client_id or unique())

    def ask(self, topic, body):
        """The kind of the answer and what it says."""
        for kind in ("accepted", "rejected"):
            self.subscribe(f"{topic}/{kind}", 0)
        self.publish(topic, json.dumps(body).encode())
        while True:
            m = self.message(30)
            if m.topic.startswith(topic):
                return m.topic.removeprefix(topic + "/"), json.loads(m.payload)


class Place:
    """A broker and a stack whose musterd is at it."""

    def __init__(self, stack, folder):
        self.stack, self.folder = stack, folder
        self.services = Authority("Services")
        self.service = Credential(folder, self.services, "musterd")
        self.service.key_file.chmod(0o600)
        trust = [stack.cafile.read_bytes(), stack.v1("GET", "/cas/issuing-1")["pem"].encode(), cert_pem(self.services.cert)]
        self.broker = Broker(folder / "broker", trust, [self.service.pem])

    def settings(self, **more):
        return {"mqtt__host": "127.0.0.1", "mqtt__port": self.broker.port, "mqtt__ca": self.broker.cafile,
                "mqtt__certificate": self.service.cert_file, "mqtt__key": self.service.key_file, **more}

    def metric(self, name, stack=None):
        return values(scrape(stack or self.stack)).get(name)

    def ready(self, stack=None):
        wait_for("the table to be complete", lambda: self.metric("muster_gate_ready", stack) == 1)

    def claim(self, template="claimopen", **kw):
        """A claim that the broker admits already."""
        claim = Claim(self.stack, template, **kw)
        self.admitted(claim.cert, claim.key)
        return claim

    def enrolled(self):
        d = Device(self.stack, token=self.stack.mint("open"))
        d.enrol()
        return d

    def code(self, cert, key):
        with Client(self, cert, key) as c:
            return c.code

    def admitted(self, cert, key, seconds=10):
        wait_for("the broker to admit the certificate", lambda: self.code(cert, key) == 0, seconds)

    def refused(self, cert, key, seconds=10):
        wait_for("the broker to refuse the certificate", lambda: self.code(cert, key) == REFUSED, seconds)

    @contextlib.contextmanager
    def changed(self, **more):
        """musterd with other settings for a while."""
        try:
            self.stack.stop()
            self.stack.configure(**self.settings(**more))
            yield
        finally:
            self.stack.stop()
            self.stack.configure(**self.settings())
            self.stack.start()
            self.ready()


@contextlib.contextmanager
def joined(folder, ca_folder=False):
    """A stack of one's own at a broker of its own."""
    (folder / "stack").mkdir()
    (folder / "place").mkdir()
    with Stack(folder / "stack") as stack:
        stack.seed()
        place = Place(stack, folder / "place")
        if ca_folder:
            place.broker.options = f"plugin_opt_ca_directory {place.broker.trust}"
        with place.broker:
            with place.changed():
                pass
            yield place
