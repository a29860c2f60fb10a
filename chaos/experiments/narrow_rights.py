"""15. Rights end while somebody is using them, at two gateways."""

import asyncio
from collections import Counter
from dataclasses import dataclass

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.proxy import Faults
from chaos.rig import Layout
from chaos.rights import LET_IN, REFUSED, Ended, end_rights
from chaos.workload import percentile


@dataclass
class NarrowRights(Experiment):
    """Deactivates users, revokes keys and suspends platforms at one gateway, and asks both until they refuse.

    Some of it happens while one of identity's replicas swallows everything, and some while all that identity says is
    later than a lease lasts. Then both are asked on after that is mended.
    """

    number = 15
    title = "deactivate, revoke, suspend under traffic, two gateways"
    must_show = "refused by both ≤ 1 s after it, also while one of identity's replicas can't be reached or all are late"
    faults = frozenset({"swallowed", "delayed"})
    layout = Layout(replicas=2)

    times: int = 50
    times_cut_off: int = 10
    times_late: int = 6
    late_s: float = 1.0
    rate: float = 50.0

    async def measure(self, scene: Scene) -> Finding:
        seen: dict[str, list[Ended]] = {what: [] for what in REFUSED}
        cut_off: list[Ended] = []
        late: list[Ended] = []
        async with scene.workload.traffic(self.rate):
            for _ in range(self.times):
                for what, ends in seen.items():
                    ends.append(await end_rights(scene, what))
            for turn in range(self.times_cut_off):
                edges = scene.rig.edges(f"gateway-identity-{1 + turn % 2}")
                cut_off.append(await end_rights(scene, self._what(turn), edges, Faults(is_black_hole=True)))
                await self._until_ready(scene)
            for turn in range(self.times_late):
                faults = Faults(delay_answers_s=self.late_s) if turn % 2 == 0 else Faults(delay_s=self.late_s)
                edges = scene.rig.edges("gateway-identity-")
                late.append(await end_rights(scene, self._what(turn // 2), edges, faults))
                await self._until_ready(scene)
        verdict = await scene.verdict()
        parts = [
            f"{what} {percentile([end.seconds for end in ends], 0.5) * 1000:.0f} ms in the middle, {_longest(ends)}"
            for what, ends in seen.items()
        ]
        finding = Finding(
            f"{self.times} × each: {'; '.join(parts)}; {self.times_cut_off} × with a replica of identity cut off: "
            f"{_longest(cut_off)}; {self.times_late} × with identity {self.late_s:.1f} s late: {_longest(late)}; "
            f"{verdict}",
            problems_of(verdict),
        )
        every = [*(end for ends in seen.values() for end in ends), *cut_off, *late]
        for end in every:
            finding.problems += end.problems
            finding.told += end.heard
            finding.counts += _counted(end.heard)
        return finding

    def _what(self, turn: int) -> str:
        return tuple(REFUSED)[turn % len(REFUSED)]

    async def _until_ready(self, scene: Scene) -> None:
        await asyncio.gather(*(scene.rig.until_ready(gateway) for gateway in scene.rig.replicas("gateway")))


def _counted(heard: Counter[str]) -> Counter[str]:
    return Counter({"let in": heard[LET_IN], "not let in": heard.total() - heard[LET_IN]})


def _longest(ends: list[Ended]) -> str:
    return f"{max(end.seconds for end in ends) * 1000:.0f} ms at most"
