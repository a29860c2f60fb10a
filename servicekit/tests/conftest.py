"""A database of a made-up service, with everything that the tests of servicekit need in it."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import BigInteger, Column, DateTime, LargeBinary, MetaData, Table, Text, Uuid, create_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from servicekit.audit import AuditLog, audit_chain_table, audit_log_table
from servicekit.audit_chain import AuditChain
from servicekit.audit_heads import HeadFile
from servicekit.caller import Call, Caller, CallerType, system_call
from servicekit.crypto import KeyRing, generate_key
from servicekit.data_keys import DataKeys, data_keys_table
from servicekit.database import Database
from servicekit.table_protection import append_only, grants, tenant_policies
from tests.database_server import DatabaseServer, provisioned_database

SERVICE = "kit"

metadata = MetaData()
data_keys_of = data_keys_table(metadata)
audit_log_of = audit_log_table(metadata)
audit_chain_of = audit_chain_table(metadata)
# What a service's table of append-only versions looks like.
dependants = Table(
    "dependants",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("platform_id", Uuid, nullable=False, index=True),
    Column("relationship", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)


@dataclass
class Kit:
    """A provisioned, migrated database and the parts that work on it."""

    database_name: str
    superuser_dsn: str
    owner_dsn: str
    runtime_dsn: str
    database: Database
    head_file: Path
    audit_key: bytes

    platform_id = UUID(int=1)
    other_platform_id = UUID(int=2)
    admin = Call(Caller(CallerType.ADMIN, "asha"), request_id="r-1", source_address="192.0.2.7", user_agent="tests")
    worker = system_call(SERVICE)
    partner = Call(Caller(CallerType.PARTNER, "key-1", platform_id))
    other_partner = Call(Caller(CallerType.PARTNER, "key-2", other_platform_id))
    dependants = dependants

    def __post_init__(self) -> None:
        self.master_key = generate_key()
        self.data_keys = DataKeys(data_keys_of, KeyRing({"first": self.master_key}))
        self.audit_log = AuditLog(SERVICE, audit_log_of, audit_chain_of, self.data_keys)
        self.chain = self.new_chain()

    def new_chain(self) -> AuditChain:
        """Return the chain as another process, or this one after a restart, would make it."""
        return AuditChain(
            SERVICE, self.database, audit_log_of, audit_chain_of, self.audit_key, HeadFile(self.head_file)
        )

    def superuser(self) -> psycopg.Connection[tuple[object, ...]]:
        """Return a connection that may do anything."""
        return psycopg.connect(self.superuser_dsn, autocommit=True)

    async def record(self, count: int = 1, *, call: Call = worker) -> None:
        """Write audit rows, each in a transaction of its own."""
        for number in range(count):
            async with self.database.transaction(call) as tx:
                await self.audit_log.record(
                    tx, "note.change", "note", f"n-{number}", changes={"status": ("draft", f"active {number}")}
                )

    async def seal_all(self) -> None:
        """Seal until nothing is left."""
        while await self.chain.seal():
            pass


def migrate(owner_dsn: str) -> None:
    """Make the tables as a service's migrations would."""
    statements: list[str] = []
    for table in metadata.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=_DIALECT)))
        statements += [str(CreateIndex(index).compile(dialect=_DIALECT)) for index in table.indexes]
    for name in ("dependants", "audit_log", "audit_chain"):
        statements += [*append_only(name), *grants(name, SERVICE, append_only=True)]
    statements += grants("data_keys", SERVICE)
    for name in ("dependants", "audit_log", "data_keys"):
        statements += tenant_policies(name, SERVICE)
    with psycopg.connect(owner_dsn) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[call-overload]


_DIALECT = create_engine("postgresql+psycopg://").dialect


@pytest.fixture(scope="session")
def template(cluster: DatabaseServer) -> str:
    """Return the name of a provisioned and migrated database that is only there to be copied."""
    name = f"{SERVICE}_template"
    migrate(provisioned_database(cluster, SERVICE, name).owner_dsn)
    return name


@pytest.fixture
async def kit(cluster: DatabaseServer, template: str, tmp_path: Path) -> AsyncIterator[Kit]:
    name = f"{SERVICE}_{secrets.token_hex(4)}"
    with psycopg.connect(cluster.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")  # type: ignore[call-overload]
        runtime_dsn = cluster.dsn_of(f"{SERVICE}_runtime", name)
        database = Database(runtime_dsn, SERVICE)
        yield Kit(
            name,
            cluster.dsn_in(name),
            cluster.dsn_of(f"{SERVICE}_owner", name),
            runtime_dsn,
            database,
            tmp_path / "heads",
            generate_key(),
        )
        await database.close()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[call-overload]
