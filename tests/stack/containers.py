"""The running compose stack: its containers, doors, registry and logs, and a load of enrolling devices."""
import contextlib
import http.client
import json
import os
import pathlib
import secrets
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

from client import Device, fingerprint  # noqa: E402
from stack import Refused, wait_for  # noqa: E402,F401

STATE = pathlib.Path(os.environ["MUSTER_STATE"])
PROJECT = os.environ.get("MUSTER_PROJECT", "muster")
RUN = secrets.token_hex(3)  # serials of this run; the registry may have others
MEASURED = pathlib.Path(os.environ.get("MUSTER_MEASURED", os.devnull))


class Door:
    """A port of HAProxy, in the shape that the device of tests/integration knows as a stack."""

    cafile = STATE / "tls" / "ca.pem"

    def __init__(self, port):
        self.port = port


PASSTHROUGH = Door(int(os.environ.get("MUSTER_PORT", 8443)))
TERMINATED = Door(int(os.environ.get("MUSTER_TERMINATED_PORT", 9443)))


def run(*args, check=True, **kw):
    done = subprocess.run([str(a) for a in args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, **kw)
    assert not check or done.returncode == 0, (args, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done


def docker(*args, **kw):
    return run("docker", *args, **kw).stdout


def stack(*args, **kw):
    return run(ROOT / "deploy" / "stack", *args, **kw).stdout


def containers(service=None):
    """Names of the running containers of the stack."""
    filters = ["--filter", f"label=com.docker.compose.project={PROJECT}"]
    if service:
        filters += ["--filter", f"label=com.docker.compose.service={service}"]
    return sorted(docker("ps", "--format", "{{.Names}}", *filters).split())


def inspect(name):
    return json.loads(docker("inspect", name))[0]


def healthy(name):
    return inspect(name)["State"].get("Health", {}).get("Status") == "healthy"


def all_healthy():
    names = containers()
    return len(containers("musterd")) == 2 and all(healthy(n) for n in names)


def kill_hard(name):
    """SIGKILL from outside, as the kernel would: the engine must see a crash, not a request to stop."""
    pid = inspect(name)["State"]["Pid"]
    assert pid > 1
    os.kill(pid, 9)


def address(name, network):
    return inspect(name)["NetworkSettings"]["Networks"][f"{PROJECT}_{network}"]["IPAddress"]


def gateway(network):
    return json.loads(docker("network", "inspect", f"{PROJECT}_{network}"))[0]["IPAM"]["Config"][0]["Gateway"]


def sql(text):
    """Rows of a statement as lists of text."""
    (name,) = containers("postgres")
    out = docker("exec", name, "psql", "-U", "muster", "-d", "muster", "-AtF", "\t", "-c", "SET search_path = muster", "-c", text)
    return [line.split("\t") for line in out.splitlines()[1:]]


def log_records(serial):
    """Records of finished requests of a serial, from every replica."""
    found = []
    for name in containers("musterd"):
        for line in run("docker", "logs", name).stderr.splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if record.get("event") == "request" and record.get("serial") == serial:
                    found.append(record)
    return found


def token():
    return (STATE / "token").read_text().strip()


def measured(what, value, unit):
    with open(MEASURED, "a") as f:
        f.write(f"{what:<60} {value:8.2f} {unit}\n")


class Load:
    """Devices that enrol one after the other, each on a connection of its own, at both doors. With
    tries > 1 they behave as devices do: they come again, after Retry-After where they are told."""

    THREADS = 4
    PACE_S = 0.06
    BACK_OFF_S = 1

    def __init__(self, name, tries):
        self.name, self.tries = f"{name}-{RUN}", tries
        self.lock, self.ending = threading.Lock(), threading.Event()
        self.held = {}  # serial: fingerprint of what the device keeps
        self.given_up = []  # serial and its last failure
        self.troubles = []  # (when, what): failed tries
        self.answered = []  # when
        self.threads = [threading.Thread(target=self.work, args=(n,)) for n in range(self.THREADS)]

    def __enter__(self):
        for t in self.threads:
            t.start()
        wait_for("the load to begin", lambda: len(self.answered) >= 20)
        return self

    def __exit__(self, *exc):
        self.ending.set()
        for t in self.threads:
            t.join()

    def work(self, n):
        count = 0
        while not self.ending.wait(self.PACE_S):
            count += 1
            door = PASSTHROUGH if (n + count) % 2 else TERMINATED
            self.enrol(Device(door, f"{self.name}-{n}-{count}", token=token()))

    def enrol(self, device):
        for n in range(self.tries):
            try:
                device.enrol()
            except Refused as e:
                trouble, wait = f"{e.status} {e.code}", max(float(e.headers.get("retry-after", 0)), self.BACK_OFF_S * 2**n)
            except (OSError, http.client.HTTPException) as e:
                trouble, wait = repr(e), self.BACK_OFF_S * 2**n
            else:
                with self.lock:
                    self.held[device.serial] = fingerprint(device.cert)
                    self.answered.append(time.monotonic())
                return
            with self.lock:
                self.troubles.append((time.monotonic(), trouble))
            # a device that is told to end still tries all it may: it could be the one that was lost
            if n + 1 < self.tries:
                threading.Event().wait(wait)
        with self.lock:
            self.given_up.append((device.serial, trouble))

    def go_on(self, count=40, seconds=60):
        """Until so many more have enrolled: the stack serves."""
        after = len(self.answered)
        wait_for("more enrolments", lambda: len(self.answered) >= after + count, seconds)

    def longest_gap(self):
        times = sorted(self.answered)
        return max(b - a for a, b in zip(times, times[1:]))

    def audit(self):
        """What devices hold is in the registry and alive; nobody has two live certificates."""
        rows = sql(f"""SELECT d.serial, encode(c.fingerprint, 'hex'), c.status FROM device d JOIN certificate c ON c.device_id = d.id
                       WHERE d.serial LIKE '{self.name}-%' AND c.status IN ('pending', 'current')""")
        live = {}
        for serial, print_, _ in rows:
            live.setdefault(serial, []).append(print_)
        lost = {s: f for s, f in self.held.items() if live.get(s) != [f]}
        doubled = {s: f for s, f in live.items() if len(f) > 1}
        orphaned = set(live) - set(self.held) - {s for s, _ in self.given_up}
        assert len(self.held) > 20
        assert (lost, doubled, orphaned) == ({}, {}, set())
