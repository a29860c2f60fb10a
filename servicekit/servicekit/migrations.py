"""Brings a service's database to the newest schema, one process at a time."""

import time
from importlib import resources
from logging import getLogger

import psycopg
import sqlalchemy
from alembic import command, context
from alembic.config import Config
from sqlalchemy import Connection, MetaData, text

LOCK = 4_710_302_511  # any number, the same for all who migrate one database
# Whatever else asks for a table queues behind a migration that waits for it, and gives up after three seconds itself.
LOCK_TIMEOUT = "500ms"
ATTEMPTS = 600
PAUSE_S = 0.5
STATEMENT_TIMEOUT = "10min"


def upgrade(service: str, owner_dsn: str, revision: str = "head") -> None:
    """Run the service's migrations as the owner login; replicas that start together wait for one another.

    A migration that does not get its locks at once, because of a dump or a long transaction, makes way and is tried
    again for some minutes.
    """
    engine = owner_engine(owner_dsn)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)").bindparams(lock=LOCK))
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
        connection.commit()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                command.upgrade(config(service, connection), revision)
                break
            except sqlalchemy.exc.OperationalError as error:
                if attempt == ATTEMPTS or not isinstance(error.orig, psycopg.errors.LockNotAvailable):
                    raise
                getLogger(__name__).info("a table is in use: migration %d of %d", attempt, ATTEMPTS)
            connection.rollback()
            time.sleep(PAUSE_S)
    engine.dispose()
    getLogger(__name__).info("%s is at the newest schema", service)


def owner_engine(owner_dsn: str) -> sqlalchemy.Engine:
    """Return an engine of the owner login for a libpq DSN or URL."""
    return sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(owner_dsn), hide_parameters=True
    )


def config(service: str, connection: Connection) -> Config:
    """Return Alembic's configuration for a service, working on an open connection."""
    alembic = Config()
    alembic.set_main_option("script_location", str(resources.files(service) / "migrations"))
    alembic.attributes["connection"] = connection
    return alembic


def run(metadata: MetaData) -> None:
    """Run the migrations that Alembic chose; each service's ``migrations/env.py`` calls this with its tables."""
    connection = context.config.attributes["connection"]
    context.configure(
        connection=connection, target_metadata=metadata, compare_type=True, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()
