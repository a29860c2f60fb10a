"""A PostgreSQL of our own, run for real: who gets in, what survives, and what is left behind."""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from deploy.errors import DataUnusable, NoPostgres
from deploy.ports import pick_ports
from deploy.postgres import Cluster, temporary_cluster
from deploy.tests.test_supervisor import is_alive, wait_until


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A running cluster for those tests that leave it running."""
    with temporary_cluster() as running:
        yield running


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A running cluster for one test alone."""
    with temporary_cluster() as running:
        yield running


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine can enter, other than those of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def ask(cluster: Cluster, query: str) -> object:
    with psycopg.connect(cluster.dsn) as connection:
        row = connection.execute(query).fetchone()  # type: ignore[arg-type]
        return row[0] if row else None


def postmaster(cluster: Cluster) -> int:
    return int((cluster.data / "postmaster.pid").read_text().splitlines()[0])


class TestAccess:
    def test_wants_a_password(self, cluster: Cluster) -> None:
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(f"postgresql://postgres@127.0.0.1:{cluster.port}/postgres")

    def test_refuses_another_password(self, cluster: Cluster) -> None:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(make_conninfo(cluster.dsn, password="guess"))

    def test_keeps_passwords_by_scram(self, cluster: Cluster) -> None:
        stored = ask(cluster, "SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'")
        assert str(stored).startswith("SCRAM-SHA-256$")
        assert ask(cluster, "SELECT bool_and(auth_method = 'scram-sha-256') FROM pg_hba_file_rules") is True

    def test_listens_on_this_machine_only(self, cluster: Cluster) -> None:
        assert ask(cluster, "SHOW listen_addresses") == "127.0.0.1"
        assert ask(cluster, "SHOW unix_socket_directories") == ""

    def test_keeps_its_folder_closed(self, cluster: Cluster) -> None:
        assert cluster.data.stat().st_mode & 0o077 == 0


class TestText:
    def test_knows_the_letters_of_all_languages(self, cluster: Cluster) -> None:
        assert ask(cluster, "SELECT lower('ÉÇ')") == "éç"
        assert ask(cluster, "SHOW server_encoding") == "UTF8"


class TestLife:
    def test_keeps_data_through_a_restart(self, own_cluster: Cluster) -> None:
        with psycopg.connect(own_cluster.dsn) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        own_cluster.stop()
        own_cluster.start()
        assert ask(own_cluster, "SELECT answer FROM kept") == 42

    def test_comes_back_after_a_crash(self, own_cluster: Cluster) -> None:
        with psycopg.connect(own_cluster.dsn) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        own_cluster.kill()
        own_cluster.start()
        assert ask(own_cluster, "SELECT answer FROM kept") == 42

    def test_leaves_nothing_running(self) -> None:
        with temporary_cluster() as cluster:
            pid, folder = postmaster(cluster), cluster.home.parent
            with psycopg.connect(cluster.dsn) as connection:
                backend = connection.info.backend_pid
        assert not is_alive(pid)
        assert not is_alive(backend)
        assert not folder.exists()

    def test_stops_a_server_that_an_earlier_run_left(self, own_cluster: Cluster) -> None:
        orphan = postmaster(own_cluster)
        next_run = Cluster(
            own_cluster.home,
            own_cluster._password,
            port=pick_ports(1)[0],
            log=own_cluster.home.parent / "next.log",
            durable=False,
        )
        next_run.start()
        try:
            assert not is_alive(orphan)
            assert ask(next_run, "SELECT 1") == 1
        finally:
            next_run.stop()

    def test_takes_no_other_program_for_its_server(self, own_cluster: Cluster) -> None:
        own_cluster.kill()
        pid_file = own_cluster.data / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
        own_cluster.start()
        assert ask(own_cluster, "SELECT 1") == 1

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent died")
    def test_dies_with_us(self) -> None:
        script = textwrap.dedent(
            """
            import time
            from deploy.postgres import temporary_cluster
            with temporary_cluster() as cluster:
                print((cluster.data / "postmaster.pid").read_text().splitlines()[0], cluster.home.parent, flush=True)
                time.sleep(600)
            """
        )
        parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        assert is_alive(int(pid))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
        wait_until(lambda: not is_alive(int(pid)))
        subprocess.run(["rm", "-rf", folder], check=True)


class TestRefusals:
    def describe(self, home: Path) -> Cluster:
        return Cluster(home, secrets.token_urlsafe(), port=pick_ports(1)[0], log=home.parent / "postgres.log")

    def test_names_the_version_that_the_data_needs(self, open_folder: Path) -> None:
        (open_folder / "postgres" / "data").mkdir(parents=True)
        cluster = self.describe(open_folder / "postgres")
        (cluster.data / "PG_VERSION").write_text("9\n")
        with pytest.raises(NoPostgres, match="is of PostgreSQL 9, and here is only"):
            cluster.start()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
    def test_says_when_the_data_are_out_of_reach(self, open_folder: Path) -> None:
        (open_folder / "postgres" / "data").mkdir(parents=True)
        open_folder.chmod(0o700)
        with pytest.raises(DataUnusable, match="cannot reach"):
            self.describe(open_folder / "postgres").start()

    def test_says_when_the_data_are_gone(self, tmp_path: Path) -> None:
        (tmp_path / "postgres").symlink_to(tmp_path / "gone")
        with pytest.raises(DataUnusable, match="is gone"):
            self.describe(tmp_path / "postgres").start()
