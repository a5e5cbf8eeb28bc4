"""PostgreSQL, musterd and Mosquitto with the plugin, joined; and a device that speaks MQTT in JSON or CBOR."""
import subprocess

from broker import Broker
from replica import Replica
from stack import Stack, wait_for


def service_identity(folder):
    """musterd's certificate at the broker: self-signed, pinned by the plugin."""
    folder.mkdir(parents=True, exist_ok=True)
    cert, key = folder / "musterd.pem", folder / "musterd.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650", "-subj", "/CN=musterd",
                    "-addext", "extendedKeyUsage=clientAuth", "-keyout", key, "-out", cert], check=True, capture_output=True)
    key.chmod(0o600)
    return cert, key


class FleetStack(Stack):
    """A stack whose musterd is at a broker of its own."""

    def __enter__(self):
        self.service_cert, self.service_key = service_identity(self.folder / "broker-identity")
        super().__enter__()
        try:
            issuing = self.v1("GET", "/cas/issuing-1")["pem"]
            trust = [self.cafile.read_text(), issuing]
            self.broker = Broker(self.folder / "broker", trust, [self.service_cert.read_text()], self.folder / "server.pem", self.folder / "server.key")
            self.broker.start()
            self.stop()
            self.configure(**self.mqtt())
            self.start()
            self.connected()
        except BaseException:
            self.__exit__()
            raise
        return self

    def mqtt(self):
        return {"mqtt__host": "127.0.0.1", "mqtt__port": self.broker.port, "mqtt__ca": self.folder / "ca" / "root.pem",
                "mqtt__certificate": self.service_cert, "mqtt__key": self.service_key}

    def __exit__(self, *exc):
        if getattr(self, "broker", None):
            self.broker.stop()
        super().__exit__(*exc)

    def metric(self, name):
        text = self.admin("GET", "/metrics", raw=True)[2].decode()
        return next((float(line.split()[1]) for line in text.splitlines() if line.startswith(name + " ")), None)

    def connected(self):
        wait_for("musterd to fill the broker's table", lambda: self.metric("muster_mqtt_connected") == 1 and self.ready())

    def ready(self):
        return self.metric("muster_gate_ready") == 1

    def admit(self, claim):
        """Waits until the broker knows a claim."""
        wait_for(f"the broker to admit {claim.name}", lambda: self.broker.admits(claim.chain[0], claim.key, self.cafile))

    def admitted(self, *fingerprints):
        wait_for("the broker to know the certificates", lambda: self.metric("muster_gate_behind_seconds") == 0)


class FleetReplica(Replica):
    """Another musterd at the same broker."""

    def configure(self, **extra):
        super().configure(**self.first.mqtt(), **extra)
