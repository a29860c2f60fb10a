"""What tests of the live state need on top."""

from collections.abc import Iterator

import pytest

from deploy.postgres import temporary_cluster
from tests.database_server import DatabaseServer


@pytest.fixture(scope="session")
def cluster() -> Iterator[DatabaseServer]:
    """A server of our own: tests here freeze single backends by their pids, which are others outside a container."""
    with temporary_cluster() as running:
        yield DatabaseServer(running.dsn)
