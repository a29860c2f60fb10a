"""What an experiment is, and what it finds."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from chaos.checker import Checker, Verdict
from chaos.rig import Layout, Rig, running_rig
from chaos.workload import SILENT, Operation, Outcome, Workload

# What may be answered, besides success, while something is broken: that it is. Whatever else is answered is a mistake,
# as everything that the clients ask for is right.
FITTING = frozenset({"503 RQ-111", "504 RQ-112", "409 RQ-109"})
# Of the traffic this share may be left out, as too much was under way.
MOST_LEFT_OUT = 0.01
# When so many writes of a kind were asked for, some of them succeed.
MANY = 50


@dataclass
class Scene:
    """A running system and its clients."""

    rig: Rig
    workload: Workload
    seed: int

    async def verdict(self) -> Verdict:
        """Ask once more for everything, and compare all that the clients were told with what is there."""
        await self.workload.settle()
        for gateway in self.rig.replicas("gateway"):
            await self.rig.until_ready(gateway)
        unserved = await self.workload.try_everything()
        verdict = await Checker(self.rig, self.workload).check()
        verdict.unserved += unserved
        return verdict


@dataclass
class Finding:
    """What one run of an experiment has measured.

    Attributes:
        figure: the measured figure, as the table shows it.
        problems: why it has not passed; nothing when it has.
        counts: how many operations ended how.
        acknowledged: how many writes of each kind were acknowledged.
        told: how often each answer came.
        fired: how often each fault really hit.
        unplanned: processes that died though nobody killed them.
        begun: how many requests the traffic began.
        left_out: how many it did not begin because too many were under way.
        traffic_s: how long there was traffic.
    """

    figure: str
    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    acknowledged: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    fired: Counter[str] = field(default_factory=Counter)
    unplanned: list[str] = field(default_factory=list)
    begun: int = 0
    left_out: int = 0
    traffic_s: float = 0.0

    @property
    def has_passed(self) -> bool:
        return not self.problems

    @property
    def pace(self) -> str:
        """How much traffic there was; empty when there was none."""
        if not self.traffic_s:
            return ""
        return f"{self.begun / self.traffic_s:.0f} requests begun each second, {self.left_out} left out"


class Before:
    """What had been counted of a scene before it was broken."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._fired = scene.rig.fired()
        self._probed = scene.rig.probed.copy()
        self._unplanned = len(scene.rig.unplanned)
        workload = scene.workload
        self._told = workload.told.copy()
        self._operations = len(workload.history)
        self._begun, self._left_out, self._traffic_s = workload.begun, workload.left_out, workload.traffic_s

    def tell(self, finding: Finding, *, may_be_silent: bool) -> None:
        """Add to a finding what has been counted since, and what of that is a problem.

        Args:
            finding: what was measured.
            may_be_silent: whether clients may be left without an answer.
        """
        rig, workload = self._scene.rig, self._scene.workload
        operations = workload.history[self._operations :]
        told = workload.told - self._told
        unplanned = rig.unplanned[self._unplanned :]
        acknowledged = acknowledged_writes(operations)
        finding.fired += rig.fired() - self._fired
        finding.counts.update(operation.outcome.value for operation in operations)
        finding.acknowledged += acknowledged
        finding.told += told
        finding.unplanned += unplanned
        finding.begun += workload.begun - self._begun
        finding.left_out += workload.left_out - self._left_out
        finding.traffic_s += workload.traffic_s - self._traffic_s
        strange = unfitting(told, may_be_silent=may_be_silent) + unfitting(
            rig.probed - self._probed, may_be_silent=True
        )
        if strange:
            finding.problems.append(f"answers that nothing explains: {dict(strange.most_common(5))}")
        if never := never_acknowledged(operations):
            finding.problems.append(f"none was acknowledged of: {', '.join(never)}")
        if finding.left_out > MOST_LEFT_OUT * finding.begun:
            finding.problems.append(f"{finding.left_out} requests were left out of the traffic")
        if unplanned:
            finding.problems.append(f"{len(unplanned)} processes died unplanned: {unplanned[0]}")


class Experiment(ABC):
    """One row of the table. A subclass is a dataclass of its parameters."""

    number: ClassVar[int]
    title: ClassVar[str]
    must_show: ClassVar[str]
    # What has to happen at least once, or nothing was shown; some experiments only load the system.
    faults: ClassVar[frozenset[str]] = frozenset()
    # Whether a client's own connection is broken, or the gateway at its other end.
    cuts_clients: ClassVar[bool] = False
    # Which share of the POSTs carries an Idempotency-Key.
    keyed: ClassVar[float] = 0.75
    layout: ClassVar[Layout] = Layout()

    @abstractmethod
    async def measure(self, scene: Scene) -> Finding:
        """Break things, and say what was seen."""

    @contextlib.asynccontextmanager
    async def scene(self, seed: int) -> AsyncIterator[Scene]:
        """Set up what the experiment runs on."""
        async with running_rig(seed, self.layout) as rig, contextlib.AsyncExitStack() as stack:
            workload = Workload(rig, seed, keyed=self.keyed)
            stack.callback(workload.close)
            await workload.open()
            yield Scene(rig, workload, seed)

    async def run(self, scene: Scene) -> Finding:
        """Measure, and count what every run has to tell."""
        before = Before(scene)
        finding = await self.measure(scene)
        before.tell(finding, may_be_silent=self.cuts_clients)
        if missing := sorted(fault for fault in self.faults if not finding.fired[fault]):
            finding.problems.append(f"has not happened: {', '.join(missing)}")
        scene.rig.is_of_interest |= bool(finding.problems)
        return finding


def problems_of(verdict: Verdict) -> list[str]:
    """Return what keeps an experiment from passing."""
    return [] if verdict.is_clean else [str(verdict)]


def unfitting(told: Counter[str], *, may_be_silent: bool) -> Counter[str]:
    """Return the answers that are neither a success nor what may be answered while something is broken."""

    def fits(status: str) -> bool:
        is_success = status.startswith("2") and status.isdigit()
        return is_success or status in FITTING or (may_be_silent and status.startswith(SILENT))

    return Counter({status: count for status, count in told.items() if not fits(status)})


def acknowledged_writes(operations: Sequence[Operation]) -> Counter[str]:
    """Return how many writes of each kind were acknowledged before everything was tried once more."""
    return Counter(
        operation.kind
        for operation in operations
        if operation.outcome is Outcome.OK and not operation.is_read and not operation.is_trial
    )


def never_acknowledged(operations: Sequence[Operation]) -> list[str]:
    """Return the kinds of writes that were asked for often, and acknowledged never."""
    asked = Counter(operation.kind for operation in operations if not operation.is_read and not operation.is_trial)
    acknowledged = acknowledged_writes(operations)
    return sorted(kind for kind, count in asked.items() if count >= MANY and not acknowledged[kind])
