"""What experiments need that can be tried without a system."""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from alembic.script import ScriptDirectory

from chaos import __main__ as command
from chaos import experiment as experiment_module
from chaos import workload as workload_module
from chaos.checker import Verdict
from chaos.experiment import Experiment, Finding, Scene
from chaos.experiments import narrow_rights, old_and_new
from chaos.experiments.narrow_rights import NarrowRights
from chaos.experiments.old_and_new import STEPS, OldAndNew, add_migration, lay_out_newer, unchanged
from chaos.experiments.other_edges import SPARES, Phase, errors_elsewhere
from chaos.experiments.spoilt_edge import SpoiltEdge
from chaos.proxy import Faults
from chaos.rig import ROOT
from chaos.rights import LAST, REFUSED, Ended, Heard, judge
from chaos.scales import SCALES
from chaos.tests.gateways import Gateways, refuse, spell
from chaos.workload import MIX, Attempt, Operation, Workload


@pytest.mark.parametrize("only", ["99", "1,99", "", "x"])
def test_an_experiment_that_is_not_there_is_an_error(only: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["chaos", "--only", only])

    with pytest.raises(SystemExit) as ending:
        command.main()

    assert ending.value.code == 2


def test_results_name_the_revision() -> None:
    revision = command._revision()

    assert revision == "unknown" or revision.startswith("`")


def test_every_scale_has_every_experiment() -> None:
    for experiments in SCALES.values():
        assert [experiment.number for experiment in experiments] == [*range(1, 14), 15, 16, 14]


@pytest.mark.parametrize(
    ("kind", "began", "status", "is_counted"),
    [
        ("read user", 10.0, "503 RQ-111", True),
        # Whoever hangs and is answered, or not, long after the edge has healed.
        ("list accounts", 11.9, "504 RQ-112", True),
        ("add account", 11.0, "no answer: TimeoutError", True),
        ("add account", 11.0, "201", False),
        # What the edge is for.
        ("link mrn", 11.0, "503 RQ-111", False),
        # Sent when the edge was well.
        ("read user", 9.9, "503 RQ-111", False),
        ("read user", 12.0, "503 RQ-111", False),
    ],
)
def test_errors_where_an_edge_is_not_needed(kind: str, began: float, status: str, is_counted: bool) -> None:
    operation = Operation(kind, "GET", "/", {}, attempts=[Attempt(status, began, 5.0)])
    phases = [Phase("records-catalogue slow", SPARES["records-catalogue"], 10.0, 12.0)]

    errors = errors_elsewhere([operation], phases)

    assert errors == ({f"records-catalogue slow, {kind}: {status}": 1} if is_counted else {})


class Quiet(Experiment):
    """Needs a fault that never comes."""

    number = 0
    title = must_show = ""
    faults = frozenset({"killed", "frozen"})

    async def measure(self, scene: Scene) -> Finding:
        cast(Any, scene.rig).done["frozen"] += 1
        return Finding("")


