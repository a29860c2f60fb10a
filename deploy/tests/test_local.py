"""`make run` as its user sees it: a whole system in a data folder of its own, or one sentence why not."""

import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from deploy.journey import STEPS, as_shell
from deploy.system import SERVICES
from deploy.tests.test_supervisor import is_alive, wait_until

START_S = 120
OPERATORS_KEY = "given-to-the-operator-by-someone"


class System:
    """A system that runs in a data folder, or tries to."""

    def __init__(self, data: Path, **environment: str) -> None:
        self.data = data
        settings = {"AAROKYA_DATA_DIR": str(data), "AAROKYA_HTTP_PORT": "0", **environment}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AAROKYA_")}
        self._output = data.with_name(f"output-{time.monotonic_ns()}")
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "deploy.local"],
                env={**inherited, **settings},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """All that it has said up to now."""
        return self._output.read_text()

    @property
    def runtime(self) -> Any:
        return json.loads((self.data / "runtime.json").read_text())

    @property
    def pids(self) -> list[int]:
        """The processes of the system, but for the one that keeps them."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.process.poll() is not None or (self.data / "runtime.json").exists(), START_S)
        assert self.process.poll() is None, self.said

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait()


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder in a place that root's PostgreSQL can reach, other than pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """A system for all tests that leave it running."""
    with open_folder() as folder:
        running = System(folder / "data", AAROKYA_ADMIN_API_KEY=OPERATORS_KEY)
        try:
            running.wait_until_ready()
            yield running
        finally:
            running.stop()


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder for one test alone."""
    with open_folder() as folder:
        yield folder / "the data"


@pytest.fixture
def run(data: Path) -> Iterator[Callable[..., System]]:
    """Start systems on the data folder; those that still run after the test are stopped."""
    started = []

    def start(**environment: str) -> System:
        started.append(System(data, **environment))
        return started[-1]

    yield start
    for one in started:
        one.stop()


class TestRunning:
    def test_says_what_runs_where(self, system: System) -> None:
        runtime = system.runtime
        assert set(runtime) == {"gateway", "services", "databases", "tls", "admin_api_key_file"}
        assert stat.S_IMODE((system.data / "runtime.json").stat().st_mode) == 0o600
        assert httpx.get(f"{runtime['gateway']['url']}/readyz").status_code == 200
        assert httpx.get(runtime["gateway"]["metrics_url"]).status_code == 200
        assert {runtime["services"][service]["pid"] for service in SERVICES} < set(system.pids)
        for service in SERVICES:
            for dsn in runtime["databases"][service].values():
                psycopg.connect(dsn).close()
        assert f"ready {runtime['gateway']['url']}" in system.said

    def test_keeps_files_to_their_owner(self, system: System) -> None:
        open_files = [
            path
            for path in system.data.rglob("*")
            if path.is_file() and not path.is_relative_to(system.data / "postgres") and path.stat().st_mode & 0o077
        ]
        assert open_files == []

    def test_takes_the_given_key_of_the_operator(self, system: System) -> None:
        assert Path(system.runtime["admin_api_key_file"]).read_text().strip() == OPERATORS_KEY
        answer = httpx.get(f"{system.runtime['gateway']['url']}/platforms", headers={"admin-api-key": OPERATORS_KEY})
        assert answer.status_code == 200

    def test_the_printed_journey_works(self, system: System) -> None:
        script = as_shell(system.runtime["gateway"]["url"], Path(system.runtime["admin_api_key_file"]))
        assert script in system.said
        done = subprocess.run(["bash", "-e"], input=script, capture_output=True, text=True, check=False)
        answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        expected = [step.shows["error.code"] for step in STEPS if "error.code" in step.shows]
        assert [answer["error"]["code"] for answer in answers if "error" in answer] == expected
        assert len(answers) == len([step for step in STEPS if step.status != 204])

    def test_the_demo_works(self, system: System) -> None:
        environment = {**os.environ, "AAROKYA_DATA_DIR": str(system.data)}
        command = [sys.executable, "-P", "-m", "deploy.demo"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert "The journey is complete." in done.stdout

    def test_restarts_what_crashes(self, system: System) -> None:
        before = system.runtime
        pid = before["services"]["catalogue"]["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: system.runtime["services"]["catalogue"]["pid"] != pid)
        after = system.runtime
        assert after["services"]["catalogue"]["address"] == before["services"]["catalogue"]["address"]
        assert after["services"]["records"] == before["services"]["records"]


class TestStopping:
    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent died")
    def test_leaves_nothing_behind_however_it_ends(self, run: Callable[..., System]) -> None:
        killed = run()
        killed.wait_until_ready()
        pids = killed.pids
        killed.process.kill()
        killed.process.wait()
        wait_until(lambda: not any(is_alive(pid) for pid in pids))

        (killed.data / "runtime.json").unlink()
        stopped = run()
        stopped.wait_until_ready()
        pids = stopped.pids
        assert stopped.stop() == 0
        assert not any(is_alive(pid) for pid in pids)
        assert not (stopped.data / "runtime.json").exists()

    def test_stops_while_it_starts(self, run: Callable[..., System]) -> None:
        system = run()
        wait_until(lambda: "PostgreSQL" in system.said or system.process.poll() is not None)
        assert system.stop() == 0
        assert not (system.data / "runtime.json").exists()


class TestRefusals:
    """Each is one sentence, and nothing is left running."""

    def refusal(self, system: System) -> str:
        assert system.process.wait() == 1
        said = system.said
        assert said.startswith("aarokya: ")
        assert said.count("\n") == 1
        return said

    def test_port_is_taken(self, run: Callable[..., System]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            assert f"port {port} of 127.0.0.1 is taken" in self.refusal(run(AAROKYA_HTTP_PORT=str(port)))

    @pytest.mark.parametrize("port", ["eighty", "-1", "65536", "٨٠"])
    def test_port_is_none(self, run: Callable[..., System], port: str) -> None:
        assert "AAROKYA_HTTP_PORT" in self.refusal(run(AAROKYA_HTTP_PORT=port))

    def test_data_folder_is_a_file(self, run: Callable[..., System], data: Path) -> None:
        data.write_text("not a folder")
        assert f"the data folder {data} cannot be used" in self.refusal(run())

    def test_data_folder_is_in_use(self, run: Callable[..., System], data: Path) -> None:
        data.mkdir()
        with (data / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert f"it already runs on the data folder {data}" in self.refusal(run())

    def test_secrets_are_gone(self, run: Callable[..., System], data: Path) -> None:
        (data / "postgres" / "data").mkdir(parents=True)
        assert "secrets.json is gone" in self.refusal(run())

    def test_secrets_are_spoilt(self, run: Callable[..., System], data: Path) -> None:
        data.mkdir()
        (data / "secrets.json").write_text("{}")
        assert "secrets.json does not hold the secrets" in self.refusal(run())
