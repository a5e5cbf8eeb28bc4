"""Fixtures: one private PostgreSQL and one musterd for the session, under ASan when so built."""
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import openapi  # noqa: E402
from stack import Stack  # noqa: E402


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stack")
    with Stack(folder) as running:
        running.seed()
        yield running


@pytest.fixture
def fresh(tmp_path_factory):
    """A stack of one's own, for tests that kill or change the whole."""
    folder = tmp_path_factory.mktemp("fresh")
    with Stack(folder) as running:
        running.seed()
        yield running


# A run in several processes (pytest -n): each leaves here what of docs/openapi.yaml it has seen, and a last one, with MUSTER_JUDGE=1, judges it.
SEEN, JUDGE = os.environ.get("MUSTER_SEEN"), os.environ.get("MUSTER_JUDGE")


def pytest_sessionstart(session):
    if SEEN and JUDGE:
        openapi.SPEC.take(pathlib.Path(SEEN))


def pytest_sessionfinish(session, exitstatus):
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if SEEN and worker:
        openapi.SPEC.leave(pathlib.Path(SEEN) / f"{worker}.seen")


def pytest_collection_modifyitems(config, items):
    """What judges a whole run goes last, and only into a whole run."""
    if JUDGE:
        return
    folder = pathlib.Path(__file__).parent
    mine = [i for i in items if i.path.parent == folder]
    whole = not SEEN and {i.path for i in mine} == set(folder.glob("test_*.py")) and not config.option.keyword and not any("::" in a for a in config.args)
    last = [i for i in mine if i.name.startswith("test_last_")]
    rest = [i for i in items if i not in last]
    items[:] = rest + (last if whole else [])
    if not whole and last:
        config.hook.pytest_deselected(items=last)
