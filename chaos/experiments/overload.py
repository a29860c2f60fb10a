"""12. More is asked than can be answered."""

import asyncio
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from chaos.callers import Callers, Told
from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.workload import READS, percentile

LEAST_GOODPUT = 0.8
REFUSED_WITHIN_S = 0.1
# Whom it takes longer to answer has gone.
WORTH_S = 1.0
AT_ONCE = 32
# A gateway that was overloaded allows for no crowd for so long, and a little more.
CALM_AGAIN_S = 7.0
FIRST = -10


@dataclass
class Overload(Experiment):
    """Measures what the system can carry, and then asks for three times as much.

    Nothing stands between the callers and the gateway, and they do as little as they can: what they take of the
    processors is taken from what they measure, and three times as much of it. What the system can carry is measured
    before and after, half as long each, because a machine that is shared with others is not equally fast all the time.
    """

    number = 12
    title = "three times the load it can carry"
    must_show = "≥ 80 % of peak goodput (answered ≤ 1 s); 99 % of the rest are refused within 100 ms"

    seconds: float = 30.0
    times: float = 3.0

    async def measure(self, scene: Scene) -> Finding:
        # All kinds, as apps ask. Of the cheapest alone, families, which go out to records together, to answer one took
        # 0.6 ms of the gateway and to refuse one 0.1: so of three times as many, 75 to 79 % of the peak were answered.
        operations = [scene.workload.read(kind, person) for kind in READS for person in scene.workload.people]
        with suppress(PermissionError):
            # They stand for other machines: what is measured is how long the gateway takes, not how long they do.
            os.setpriority(os.PRIO_PROCESS, 0, FIRST)
        callers = Callers(scene.rig.port("gateway-1"), operations, scene.rig.rng)
        try:
            before, refused_before, strange_before = await self._peak(callers)
            answers, late, silent = await self._flood(callers, before * self.times)
            await asyncio.sleep(CALM_AGAIN_S)
            peak_after, refused_between, strange_after = await self._peak(callers)
            peak = (before + peak_after) / 2
            after, _, silent_after = await self._flood(callers, peak_after / 2)
            refused_after = refused_between + sum(answer.status != 200 for answer in after) + silent_after
        finally:
            callers.close()
            with suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, 0, 0)
        good = [answer for answer in answers if answer.status == 200]
        refused = [answer for answer in answers if answer.status == 503]
        strange = strange_before + strange_after + sum(not answer.is_fitting for answer in (*answers, *after))
        # What came after the time was over was carried by more time than it is divided by.
        slow = sum(answer.seconds > WORTH_S for answer in good)
        goodput = (len(good) - late - slow) / self.seconds
        p99_good = percentile([answer.seconds for answer in good], 0.99)
        waited = [answer.seconds for answer in refused]
        p99 = percentile(waited, 0.99)
        later = sum(seconds > REFUSED_WITHIN_S for seconds in waited)
        verdict = await scene.verdict()
        finding = Finding(
            f"peak {before:.0f}/s before, {peak_after:.0f}/s after; "
            f"offered {(len(answers) + silent) / self.seconds:.0f}/s: {goodput:.0f}/s answered "
            f"({100 * goodput / peak:.0f} %), 99 % within {p99_good:.2f} s; "
            f"{len(refused)} refused, 99 % of them within {p99 * 1000:.0f} ms "
            f"({later} later than 100 ms, at most {max(waited, default=0) * 1000:.0f}), "
            f"{silent} without answer; then at half the peak {refused_after} of {len(after)} refused; {verdict}",
            problems_of(verdict),
        )
        if refused_before or refused_after:
            finding.problems.append(f"refused without need: {refused_before} before, {refused_after} afterwards")
        if goodput < LEAST_GOODPUT * peak:
            finding.problems.append(f"only {100 * goodput / peak:.0f} % of the peak")
        if p99 > REFUSED_WITHIN_S:
            finding.problems.append(f"1 % were refused after more than {p99 * 1000:.0f} ms")
        told = Counter(str(answer.status) for answer in (*answers, *after))
        finding.told += told
        finding.counts += Counter(
            {"answered": told["200"], "refused": told["503"], "without answer": silent + silent_after}
        )
        if not refused or silent or strange:
            finding.problems.append(f"{len(refused)} refused, {silent} without answer, {strange} answered otherwise")
        return finding

    async def _peak(self, callers: Callers) -> tuple[float, int, int]:
        """Return how many reads are answered each second when 32 ask at once.

        Returns:
            that; how many were refused; how many of these otherwise than the contract says.
        """
        done = refused = strange = 0
        seconds = self.seconds / 2
        ends_at = time.monotonic() + seconds

        async def ask() -> None:
            nonlocal done, refused, strange
            while time.monotonic() < ends_at:
                # Not in one line with the sum, which would forget what others have counted meanwhile.
                answer = await callers.ask()
                done += answer.status == 200
                refused += answer.status != 200
                strange += not answer.is_fitting

        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
        return done / seconds, refused, strange

    async def _flood(self, callers: Callers, rate: float) -> tuple[list[Told], int, int]:
        """Ask at a rate, whether answers come or not.

        Returns:
            the answers; how many of them were quick and good but came when the time was over; how many did not come.
        """
        answers: list[Told] = []
        late = silent = 0

        async def ask() -> None:
            nonlocal late, silent
            try:
                answer = await callers.ask()
            except (OSError, TimeoutError):
                silent += 1
                return
            answers.append(answer)
            is_good = answer.status == 200 and answer.seconds <= WORTH_S
            late += is_good and time.monotonic() - began > self.seconds

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
        return answers, late, silent
