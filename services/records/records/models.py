"""Records' tables. Whatever a proto field has no column for is in its row's sealed message."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    and_,
)

from servicekit.audit import audit_chain_table, audit_log_table
from servicekit.data_keys import data_keys_table
from servicekit.idempotency import idempotency_keys_table
from servicekit.outbox import inbox_table

SERVICE = "records"

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

# What identity last said of a user, so that an event that comes late changes nothing.
users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("platform_id", Uuid, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("erased_at", DateTime(timezone=True)),
)

# Append-only: a row is one version of a person, and what is there never changes.
dependants = Table(
    "dependants",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("platform_id", Uuid, nullable=False),
    Column("relationship", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("first_created_at", DateTime(timezone=True), nullable=False),
    Column("created_by_type", Text, nullable=False),
    Column("created_by_id", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    PrimaryKeyConstraint("id", "version"),
    CheckConstraint("version >= 1", name="version"),
    CheckConstraint("status IN ('active', 'inactive', 'deceased', 'removed')", name="status"),
)
# Every person has exactly one first version, so these stand for the persons of a family.
Index(
    "ix_dependants_persons",
    dependants.c.user_id,
    dependants.c.first_created_at,
    dependants.c.id,
    postgresql_where=dependants.c.version == 1,
)
Index(
    "uq_dependants_self",
    dependants.c.user_id,
    unique=True,
    postgresql_where=and_(dependants.c.version == 1, dependants.c.relationship == "SELF"),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("platform_id", Uuid, nullable=False),
    Column("type", Text, nullable=False),
    Column("is_primary", Boolean, nullable=False),
    Column("verification_status", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("number_hash", LargeBinary),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    CheckConstraint("status IN ('active', 'removed')", name="status"),
)
_is_there = accounts.c.status == "active"
Index("ix_accounts_newest", accounts.c.user_id, accounts.c.created_at, accounts.c.id, postgresql_where=_is_there)
Index("ix_accounts_number", accounts.c.number_hash, postgresql_where=_is_there)
Index("uq_accounts_number", accounts.c.user_id, accounts.c.number_hash, unique=True, postgresql_where=_is_there)
Index(
    "uq_accounts_primary",
    accounts.c.user_id,
    unique=True,
    postgresql_where=and_(accounts.c.is_primary, _is_there),
)

mrns = Table(
    "mrns",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("dependant_id", Uuid, nullable=False),
    Column("benefit_provider_id", Uuid, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("platform_id", Uuid, nullable=False),
    Column("source", Text, nullable=False),
    Column("mrn_hash", LargeBinary),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    UniqueConstraint("dependant_id", "benefit_provider_id", name="uq_mrns_pair"),
    UniqueConstraint("user_id", "benefit_provider_id", "mrn_hash", name="uq_mrns_number"),
)
Index("ix_mrns_newest", mrns.c.user_id, mrns.c.created_at, mrns.c.id)
Index("ix_mrns_number", mrns.c.benefit_provider_id, mrns.c.mrn_hash, mrns.c.created_at, mrns.c.id)

data_keys = data_keys_table(metadata)
idempotency_keys = idempotency_keys_table(metadata)
inbox = inbox_table(metadata)
audit_log = audit_log_table(metadata)
audit_chain = audit_chain_table(metadata)
