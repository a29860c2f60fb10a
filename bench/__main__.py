"""Measures Aarokya beside the peer: ``python -m bench [--record]``.

Both run at once on one PostgreSQL, and are loaded in turn, a few seconds each, so that whatever else the machine does
meets both. Compared are CPU of all processes for one request, PostgreSQL's not counted, and how long answers take.
"""

import argparse
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
import uvloop

from bench.load import CONNECTIONS, Measured, put_load
from bench.targets import SEED, BenchFailed, Target, aarokya, peer

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("request", "", "CPU µs", "share", "at most", "p50 ms", "p99 ms", "share", "at most", "a second")
GOOD = (200, 201)
# How many relatives are added to each family, and how many changes are made in it.
WRITES = 12
LONGEST_S = 120.0


@dataclass
class Comparison:
    """One kind of request at both.

    Attributes:
        kind: the method of `Target` that makes the requests.
        cpu_budget: how much of the peer's CPU it may take.
        p99_budget: how much of the peer's p99.
        most: how many requests a load makes, instead of as many as it can in some seconds.
        ours: what Aarokya took.
        peers: what the peer took.
    """

    kind: str
    cpu_budget: float
    p99_budget: float
    most: int | None = None
    ours: Measured = field(default_factory=Measured)
    peers: Measured = field(default_factory=Measured)

    @property
    def cpu_share(self) -> float:
        return self.ours.cpu_us / self.peers.cpu_us

    @property
    def p99_share(self) -> float:
        return self.ours.percentile_ms(0.99) / self.peers.percentile_ms(0.99)

    @property
    def is_met(self) -> bool:
        return self.cpu_share <= self.cpu_budget and self.p99_share <= self.p99_budget


def main() -> None:
    """Measure, print the table, keep it if asked to, and fail where a budget is missed."""
    arguments = _arguments()
    comparisons = _measure(arguments.seconds, arguments.rounds, arguments.people)
    # `make bench` itself says --record.
    given = [argument for argument in sys.argv[1:] if argument != "--record"]
    command = f"make bench ARGS='{' '.join(given)}'" if given else "make bench"
    text = f"{_circumstances(command)}\n\n{_table(comparisons)}"
    print(text, flush=True)
    if arguments.record:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{datetime.now(UTC):%Y-%m-%d-%H%M}.md").write_text(f"# Beside one process\n\n{text}\n")
    sys.exit(not all(comparison.is_met for comparison in comparisons))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each load lasts")
    parser.add_argument("--rounds", type=int, default=4, help="how often both are loaded in turn")
    parser.add_argument("--people", type=int, default=800, help="how many users there are")
    parser.add_argument("--record", action="store_true", help="keep the table in bench/results")
    return parser.parse_args()


def _measure(seconds: float, rounds: int, people: int) -> list[Comparison]:
    # As many writes for both, so that families and histories stay alike.
    writes = people * WRITES // (rounds + 1)
    comparisons = [
        Comparison("read_user", 0.5, 0.7),
        Comparison("read_dependant", 0.5, 0.7),
        Comparison("list_dependants", 0.5, 0.7),
        Comparison("add_dependant", 1.0, 1.0, most=writes),
        Comparison("change_dependant", 1.0, 1.0, most=writes),
    ]
    with tempfile.TemporaryDirectory(prefix="aarokya-bench-") as folder:
        data = Path(folder)
        with aarokya(data, people) as ours, peer(data, people) as theirs:
            for comparison in comparisons:
                for target in (ours, theirs):
                    _load(target, comparison, seconds)
                for number in range(rounds):
                    both = [(ours, comparison.ours), (theirs, comparison.peers)]
                    # Who comes second may meet what is left of the first.
                    for target, measured in reversed(both) if number % 2 else both:
                        measured += _load(target, comparison, seconds)
                print(f"{comparison.kind}: {comparison.cpu_share:.2f} of the peer's CPU", file=sys.stderr, flush=True)
    return comparisons


def _load(target: Target, comparison: Comparison, seconds: float) -> Measured:
    kind = comparison.kind
    seconds = seconds if comparison.most is None else LONGEST_S
    load = put_load(target.port, target.pids, getattr(target, kind), seconds, comparison.most or sys.maxsize)
    measured: Measured = uvloop.run(load)
    if bad := {status: count for status, count in measured.statuses.items() if status not in GOOD}:
        raise BenchFailed(f"{target.name} answered {kind} with {bad}")
    return measured


def _table(comparisons: Sequence[Comparison]) -> str:
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for comparison in comparisons:
        met = "" if comparison.is_met else " **missed**"
        figures = (comparison.cpu_share, comparison.cpu_budget, comparison.p99_share, comparison.p99_budget)
        shares = tuple(f"{figure:.2f}" for figure in figures)
        lines.append(_row(f"{comparison.kind.replace('_', ' ')}{met}", "Aarokya", comparison.ours, shares))
        lines.append(_row("", "one process", comparison.peers, ("", "", "", "")))
    return "\n".join(lines)


def _row(kind: str, name: str, measured: Measured, shares: Sequence[str]) -> str:
    cells = (
        kind,
        name,
        f"{measured.cpu_us:.0f}",
        shares[0],
        shares[1],
        f"{measured.percentile_ms(0.5):.1f}",
        f"{measured.percentile_ms(0.99):.1f}",
        shares[2],
        shares[3],
        f"{measured.rate:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def _circumstances(command: str) -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], check=False, capture_output=True, text=True).stdout.strip()

    revision = f"`{git('rev-parse', '--short', 'HEAD')}`" + (" and changes" if git("status", "--porcelain") else "")
    return (
        f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, revision {revision}, {CONNECTIONS} connections, seed {SEED}\n"
        f"- {psutil.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"the load comes from the same machine\n- `{command}`"
    )


if __name__ == "__main__":
    main()
