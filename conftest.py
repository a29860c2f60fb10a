"""What all tests share.

The first two imports bring in the packages that lie in a folder of their own name before pytest sees the folders: it
names a test module after its path, such as `servicekit.tests.test_tls`, and would take the folder for the package.
"""

import os
from collections.abc import Iterator

# Tests start programs by a fork, and gRPC's own care for the child, for which it has no use, now and then aborts it.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import pytest

import gateway  # noqa: F401
import servicekit  # noqa: F401
from tests.database_server import DatabaseServer, database_server


@pytest.fixture(scope="session")
def cluster() -> Iterator[DatabaseServer]:
    """One PostgreSQL server for the whole run; each service's tests make databases of their own in it."""
    with database_server() as running:
        yield running
