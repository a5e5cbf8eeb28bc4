"""Fixtures of the drills: two replicas behind a balancer on a PostgreSQL whose commits are flushed."""
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from place import Place  # noqa: E402


def pytest_configure():
    if os.geteuid() != 0:
        pytest.exit("the drills mount, make network namespaces and drop packets: they take root", returncode=1)


@pytest.fixture
def place(tmp_path_factory):
    with Place(tmp_path_factory.mktemp("drill")) as made:
        yield made
