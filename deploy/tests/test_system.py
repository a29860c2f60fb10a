"""How a login's connection string follows from the server's, and what a full disk does to the watch."""

import errno
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from deploy.options import Options
from deploy.supervisor import Program
from deploy.system import LocalSystem, login_dsn


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


class TestWatch:
    def test_goes_on_while_the_disk_is_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        outcomes = [OSError(errno.ENOSPC, "No space left on device"), None]
        said: list[str] = []

        class Request:
            def is_made(self) -> bool:
                return not outcomes

            def is_urgent(self) -> bool:
                return False

        def write() -> None:
            if error := outcomes.pop(0):
                raise error

        system = LocalSystem(Options(tmp_path, "127.0.0.1", 8080, None, None), Request(), said.append)
        monkeypatch.setattr(system, "_is_ready", True)
        monkeypatch.setattr(system, "_write_runtime", write)
        program = Program("records", command=[], environment={}, log=tmp_path / "log", directory=tmp_path)
        system._note_restart(program, 1)
        system.watch()
        assert len(said) == 1
        assert not system._tells_old_processes
