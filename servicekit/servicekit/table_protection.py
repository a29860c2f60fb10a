"""SQL that makes a table append-only, keeps tenants apart and grants the least; for use in migrations.

Every function returns statements for `op.execute`, one by one. The roles are those of `servicekit.provisioning`: the
owner migrates, the runtime login serves, and for one transaction at a time it becomes the admin or worker role.
"""

SCOPES = ("admin", "worker")


def append_only(table: str) -> list[str]:
    """Return triggers by which a table refuses UPDATE, DELETE and TRUNCATE, whoever tries.

    Missing grants stop the runtime login already. The triggers stop mistakes of the owner and of a superuser too.
    They fire ALWAYS, so that `session_replication_role` does not switch them off by the way. Who disables
    them on purpose is not stopped, but found out by the audit chain.
    """
    return [
        """
        CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
        END
        $$
        """,
        f"CREATE TRIGGER {table}_refuses_change BEFORE UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
        f"CREATE TRIGGER {table}_refuses_truncate BEFORE TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_refuses_change",
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_refuses_truncate",
    ]


def grants(table: str, service: str, *, append_only: bool = False, delete: bool = False) -> list[str]:
    """Return the privileges on a table of the runtime login and its two roles.

    They may read and insert; update unless the table is `append_only`; and delete only where the service really does.
    """
    if append_only and delete:
        raise ValueError("an append-only table has no deletes")
    privileges = ["SELECT", "INSERT"]
    if not append_only:
        privileges.append("UPDATE")
    if delete:
        privileges.append("DELETE")
    roles = ", ".join(f"{service}_{role}" for role in ("runtime", *SCOPES))
    return [
        f"REVOKE ALL ON {table} FROM PUBLIC, {roles}",
        f"GRANT {', '.join(privileges)} ON {table} TO {roles}",
    ]


def tenant_policies(table: str, service: str, platform_column: str = "platform_id") -> list[str]:
    """Return row-level security by which the bare runtime login sees one platform's rows only.

    The platform is the transaction's `app.platform_id`; without one there are no rows. Rows that belong to no
    platform are for operators and background work. Every role has a policy of its own: two policies for one
    role are joined by OR, which keeps the planner from the index. The owner has one too, because FORCE binds it.
    """
    mine = f"{platform_column} = NULLIF(current_setting('app.platform_id', true), '')::uuid"
    return [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY {table}_of_platform ON {table} TO {service}_runtime USING ({mine}) WITH CHECK ({mine})",
        *(
            f"CREATE POLICY {table}_for_{role} ON {table} TO {service}_{role} USING (true) WITH CHECK (true)"
            for role in (*SCOPES, "owner")
        ),
    ]
