"""13. Processes of two versions run side by side, as they do in the middle of an upgrade."""

import asyncio
import contextlib
import io
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.rig import ROOT, Layout, running_rig
from chaos.workload import Outcome, Workload, refusals
from deploy.system import GATEWAY, SERVICES

# What the first and the last part of a migration does that two versions have to live with.
EXPAND = "ALTER TABLE accounts ADD COLUMN nickname text"
CONTRACT = "ALTER TABLE accounts DROP COLUMN nickname"


@dataclass
class OldAndNew(Experiment):
    """Runs the gateway of an older revision with the services of this one, and the reverse."""

    number = 13
    title = "old gateway with new services and the reverse, across one expand/contract migration"
    must_show = "journeys pass both ways"

    revision: str = "HEAD~30"
    seconds: float = 30.0
    rate: float = 40.0
    _old: Path = field(default=Path(), repr=False)

    @contextlib.asynccontextmanager
    async def scene(self, seed: int) -> AsyncIterator[Scene]:
        """Set up the new services with the old gateway."""
        with tempfile.TemporaryDirectory(prefix="aarokya-chaos-old-") as folder:
            self._old = Path(folder)
            await asyncio.to_thread(_check_out, self.revision, self._old)
            async with self._version(seed, GATEWAY) as scene:
                yield scene

    @contextlib.asynccontextmanager
    async def _version(self, seed: int, *old: str) -> AsyncIterator[Scene]:
        layout = Layout(trees=dict.fromkeys(old, self._old))
        async with running_rig(seed, layout) as rig:
            workload = Workload(rig, seed)
            await workload.open()
            yield Scene(rig, workload, seed)
            workload.close()

    async def measure(self, scene: Scene) -> Finding:
        finding = Finding("")
        parts = [await self._journeys(scene, "old gateway", finding)]
        async with self._version(scene.seed + 1, *SERVICES) as other:
            parts.append(await self._journeys(other, "old services", finding))
        finding.figure = f"{self.revision} and now: {'; '.join(parts)}"
        return finding

    async def _journeys(self, scene: Scene, which: str, finding: Finding) -> str:
        """Let traffic run while a column comes and goes."""
        rig, workload = scene.rig, scene.workload
        start = len(workload.history)
        async with workload.traffic(self.rate):
            for statement in (EXPAND, CONTRACT):
                await asyncio.sleep(self.seconds / 3)
                await rig.ask("records", statement)
                rig.done_to["schema changed"] += 1
            await asyncio.sleep(self.seconds / 3)
        during = workload.history[start:]
        failed = [operation for operation in during if operation.outcome is not Outcome.OK]
        verdict = await scene.verdict()
        finding.problems += problems_of(verdict)
        if failed:
            finding.problems.append(f"{which}: {dict(refusals(failed).most_common(3))}")
        return f"{which}: {len(failed)} of {len(during)} requests failed, {verdict}"


def _check_out(revision: str, folder: Path) -> None:
    """Unpack an older revision."""
    packed = subprocess.run(["git", "archive", revision], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
