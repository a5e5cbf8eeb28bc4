"""The network between a replica and its database, or its devices, loses packets: some, or all."""
import subprocess
import threading
import time

import pytest

from network import Namespace
from place import Load, Place, Primary, Second, measured, ready
from stack import shell, wait_for


class Open(Primary):
    """PostgreSQL that is reached from the namespace too."""

    def __init__(self, folder, near):
        super().__init__(folder)
        self.near = near

    def pg_start(self):
        self.pg_options = f"-c listen_addresses=127.0.0.1,{self.near}"
        super().pg_start()
        network = self.near.rsplit(".", 1)[0] + ".0/24"
        with open(self.folder / "pg" / "data" / "pg_hba.conf", "a") as rules:
            rules.write(f"host all all {network} trust\n")
        shell(f'"$(pg_bin)/psql" -h 127.0.0.1 -p {self.pg_port} -U muster -d postgres -Atqc "SELECT pg_reload_conf()"')


class Away(Second):
    """A replica in the namespace: it meets its database and its devices over the cable only."""

    def __init__(self, first, folder, space):
        super().__init__(first, folder)
        self.space, self.prefix = space, space.prefix

    def configure(self, **extra):
        super().configure(listen__device_address=self.space.far, listen__proxy_protocol_from=self.space.near, database__host=self.space.near, **extra)

    def ready(self, seconds=5):
        """Asked within the namespace, as the balancer's own address has to say who it speaks for."""
        done = subprocess.run([*self.prefix, "curl", "-sk", "-m", str(seconds), "-o", "/dev/null", "-w", "%{http_code}",
                               f"https://{self.space.far}:{self.port}/readyz"], capture_output=True, text=True)
        return int(done.stdout) or None


class Apart(Place):
    def __init__(self, folder, space, only_away=False):
        super().__init__(folder)
        self.space, self.only_away = space, only_away

    def make_first(self):
        return Open(self.folder, self.space.near)

    def make_second(self):
        return Away(self.first, self.folder / "second", self.space)

    def addresses(self):
        away = f"{self.space.far}:{self.second.port}"
        return [away] if self.only_away else [f"127.0.0.1:{self.first.port}", away]


@pytest.fixture
def space():
    with Namespace() as made:
        yield made


def test_a_replica_is_cut_off_from_its_database(space, tmp_path_factory):
    with Apart(tmp_path_factory.mktemp("partition"), space) as place, Load(place, "partition", seconds=30) as load:
        cut = ["-p", "tcp", "--dport", place.first.pg_port]
        space.rule("-A", "OUTPUT", *cut)
        began = time.monotonic()
        wait_for("the replica to say that it is not ready", lambda: place.second.ready(30) == 503, 60)
        measured("partition: the replica says it is not ready after", time.monotonic() - began)
        assert ready(place.first) == 200
        load.go_on()
        space.rule("-D", "OUTPUT", *cut)
        began = time.monotonic()
        wait_for("the replica to be ready", lambda: place.second.ready() == 200, 60)
        measured("partition: the replica is ready after it is healed", time.monotonic() - began)
        load.go_on()


@pytest.mark.parametrize("percent", [3, 10])
def test_packets_are_lost_at_random(space, tmp_path_factory, percent):
    """Between devices and replica, and between replica and database, both ways."""
    chance = ["-m", "statistic", "--mode", "random", "--probability", str(percent / 100)]
    with Apart(tmp_path_factory.mktemp("loss"), space, only_away=True) as place:
        for chain in ("INPUT", "OUTPUT"):
            space.rule("-A", chain, "!", "-i" if chain == "INPUT" else "-o", "lo", *chance)
        with Load(place, f"{percent} % of the packets lost") as load:
            threading.Event().wait(1)
        p99_us = load.result["latency"]["enrol"]["p99_us"]
        measured(f"{percent} % of the packets lost: p99 of an enrolment", p99_us / 1e6)
