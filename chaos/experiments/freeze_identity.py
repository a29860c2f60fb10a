"""7. Identity stands still."""

import asyncio
from collections import Counter
from dataclasses import dataclass

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.waiting import answers_again
from chaos.workload import Operation, refusals

# The gateway's budget of 5 s, and what a busy machine adds.
LONGEST_ATTEMPT_S = 5.5
RECOVERED_WITHIN_S = 2.0
SEEN_ON_S = 5.0
# Until identity freezes there are no calls that wait; what those take is there soon, and does not grow from then on.
MOST_GROWTH = 20 * 1024 * 1024
MOST_STEADY_GROWTH = 4 * 1024 * 1024
WATCHED = ("gateway-1", "records-1", "catalogue-1")
# So long after a change of rights nobody may be let in by what is remembered; and a change could not be heard.
RIGHTS_LAST_S = 1.0


@dataclass
class FreezeIdentity(Experiment):
    """Stops identity with SIGSTOP, so that its connections stay open and nothing answers."""

    number = 7
    title = "identity frozen (SIGSTOP)"
    must_show = "no call outlives its deadline, memory flat, recovery ≤ 2 s"
    faults = frozenset({"frozen"})

    seconds: float = 30.0
    rate: float = 50.0
    warm_up_s: float = 10.0

    async def measure(self, scene: Scene) -> Finding:
        rig, workload = scene.rig, scene.workload
        async with workload.traffic(self.rate):
            await asyncio.sleep(self.warm_up_s)
            memory = {name: rig.memory(name) for name in WATCHED}
            start = len(workload.history)
            rig.freeze("identity-1")
            frozen_at = asyncio.get_running_loop().time()
            # One at least that needs no identity.
            workload.begin(workload.run(workload.new_benefit()))
            try:
                await asyncio.sleep(self.seconds / 2)
                halfway = {name: rig.memory(name) for name in WATCHED}
                await asyncio.sleep(self.seconds / 2)
                thawed_at = asyncio.get_running_loop().time()
                grown = max(rig.memory(name) - before for name, before in memory.items())
                grown_late = max(rig.memory(name) - before for name, before in halfway.items())
            finally:
                rig.thaw("identity-1")
            getting_ready = asyncio.create_task(rig.until_ready("gateway-1"))
            recovered = await rig.until(answers_again(scene, "identity-1"), 30, "identity answers again")
            ready = await getting_ready
            # To see until when somebody is still refused.
            await asyncio.sleep(SEEN_ON_S)
            during = workload.history[start:]
        attempts = [attempt for operation in during for attempt in operation.attempts]
        slowest = max(attempt.seconds for attempt in attempts)
        silent = sum(attempt.is_silent for attempt in attempts)
        let_in = [operation for operation in during if was_let_in(operation, frozen_at + RIGHTS_LAST_S, thawed_at)]
        elsewhere = [
            attempt
            for operation in during
            if operation.kind == "add benefit"
            for attempt in operation.attempts
            if attempt.began < thawed_at
        ]
        not_good = Counter(attempt.status for attempt in elsewhere if not attempt.is_good)
        refused = max([0.0, *(attempt.began - thawed_at for attempt in attempts if not attempt.is_good)])
        verdict = await scene.verdict()
        finding = Finding(
            f"slowest answer {slowest:.2f} s of {len(during)}, {silent} without answer; "
            f"memory +{grown / 2**20:.1f} MB, {grown_late / 2**20:.1f} MB of it in the second half; "
            f"recovered in {recovered:.2f} s, ready in {ready:.2f} s, "
            f"the last who was refused came {refused:.2f} s after it; "
            f"refused {dict(refusals(during).most_common(4))}, let in without identity {len(let_in)}; {verdict}",
            problems_of(verdict),
        )
        if slowest > LONGEST_ATTEMPT_S or silent:
            finding.problems.append(f"slowest answer {slowest:.2f} s, {silent} calls got none")
        if not_good or not elsewhere:
            finding.problems.append(f"of {len(elsewhere)} that need no identity were refused: {dict(not_good)}")
        if let_in:
            finding.problems.append(f"{len(let_in)} were let in though nobody knew their rights")
        if recovered > RECOVERED_WITHIN_S:
            finding.problems.append(f"recovered only after {recovered:.2f} s")
        if ready > RECOVERED_WITHIN_S:
            finding.problems.append(f"ready only after {ready:.2f} s")
        if refused > RECOVERED_WITHIN_S:
            finding.problems.append(f"somebody was refused who came {refused:.2f} s after it")
        if grown > MOST_GROWTH or grown_late > MOST_STEADY_GROWTH:
            finding.problems.append(f"memory grew by {grown / 2**20:.1f} MB, {grown_late / 2**20:.1f} of it late")
        return finding


def was_let_in(operation: Operation, since: float, until: float) -> bool:
    """Return whether somebody whose rights identity decides on was served while it stood still, at once or later."""
    return operation.person is not None and any(
        attempt.is_good and since <= attempt.began and attempt.ended <= until for attempt in operation.attempts
    )
