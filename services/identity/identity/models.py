"""Identity's tables. Whatever a proto field has no column for is in its row's sealed message."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY

from servicekit.audit import audit_chain_table, audit_log_table
from servicekit.data_keys import data_keys_table
from servicekit.idempotency import idempotency_keys_table
from servicekit.outbox import outbox_table

SERVICE = "identity"

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

platforms = Table(
    "platforms",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("name_key", Text, nullable=False, unique=True),
    Column("default_phone_country_code", Text, nullable=False),
    Column("token_ttl_seconds", Integer, nullable=False),
    Column("min_user_age", Integer, nullable=False),
    Column("required_profile_fields", ARRAY(Text), nullable=False),
    Column("max_dependants", Integer, nullable=False),
    Column(
        "status", Text, CheckConstraint("status IN ('active', 'suspended', 'archived')", name="status"), nullable=False
    ),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)
Index("ix_platforms_newest", platforms.c.created_at.desc(), platforms.c.id.desc())

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("platform_id", Uuid, ForeignKey("platforms.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False),
)
Index("ix_api_keys_newest", api_keys.c.platform_id, api_keys.c.created_at.desc(), api_keys.c.id.desc())

# A key has one secret that lives as long as the key, and after rotations older ones that live for their overlap.
api_key_secrets = Table(
    "api_key_secrets",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("key_id", Uuid, ForeignKey("api_keys.id"), nullable=False, index=True),
    Column("platform_id", Uuid, nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("platform_id", Uuid, ForeignKey("platforms.id"), nullable=False),
    Column("phone_hash", LargeBinary),
    Column(
        "status",
        Text,
        CheckConstraint("status IN ('onboarding', 'active', 'deactivated')", name="status"),
        nullable=False,
    ),
    Column("token_generation", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("onboarded_at", DateTime(timezone=True)),
    Column("deactivated_at", DateTime(timezone=True)),
    Column("phone_released_at", DateTime(timezone=True)),
    Column("erased_at", DateTime(timezone=True)),
    Column("sealed", LargeBinary, nullable=False),
    UniqueConstraint("platform_id", "phone_hash", name="uq_users_phone"),
)
Index("ix_users_newest", users.c.created_at.desc(), users.c.id.desc())
Index("ix_users_newest_of_platform", users.c.platform_id, users.c.created_at.desc(), users.c.id.desc())
Index("ix_users_newest_of_status", users.c.status, users.c.created_at.desc(), users.c.id.desc())
Index(
    "ix_users_newest_of_platform_and_status",
    users.c.platform_id,
    users.c.status,
    users.c.created_at.desc(),
    users.c.id.desc(),
)
Index("ix_users_phone_hash", users.c.phone_hash)
Index("ix_users_erased", users.c.erased_at, postgresql_where=users.c.erased_at.is_not(None))

data_keys = data_keys_table(metadata)
idempotency_keys = idempotency_keys_table(metadata)
outbox = outbox_table(metadata)
audit_log = audit_log_table(metadata)
audit_chain = audit_chain_table(metadata)
