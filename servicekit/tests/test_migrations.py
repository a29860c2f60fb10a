"""Whether a migration of a table that is in use gets done without keeping others from it."""

import threading
import time

import psycopg
import pytest

from servicekit import migrations

ENV = "from servicekit.migrations import run\nfrom sqlalchemy import MetaData\nrun(MetaData())\n"
STEP = """
from alembic import op
revision = {revision!r}
down_revision = {before!r}
def upgrade():
    op.execute({statement!r})
"""
IN_USE_S = 2.5


@pytest.fixture
def made_up_service(tmp_path, monkeypatch):
    """A service that makes a table and then changes it; returns its name."""
    versions = tmp_path / "madeup" / "migrations" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / "madeup" / "__init__.py").touch()
    (versions.parent / "env.py").write_text(ENV)
    (versions / "a.py").write_text(STEP.format(revision="a", before=None, statement="CREATE TABLE used (id int)"))
    (versions / "b.py").write_text(STEP.format(revision="b", before="a", statement="ALTER TABLE used ADD name text"))
    monkeypatch.syspath_prepend(tmp_path)
    return "madeup"


def test_makes_way_for_others_until_it_gets_the_table(kit, made_up_service):
    migrations.upgrade(made_up_service, kit.owner_dsn, "a")
    with psycopg.connect(kit.owner_dsn) as dump:
        # What pg_dump holds on each table as long as it runs.
        dump.execute("LOCK TABLE used IN ACCESS SHARE MODE")
        upgrade = threading.Thread(target=migrations.upgrade, args=(made_up_service, kit.owner_dsn))
        upgrade.start()
        waits = []
        with psycopg.connect(kit.owner_dsn, autocommit=True) as caller:
            ends = time.monotonic() + IN_USE_S
            while (began := time.monotonic()) < ends:
                caller.execute("SELECT id FROM used")
                waits.append(time.monotonic() - began)
                time.sleep(0.01)
        assert upgrade.is_alive()
    upgrade.join(10)
    assert 0.1 < max(waits) < 1.5
    with psycopg.connect(kit.owner_dsn) as connection:
        assert connection.execute("SELECT id, name FROM used").fetchall() == []
