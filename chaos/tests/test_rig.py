"""That faults count only when they hit something, and that nobody's death is overlooked."""

import signal
from pathlib import Path
from typing import Any, cast

import pytest

from chaos import rig as rig_module
from chaos.rig import RESTARTING_S, Layout, Rig


class Process:
    """A program that only says whether it runs."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self.runs = True
        self.sent: list[signal.Signals] = []

    def is_running(self) -> bool:
        return self.runs

    def send(self, signum: signal.Signals) -> None:
        self.sent.append(signum)


class Cluster:
    def __init__(self, program: Process) -> None:
        self.program = program


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path, 1, Layout())
    rig.programs["identity-1"] = cast(Any, Process("identity-1", tmp_path / "log"))
    rig.clusters["records"] = cast(Any, Cluster(Process("records-database", tmp_path / "log")))
    return rig


def ends(rig: Rig, name: str) -> None:
    """Let the supervisor notice that a process has ended."""
    rig._note_restart(rig._program(name), -9)


def test_a_planned_end_is_counted_once(rig: Rig) -> None:
    rig.kill("identity-1")
    ends(rig, "identity-1")
    assert rig.fired() == {"killed": 1}
    assert not rig.unplanned

    ends(rig, "identity-1")
    assert len(rig.unplanned) == 1


def test_who_is_dead_already_is_not_killed(rig: Rig) -> None:
    cast(Any, rig.programs["identity-1"]).runs = False

    rig.kill("identity-1")
    rig.terminate("identity-1")
    rig.freeze("identity-1")
    ends(rig, "identity-1")

    assert not +rig.fired()
    assert len(rig.unplanned) == 1


def test_a_postmaster_that_dies_by_itself_is_told(rig: Rig) -> None:
    ends(rig, "records-database")

    assert len(rig.unplanned) == 1


def test_a_killed_postmaster_may_fail_to_start_for_some_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(rig_module.time, "monotonic", lambda: now)

    rig.kill("records-database")
    for _ in range(3):
        ends(rig, "records-database")
    assert not rig.unplanned

    now += RESTARTING_S + 1
    ends(rig, "records-database")
    assert len(rig.unplanned) == 1
