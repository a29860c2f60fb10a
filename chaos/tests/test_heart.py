"""The heart of the experiments, small enough to run with every change."""

import asyncio
from collections.abc import Sequence

import pytest

from chaos.experiment import Experiment, Finding
from chaos.experiments.cut_answers import CutAnswers
from chaos.experiments.freeze_identity import FreezeIdentity
from chaos.experiments.kill_processes import KillProcesses
from chaos.experiments.kill_relay import KillRelay
from chaos.experiments.records_down import RecordsDown
from chaos.experiments.same_key import SameKey

SEED = 4711
HEART: Sequence[Experiment] = (
    CutAnswers(posts=16),
    SameKey(keys=2, parallel=20),
    RecordsDown(seconds=3, rate=20),
    FreezeIdentity(seconds=3, rate=15),
    KillRelay(kills=1, events=20),
    KillProcesses(kills=1, rate=15, pause_s=0.3),
)


async def _run_all() -> list[Finding]:
    """Run one after the other on one system: each check looks at everything since the start."""
    async with HEART[0].scene(SEED) as scene:
        return [await experiment.run(scene) for experiment in HEART]


@pytest.fixture(scope="module")
def findings() -> list[Finding]:
    # Not in the loop of the other tests: what is broken here must not slow them down.
    return asyncio.run(_run_all())


@pytest.mark.parametrize("number", range(len(HEART)), ids=lambda number: type(HEART[number]).__name__)
def test_keeps_its_promises(findings: list[Finding], number: int) -> None:
    finding = findings[number]

    assert not finding.problems, finding.problems
    assert finding.fired or HEART[number].is_fault_free
    assert not finding.unplanned
