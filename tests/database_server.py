"""The PostgreSQL server that tests work on: in a container where a Docker engine answers, else one of our own."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import docker
import psycopg
from docker.errors import DockerException
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.config import testcontainers_config

from deploy.postgres import temporary_cluster
from servicekit import migrations
from servicekit.provisioning import provision

IMAGE = os.environ.get("AAROKYA_TEST_POSTGRES_IMAGE", "postgres:15-bookworm")
ENGINE_TIMEOUT_S = 5
# A server that is thrown away need not survive a power cut, and many tests connect at once.
SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")


@dataclass(frozen=True)
class DatabaseServer:
    """A running server; `dsn` is its superuser's."""

    dsn: str

    def dsn_of(self, role: str, database: str) -> str:
        """Return the DSN of another role in a database."""
        server = urlsplit(self.dsn)
        return server._replace(netloc=f"{role}:secret@{server.hostname}:{server.port}", path=f"/{database}").geturl()

    def dsn_in(self, database: str) -> str:
        """Return the superuser's DSN in a database."""
        return urlsplit(self.dsn)._replace(path=f"/{database}").geturl()


@dataclass(frozen=True)
class Logins:
    """The logins of one service's database."""

    superuser_dsn: str
    owner_dsn: str
    runtime_dsn: str

    def superuser(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a connection that may do anything and sees every row."""
        return psycopg.connect(self.superuser_dsn, autocommit=True)


@contextmanager
def database_server() -> Iterator[DatabaseServer]:
    """Run a server as long as the block lasts."""
    if _has_image():
        # The block takes its container away itself; a second container that watches over that would be another image.
        testcontainers_config.ryuk_disabled = True
        with PostgresContainer(IMAGE).with_command(f"postgres {' '.join(f'-c {it}' for it in SETTINGS)}") as container:
            yield DatabaseServer(container.get_connection_url(driver=None))
    else:
        with temporary_cluster() as cluster:
            yield DatabaseServer(cluster.dsn)


def _has_image() -> bool:
    """Return whether an engine answers that has the image or can fetch it."""
    try:
        engine = docker.from_env(timeout=ENGINE_TIMEOUT_S)
        if not engine.images.list(IMAGE):
            engine.images.pull(IMAGE)
    except DockerException:
        return False
    return True


def provisioned_database(server: DatabaseServer, service: str, name: str) -> Logins:
    """Make a database with a service's roles and return the DSNs."""
    logins = Logins(server.dsn_in(name), *(server.dsn_of(f"{service}_{role}", name) for role in ("owner", "runtime")))
    provision(service, server.dsn, logins.owner_dsn, logins.runtime_dsn)
    return logins


def migrated_database(server: DatabaseServer, service: str, name: str) -> Logins:
    """Make a database with a service's newest schema and return the DSNs."""
    logins = provisioned_database(server, service, name)
    migrations.upgrade(service, logins.owner_dsn)
    return logins


@contextmanager
def without_standby(superuser_dsn: str) -> Iterator[None]:
    """Have commits in one database wait for a standby that is not there, as long as the block lasts."""
    with psycopg.connect(superuser_dsn, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = on")
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        connection.execute("SELECT pg_reload_conf()")
        # Settings are taken over by sessions that begin later.
        _end_other_sessions(connection)
        try:
            while not _commit_waits(superuser_dsn):
                pass
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute(f"ALTER DATABASE {name} RESET synchronous_commit")
            _end_other_sessions(connection)


async def waits_for_standby(doing: Awaitable[object], for_s: float = 1.0) -> bool:
    """Return whether something that would be done at once is not done `without_standby`; it is given up then."""
    try:
        async with asyncio.timeout(for_s):
            await doing
    except TimeoutError:
        return True
    return False


def _end_other_sessions(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def _commit_waits(dsn: str) -> bool:
    """Commit, give that up soon, and return whether it was waiting for a standby then."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        said: list[str | None] = []
        connection.add_notice_handler(lambda notice: said.append(notice.message_primary))
        giving_up = threading.Timer(0.2, connection.cancel_safe)
        giving_up.start()
        # On a busy machine it may be given up before it waits.
        with suppress(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_logical_emit_message(true, 'tests', '')")
        giving_up.cancel()
        giving_up.join()
        return bool(said)
