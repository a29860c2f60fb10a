"""12. More is asked than can be answered."""

import asyncio
import time
from dataclasses import dataclass

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.http import Answer, NoAnswer, NotSent
from chaos.workload import percentile

LEAST_GOODPUT = 0.8
REFUSED_WITHIN_S = 0.1
AT_ONCE = 32


@dataclass
class Overload(Experiment):
    """Measures what the system can carry, and then asks for three times as much."""

    number = 12
    title = "three times the load it can carry"
    must_show = "≥ 80 % of peak goodput; the rest is refused within 100 ms"
    is_fault_free = True

    seconds: float = 30.0
    times: float = 3.0

    async def measure(self, scene: Scene) -> Finding:
        peak = await self._peak(scene)
        answers, silent = await self._flood(scene, peak * self.times)
        good = [answer for answer in answers if answer.status == 200]
        refused = [answer for answer in answers if answer.status == 503]
        strange = len(answers) - len(good) - len(refused)
        goodput = len(good) / self.seconds
        p99 = percentile([answer.seconds for answer in refused], 0.99)
        verdict = await scene.verdict()
        finding = Finding(
            f"peak {peak:.0f}/s; offered {(len(answers) + silent) / self.seconds:.0f}/s: {goodput:.0f}/s answered "
            f"({100 * goodput / peak:.0f} %), {len(refused)} refused, 99 % of them within {p99 * 1000:.0f} ms, "
            f"{silent} without answer; {verdict}",
            problems_of(verdict),
        )
        if goodput < LEAST_GOODPUT * peak:
            finding.problems.append(f"only {100 * goodput / peak:.0f} % of the peak")
        if p99 > REFUSED_WITHIN_S:
            finding.problems.append(f"1 % were refused after more than {p99 * 1000:.0f} ms")
        if not refused or silent or strange:
            finding.problems.append(f"{len(refused)} refused, {silent} without answer, {strange} answered otherwise")
        return finding

    async def _peak(self, scene: Scene) -> float:
        """Return how many reads are answered each second when as many are asked as are answered."""
        done = 0
        ends_at = time.monotonic() + self.seconds

        async def ask() -> None:
            nonlocal done
            while time.monotonic() < ends_at:
                # Not in one line with the sum, which would forget what others have counted meanwhile.
                is_good = (await self._read(scene)).status == 200
                done += is_good

        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
        return done / self.seconds

    async def _flood(self, scene: Scene, rate: float) -> tuple[list[Answer], int]:
        """Ask at a rate, whether answers come or not."""
        answers: list[Answer] = []
        silent = 0

        async def ask() -> None:
            nonlocal silent
            try:
                answers.append(await self._read(scene))
            except (NotSent, NoAnswer):
                silent += 1

        asking = set()
        began, sent = time.monotonic(), 0
        while (now := time.monotonic() - began) < self.seconds:
            while sent < now * rate:
                sent += 1
                task = asyncio.create_task(ask())
                asking.add(task)
                task.add_done_callback(asking.discard)
            await asyncio.sleep(0.002)
        while asking:
            await asyncio.wait(list(asking))
        return answers, silent

    async def _read(self, scene: Scene) -> Answer:
        workload = scene.workload
        person = scene.rig.rng.choice(workload.people)
        return await workload.send_once(workload.read("list dependants", person))
