"""16. Every other edge is slow, loses connections and is silent."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.proxy import Faults, Proxy
from chaos.waiting import answers_again, takes_writes
from chaos.workload import Operation, refusals

# What is done to an edge, and by what one sees that it has hit.
FAULTS = {
    # Half there and half back.
    "slow": (Faults(delay_s=0.25), "delayed"),
    # 5 % of what passes, after all connections at once: some edges are quiet.
    "resets": (Faults(reset_requests=0.025, reset_answers=0.025), "reset"),
    "silent": (Faults(is_black_hole=True), "swallowed"),
}
HIT_WITHIN_S = 20.0
WORKS_WITHIN_S = 5.0
# What comes right after one fault says nothing about the next edge.
CALM_S = 1.0
# Whose requests an edge has nothing to do with. The one that experiment 8 spoils is left out.
SPARES = {
    "gateway-identity": (),
    "gateway-catalogue": ("identity", "records"),
    # Only events pass here, and they wait.
    "identity-records": ("identity", "catalogue", "records"),
    "records-identity": ("identity", "catalogue"),
    "records-catalogue": ("identity", "catalogue"),
    "identity-database": (),
    "catalogue-database": ("identity",),
    "records-database": ("identity", "catalogue"),
}
# What asks a service each, and so all databases.
READ_FROM = ("identity-1", "catalogue-1", "records-1")


@dataclass
class OtherEdges(Experiment):
    """Spoils the edges between services, and those to the databases, one after the other and in each way."""

    number = 16
    title = "each other edge, databases' too: +500 ms, resets, silence"
    must_show = "0 lost, 0 duplicates; no errors where the edge is not needed; works again ≤ 5 s"
    faults = frozenset({"delayed", "reset", "swallowed"})

    seconds: float = 6.0
    rate: float = 30.0
    warm_up_s: float = 5.0

    async def measure(self, scene: Scene) -> Finding:
        took: list[tuple[float, str]] = []
        elsewhere: Counter[str] = Counter()
        async with scene.workload.traffic(self.rate):
            await asyncio.sleep(self.warm_up_s)
            for name, spared in SPARES.items():
                (edge,) = scene.rig.edges(name)
                for fault in FAULTS:
                    where = f"{name} {fault}"
                    during, seconds = await self._spoil(scene, edge, fault)
                    took.append((seconds, where))
                    for done in during:
                        if done.service in spared:
                            told = refusals([done]).elements()
                            elsewhere.update(f"{where}, {done.kind}: {status}" for status in told)
                    await asyncio.sleep(CALM_S)
        verdict = await scene.verdict()
        longest, where = max(took)
        finding = Finding(
            f"{len(took)} faults on {len(SPARES)} edges: {verdict}; {elsewhere.total()} errors where the edge is not "
            f"needed; works again ≤ {longest:.1f} s ({where})",
            problems_of(verdict),
        )
        if elsewhere:
            finding.problems.append(f"errors where the edge is not needed: {dict(elsewhere)}")
        if longest > WORKS_WITHIN_S:
            finding.problems.append(f"it took {longest:.1f} s until everything worked again after: {where}")
        return finding

    async def _spoil(self, scene: Scene, edge: Proxy, fault: str) -> tuple[Sequence[Operation], float]:
        """Spoil an edge for some time; return what was asked for meanwhile, and how long until everything works."""
        rig, workload = scene.rig, scene.workload
        edge.faults, fires = FAULTS[fault]
        start, before = len(workload.history), edge.fired[fires]

        async def has_hit() -> bool:
            return edge.fired[fires] > before

        try:
            if fault == "resets":
                edge.reset_all()
            await asyncio.sleep(self.seconds)
            await rig.until(has_hit, HIT_WITHIN_S, f"{edge.name} is {fault}")
        finally:
            edge.heal()
        during = workload.history[start:]
        waits = [rig.until(answers_again(scene, name), 30, f"{name} after {edge.name} {fault}") for name in READ_FROM]
        seconds = await asyncio.gather(
            *waits, rig.until(partial(takes_writes, scene), 30, f"writes after {edge.name} {fault}")
        )
        return during, max(seconds)
