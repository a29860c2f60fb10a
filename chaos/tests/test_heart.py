"""The heart of the experiments, small enough to run with every change."""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from chaos.experiment import Experiment, Finding
from chaos.experiments.cut_answers import CutAnswers
from chaos.experiments.freeze_identity import FreezeIdentity
from chaos.experiments.kill_processes import KillProcesses
from chaos.experiments.kill_relay import KillRelay
from chaos.experiments.old_and_new import MIGRATED, STEPS, add_migration, lay_out_newer
from chaos.experiments.records_down import RecordsDown
from chaos.experiments.same_key import SameKey
from chaos.proxy import Faults
from chaos.rights import Ended, end_rights

SEED = 4711
HEART: Sequence[Experiment] = (
    CutAnswers(posts=16),
    SameKey(keys=2, parallel=20),
    RecordsDown(seconds=3, frozen_s=2, rate=20),
    FreezeIdentity(seconds=3, rate=15),
    KillRelay(kills=1, events=20),
    KillProcesses(kills=1, rate=15, pause_s=0.3),
)


@dataclass
class Heart:
    """What was found on one system."""

    findings: list[Finding]
    rights_while_late: Ended
    migrated: int


async def _run_all() -> Heart:
    """Run one after the other on one system: each check looks at everything since the start."""
    async with HEART[0].scene(SEED) as scene:
        findings = [await experiment.run(scene) for experiment in HEART]
        edges = scene.rig.edges("gateway-identity-")
        ended = await end_rights(scene, "revoke", edges, Faults(delay_answers_s=1.0))
        with tempfile.TemporaryDirectory() as folder:
            lay_out_newer(Path(folder))
            for name, statement in STEPS.items():
                add_migration(Path(folder), name, statement)
                await scene.rig.migrate(MIGRATED, Path(folder))
        steps = await scene.rig.ask(MIGRATED, "SELECT version_num FROM alembic_version")
        return Heart(findings, ended, int(steps[0][0]))


@pytest.fixture(scope="module")
def heart() -> Heart:
    # Not in the loop of the other tests: what is broken here must not slow them down.
    return asyncio.run(_run_all())


@pytest.mark.parametrize("number", range(len(HEART)), ids=lambda number: type(HEART[number]).__name__)
def test_keeps_its_promises(heart: Heart, number: int) -> None:
    finding = heart.findings[number]

    assert not finding.problems, finding.problems
    assert all(finding.fired[fault] for fault in HEART[number].faults)
    assert not finding.unplanned


def test_rights_end_while_all_that_identity_says_is_late(heart: Heart) -> None:
    assert not heart.rights_while_late.problems


def test_an_experiment_can_migrate_what_runs(heart: Heart) -> None:
    assert heart.migrated > len(STEPS)
