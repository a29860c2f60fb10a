"""8. One edge is slow, and loses connections."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.proxy import Faults
from chaos.workload import Operation, Outcome, percentile, refusals

MOST_SLOWER = 0.20
MOST_READ_ERRORS = 0.005


@dataclass
class SpoiltEdge(Experiment):
    """Delays what goes from the gateway to records and back, then resets connections there."""

    number = 8
    title = "+500 ms, then 5 % resets, on the edge gateway → records"
    must_show = "other routes' p99 +20 % at most; read errors ≤ 0.5 %; 0 duplicates"

    seconds: float = 60.0
    rate: float = 50.0

    async def measure(self, scene: Scene) -> Finding:
        (edge,) = scene.rig.edges("gateway-records-1")
        before = await self._traffic(scene)
        # Half there and half back.
        edge.faults = Faults(delay_s=0.25)
        slow = await self._traffic(scene)
        edge.faults = Faults(reset_requests=0.05)
        broken = await self._traffic(scene)
        edge.heal()
        p99_before, p99_slow = self._p99_elsewhere(before), self._p99_elsewhere(slow)
        reads = [operation for operation in (*slow, *broken) if operation.is_read]
        errors = sum(operation.outcome is not Outcome.OK for operation in reads)
        verdict = await scene.verdict()
        finding = Finding(
            f"p99 elsewhere {p99_before * 1000:.0f} → {p99_slow * 1000:.0f} ms; "
            f"{errors} of {len(reads)} reads failed ({100 * errors / len(reads):.2f} %); {verdict}",
            problems_of(verdict),
        )
        if p99_slow > p99_before * (1 + MOST_SLOWER):
            finding.problems.append(f"p99 elsewhere {100 * (p99_slow / p99_before - 1):+.0f} %")
        if errors > MOST_READ_ERRORS * len(reads):
            finding.problems.append(f"{errors} of {len(reads)} reads failed: {dict(refusals(reads))}")
        return finding

    async def _traffic(self, scene: Scene) -> Sequence[Operation]:
        start = len(scene.workload.history)
        async with scene.workload.traffic(self.rate):
            await asyncio.sleep(self.seconds / 3)
        return scene.workload.history[start:]

    def _p99_elsewhere(self, operations: Sequence[Operation]) -> float:
        return percentile(
            [
                operation.answer.seconds
                for operation in operations
                # Onboarding and profile changes wait for records a while.
                if operation.kind in ("read user", "list benefits", "register", "add benefit") and operation.answer
            ],
            0.99,
        )
