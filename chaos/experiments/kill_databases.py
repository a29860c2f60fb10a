"""2. Databases are killed, and their sessions terminated, under traffic."""

import asyncio
import time
from dataclasses import dataclass

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.waiting import answers_again
from deploy.system import SERVICES

READY_WITHIN_S = 10.0
TERMINATE = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


@dataclass
class KillDatabases(Experiment):
    """Kills each postmaster, then terminates all sessions every second."""

    number = 2
    title = "kill -9 each postmaster; terminate all sessions every second"
    must_show = "0 lost, 0 duplicates, 0 half-done; no service restarted by hand"
    faults = frozenset({"killed", "sessions terminated"})

    kills: int = 10
    terminating_s: float = 60.0
    rate: float = 50.0

    async def measure(self, scene: Scene) -> Finding:
        rig, workload = scene.rig, scene.workload
        took: list[float] = []
        restarts = rig.restarts.copy()
        terminated = rig.done_to["sessions terminated"]
        async with workload.traffic(self.rate):
            for _ in range(self.kills):
                for service in SERVICES:
                    await asyncio.sleep(rig.rng.random())
                    old = rig.pid(f"{service}-database")
                    rig.kill(f"{service}-database")

                    async def is_new(name: str = f"{service}-database", pid: int = old) -> bool:
                        return rig.pid(name) != pid

                    await rig.until(is_new, 30, f"{service}'s database is restarted")
                    took.append(await rig.until(answers_again(scene, f"{service}-1"), 60, f"{service} answers again"))
            ends_at = time.monotonic() + self.terminating_s
            while time.monotonic() < ends_at:
                for service in SERVICES:
                    rig.done_to["sessions terminated"] += (await rig.ask(service, TERMINATE))[0][0]
                await asyncio.sleep(1)
        by_hand = sum((rig.restarts - restarts)[name] for name in rig.programs)
        verdict = await scene.verdict()
        finding = Finding(
            f"{len(took)} kills, {rig.done_to['sessions terminated'] - terminated} sessions terminated: {verdict}; "
            f"answers again ≤ {max(took):.1f} s after the restart; {by_hand} services restarted",
            problems_of(verdict),
        )
        if by_hand:
            finding.problems.append(f"{by_hand} services did not live through it")
        if max(took) > READY_WITHIN_S:
            finding.problems.append(f"it took {max(took):.1f} s until a service answered again")
        return finding
