"""How much of each experiment a run does."""

from collections.abc import Mapping, Sequence

from chaos.experiment import Experiment
from chaos.experiments.cut_answers import CutAnswers
from chaos.experiments.freeze_identity import FreezeIdentity
from chaos.experiments.kill_processes import KillProcesses
from chaos.experiments.kill_relay import KillRelay
from chaos.experiments.records_down import RecordsDown
from chaos.experiments.same_key import SameKey

SCALES: Mapping[str, Sequence[Experiment]] = {
    # As the table is written.
    "full": (
        KillProcesses(),
        CutAnswers(),
        SameKey(),
        KillRelay(),
        RecordsDown(),
        FreezeIdentity(),
    ),
    # What fits into 15 minutes.
    "quick": (
        KillProcesses(kills=3, rate=60),
        CutAnswers(posts=200),
        SameKey(keys=20),
        KillRelay(kills=6, events=400),
        RecordsDown(seconds=15, rate=40),
        FreezeIdentity(seconds=12, rate=40),
    ),
    # What every change has to survive.
    "tiny": (
        KillProcesses(kills=1, rate=25, pause_s=0.5),
        CutAnswers(posts=24),
        SameKey(keys=3, parallel=20),
        KillRelay(kills=2, events=40),
        RecordsDown(seconds=3, rate=20),
        FreezeIdentity(seconds=4, rate=20),
    ),
}
