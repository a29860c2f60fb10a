"""The catalogue's tables. Nothing here is about a person, so every proto field has a column of its own."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Date,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from servicekit.audit import audit_chain_table, audit_log_table
from servicekit.data_keys import data_keys_table
from servicekit.idempotency import idempotency_keys_table

SERVICE = "catalogue"

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

benefit_providers = Table(
    "benefit_providers",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("code", Text, nullable=False, unique=True),
    Column("legal_name", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("support_phone", Text),
    Column("support_email", Text),
    Column("website", Text),
    Column("issues_mrn", Boolean, nullable=False),
    Column("mrn_pattern", Text),
    # JSON as text: JSONB would change the order of keys, and with it what an operator reads back.
    Column("metadata", Text),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    # Since when there may be MRNs of the provider in records; such a provider can't be deleted any more.
    Column("mrn_issued_at", DateTime(timezone=True)),
    CheckConstraint("status IN ('active', 'inactive')", name="status"),
)
Index("ix_benefit_providers_newest", benefit_providers.c.created_at.desc(), benefit_providers.c.id.desc())

benefits = Table(
    "benefits",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("benefit_provider_id", Uuid, ForeignKey("benefit_providers.id"), nullable=False),
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    # The name as searches compare it.
    Column("name_key", Text, nullable=False),
    Column("short_description", Text),
    Column("description", Text),
    Column("type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("valid_from", Date),
    Column("valid_to", Date),
    Column("price_paise", BigInteger, nullable=False),
    Column("coverage_paise", BigInteger),
    Column("eligible_relationships", ARRAY(Text), nullable=False),
    Column("min_age", Integer),
    Column("max_age", Integer),
    Column("platform_ids", ARRAY(Uuid), nullable=False),
    # Behind row-level security the planner has statistics of this, and not of what an array equals.
    Column("is_for_all_platforms", Boolean, Computed("platform_ids = '{}'::uuid[]", persisted=True), nullable=False),
    Column("terms_url", Text),
    Column("translations", JSONB, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("benefit_provider_id", "code", name="uq_benefits_code"),
    CheckConstraint("status IN ('draft', 'active', 'paused', 'archived')", name="status"),
    CheckConstraint("valid_to > valid_from", name="validity"),
    CheckConstraint("max_age >= min_age", name="ages"),
)
_newest = (benefits.c.created_at.desc(), benefits.c.id.desc())
Index("ix_benefits_newest", *_newest)
# Users see active ones only, and archived ones pile up over the years.
Index("ix_benefits_newest_active", *_newest, postgresql_where=benefits.c.status == "active")
Index("ix_benefits_newest_of_provider", benefits.c.benefit_provider_id, *_newest)
Index("ix_benefits_newest_of_type", benefits.c.type, *_newest)

data_keys = data_keys_table(metadata)
idempotency_keys = idempotency_keys_table(metadata)
audit_log = audit_log_table(metadata)
audit_chain = audit_chain_table(metadata)
