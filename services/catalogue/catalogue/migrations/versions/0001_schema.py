"""Lay the catalogue's schema."""

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
        "benefit_providers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("legal_name", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("support_phone", sa.Text(), nullable=True),
        sa.Column("support_email", sa.Text(), nullable=True),
        sa.Column("website", sa.Text(), nullable=True),
        sa.Column("issues_mrn", sa.Boolean(), nullable=False),
        sa.Column("mrn_pattern", sa.Text(), nullable=True),
        sa.Column("metadata", sa.Text(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("mrn_issued_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('active', 'inactive')", name=op.f("ck_benefit_providers_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_benefit_providers")),
        sa.UniqueConstraint("code", name=op.f("uq_benefit_providers_code")),
    )
    op.create_index(
        "ix_benefit_providers_newest",
        "benefit_providers",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
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
        "benefits",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("benefit_provider_id", sa.Uuid(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("name_key", sa.Text(), nullable=False),
        sa.Column("short_description", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("valid_from", sa.Date(), nullable=True),
        sa.Column("valid_to", sa.Date(), nullable=True),
        sa.Column("price_paise", sa.BigInteger(), nullable=False),
        sa.Column("coverage_paise", sa.BigInteger(), nullable=True),
        sa.Column("eligible_relationships", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("min_age", sa.Integer(), nullable=True),
        sa.Column("max_age", sa.Integer(), nullable=True),
        sa.Column("platform_ids", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column(
            "is_for_all_platforms",
            sa.Boolean(),
            sa.Computed("platform_ids = '{}'::uuid[]", persisted=True),
            nullable=False,
        ),
        sa.Column("terms_url", sa.Text(), nullable=True),
        sa.Column("translations", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("status IN ('draft', 'active', 'paused', 'archived')", name=op.f("ck_benefits_status")),
        sa.CheckConstraint("max_age >= min_age", name=op.f("ck_benefits_ages")),
        sa.CheckConstraint("valid_to > valid_from", name=op.f("ck_benefits_validity")),
        sa.ForeignKeyConstraint(
            ["benefit_provider_id"], ["benefit_providers.id"], name=op.f("fk_benefits_benefit_provider_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_benefits")),
        sa.UniqueConstraint("benefit_provider_id", "code", name="uq_benefits_code"),
    )
    op.create_index(
        "ix_benefits_newest",
        "benefits",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_benefits_newest_active",
        "benefits",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
        postgresql_where=sa.text("status = 'active'"),
    )
    op.create_index(
        "ix_benefits_newest_of_provider",
        "benefits",
        ["benefit_provider_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_benefits_newest_of_type",
        "benefits",
        ["type", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    for statement in _defences():
        op.execute(statement)


def _defences() -> list[str]:
    """Return who may see and change what: see servicekit.table_protection.

    The catalogue itself is no platform's. Operators write it; all others only read, and the bare runtime login, which
    serves users, sees only what can be shown to users of its platform, and of a provider only the summary.
    """
    platform = "NULLIF(current_setting('app.platform_id', true), '')::uuid"
    statements = [
        *(statement for table in ("audit_log", "audit_chain") for statement in append_only(table)),
        *grants("audit_log", "catalogue", append_only=True),
        *grants("audit_chain", "catalogue", append_only=True),
        *grants("idempotency_keys", "catalogue", delete=True),
        *grants("data_keys", "catalogue"),
        *(
            f"REVOKE ALL ON {table} FROM PUBLIC, catalogue_runtime, catalogue_admin, catalogue_worker"
            for table in ("benefit_providers", "benefits")
        ),
        "GRANT SELECT, INSERT, UPDATE, DELETE ON benefit_providers TO catalogue_admin",
        "GRANT SELECT, INSERT, UPDATE ON benefits TO catalogue_admin",
        "GRANT SELECT, UPDATE (mrn_issued_at) ON benefit_providers TO catalogue_worker",
        "GRANT SELECT (id, display_name, type, status, issues_mrn, mrn_pattern) ON benefit_providers "
        "TO catalogue_runtime",
        "GRANT SELECT ON benefits TO catalogue_worker, catalogue_runtime",
        "ALTER TABLE benefits ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE benefits FORCE ROW LEVEL SECURITY",
        "CREATE POLICY benefits_shown_to_users ON benefits FOR SELECT TO catalogue_runtime "
        f"USING (status = 'active' AND (is_for_all_platforms OR {platform} = ANY (platform_ids)))",
        *(
            f"CREATE POLICY benefits_for_{role} ON benefits TO catalogue_{role} USING (true) WITH CHECK (true)"
            for role in ("admin", "worker", "owner")
        ),
    ]
    for table in ("data_keys", "idempotency_keys", "audit_log"):
        statements += tenant_policies(table, "catalogue")
    return statements
