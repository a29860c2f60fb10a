"""9. Everything is restarted in turn, as for a new version."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.rig import PROCESSES, Layout
from chaos.workload import Operation, Outcome, refusals


@dataclass
class RollingRestart(Experiment):
    """Stops one replica after the other with SIGTERM, the next one when the last has been back for a while."""

    number = 9
    title = "rolling SIGTERM of everything, two replicas each"
    must_show = "0 failed requests; no stream of live state ends before another one has taken over"
    faults = frozenset({"terminated"})
    layout = Layout(replicas=2, drain_s=1.0)

    rounds: int = 2
    rate: float = 100.0
    # How long a replica is back before the next one is stopped: a new one starts cold, which costs the others time.
    settle_s: float = 8.0

    async def measure(self, scene: Scene) -> Finding:
        rig, workload = scene.rig, scene.workload
        start = len(workload.history)
        stopped: list[tuple[float, str]] = []
        async with workload.balancing(), workload.traffic(self.rate):
            await asyncio.sleep(self.settle_s)
            for _ in range(self.rounds):
                for name in rig.replicas(*PROCESSES):
                    old = rig.pid(name)
                    stopped.append((asyncio.get_running_loop().time(), name))
                    rig.terminate(name)

                    async def is_new(name: str = name, pid: int = old) -> bool:
                        return rig.pid(name) != pid

                    await rig.until(is_new, 30, f"{name} has stopped")
                    await rig.until_listening(name)
                    if name.startswith("gateway"):
                        await rig.until_ready(name)
                    await asyncio.sleep(self.settle_s)
        during = workload.history[start:]
        failed = [operation for operation in during if operation.outcome is not Outcome.OK]
        retried = sum(len(operation.attempts) > 1 for operation in during)
        verdict = await scene.verdict()
        broken_off = sum(
            streams_broken_off(rig.folder / "logs" / f"{name}.log") for name in rig.replicas("gateway", "records")
        )
        finding = Finding(
            f"{len(failed)} of {len(during)} requests failed, {retried} were sent again by the client; "
            f"{broken_off} streams of live state broke off; {verdict}",
            problems_of(verdict),
        )
        if broken_off:
            finding.problems.append(f"{broken_off} streams of live state ended before another one had taken over")
        if failed or retried:
            kinds = {operation.kind for operation in during if len(operation.attempts) > 1 or operation in failed}
            finding.problems.append(f"{dict(refusals(during))} for {', '.join(sorted(kinds))}")
            finding.problems += when(during, stopped)
        return finding


def when(operations: Sequence[Operation], stopped: Sequence[tuple[float, str]]) -> list[str]:
    """Say how long after which replica was stopped something was refused or not answered."""
    after: defaultdict[tuple[float, str], list[float]] = defaultdict(list)
    for operation in operations:
        for attempt in operation.attempts:
            before = [stop for stop in stopped if stop[0] <= attempt.began]
            if before and not attempt.is_good:
                after[before[-1]].append(attempt.began - before[-1][0])
    return [
        f"{len(moments)} of them {min(moments):.2f} to {max(moments):.2f} s after {name} was told to stop"
        for (_, name), moments in after.items()
    ]


def streams_broken_off(log: Path) -> int:
    """Return how often a process has forgotten everything because its stream was ended by the other side."""
    lost = [line for line in log.read_text().splitlines() if "watched stream is lost" in line]
    return sum(not line.rstrip().endswith(("=silent", "=late")) for line in lost)
