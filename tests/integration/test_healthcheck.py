"""musterd healthcheck: the exit code that containers go by."""
import shutil

import pytest

from stack import Stack


@pytest.fixture
def behind(tmp_path):
    """A stack that takes this machine for its balancer."""
    stack = Stack(tmp_path)
    stack.pg_start()
    stack.configure(listen__proxy_protocol_from="127.0.0.0/8")
    stack.migrate()
    stack.musterd("init")
    stack.start()
    yield stack
    stack.stop()
    stack.pg_stop("immediate")


def test_a_server_that_can_serve_is_well(stack):
    done = stack.musterd("healthcheck")
    assert (done.stdout, done.stderr) == ("", "")


def test_a_probe_from_a_balancers_address_says_who_it_is(behind):
    assert behind.musterd("healthcheck").returncode == 0


def test_a_server_that_cannot_serve_is_not_well(fresh):
    fresh.pg_stop("immediate")
    unwell = fresh.musterd("healthcheck", check=False)
    assert unwell.returncode == 1 and "not ready" in unwell.stderr and "503" in unwell.stderr
    fresh.pg_start()
    fresh.stop()
    gone = fresh.musterd("healthcheck", check=False)
    assert gone.returncode == 1 and "does not answer" in gone.stderr


def test_a_port_that_nobody_wrote_down_is_told(stack, tmp_path):
    config = tmp_path / "musterd.conf"
    shutil.copy(stack.config, config)
    config.write_text(config.read_text().replace("ports_file", "; ports_file"))
    apart = Stack(tmp_path)
    apart.config = config
    done = apart.musterd("healthcheck", check=False)
    assert done.returncode == 1 and "ports_file" in done.stderr
