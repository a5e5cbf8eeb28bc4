"""Two replicas on one PostgreSQL behind HAProxy, configured as deploy/haproxy is, and the swarm as load."""
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import time

from replica import Replica
from stack import BUILD, MUSTER, ROOT, Stack, free_port, shell, wait_for

SWARM = BUILD / "loadtest" / "swarm"
SECONDS = int(os.environ.get("DRILL_SECONDS", 15))  # of load
RATE = 40
PATIENCE_S = 120
TOLD = {"db.unavailable", "load.overloaded", "device.busy"}  # what devices may hear while PostgreSQL is not well: all say when to come again


def measured(what, value, unit="s"):
    """A line of the report; tests/drills/run prints them all at the end."""
    line = f"{what:<62} {value:8.1f} {unit}\n"
    with open(os.environ.get("DRILL_MEASURED", os.devnull), "a") as report:
        report.write(line)


class Primary(Stack):
    """The first replica, with a PostgreSQL that flushes its commits."""

    def __init__(self, folder):
        super().__init__(folder)
        self.settings = {}

    def pg_start(self):
        shell(f'pg_start "{self.folder}/pg" {self.pg_port}', PG_OPTIONS=self.pg_options)

    def sql_as_owner(self, *statements):
        """Each in its own transaction, as ALTER SYSTEM asks."""
        for text in statements:
            shell(f'"$(pg_bin)/psql" -h 127.0.0.1 -p {self.pg_port} -U muster -d muster -Atqc "{text}"')

    def configure(self, **extra):
        """What a drill has set stays set."""
        self.settings.update(extra)
        super().configure(listen__proxy_protocol_from="127.0.0.1", **self.settings)

    def pg_processes(self):
        """PostgreSQL's first process and its children."""
        leader = int((self.folder / "pg" / "data" / "postmaster.pid").read_text().split()[0])
        children = pathlib.Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
        return [leader, *map(int, children)]

    def pg_signal(self, sig):
        for pid in self.pg_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)

    def pg_kill(self):
        """Every process at once, and waits for the end. Where nobody reaps orphans the first one still looks alive to its successor."""
        processes = self.pg_processes()
        self.pg_signal(signal.SIGKILL)
        wait_for("PostgreSQL to be gone", lambda: not any(alive(pid) for pid in processes))
        (self.folder / "pg" / "data" / "postmaster.pid").unlink()

    def ready(self):
        return ready(self)


class Second(Replica):
    def configure(self, **extra):
        super().configure(**{"listen__proxy_protocol_from": "127.0.0.1", **self.first.settings, **extra})

    def ready(self):
        return ready(self)