class Calls:
    """Stands for the rig and the workload of a scene, and notes in which order they are asked."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.done = Counter[str]()
        self.probed = Counter[str]()
        self.told = Counter[str]()
        self.unplanned: list[str] = []
        self.history: list[Any] = []
        self.begun = self.left_out = 0
        self.is_of_interest = False
        self.traffic_s = 0.0

    def fired(self) -> Any:
        return self.done.copy()

    def replicas(self, *kinds: str) -> list[str]:
        return ["gateway-1"]

    async def until_ready(self, gateway: str) -> None:
        self.order.append("ready")

    async def settle(self) -> None:
        self.order.append("settled")

    async def try_everything(self) -> list[str]:
        self.order.append("tried")
        return ["link mrn does not work again: []"]

    async def check(self) -> Verdict:
        self.order.append("checked")
        return Verdict()


def test_every_fault_has_to_happen() -> None:
    calls = Calls()

    finding = asyncio.run(Quiet().run(Scene(cast(Any, calls), cast(Any, calls), 1)))

    assert finding.problems == ["has not happened: killed"]
    # So its logs are kept.
    assert calls.is_of_interest


def test_everything_is_tried_once_more_before_it_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    monkeypatch.setattr(experiment_module, "Checker", lambda *_: calls)

    verdict = asyncio.run(Scene(cast(Any, calls), cast(Any, calls), 1).verdict())

    assert calls.order == ["settled", "ready", "tried", "checked"]
    assert not verdict.is_clean
    assert "link mrn" in str(verdict)


def test_two_versions_have_to_differ() -> None:
    assert "gateway" in unchanged(ROOT, ROOT)


def test_the_older_version_is_in_the_history() -> None:
    def git(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True, text=True)

    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        pytest.skip("the history is not there")

    assert git("merge-base", "--is-ancestor", OldAndNew.revision, "HEAD").returncode == 0


def test_migrations_are_added_one_after_the_other(tmp_path: Path) -> None:
    lay_out_newer(tmp_path)
    for name, statement in STEPS.items():
        add_migration(tmp_path, name, statement)

    versions = tmp_path / "services/records/records/migrations/versions"
    expand, contract = sorted(versions.glob("*.py"))[-2:]
    assert 'op.execute("ALTER TABLE accounts ADD' in expand.read_text()
    assert f'down_revision = "{expand.name[:4]}"' in contract.read_text()
    assert ScriptDirectory(str(versions.parent)).get_current_head() == contract.name[:4]
    assert (tmp_path / "gateway" / "gateway").samefile(ROOT / "gateway" / "gateway")


class Unbroken(Scene):
    """A scene of which nothing is checked in the end."""

    async def verdict(self) -> Verdict:
        return Verdict()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    gateways = Gateways()
    server = await gateways.start()
    workload = Workload(cast(Any, gateways), 7)
    await workload.open()
    yield Unbroken(cast(Any, gateways), workload, 7)
    workload.close()
    server.close()


def ends_well(what: str) -> Ended:
    return judge(what, [[Heard(float(number), REFUSED[what]) for number in range(LAST)]], 0.0)


async def test_a_spoilt_edge_is_compared_with_a_good_one(scene: Scene) -> None:
    edge = cast(Any, scene.rig).edge
    edge.fired.update(["delayed", "reset", "cut answer"])
    experiment = SpoiltEdge(seconds=0.6, rounds=2, warm_up_s=0.1, rate=100, probes=100)

    finding = await experiment.measure(scene)
    assert not finding.problems
    assert "0 errors elsewhere" in finding.figure

    cast(Any, scene.rig).answer = lambda method, path: spell(500 if method == "GET" else 201)
    finding = await experiment.measure(scene)
    assert any("errors where records is not needed" in problem for problem in finding.problems)
    assert any("reads failed" in problem for problem in finding.problems)


async def test_rights_end_well_late_and_cut_off(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Faults | None]] = []

    async def end(_: Scene, what: str, edges: Any = (), faults: Faults | None = None) -> Ended:
        asked.append((what, faults))
        return ends_well(what)

    monkeypatch.setattr(narrow_rights, "end_rights", end)

    finding = await NarrowRights(times=1, times_cut_off=3, times_late=6).measure(scene)

    assert not finding.problems
    assert {what for what, faults in asked if faults == Faults(is_black_hole=True)} == set(REFUSED)
    for late in (Faults(delay_s=1.0), Faults(delay_answers_s=1.0)):
        assert {what for what, faults in asked if faults == late} == set(REFUSED)
    assert finding.counts == {"not let in": 12 * LAST}


async def test_rights_that_do_not_end_well_fail_both_experiments(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def end(_: Scene, what: str, edges: Any = (), faults: Faults | None = None) -> Ended:
        return judge(what, [[Heard(float(number), "404 US-401") for number in range(LAST)]], 0.0)

    for module in (narrow_rights, old_and_new):
        monkeypatch.setattr(module, "end_rights", end)

    finding = Finding("")
    await OldAndNew(seconds=0.1)._journeys(scene, "old gateways", finding)
    assert any("ended in 404 US-401" in problem for problem in finding.problems)
    assert cast(Any, scene.rig).done_to["migrated"] == len(STEPS)
    assert (await NarrowRights(times=1, times_cut_off=1, times_late=1).measure(scene)).problems


async def test_everything_is_tried_again_with_one_person(scene: Scene) -> None:
    assert await scene.workload.try_everything() == []

    tried = [operation for operation in scene.workload.history if operation.is_trial]
    assert {operation.kind for operation in tried} == {*MIX, "onboard"}
    assert all(operation.key for operation in tried if operation.method == "POST" and operation.kind != "register")


async def test_what_does_not_work_again_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload_module, "TRIED_AFTER_S", (0.0, 0.01))
    cast(Any, scene.rig).answer = lambda method, path: (
        refuse(404, "RQ-103") if path == "/mrns" or method == "PATCH" else spell(201)
    )

    problems = await scene.workload.try_everything()

    assert [problem.partition(" does not")[0] for problem in problems] == [
        "change dependant",
        "link mrn",
        "change profile",
    ]
