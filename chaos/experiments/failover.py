"""10. A primary is lost, and its synchronous standby takes over."""

import asyncio
import os
import subprocess
from dataclasses import dataclass
from itertools import pairwise

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.rig import Layout, Rig
from chaos.workload import Outcome, Workload
from deploy.postgres import Cluster

SERVICE = "records"
AWAY_AT_MOST_S = 3.0


@dataclass
class Failover(Experiment):
    """Kills the primary of records' database for good, and promotes the standby as an operator or Patroni would."""

    number = 10
    title = "primary killed, synchronous standby promoted"
    must_show = "≤ 3 s without service, 0 acknowledged writes lost"
    faults = frozenset({"taken down"})
    layout = Layout(standby_of=SERVICE)

    rate: float = 60.0
    before_s: float = 5.0
    after_s: float = 10.0

    async def measure(self, scene: Scene) -> Finding:
        rig, workload = scene.rig, scene.workload
        standby = await asyncio.to_thread(_copy_primary, rig)
        standby.program.start()
        await asyncio.to_thread(standby.wait_until_ready)
        await rig.ask(SERVICE, "ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        await rig.ask(SERVICE, "SELECT pg_reload_conf()")

        async def is_in_step() -> bool:
            states = await rig.ask(SERVICE, "SELECT sync_state FROM pg_stat_replication")
            return states == [("sync",)]

        await rig.until(is_in_step, 30, "the standby follows synchronously")
        async with workload.traffic(self.rate):
            await asyncio.sleep(self.before_s)
            killed_at = asyncio.get_running_loop().time()
            rig.take_down(f"{SERVICE}-database")
            rig.fail_over(SERVICE, standby)
            await rig.ask(SERVICE, "SELECT pg_promote()")
            await asyncio.sleep(self.after_s)
            ended_at = asyncio.get_running_loop().time()
        away = _longest_pause(workload, killed_at, ended_at)
        verdict = await scene.verdict()
        finding = Finding(f"{away:.1f} s without a write to {SERVICE}; {verdict}", problems_of(verdict))
        if away > AWAY_AT_MOST_S:
            finding.problems.append(f"{away:.1f} s without service")
        return finding


def _copy_primary(rig: Rig) -> Cluster:
    """Make the standby as a copy of the primary that follows it."""
    primary = rig.clusters[SERVICE]
    standby = Cluster(
        rig.folder / f"{SERVICE}-standby",
        rig.superuser_password,
        port=rig.standby_port,
        log=rig.folder / "logs" / f"{SERVICE}-standby.log",
    )
    account = standby.account
    subprocess.run(
        [
            standby.binaries.folder / "pg_basebackup",
            "--write-recovery-conf",
            "--checkpoint=fast",
            f"--pgdata={standby.data}",
            f"--dbname={primary.dsn}?application_name=standby",
        ],
        env={**os.environ, "LC_ALL": "C"},
        cwd=standby.home,
        check=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )
    return standby


def _longest_pause(workload: Workload, killed_at: float, ended_at: float) -> float:
    """Return the longest time without an acknowledged write between the primary's end and that of the traffic."""
    ends = sorted(
        operation.began + operation.seconds
        for operation in workload.history
        if operation.service == SERVICE and not operation.is_read and operation.outcome is Outcome.OK
    )
    moments = [killed_at, *(end for end in ends if killed_at < end < ended_at), ended_at]
    return max(later - earlier for earlier, later in pairwise(moments))
