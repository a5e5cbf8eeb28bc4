"""PostgreSQL dies for good and its standby, which has all that was acknowledged, takes over."""
import time

import pytest

from place import Load, Place, Primary, measured
from stack import free_port, shell, wait_for


class Replicated(Primary):
    """A primary that acknowledges nothing before its standby has it."""

    def __init__(self, folder):
        super().__init__(folder)
        self.primary_port, self.standby_port = self.pg_port, free_port()
        self.settings = {"database__host": "127.0.0.1,127.0.0.1", "database__port": f"{self.primary_port},{self.standby_port}"}

    def pg_start(self):
        super().pg_start()
        self.standby_start()
        self.sql_as_owner("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        wait_for("the standby to be synchronous", lambda: self.one("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == 1)

    def standby_start(self):
        home = self.folder / "standby"
        shell(f"""mkdir -p "{home}"; chown postgres "{home}"
            pg_run "{home}" "$(pg_bin)/pg_basebackup" -h 127.0.0.1 -p {self.pg_port} -U muster -D "{home}/data" -R -X stream -c fast
            pg_start "{home}" {self.standby_port}""", PG_OPTIONS="-c hot_standby=on")

    def promote(self):
        """From here on this is the database."""
        self.pg_port = self.standby_port
        assert self.one("SELECT pg_promote(true, 30)")

    def __exit__(self, *exc):
        self.stop()
        shell(f'pg_stop "{self.folder}/standby" immediate; pg_stop "{self.folder}/pg" immediate')


class Two(Place):
    def make_first(self):
        return Replicated(self.folder)

    def database(self):
        f = self.first
        return f"postgresql://muster@127.0.0.1:{f.primary_port},127.0.0.1:{f.standby_port}/muster?target_session_attrs=read-write"


@pytest.fixture
def replicated(tmp_path_factory):
    with Two(tmp_path_factory.mktemp("failover")) as made:
        yield made


def test_the_standby_takes_over(replicated):
    first = replicated.first
    with Load(replicated, "failover to the standby") as load:
        first.pg_kill()
        began = time.monotonic()
        first.promote()
        measured("failover to the standby: promoted after", time.monotonic() - began)
        load.go_on()
        measured("failover to the standby: a second's worth enrolled again after", time.monotonic() - began)
    assert load.result["audit"]["held"] == load.devices, "the audit asked the promoted one"
