"""How a login's connection string follows from the server's."""

import pytest
from psycopg.conninfo import conninfo_to_dict

from deploy.system import login_dsn


class TestLoginDsn:
    @pytest.mark.parametrize(
        ("server", "expected"),
        [
            (
                "postgresql://postgres:secret@127.0.0.1:5433/postgres",
                "postgresql://identity_owner:p%2Fw@127.0.0.1:5433/identity",
            ),
            (
                "host=db.example user=admin password=secret",
                "postgresql://identity_owner:p%2Fw@db.example:5432/identity",
            ),
            (
                "postgresql://postgres:secret@[::1]:5433/postgres?sslmode=require",
                "postgresql://identity_owner:p%2Fw@[::1]:5433/identity?sslmode=require",
            ),
            (
                "host=a,b port=5432,5433 user=admin target_session_attrs=read-write",
                "postgresql://identity_owner:p%2Fw@a:5432,b:5433/identity?target_session_attrs=read-write",
            ),
        ],
    )
    def test_keeps_the_server_and_takes_the_login(self, server: str, expected: str) -> None:
        assert login_dsn(server, "identity_owner", "p/w", "identity") == expected

    def test_reaches_a_socket_folder(self) -> None:
        dsn = login_dsn("host=/run/postgresql user=admin", "identity_owner", "p/w", "identity")
        assert conninfo_to_dict(dsn) == {
            "host": "/run/postgresql",
            "port": "5432",
            "user": "identity_owner",
            "password": "p/w",
            "dbname": "identity",
        }
