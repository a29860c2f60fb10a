"""14. It runs for long."""

import asyncio
import time
from dataclasses import dataclass

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.workload import Outcome, refusals

WINDOW_S = 600
SAMPLES_S = 2.0
# What most requests to a service look at.
CROWDED = {"identity": "users", "catalogue": "benefits", "records": "dependants"}
CROWD_S = 0.4
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename <> 'postgres'"


@dataclass
class Soak(Experiment):
    """Lets traffic run and watches what grows."""

    number = 14
    title = "soak"
    must_show = "memory slope < 1 MB/10 min, descriptors and sessions flat"

    seconds: float = 1800.0
    rate: float = 100.0
    warm_up_s: float = 300.0
    # Bytes in ten minutes. Some minutes are too few to tell a small leak from a process that is still warming up.
    most_growth: float = 2**20

    async def measure(self, scene: Scene) -> Finding:
        rig, workload = scene.rig, scene.workload
        memory: dict[str, list[tuple[float, float]]] = {name: [] for name in rig.programs}
        descriptors: dict[str, list[int]] = {name: [] for name in rig.programs}
        sessions: list[int] = []
        async with workload.traffic(self.rate):
            await asyncio.sleep(self.warm_up_s / 2)
            # Connections are opened when a crowd needs them, and stay. One that comes by chance is no leak.
            for service, table in CROWDED.items():
                await self._crowd(scene, service, table)
            await asyncio.sleep(self.warm_up_s / 2)
            began = time.monotonic()
            while time.monotonic() - began < self.seconds - self.warm_up_s:
                for name in rig.programs:
                    memory[name].append((time.monotonic() - began, float(rig.memory(name))))
                    descriptors[name].append(rig.descriptors(name))
                sessions.append(sum([(await rig.ask(service, SESSIONS))[0][0] for service in rig.clusters]))
                await asyncio.sleep(SAMPLES_S)
        slopes = {name: _slope(points) * WINDOW_S for name, points in memory.items()}
        worst = max(slopes, key=lambda name: slopes[name])
        opened = max(_median(counts[-10:]) - _median(counts[:10]) for counts in descriptors.values())
        more_sessions = _median(sessions[-10:]) - _median(sessions[:10])
        failed = [operation for operation in workload.history if operation.outcome is not Outcome.OK]
        verdict = await scene.verdict()
        finding = Finding(
            f"{len(workload.history)} requests in {self.seconds:.0f} s, {len(failed)} failed; memory at worst "
            f"{slopes[worst] / 2**20:+.1f} MB/10 min ({worst}), descriptors {opened:+d}, sessions {more_sessions:+d}; "
            f"{verdict}",
            problems_of(verdict),
        )
        if slopes[worst] >= self.most_growth:
            finding.problems.append(f"{worst} grows by {slopes[worst] / 2**20:.1f} MB in 10 minutes")
        if opened > 5 or more_sessions > 5:
            finding.problems.append(f"{opened} more descriptors, {more_sessions} more sessions")
        if failed:
            finding.problems.append(f"{len(failed)} failed: {dict(refusals(failed).most_common(3))}")
        return finding

    async def _crowd(self, scene: Scene, service: str, table: str) -> None:
        """Let requests to a service gather behind a lock, so that every connection that there may be is opened."""
        lock = f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({CROWD_S}); COMMIT"
        await scene.rig.ask(service, lock)
        await asyncio.sleep(2)


def _slope(points: list[tuple[float, float]]) -> float:
    """Return how fast a value grows, by least squares."""
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def _median(values: list[int]) -> int:
    return sorted(values)[len(values) // 2]
