"""The table in a file: a broker that starts while no musterd is there."""
import os
import signal
import time

import pytest

import fleet
from broker import CLEAR, REFUSED, ABSENT, OPERATIONAL, READY, Place, Service, entry
from client import fingerprint, unique
from stack import wait_for


class Kept(Place):
    def __init__(self, folder, more=""):
        super().__init__(folder)
        self.file = self.broker.folder / "state"
        self.broker.options = f"plugin_opt_state_file {self.file}\nplugin_opt_state_every_s 1\n{more}"

    def kill(self):
        """As when the power goes; then started again, with no musterd."""
        pid = self.broker.pid
        os.kill(pid, signal.SIGKILL)
        wait_for("the broker to be gone", lambda: gone(pid))
        self.broker.start()

    def back(self):
        """musterd is there again."""
        self.service = Service(self.broker, self.musterd)
        return self.service.status()

    def saved(self):
        """Waits until what the table has now is in the file."""
        began = time.time()
        wait_for("the file", lambda: self.file.exists() and self.file.stat().st_mtime > began)


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def kept(tmp_path):
    with Kept(tmp_path) as made:
        yield made


def test_after_a_restart_the_broker_decides_as_before(kept):
    with kept.open(kept.device):
        status = kept.service.batch(*kept.entries(), position=77)
        kept.service.client.close()
        kept.broker.restart()
    assert kept.code(kept.device, unique()) == kept.code(kept.claim, unique()) == 0
    assert kept.code(kept.stranger, unique()) == REFUSED
    with kept.open(kept.device) as c:
        assert c.publish("things/pump-1/x", b"x") != REFUSED and c.publish("things/pump-2/x", b"x") == REFUSED
    now = kept.back()
    assert (now["ready"], now["entries"], now["position"]) == (1, 4, 77) and now["counter"] != status["counter"]


def test_what_changed_is_saved_on_the_way(kept):
    kept.saved()
    kept.service.batch(entry(ABSENT, kept.device.fingerprint), position=78)
    kept.saved()
    kept.kill()
    assert kept.code(kept.device, unique()) == REFUSED and kept.code(kept.device2, unique()) == 0
    assert kept.back()["position"] == 78


def test_policies_are_saved_too(kept):
    allow = bytes([1, 0, 1, 0, 1, 0, 4, 0, 1, 1])  # iot:Connect as anybody
    policy = b"\x10\0\0\0\7\0" + bytes([len(allow)]) + allow
    kept.service.batch(policy, entry(OPERATIONAL, kept.device.fingerprint, "pump-1", policies=(7,), pairs={"site": "basel"}))
    kept.broker.restart()
    with kept.open(kept.device) as c:
        assert c.publish("things/pump-1/x", b"x") == REFUSED
    with kept.open(kept.device2) as c:
        assert c.publish("things/pump-2/x", b"x") != REFUSED


def test_what_is_told_later_counts_at_once(kept):
    kept.broker.restart()
    with kept.open(kept.device) as c:
        kept.service = Service(kept.broker, kept.musterd)
        kept.service.batch(entry(ABSENT, kept.device.fingerprint))
        c.ended()
    assert kept.code(kept.device, unique()) == REFUSED


def test_a_table_that_was_being_filled_is_not_saved(kept):
    kept.saved()
    kept.service.batch(flags=CLEAR)
    kept.broker.restart()
    assert kept.code(kept.device, unique()) == 0


@pytest.mark.parametrize("what, said", [("cut", "damaged"), ("changed", "damaged"), ("open", "others may write it")])
def test_a_file_that_cannot_be_trusted_is_not_used(kept, what, said):
    kept.broker.stop()
    content = kept.file.read_bytes()
    if what == "open":
        kept.file.chmod(0o666)
    else:
        kept.file.write_bytes(content[:-1] if what == "cut" else content.replace(b"pump-1", b"pump-9"))
    kept.broker.start()
    assert kept.code(kept.device, unique()) == REFUSED and said in kept.broker.log_text()
    status = kept.back()
    assert (status["ready"], status["entries"]) == (0, 0)
    assert kept.service.batch(*kept.entries(), flags=CLEAR | READY)["ready"] == 1
    assert kept.code(kept.device, unique()) == 0


def test_an_old_one_is_not_used(tmp_path):
    with Kept(tmp_path, "plugin_opt_state_max_age_s 1") as kept:
        kept.broker.stop()
        time.sleep(2.1)
        kept.broker.start()
        assert kept.code(kept.device, unique()) == REFUSED and "too old" in kept.broker.log_text()


def test_a_disk_that_takes_nothing_hurts_nobody(tmp_path):
    kept = Kept(tmp_path)
    (kept.broker.folder / "state.new").mkdir()
    with kept:
        wait_for("it to be said", lambda: "cannot be saved" in kept.broker.log_text())
        assert kept.code(kept.device, unique()) == 0
        time.sleep(2)
        assert kept.broker.log_text().count("cannot be saved") == 1 and not kept.file.exists()
        (kept.broker.folder / "state.new").rmdir()
        wait_for("the file", kept.file.exists)


def test_with_musterd_itself(tmp_path):
    """The broker restarts while musterd is away; what was revoked meanwhile is out as soon as it is back."""
    with fleet.joined(tmp_path) as place:
        place.broker.options = f"plugin_opt_state_file {place.broker.folder / 'state'}"
        place.broker.restart()
        place.ready()
        stays, goes = place.enrolled(), place.enrolled()
        for d in (stays, goes):
            place.admitted(d.cert, d.key)
        place.stack.stop()
        place.broker.restart()
        assert place.code(stays.cert, stays.key) == place.code(goes.cert, goes.key) == 0
        place.stack.sql("UPDATE certificate SET status = 'revoked', revoke_reason = 'keyCompromise', ended_at = now() WHERE fingerprint = decode(%s, 'hex')",
                        fingerprint(goes.cert))
        place.stack.start()
        place.refused(goes.cert, goes.key)
        assert place.code(stays.cert, stays.key) == 0 and "gate.loaded" not in place.stack.log_text().rsplit("server.listening", 1)[-1]


def test_a_connection_ends_while_the_file_is_written(kept):
    """The child that writes has the sockets too, and closes them."""
    many = [entry(OPERATIONAL, f"{n:064x}", f"thing-{n}") for n in range(1, 20000)]
    for at in range(0, len(many), 500):
        kept.service.batch(*many[at:at + 500])
    for _ in range(10):
        with kept.open(kept.device) as c:
            kept.service.batch(entry(ABSENT, kept.device.fingerprint))
            began = time.monotonic()
            c.ended()
            assert time.monotonic() - began < 2
        kept.service.batch(*kept.entries())
    kept.saved()
