"""11. The disk under a database is full."""

import asyncio
import contextlib
import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.rig import Layout
from chaos.waiting import takes_writes
from chaos.workload import refusals

SERVICE = "records"
DATABASE = f"{SERVICE}-database"
LEFT_BYTES = 64 * 1024
# So long after it was full the postmaster may not start yet.
STARTS_WITHIN_S = 30.0
# How often the log goes on in another file, until there is none left and PostgreSQL gives up.
SWITCHES = 8


@dataclass
class FullDisk(Experiment):
    """Fills the disk of records' database under traffic, first so that no table grows, then so that it ends as well."""

    number = 11
    title = "full disk under one database"
    must_show = "503s, nothing acknowledged is lost, recovers by itself"
    faults = frozenset({"disk filled"})
    layout = Layout(disk_of=SERVICE)

    seconds: float = 20.0
    rate: float = 60.0

    async def measure(self, scene: Scene) -> Finding:
        rig, workload = scene.rig, scene.workload
        filler = rig.home_of(SERVICE) / "filler"
        restarts = rig.restarts.copy()
        async with workload.traffic(self.rate):
            await asyncio.sleep(2)
            start = len(workload.history)
            # It cannot even recover without room to write.
            rig.excuse(DATABASE, self.seconds + STARTS_WITHIN_S)
            await asyncio.to_thread(_fill, filler)
            rig.done_to["disk filled"] += 1
            await asyncio.sleep(self.seconds / 2)
            await self._use_up_log(scene)
            await asyncio.sleep(self.seconds / 2)
            during = workload.history[start:]
            filler.unlink()
            recovered = await rig.until(partial(takes_writes, scene), 60, "records takes writes")
            await asyncio.sleep(2)
        refused = refusals([operation for operation in during if operation.service == SERVICE])
        by_hand = sum((rig.restarts - restarts)[name] for name in rig.programs)
        restarted = (rig.restarts - restarts)[DATABASE]
        verdict = await scene.verdict()
        finding = Finding(
            f"refused {dict(refused.most_common(3))}; takes writes {recovered:.1f} s after there was room; "
            f"the database ended {restarted} times; {verdict}",
            problems_of(verdict),
        )
        if not refused["503 RQ-111"]:
            finding.problems.append("nothing was refused, so the disk was not full")
        if not restarted:
            finding.problems.append("the database found room for its log all the time")
        if by_hand:
            finding.problems.append(f"{by_hand} services did not live through it")
        return finding

    async def _use_up_log(self, scene: Scene) -> None:
        """Let the database need another file for its log, for which there is no room: it ends, and cannot start."""
        restarts = scene.rig.restarts[DATABASE]
        for _ in range(SWITCHES):
            with contextlib.suppress(psycopg.Error):
                await scene.rig.ask(SERVICE, "SELECT pg_switch_wal(), pg_sleep(0.3)")
            if scene.rig.restarts[DATABASE] > restarts:
                return


def _fill(filler: Path) -> None:
    """Leave next to nothing of the disk, whatever else is written meanwhile."""
    size = 0
    # When there is no room for a step, it is full.
    with filler.open("wb") as file, contextlib.suppress(OSError):
        while (free := shutil.disk_usage(filler.parent).free) > LEFT_BYTES:
            step = max(free // 2, LEFT_BYTES)
            os.posix_fallocate(file.fileno(), size, step)
            size += step
