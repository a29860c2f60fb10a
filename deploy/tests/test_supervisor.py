"""Programs as the supervisor keeps them: restarted when they crash, gone when we are gone."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.errors import ProgramFailed
from deploy.supervisor import Program, Supervisor, run_together, stop_together

PATIENCE_S = 20


def wait_until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Return when a condition holds; fail when that takes absurdly long."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    """Describe programs that run a line of shell; whatever still runs after the test is killed."""
    made = []

    def describe(script: str) -> Program:
        program = Program(
            name=f"program-{len(made)}",
            command=["/bin/sh", "-c", script],
            environment=dict(os.environ),
            log=tmp_path / f"program-{len(made)}.log",
            directory=tmp_path,
        )
        made.append(program)
        return program

    yield describe
    for program in made:
        program.kill()


class TestSupervisor:
    def test_restarts_what_was_killed(self, shell: Callable[[str], Program]) -> None:
        restarts = []
        supervisor = Supervisor(lambda program, code: restarts.append((program.name, code)))
        program = shell("exec sleep 600")
        supervisor.start(program)
        first = program.pid
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: supervisor.check() or bool(restarts))
        assert restarts == [("program-0", -signal.SIGKILL)]
        assert program.is_running()
        assert program.pid != first

    def test_counts_crashes_and_keeps_trying(self, shell: Callable[[str], Program]) -> None:
        supervisor = Supervisor()
        program = shell("exit 3")
        supervisor.start(program)
        wait_until(lambda: supervisor.check() or supervisor.crashes(program) >= 3)

    def test_tries_again_when_the_machine_has_no_room_for_a_process(self, shell: Callable[[str], Program]) -> None:
        failures = []
        supervisor = Supervisor(on_failure=lambda program, error: failures.append((program.name, type(error))))
        program = shell("exec sleep 600")
        supervisor.start(program)
        program.command, command = ["/nowhere/to/be/found"], program.command
        os.kill(program.pid, signal.SIGKILL)
        wait_until(lambda: supervisor.check() or supervisor.crashes(program) >= 3)
        assert not program.is_running()
        assert failures[:2] == [("program-0", FileNotFoundError)] * 2
        program.command = command
        wait_until(lambda: supervisor.check() or program.is_running())

    def test_leaves_the_others_alone(self, shell: Callable[[str], Program]) -> None:
        supervisor = Supervisor()
        crashing, steady = shell("exit 3"), shell("exec sleep 600")
        supervisor.start(steady)
        supervisor.start(crashing)
        pid = steady.pid
        wait_until(lambda: supervisor.check() or supervisor.crashes(crashing) >= 2)
        assert (steady.pid, steady.is_running()) == (pid, True)


class TestStopTogether:
    def test_asks_first(self, shell: Callable[[str], Program], tmp_path: Path) -> None:
        program = shell("trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.05; done")
        program.start()
        wait_until(lambda: "up" in program.log.read_text())
        stop_together([program])
        assert "asked" in program.log.read_text()

    def test_kills_who_does_not_listen(self, shell: Callable[[str], Program]) -> None:
        program = shell("trap '' TERM; echo up; while :; do sleep 0.05; done")
        program.grace_s = 0.2
        program.start()
        wait_until(lambda: "up" in program.log.read_text())
        stop_together([program])
        assert not is_alive(program.pid)

    def test_does_not_wait_when_in_a_hurry(self, shell: Callable[[str], Program]) -> None:
        program = shell("trap '' TERM; echo up; while :; do sleep 0.05; done")
        program.grace_s = 600
        program.start()
        wait_until(lambda: "up" in program.log.read_text())
        stop_together([program], lambda: True)
        assert not is_alive(program.pid)

    def test_takes_the_children_along(self, shell: Callable[[str], Program]) -> None:
        program = shell("sleep 600 & echo $!; exec sleep 600")
        program.start()
        wait_until(lambda: bool(program.log.read_text()))
        stop_together([program])
        wait_until(lambda: not is_alive(int(program.log.read_text())))


class TestProgram:
    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent died")
    def test_dies_with_us(self, tmp_path: Path) -> None:
        script = textwrap.dedent(
            """
            import os, pathlib, time
            from deploy.supervisor import Program
            here = pathlib.Path.cwd()
            program = Program("orphan", ["/bin/sleep", "600"], dict(os.environ), here / "log", here)
            program.start()
            print(program.pid, flush=True)
            time.sleep(600)
            """
        )
        parent = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
        parent.wait()
        parent.stdout.close()
        wait_until(lambda: not is_alive(child))


class TestRunTogether:
    def test_returns_when_all_have_ended(self, shell: Callable[[str], Program]) -> None:
        programs = [shell("echo one"), shell("echo two")]
        run_together(programs)
        assert [program.log.read_text() for program in programs] == ["one\n", "two\n"]

    def test_says_what_the_failing_one_said(self, shell: Callable[[str], Program]) -> None:
        patient = shell("exec sleep 600")
        with pytest.raises(ProgramFailed, match="code 7: error: no luck"):
            run_together([patient, shell("echo 'error: no luck'; echo bye; exit 7")])
        assert not is_alive(patient.pid)

    def test_stops_when_asked(self, shell: Callable[[str], Program]) -> None:
        program = shell("exec sleep 600")
        run_together([program], lambda: True)
        assert not is_alive(program.pid)
