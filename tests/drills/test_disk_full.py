"""No room is left where PostgreSQL keeps its log."""
import contextlib
import os
import subprocess
import threading
import time

import pytest

from place import TOLD, Load, Place, Primary, measured
from stack import wait_for

SIZE_MIB = 220  # PostgreSQL keeps some 100 of it for itself


class Small(Primary):
    """PostgreSQL on a file system of its own, which is soon full."""

    def pg_start(self):
        disk = self.folder / "pg"
        if not os.path.ismount(disk):
            disk.mkdir(exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=755", "muster-drill", disk], check=True)
        self.pg_options = "-c max_wal_size=64MB -c min_wal_size=32MB"
        super().pg_start()

    def fill(self):
        with contextlib.suppress(OSError), open(self.folder / "pg" / "ballast", "wb", buffering=0) as ballast:
            for _ in range(SIZE_MIB):
                ballast.write(bytes(1 << 20))

    def make_room(self):
        (self.folder / "pg" / "ballast").unlink()

    def __exit__(self, *exc):
        super().__exit__(*exc)
        subprocess.run(["umount", self.folder / "pg"], check=True)


class Cramped(Place):
    def make_first(self):
        return Small(self.folder)


@pytest.fixture
def cramped(tmp_path_factory):
    with Cramped(tmp_path_factory.mktemp("disk")) as made:
        yield made


def pg_answers(first):
    return subprocess.run(["bash", "-c", f'. deploy/lib.sh; "$(pg_bin)/pg_isready" -q -h 127.0.0.1 -p {first.pg_port}']).returncode == 0


def come_back(first):
    """PostgreSQL ends itself where its log cannot be written: then the operator starts it."""
    lock = first.folder / "pg" / "data" / "postmaster.pid"
    wait_for("PostgreSQL to answer or to end", lambda: pg_answers(first) or not lock.exists(), 30)
    if not lock.exists():
        first.pg_start()


def test_the_disk_of_postgresql_is_full(cramped):
    first = cramped.first
    with Load(cramped, "disk full") as load:
        before = cramped.enrolled()
        first.fill()
        try:
            wait_for("PostgreSQL to fail to write", lambda: b"No space left on device" in (first.folder / "pg" / "log").read_bytes(), 60)
            threading.Event().wait(1)
        finally:
            first.make_room()
        began = time.monotonic()
        come_back(first)
        load.go_on()
        measured("disk full: a second's worth enrolled after there was room again", time.monotonic() - began)
        assert cramped.enrolled() > before
    assert load.told() <= TOLD, load.result["outcomes"]
