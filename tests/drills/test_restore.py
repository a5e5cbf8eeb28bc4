"""The database is destroyed under load and comes back from its backup, with PostgreSQL's own tools (deploy/registry)."""
import contextlib
import os
import pathlib
import random
import signal
import subprocess
import time

import pytest

from place import Load, Place, Primary, measured
from stack import ROOT, shell, wait_for


class Archived(Primary):
    """Acknowledges nothing before the archive has it."""

    def pg_start(self):
        super().pg_start()
        self.archive = self.folder / "archive"
        if self.archive.exists():
            return
        shell(f'mkdir "{self.archive}"; chown postgres "{self.archive}"')
        self.receive()
        self.base()
        self.sql_as_owner("ALTER SYSTEM SET synchronous_standby_names = 'muster_archive'", "SELECT pg_reload_conf()")
        wait_for("the archive to be waited for", lambda: self.one("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == 1)

    def registry(self, *args):
        words = " ".join(f'"{a}"' for a in args)
        return f'PGHOST=127.0.0.1 PGPORT={self.pg_port} PGUSER=muster pg_run "{self.folder}" "{ROOT}/deploy/registry" {words}'

    def receive(self):
        self.receiver = subprocess.Popen(["bash", "-c", f'cd "{ROOT}"; . deploy/lib.sh; {self.registry("wal", self.archive)}'], stdin=subprocess.DEVNULL)
        wait_for("the archive to listen", lambda: self.one("SELECT count(*) FROM pg_stat_replication") == 1)

    def base(self):
        shell(self.registry("base", self.archive))

    def destroy(self):
        """The machine is gone, its disk with it; the archive was elsewhere."""
        self.pg_kill()
        shell(f'rm -rf "{self.folder}/pg/data"')
        self.end_receiver()

    def restore(self, *until):
        shell(self.registry("restore", self.archive, f"{self.folder}/pg/data", *until))
        Primary.pg_start(self)
        wait_for("the end of the recovery", lambda: not self.one("SELECT pg_is_in_recovery()"))

    def end_receiver(self):
        pid = self.receiver.pid
        for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGTERM)
        self.receiver.wait(20)

    def __exit__(self, *exc):
        if self.receiver.poll() is None:
            self.end_receiver()
        super().__exit__(*exc)


class Kept(Place):
    def make_first(self):
        return Archived(self.folder)


@pytest.fixture
def kept(tmp_path_factory):
    with Kept(tmp_path_factory.mktemp("restore")) as made:
        yield made


def test_nothing_that_was_acknowledged_is_lost(kept):
    first = kept.first
    with Load(kept, "database destroyed", tries=10) as load:
        time.sleep(random.uniform(0.5, 4))
        first.destroy()
        began = time.monotonic()
        first.restore()
        measured("database destroyed: restored after", time.monotonic() - began)
        load.go_on()
        measured("database destroyed: a second's worth enrolled again after", time.monotonic() - began)
    assert load.result["audit"]["held"] == load.devices, "what devices hold is what the registry has"


def test_back_to_a_point_in_time(kept):
    """An operator's mistake is taken back: a batch of serials that was imported wrongly."""
    first = kept.first
    first.allow("before-1")
    right = first.one("SELECT clock_timestamp()::text")
    time.sleep(1.1)
    first.allow("wrong-1")
    first.stop()
    kept.second.stop()
    shell(f'pg_stop "{first.folder}/pg" immediate; mv "{first.folder}/pg/data" "{first.folder}/pg/lost"')
    first.end_receiver()
    first.restore(right)
    first.start()
    kept.second.start()
    serials = {row[0] for row in first.sql("SELECT serial FROM allowlist WHERE serial IN ('before-1', 'wrong-1')")}
    assert serials == {"before-1"} and first.v1("GET", "/whoami")


def test_what_the_tool_refuses(kept, tmp_path):
    first = kept.first

    def run(*args):
        done = subprocess.run(["bash", "-c", f'cd "{ROOT}"; . deploy/lib.sh; {first.registry(*args)}'], capture_output=True, text=True)
        return done.returncode, done.stderr

    assert "is there already" in run("restore", first.archive, f"{first.folder}/pg/data")[1]
    assert "no base backup" in run("restore", first.archive, f"{first.folder}/pg/new", "2020-01-01 00:00:00+00")[1]
    assert run("restore", first.archive)[0] == 2 and run("nothing")[0] == 2
