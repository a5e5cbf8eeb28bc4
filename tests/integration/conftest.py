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
