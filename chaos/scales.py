"""How much of each experiment a run does."""

from collections.abc import Mapping, Sequence

from chaos.experiment import Experiment
from chaos.experiments.cut_answers import CutAnswers
from chaos.experiments.failover import Failover
from chaos.experiments.freeze_identity import FreezeIdentity
from chaos.experiments.full_disk import FullDisk
from chaos.experiments.kill_databases import KillDatabases
from chaos.experiments.kill_processes import KillProcesses
from chaos.experiments.kill_relay import KillRelay
from chaos.experiments.narrow_rights import NarrowRights
from chaos.experiments.old_and_new import OldAndNew
from chaos.experiments.other_edges import OtherEdges
from chaos.experiments.overload import Overload
from chaos.experiments.records_down import RecordsDown
from chaos.experiments.rolling_restart import RollingRestart
from chaos.experiments.same_key import SameKey
from chaos.experiments.soak import Soak
from chaos.experiments.spoilt_edge import SpoiltEdge

SCALES: Mapping[str, Sequence[Experiment]] = {
    # As the table is written.
    "full": (
        KillProcesses(),
        KillDatabases(),
        CutAnswers(),
        SameKey(),
        KillRelay(),
        RecordsDown(),
        FreezeIdentity(),
        SpoiltEdge(),
        RollingRestart(),
        Failover(),
        FullDisk(),
        Overload(),
        OldAndNew(),
        NarrowRights(),
        OtherEdges(),
        Soak(),
    ),
    # What fits into 15 minutes.
    "quick": (
        KillProcesses(kills=2, rate=60),
        KillDatabases(kills=1, terminating_s=10, rate=40),
        CutAnswers(posts=150),
        SameKey(keys=15),
        KillRelay(kills=5, events=300),
        RecordsDown(seconds=12, frozen_s=6, rate=40),
        FreezeIdentity(seconds=12, rate=40),
        SpoiltEdge(seconds=36, rounds=2, warm_up_s=4, rate=40),
        RollingRestart(rounds=1, rate=50, settle_s=3),
        Failover(rate=40),
        FullDisk(seconds=7, rate=40),
        Overload(seconds=10),
        OldAndNew(seconds=4),
        NarrowRights(times=6, times_cut_off=2, times_late=2),
        OtherEdges(seconds=1),
        Soak(seconds=180, rate=50, warm_up_s=60, most_growth=10 * 2**20),
    ),
    # What every change has to survive.
    "tiny": (
        KillProcesses(kills=1, rate=12, pause_s=0.5),
        KillDatabases(kills=1, terminating_s=4, rate=12),
        CutAnswers(posts=24),
        SameKey(keys=3, parallel=20),
        KillRelay(kills=2, events=40),
        RecordsDown(seconds=3, frozen_s=3, rate=20),
        FreezeIdentity(seconds=4, rate=20),
        SpoiltEdge(seconds=9, rounds=1, warm_up_s=2, rate=20, probes=20),
        RollingRestart(rounds=1, rate=10, settle_s=2),
        Failover(rate=20, before_s=2, after_s=4),
        FullDisk(seconds=5, rate=30),
        Overload(seconds=4),
        OldAndNew(seconds=6, rate=20),
        NarrowRights(times=3, times_cut_off=1, times_late=1, rate=10),
        OtherEdges(seconds=1, rate=10, warm_up_s=2),
        Soak(seconds=40, rate=20, warm_up_s=10, most_growth=100 * 2**20),
    ),
}
