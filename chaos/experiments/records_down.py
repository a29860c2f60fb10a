"""6. Records is down, and then it stands still."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.workload import Operation, Outcome, refusals

FOLLOWS_WITHIN_S = 15.0
# So many join at once, whatever else the traffic does.
JOINERS = 3
JOIN_WITHIN_S = 5.0
# So long everything is as it should be before and afterwards.
CALM_S = 2.0
NAME = "records-1"


@dataclass
class _Outage:
    """What was seen of the time in which records was away, and of that before and after it.

    Attributes:
        elsewhere: the requests that records is not needed for.
        joined: who was onboarded meanwhile.
        followed: how long it took until all of them had a SELF when records was back.
    """

    elsewhere: list[Operation]
    joined: list[str]
    followed: float = 0.0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        slowest = max(attempt.seconds for operation in self.elsewhere for attempt in operation.attempts)
        errors = refusals(self.elsewhere).total()
        return (
            f"{errors} errors in {len(self.elsewhere)} requests to identity and catalogue (slowest {slowest:.2f} s); "
            f"{len(self.joined)} onboarded, all SELF {self.followed:.1f} s after records was back"
        )


@dataclass
class RecordsDown(Experiment):
    """Takes records down for a while, then stops it with SIGSTOP, so that calls hang that failed before."""

    number = 6
    title = "records down, and records frozen (SIGSTOP)"
    must_show = "identity and catalogue routes: 0 errors; onboarding succeeds, SELF follows when records is back"
    faults = frozenset({"taken down", "frozen"})

    seconds: float = 60.0
    frozen_s: float = 20.0
    rate: float = 50.0

    async def measure(self, scene: Scene) -> Finding:
        rig = scene.rig
        down = await self._outage(
            scene, self.seconds, partial(rig.take_down, NAME), partial(rig.bring_up, NAME), "records down"
        )
        frozen = await self._outage(
            scene, self.frozen_s, partial(rig.freeze, NAME), partial(rig.thaw, NAME), "records frozen"
        )
        verdict = await scene.verdict()
        finding = Finding(f"down: {down}; frozen: {frozen}; {verdict}", problems_of(verdict))
        finding.problems += down.problems + frozen.problems
        return finding

    async def _outage(
        self, scene: Scene, seconds: float, begin: Callable[[], None], end: Callable[[], None], what: str
    ) -> _Outage:
        """Let traffic run while records is away, and on until everybody who joined has a SELF."""
        rig, workload = scene.rig, scene.workload
        start = len(workload.history)
        async with workload.traffic(self.rate):
            # Some are in the middle of something with records then.
            await asyncio.sleep(CALM_S)
            away = len(workload.history)
            begin()
            joining = [workload.begin(workload.register()) for _ in range(JOINERS)]
            try:
                await asyncio.sleep(seconds)
                await asyncio.wait(joining, timeout=JOIN_WITHIN_S)
                during = workload.history[away:]
            finally:
                end()
            joined = [
                operation.person.id
                for operation in during
                if operation.kind == "onboard" and operation.outcome is Outcome.OK and operation.person
            ]

            async def has_followed() -> bool:
                missing = await rig.ask(
                    "records",
                    "SELECT count(*) FROM unnest(%s::uuid[]) AS u WHERE u NOT IN "
                    "(SELECT user_id FROM dependants WHERE relationship = 'SELF')",
                    joined,
                )
                return bool(missing[0][0] == 0)

            followed = await rig.until(has_followed, 60, "every SELF has followed")
            await asyncio.sleep(CALM_S)
        elsewhere = [
            operation for operation in workload.history[start:] if operation.service != "records" and operation.attempts
        ]
        outage = _Outage(elsewhere, joined, followed)
        if errors := refusals(elsewhere):
            outage.problems.append(f"{what}: errors where records is not needed: {dict(errors)}")
        if not joined:
            outage.problems.append(f"{what}: nobody was onboarded meanwhile")
        if followed > FOLLOWS_WITHIN_S:
            outage.problems.append(f"{what}: SELF followed only after {followed:.1f} s")
        return outage
