"""Another musterd over the registry and the keys of a stack."""
from stack import Stack


class Replica(Stack):
    """Another musterd over the registry and the keys of a stack."""

    def __init__(self, first, folder):
        super().__init__(folder)
        self.first, self.pg_port, self.token, self.doors = first, first.pg_port, first.token, first.doors

    def configure(self, **extra):
        home = self.first.folder
        if self.doors:
            extra.setdefault("scep__certificate", home / "scep-ra.pem")
        super().configure(tls__certificate=home / "server.pem", tls__key=home / "server.key", ca__directory=home / "ca", **extra)

    def start(self):
        super().start()
        self.cafile = self.first.cafile

    def __enter__(self):
        self.configure()
        self.start()
        return self

    def __exit__(self, *exc):
        self.stop()
