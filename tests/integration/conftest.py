"""Fixtures: one private PostgreSQL and one musterd for the session, under ASan when so built."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

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


def pytest_collection_modifyitems(config, items):
    """What judges a whole run goes last, and only into a whole run."""
    folder = pathlib.Path(__file__).parent
    mine = [i for i in items if i.path.parent == folder]
    whole = {i.path for i in mine} == set(folder.glob("test_*.py")) and not config.option.keyword and not any("::" in a for a in config.args)
    last = [i for i in mine if i.name.startswith("test_last_")]
    rest = [i for i in items if i not in last]
    items[:] = rest + (last if whole else [])
    if not whole and last:
        config.hook.pytest_deselected(items=last)
