"""What an experiment is, and what it finds."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import ClassVar

from chaos.checker import Checker, Verdict
from chaos.rig import Layout, Rig, running_rig
from chaos.workload import Workload


@dataclass
class Scene:
    """A running system and its clients."""

    rig: Rig
    workload: Workload
    seed: int

    async def verdict(self) -> Verdict:
        """Compare everything that the clients were told with what is there."""
        return await Checker(self.rig, self.workload).check()


@dataclass
class Finding:
    """What one run of an experiment has measured.

    Attributes:
        figure: the measured figure, as the table shows it.
        problems: why it has not passed; nothing when it has.
        counts: how many operations ended how.
        fired: how often each fault really hit.
        unplanned: processes that died though nobody killed them.
    """

    figure: str
    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    fired: Counter[str] = field(default_factory=Counter)
    unplanned: list[str] = field(default_factory=list)

    @property
    def has_passed(self) -> bool:
        return not self.problems


class Experiment(ABC):
    """One row of the table. A subclass is a dataclass of its parameters."""

    number: ClassVar[int]
    title: ClassVar[str]
    must_show: ClassVar[str]
    # Whether it needs no fault to fire: some only load the system.
    is_fault_free: ClassVar[bool] = False
    layout: ClassVar[Layout] = Layout()

    @abstractmethod
    async def measure(self, scene: Scene) -> Finding:
        """Break things, and say what was seen."""

    @contextlib.asynccontextmanager
    async def scene(self, seed: int) -> AsyncIterator[Scene]:
        """Set up what the experiment runs on."""
        async with running_rig(seed, self.layout) as rig, contextlib.AsyncExitStack() as stack:
            workload = Workload(rig, seed)
            stack.callback(workload.close)
            await workload.open()
            yield Scene(rig, workload, seed)

    async def run(self, scene: Scene) -> Finding:
        """Measure, and count what every run has to tell."""
        rig, fired_before, counted_before = scene.rig, scene.rig.fired(), scene.workload.counts()
        unplanned_before = len(rig.unplanned)
        finding = await self.measure(scene)
        finding.fired = rig.fired() - fired_before
        finding.counts = scene.workload.counts() - counted_before
        finding.unplanned = rig.unplanned[unplanned_before:]
        if not finding.fired and not self.is_fault_free:
            finding.problems.append("no fault fired")
        if finding.unplanned:
            finding.problems.append(f"{len(finding.unplanned)} processes died unplanned: {finding.unplanned[0]}")
        return finding


def problems_of(verdict: Verdict) -> list[str]:
    """Return what keeps an experiment from passing."""
    return [] if verdict.is_clean else [str(verdict)]
