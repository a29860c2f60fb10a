"""Lay records' schema."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from servicekit.table_protection import append_only, grants, tenant_policies

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the step. There is no way back: steps only add, and a later one takes away what nobody uses any more."""
    op.create_table(
        "accounts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("platform_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("is_primary", sa.Boolean(), nullable=False),
        sa.Column("verification_status", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("number_hash", sa.LargeBinary(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("status IN ('active', 'removed')", name=op.f("ck_accounts_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
    )
    op.create_index(
        "ix_accounts_newest",
        "accounts",
        ["user_id", "created_at", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'active'"),
    )
    op.create_index(
        "ix_accounts_number", "accounts", ["number_hash"], unique=False, postgresql_where=sa.text("status = 'active'")
    )
    op.create_index(
        "uq_accounts_number",
        "accounts",
        ["user_id", "number_hash"],
        unique=True,
        postgresql_where=sa.text("status = 'active'"),
    )
    op.create_index(
        "uq_accounts_primary",
        "accounts",
        ["user_id"],
        unique=True,
        postgresql_where=sa.text("is_primary AND status = 'active'"),
    )
    op.create_table(
        "audit_chain",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("audit_id", sa.Uuid(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("horizon", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_audit_chain")),
        sa.UniqueConstraint("audit_id", name=op.f("uq_audit_chain_audit_id")),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor_type", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("entity_type", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=True),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("platform_id", sa.Uuid(), nullable=True),
        sa.Column("changes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("source_address", sa.Text(), nullable=True),
        sa.Column("user_agent", sa.Text(), nullable=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column(
            "transaction_id",
            sa.BigInteger(),
            server_default=sa.text("((pg_current_xact_id())::text)::bigint"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index("ix_audit_log_action", "audit_log", ["action", "occurred_at", "id"], unique=False)
    op.create_index("ix_audit_log_actor", "audit_log", ["actor_id", "occurred_at", "id"], unique=False)
    op.create_index("ix_audit_log_entity", "audit_log", ["entity_id", "entity_type", "occurred_at", "id"], unique=False)
    op.create_index("ix_audit_log_newest", "audit_log", ["occurred_at", "id"], unique=False)
    op.create_index(
        "ix_audit_log_platform",
        "audit_log",
        ["platform_id", "occurred_at", "id"],
        unique=False,
        postgresql_where=sa.text("platform_id IS NOT NULL"),
    )
    op.create_index("ix_audit_log_transaction", "audit_log", ["transaction_id", "id"], unique=False)
    op.create_index(
        "ix_audit_log_user",
        "audit_log",
        ["user_id", "occurred_at", "id"],
        unique=False,
        postgresql_where=sa.text("user_id IS NOT NULL"),
    )
    op.create_table(
        "data_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("platform_id", sa.Uuid(), nullable=True),
        sa.Column("master_key_id", sa.Text(), nullable=True),
        sa.Column("wrapped", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("destroyed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "CASE WHEN destroyed_at IS NULL THEN num_nulls(wrapped, master_key_id) = 0 "
            "ELSE num_nonnulls(wrapped, master_key_id) = 0 END",
            name=op.f("ck_data_keys_wrapped_until_destroyed"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_data_keys")),
        sa.UniqueConstraint("owner_id", name=op.f("uq_data_keys_owner_id")),
    )
    op.create_table(
        "dependants",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("platform_id", sa.Uuid(), nullable=False),
        sa.Column("relationship", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("first_created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by_type", sa.Text(), nullable=False),
        sa.Column("created_by_id", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint(
            "status IN ('active', 'inactive', 'deceased', 'removed')", name=op.f("ck_dependants_status")
        ),
        sa.CheckConstraint("version >= 1", name=op.f("ck_dependants_version")),
        sa.PrimaryKeyConstraint("id", "version", name=op.f("pk_dependants")),
    )
    op.create_index(
        "ix_dependants_persons",
        "dependants",
        ["user_id", "first_created_at", "id"],
        unique=False,
        postgresql_where=sa.text("version = 1"),
    )
    op.create_index(
        "uq_dependants_self",
        "dependants",
        ["user_id"],
        unique=True,
        postgresql_where=sa.text("version = 1 AND relationship = 'SELF'"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("scope", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("platform_id", sa.Uuid(), nullable=True),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "inbox",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_inbox")),
    )
    op.create_index(op.f("ix_inbox_applied_at"), "inbox", ["applied_at"], unique=False)
    op.create_table(
        "mrns",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("dependant_id", sa.Uuid(), nullable=False),
        sa.Column("benefit_provider_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("platform_id", sa.Uuid(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("mrn_hash", sa.LargeBinary(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mrns")),
        sa.UniqueConstraint("dependant_id", "benefit_provider_id", name="uq_mrns_pair"),
        sa.UniqueConstraint("user_id", "benefit_provider_id", "mrn_hash", name="uq_mrns_number"),
    )
    op.create_index("ix_mrns_newest", "mrns", ["user_id", "created_at", "id"], unique=False)
    op.create_index("ix_mrns_number", "mrns", ["benefit_provider_id", "mrn_hash", "created_at", "id"], unique=False)
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("platform_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    for statement in _defences():
        op.execute(statement)


def _defences() -> list[str]:
    """Return who may see and change what: see servicekit.table_protection."""
    statements = [
        *(statement for table in ("audit_log", "audit_chain", "dependants") for statement in append_only(table)),
        *(
            statement
            for table in ("audit_log", "audit_chain", "dependants", "inbox")
            for statement in grants(table, "records", append_only=True)
        ),
        *grants("mrns", "records", delete=True),
        *grants("idempotency_keys", "records", delete=True),
    ]
    for table in ("users", "accounts", "data_keys"):
        statements += grants(table, "records")
    for table in ("users", "dependants", "accounts", "mrns", "data_keys", "idempotency_keys", "audit_log"):
        statements += tenant_policies(table, "records")
    return statements
