"""8. One edge is slow, and loses connections."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.proxy import Faults, Proxy
from chaos.workload import Operation, Outcome, percentile, refusals

MOST_SLOWER = 0.20
# One pause of the collector or of the machine, which no phase can be spared.
HICCUP_S = 0.005
MOST_READ_ERRORS = 0.005
# Of fewer answers the slowest hundredth is a matter of luck.
LEAST_ANSWERS = 500
# That both kinds of resets have hit is waited for, as they are rare.
HIT_WITHIN_S = 30.0
LOST = ("reset", "cut answer")
# What does not pass the spoilt edge; identity has another one to records, for onboarding and profile changes.
ELSEWHERE = ("read user", "list benefits", "register", "add benefit", "onboard", "change profile")


@dataclass
class SpoiltEdge(Experiment):
    """Delays what goes from the gateway to records and back, then resets connections there, in turn with peace.

    Of what is reset, half is a request that does not arrive and half an answer that is lost after the effect. Most
    writes carry no key, so nobody but the gateway could repeat them, and it must not.
    """

    number = 8
    title = "+500 ms, then 5 % resets, on the edge gateway → records"
    must_show = "other routes' p99 +20 % (and 5 ms) at most and no errors; read errors ≤ 0.5 %; 0 duplicates"
    faults = frozenset({"delayed", *LOST})
    keyed = 0.25

    seconds: float = 84.0
    rounds: int = 4
    warm_up_s: float = 10.0
    rate: float = 50.0
    # Reads elsewhere besides the traffic, so that there are enough answers to tell how slow the slowest are.
    probes: float = 50.0

    async def measure(self, scene: Scene) -> Finding:
        rig = scene.rig
        (edge,) = rig.edges("gateway-records-1")
        phases: dict[str, list[Operation]] = defaultdict(list)
        # Nothing is remembered yet, and no connection open.
        await self._traffic(scene, self.warm_up_s)
        seconds = self.seconds / self.rounds / 3
        for turn in range(self.rounds):
            phases["well"] += await self._traffic(scene, seconds)
            # Half there and half back.
            edge.faults = Faults(delay_s=0.25)
            phases["slow"] += await self._traffic(scene, seconds)
            # 5 % of what passes.
            edge.faults = Faults(reset_requests=0.025, reset_answers=0.025)
            is_last = turn == self.rounds - 1
            phases["reset"] += await self._traffic(scene, seconds, until_hit=edge if is_last else None)
            edge.heal()
        times = {phase: seconds_elsewhere(operations) for phase, operations in phases.items()}
        p99 = {phase: percentile(values, 0.99) for phase, values in times.items()}
        spoilt = [*phases["slow"], *phases["reset"]]
        reads = {phase: reads_of_records(phases[phase]) for phase in ("slow", "reset")}
        elsewhere = refusals([operation for operation in spoilt if operation.service != "records"])
        keyless = sum(
            operation.service == "records" and not operation.is_read and operation.key is None
            for operation in phases["reset"]
        )
        verdict = await scene.verdict()
        finding = Finding(
            f"p99 elsewhere {' → '.join(f'{value * 1000:.0f}' for value in p99.values())} ms "
            f"(of {', '.join(str(len(values)) for values in times.values())} answers); "
            f"{elsewhere.total()} errors elsewhere; "
            f"of records' reads failed {', '.join(told_errors(reads))}; "
            f"{keyless} writes without a key among the resets; {verdict}",
            problems_of(verdict),
        )
        finding.problems += slower(times)
        if elsewhere:
            finding.problems.append(f"errors where records is not needed: {dict(elsewhere)}")
        for phase, operations in reads.items():
            if len(failed(operations)) > MOST_READ_ERRORS * len(operations):
                finding.problems.append(f"{phase}: reads failed: {dict(refusals(failed(operations)))}")
        return finding

    async def _traffic(self, scene: Scene, seconds: float, until_hit: Proxy | None = None) -> Sequence[Operation]:
        """Let traffic run for some time, and if asked for, on until both kinds of resets have hit an edge."""
        start = len(scene.workload.history)
        # Even traffic hardly meets itself while all answers take the same time, and does when some take longer: for
        # that alone the slowest would be slower than when all was well.
        async with scene.workload.traffic(self.rate, by_chance=True), self._probing(scene):
            await asyncio.sleep(seconds)
            if until_hit is not None:

                async def is_hit(edge: Proxy = until_hit) -> bool:
                    return all(edge.fired[kind] for kind in LOST)

                await scene.rig.until(is_hit, HIT_WITHIN_S, "requests and answers are lost")
        return scene.workload.history[start:]

    @asynccontextmanager
    async def _probing(self, scene: Scene) -> AsyncIterator[None]:
        """Read elsewhere for as long as the block runs, whether answers come or not."""
        workload, loop = scene.workload, asyncio.get_running_loop()

        async def probe() -> None:
            due = loop.time()
            while True:
                due += scene.rig.rng.expovariate(self.probes)
                person = scene.rig.rng.choice(workload.people)
                kind = scene.rig.rng.choice(("read user", "list benefits"))
                workload.begin(workload.run(workload.read(kind, person)))
                await asyncio.sleep(max(0.0, due - loop.time()))

        probing = asyncio.create_task(probe())
        try:
            yield
        finally:
            probing.cancel()


def seconds_elsewhere(operations: Sequence[Operation]) -> list[float]:
    """Return how long each success took that needed nothing of records."""
    return [
        attempt.seconds
        for operation in operations
        if operation.kind in ELSEWHERE
        for attempt in operation.attempts
        if attempt.is_good
    ]


def reads_of_records(operations: Sequence[Operation]) -> list[Operation]:
    """Return the reads that need records."""
    return [operation for operation in operations if operation.is_read and operation.service == "records"]


def failed(operations: Sequence[Operation]) -> list[Operation]:
    """Return those that did not succeed in the end."""
    return [operation for operation in operations if operation.outcome is not Outcome.OK]


def told_errors(reads: Mapping[str, Sequence[Operation]]) -> list[str]:
    """Return how many reads failed in each phase."""
    return [
        f"{len(failed(operations))} of {len(operations)} when {phase} "
        f"({100 * len(failed(operations)) / max(1, len(operations)):.2f} %)"
        for phase, operations in reads.items()
    ]


def slower(times: dict[str, list[float]]) -> list[str]:
    """Return the phases in which the slowest took too much longer than when all was well."""
    limit = percentile(times["well"], 0.99) * (1 + MOST_SLOWER) + HICCUP_S
    return [
        f"{phase}: p99 elsewhere {percentile(values, 0.99) * 1000:.0f} ms, more than {limit * 1000:.0f}"
        for phase, values in times.items()
        if min(len(values), len(times["well"])) >= LEAST_ANSWERS and percentile(values, 0.99) > limit
    ]
