"""Which keys a restored database gets, and whether they open all that is sealed in it."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from deploy.compose import restore
from deploy.compose.backup import KEYS
from deploy.compose.stack import SERVICES, CommandFailed
from servicekit.data_keys import data_keys_table
from tests.database_server import DatabaseServer


class Keys:
    """A database in which keys are merged."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        self.connection = connection
        self.ask(str(CreateTable(data_keys_table(MetaData())).compile(dialect=postgresql.dialect())))
        self.ask(restore.COLLECT)

    def ask(self, sql: str) -> list[tuple[object, ...]]:
        """Run SQL and return the rows of its last statement."""
        cursor = self.connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []

    def merge(self, *rows: tuple[int, int, str | None]) -> int:
        """Merge a dump of (id, owner, wrapped key if it was not destroyed); return how many are of others."""
        for key, owner, wrapped in rows:
            values = "'1', %s, NULL" if wrapped else "NULL, %s, now()"
            self.connection.execute(
                f"INSERT INTO data_keys (id, owner_id, platform_id, master_key_id, wrapped, destroyed_at) "
                f"VALUES (%s, %s, %s, {values})".encode(),
                (uuid.UUID(int=key), uuid.UUID(int=owner), uuid.UUID(int=99), wrapped and wrapped.encode()),
            )
        ((others,),) = self.ask(restore.COUNT_OTHERS)
        self.ask(restore.MERGE)
        return int(str(others))

    def finish(self) -> dict[int, bytes | None]:
        """Return the merged keys by owner."""
        self.ask(restore.FINISH)
        return {owner.int: wrapped for owner, wrapped in self.ask("SELECT owner_id, wrapped FROM data_keys")}


@pytest.fixture
def keys(cluster: DatabaseServer) -> Iterator[Keys]:
    name = f"restored_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(cluster.dsn, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}".encode())
    with psycopg.connect(cluster.dsn_in(name), autocommit=True) as connection:
        yield Keys(connection)


def test_the_newest_wrapping_counts_and_no_key_is_left_out(keys: Keys) -> None:
    assert keys.merge((1, 1, "old"), (2, 2, "only here")) == 0
    assert keys.merge((1, 1, "new"), (3, 3, "later")) == 0
    assert keys.merge() == 0
    assert keys.finish() == {1: b"new", 2: b"only here", 3: b"later"}


def test_a_destroyed_key_stays_destroyed(keys: Keys) -> None:
    keys.merge((1, 1, "key"), (2, 2, None))
    keys.merge((1, 1, None), (2, 2, "key"))
    assert keys.merge((1, 1, "key")) == 0
    assert keys.finish() == {1: None, 2: None}
    erased = [row[0] for row in keys.ask(restore.DESTROYED)]
    assert {it["user_id"] for it in erased if isinstance(it, dict)} == {str(uuid.UUID(int=1)), str(uuid.UUID(int=2))}


def test_keys_of_another_installation_are_noticed(keys: Keys) -> None:
    keys.merge((1, 1, "key"))
    assert keys.merge((11, 1, "another")) == 1


def test_what_no_key_opens_is_counted(keys: Keys) -> None:
    keys.merge((1, 1, "key"), (2, 2, None))
    keys.finish()
    keys.ask("CREATE TABLE rows (sealed bytea)")
    for key in (1, 2, 3):
        keys.connection.execute("INSERT INTO rows VALUES (%s), (NULL)", (uuid.UUID(int=key).bytes + b"sealed",))
    assert keys.ask(restore.SEALED_TABLES) == [("rows",)]
    assert keys.ask(restore.COUNT_WITHOUT_KEY.format(table="rows")) == [(1,)]


def test_takes_keys_of_the_backups_time_and_later(tmp_path: Path) -> None:
    backup = tmp_path / "20261120T122138Z"
    names = ["20261119T000000Z", backup.name, "20261121T000000Z", "20261122T000000Z.part", "lost+found"]
    for name in names:
        (tmp_path / KEYS / name).mkdir(parents=True)
    assert [folder.name for folder in restore.list_key_folders(backup)] == names[1:3]
    with pytest.raises(CommandFailed, match="not named by a time"):
        restore.list_key_folders(tmp_path / "copy")


def test_refuses_a_folder_that_is_not_whole(tmp_path: Path) -> None:
    for service in SERVICES[:2]:
        (tmp_path / f"{service}.dump").touch()
    with pytest.raises(CommandFailed, match="no dump of records"):
        restore.require_dumps(tmp_path)