def alive(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def ready(replica, host="127.0.0.1", seconds=5):
    """Status of /readyz, asked from an address that is no balancer's; None: no answer."""
    done = subprocess.run(["curl", "-sk", "--interface", "127.0.0.77", "-m", str(seconds), "-o", "/dev/null", "-w", "%{http_code}",
                           f"https://{host}:{replica.port}/readyz"], capture_output=True, text=True)
    return int(done.stdout) or None


class Balancer:
    """HAProxy with the passthrough door of deploy/haproxy; names and files are replaced by ours."""

    def __init__(self, folder, replicas, cafile):
        self.folder, self.port = folder, free_port()
        text = (ROOT / "deploy" / "haproxy" / "haproxy.cfg").read_text()
        parts = re.split(r"\n(?=[a-z]+(?: \w+)?\n)", text)
        kept = [p for p in parts if re.match(r"(#|global|defaults|frontend passthrough|backend device_listeners)", p)]
        text = "\n".join(kept).replace("bind :8443", f"bind 127.0.0.1:{self.port}")
        text = re.sub(r" resolvers docker init-addr none| verifyhost musterd| check-sni musterd", "", text).replace("/var/lib/muster/tls/ca.pem", str(cafile))
        text = re.sub(r"    default-server\n", "", text)
        text = re.sub(r"    server-template replica 1-10 replicas:8443 (.*)",
                      lambda m: "\n".join(f"    server replica-{n} {at} {m[1]}" for n, at in enumerate(replicas, 1)), text)
        assert "musterd" not in text and "docker" not in text
        self.config = folder / "haproxy.cfg"
        self.config.write_text(text + "\n")

    def __enter__(self):
        self.log = open(self.folder / "haproxy.log", "ab")
        self.process = subprocess.Popen(["haproxy", "-db", "-f", self.config], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        wait_for("HAProxy", lambda: self.up() or self.process.poll() is not None)
        assert self.process.poll() is None, (self.folder / "haproxy.log").read_text()[-2000:]
        return self

    def up(self):
        return subprocess.run(["curl", "-sk", "-m", "2", f"https://127.0.0.1:{self.port}/readyz"], capture_output=True, text=True).stdout == "ready\n"

    def __exit__(self, *exc):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


class Place:
    def __init__(self, folder, **settings):
        self.folder, self.settings = folder, settings

    def addresses(self):
        return [f"127.0.0.1:{r.port}" for r in self.replicas]

    def __enter__(self):
        with contextlib.ExitStack() as todo:
            self.first = todo.enter_context(self.make_first())
            self.first.seed()
            (self.folder / "second").mkdir()
            self.second = todo.enter_context(self.make_second())
            self.replicas = [self.first, self.second]
            self.balancer = todo.enter_context(Balancer(self.folder, self.addresses(), self.first.cafile))
            self.todo = todo.pop_all()
        return self

    def make_first(self):
        first = Primary(self.folder)
        first.settings.update(self.settings)
        return first

    def make_second(self):
        return Second(self.first, self.folder / "second")

    def __exit__(self, *exc):
        self.todo.__exit__(*exc)

    def database(self):
        return f"postgresql://muster@127.0.0.1:{self.first.pg_port}/muster"

    def enrolled(self):
        return self.first.one("SELECT count(*) FROM certificate")


class Load:
    """The swarm beside a fault: devices at a steady rate, some of which lose power on the way."""

    def __init__(self, place, what, tries=5, seconds=SECONDS, powerloss=10):
        self.place, self.what, self.out = place, what, place.folder / "swarm"
        settings = {"devices": RATE * seconds, "rate": RATE, "tries": tries, "powerloss_percent": powerloss}
        self.devices = settings["devices"]
        first = place.first
        command = [SWARM, "run", "steady", "--out", self.out, "--keys", place.folder / "keys"]
        self.command = list(map(str, command)) + [a for k, v in settings.items() for a in ("--set", f"{k}={v}")]
        self.environment = {**os.environ, "MUSTER_URL": f"https://127.0.0.1:{place.balancer.port}", "MUSTER_CACERT": str(first.cafile),
                            "MUSTER_ADMIN_URL": f"https://127.0.0.1:{first.admin_port}", "MUSTER_ADMIN_TOKEN": first.token,
                            "MUSTER_DATABASE": place.database(), "MUSTER_TEMPLATE": "strict", "PATH": f"{MUSTER.parent}:{os.environ['PATH']}"}

    def __enter__(self):
        self.process = subprocess.Popen(self.command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_for("the first devices", lambda: self.place.enrolled() >= RATE or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.stdout.read()
        return self

    def __exit__(self, kind, *exc):
        if kind:
            self.process.kill()
            self.process.wait()
            return
        try:
            said, _ = self.process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.result = json.loads((self.out / "result.json").read_text()) if (self.out / "result.json").exists() else {}
        assert self.process.returncode == 0, (said[-3000:], self.result.get("outcomes"), self.result.get("audit"))
        self.report()

    def report(self):
        r = self.result
        assert r["failed"] == 0 and r["audit"]["clean"] and r["audit"]["held"] == r["devices"] == self.devices
        silent = longest = 0
        for second in r["each_second"][:-1]:
            silent = 0 if second["done"] else silent + 1
            longest = max(longest, silent)
        measured(f"{self.what}: seconds in which nothing was answered", longest)
        measured(f"{self.what}: requests that failed and were tried again", self.troubles(), "")

    def told(self):
        """What devices met that was neither success nor their own doing."""
        return set(self.result["outcomes"]) - {"ok", "device done", "power lost"}

    def troubles(self):
        return sum(self.result["outcomes"][name] for name in self.told())

    def go_on(self, devices=RATE):
        """Until so many more are enrolled; how long that took."""
        began, target = time.monotonic(), self.place.enrolled() + devices
        wait_for("enrolments to go on", lambda: self.place.enrolled() >= target or self.process.poll() is not None, 60)
        return time.monotonic() - began


def end_hard(replica):
    replica.process.send_signal(signal.SIGKILL)
    replica.process.wait(20)
    replica.process = None
    replica.log.close()
