"""Makes a service's database and roles, as the server's superuser."""

from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

LOGINS = ("owner", "runtime")
SCOPES = ("admin", "worker")


def provision(service: str, superuser_dsn: str, owner_dsn: str, runtime_dsn: str) -> None:
    """Make or repair the database and its four roles.

    The owner migrates. The runtime login inherits nothing: it takes on the admin or the worker role for one
    transaction at a time, by ``SET LOCAL ROLE``. Passwords and the database's name are those of the two DSNs.
    """
    passwords = {
        role: str(conninfo_to_dict(dsn)["password"]) for role, dsn in zip(LOGINS, (owner_dsn, runtime_dsn), strict=True)
    }
    database = sql.Identifier(str(conninfo_to_dict(owner_dsn)["dbname"]))
    name = {role: sql.Identifier(f"{service}_{role}") for role in (*LOGINS, *SCOPES)}
    with psycopg.connect(superuser_dsn, autocommit=True) as connection:
        for role in (*LOGINS, *SCOPES):
            if not _exists(connection, "SELECT FROM pg_roles WHERE rolname = %s", f"{service}_{role}"):
                connection.execute(sql.SQL("CREATE ROLE {}").format(name[role]))
        for login in LOGINS:
            connection.execute(
                sql.SQL(
                    "ALTER ROLE {} LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS PASSWORD {}"
                ).format(name[login], passwords[login])
            )
        for scope in SCOPES:
            connection.execute(sql.SQL("GRANT {} TO {}").format(name[scope], name["runtime"]))
        if not _exists(
            connection, "SELECT FROM pg_database WHERE datname = %s", str(conninfo_to_dict(owner_dsn)["dbname"])
        ):
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'").format(
                    database, name["owner"]
                )
            )
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
        connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, name["runtime"]))
    with psycopg.connect(
        superuser_dsn, dbname=str(conninfo_to_dict(owner_dsn)["dbname"]), autocommit=True
    ) as connection:
        connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        connection.execute(sql.SQL("GRANT ALL ON SCHEMA public TO {}").format(name["owner"]))
        users = sql.SQL(", ").join(name[role] for role in ("runtime", *SCOPES))
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(users))


def _exists(connection: psycopg.Connection[tuple[object, ...]], query: LiteralString, value: str) -> bool:
    return connection.execute(query, (value,)).fetchone() is not None
