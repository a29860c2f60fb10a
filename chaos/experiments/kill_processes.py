"""1. Processes are killed under traffic."""

import asyncio
from dataclasses import dataclass

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.waiting import answers_again

PROCESSES = ("identity-1", "catalogue-1", "records-1", "gateway-1")
READY_WITHIN_S = 5.0


@dataclass
class KillProcesses(Experiment):
    """Kills each of the four processes again and again, in turn."""

    number = 1
    title = "kill -9 each of the four processes under traffic"
    must_show = "0 lost, 0 duplicates, 0 half-done; ready again ≤ 5 s"
    faults = frozenset({"killed"})
    cuts_clients = True

    kills: int = 50
    rate: float = 100.0
    # Between the recovery from one kill and the next, half as long at least and half as long again at most. What still
    # comes back from the last kill is no part of how long the next one takes.
    pause_s: float = 3.0

    async def measure(self, scene: Scene) -> Finding:
        rig, workload = scene.rig, scene.workload
        took: list[tuple[float, str]] = []
        async with workload.traffic(self.rate):
            for _ in range(self.kills):
                for name in PROCESSES:
                    await asyncio.sleep(self.pause_s * (0.5 + rig.rng.random()))
                    old = rig.pid(name)
                    rig.kill(name)
                    seconds = await rig.until(answers_again(scene, name, old), 30, f"{name} answers again")
                    took.append((seconds, name))
        slowest = max(attempt.seconds for operation in workload.history for attempt in operation.attempts)
        verdict = await scene.verdict()
        longest, name = max(took)
        finding = Finding(
            f"{len(took)} kills: {verdict}; ready again ≤ {longest:.1f} s ({name}), "
            f"no attempt longer than {slowest:.1f} s",
            problems_of(verdict),
        )
        if longest > READY_WITHIN_S:
            finding.problems.append(f"it took {longest:.1f} s until {name} answered again")
        return finding
