"""Runs the experiments and prints the table: ``python -m chaos --scale quick|full [--only 1,3] [--seed N]``."""

import argparse
import platform
import random
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import uvloop

from chaos.experiment import Experiment, Finding
from chaos.rig import ROOT
from chaos.scales import SCALES

COLUMNS = (
    "#",
    "experiment",
    "must show",
    "measured",
    "operations",
    "acknowledged writes",
    "answers",
    "faults fired",
    "died unplanned",
    "passed",
)
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run what the command line asks for; the exit code is 1 unless everything passed."""
    parser = argparse.ArgumentParser(prog="python -m chaos")
    parser.add_argument("--scale", choices=SCALES, default="quick")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 10**6))
    parser.add_argument("--only", type=_numbers, default=[], help="numbers of experiments, such as 1,3")
    parser.add_argument("--record", action="store_true", help="keep the table in chaos/results")
    arguments = parser.parse_args()
    only = set(arguments.only)
    if unknown := only - {experiment.number for experiment in SCALES[arguments.scale]}:
        parser.error(f"there is no experiment {', '.join(map(str, sorted(unknown)))}")
    chosen = [experiment for experiment in SCALES[arguments.scale] if not only or experiment.number in only]
    # Somebody may commit meanwhile.
    revision = _revision()
    began = time.monotonic()
    rows = []
    for experiment in chosen:
        print(f"{experiment.number}. {experiment.title} (seed {arguments.seed}, {experiment})", flush=True)
        at = time.monotonic()
        finding = uvloop.run(_run(experiment, arguments.seed))
        _tell(finding, time.monotonic() - at)
        rows.append((experiment, finding))
    table = _table(rows)
    command = f"python -m chaos --scale {arguments.scale} --seed {arguments.seed}" + (
        f" --only {','.join(map(str, arguments.only))}" if only else ""
    )
    text = f"{_circumstances(command, revision, time.monotonic() - began)}\n\n{table}"
    print(f"\n{text}", flush=True)
    if arguments.record:
        _keep(text, arguments.scale)
    sys.exit(not all(finding.has_passed for _, finding in rows))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


async def _run(experiment: Experiment, seed: int) -> Finding:
    try:
        async with experiment.scene(seed) as scene:
            return await experiment.run(scene)
    except Exception as error:  # noqa: BLE001 - one that breaks off has failed, and the others go on.
        return Finding("broke off", [f"{type(error).__name__}: {error}"])


def _tell(finding: Finding, seconds: float) -> None:
    print(f"   operations: {_counted(finding.counts)}")
    print(f"   acknowledged writes: {_counted(finding.acknowledged)}")
    print(f"   answers: {_counted(finding.told)}")
    if finding.pace:
        print(f"   traffic: {finding.pace}")
    print(f"   faults fired: {_counted(finding.fired)}; died unplanned: {len(finding.unplanned)}")
    for line in (*finding.problems, *finding.unplanned):
        print(f"   ! {line}")
    print(f"   {'passed' if finding.has_passed else 'FAILED'} in {seconds:.0f} s: {finding.figure}", flush=True)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def _table(rows: list[tuple[Experiment, Finding]]) -> str:
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    for experiment, finding in rows:
        problems = f"**{' · '.join(finding.problems)}**" if finding.problems else ""
        measured = "; ".join(filter(None, (finding.figure, finding.pace, problems)))
        cells = (
            str(experiment.number),
            experiment.title,
            experiment.must_show,
            measured.replace("|", "/").replace("\n", " "),
            _counted(finding.counts),
            _counted(finding.acknowledged),
            _counted(finding.told),
            _counted(finding.fired),
            str(len(finding.unplanned)),
            "yes" if finding.has_passed else "NO",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _revision() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    try:
        revision, changed = git("rev-parse", "--short", "HEAD"), git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"`{revision}`" + (f" and {len(changed.splitlines())} files that are not as committed" if changed else "")


def _circumstances(command: str, revision: str, seconds: float) -> str:
    memory = psutil.virtual_memory().total / 2**30
    machine = f"{psutil.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}"
    load = ", ".join(f"{value:.1f}" for value in psutil.getloadavg())
    return (
        f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, revision {revision}, {seconds / 60:.1f} minutes\n"
        f"- {machine}, Python {platform.python_version()}, load at the end {load}\n- `{command}`"
    )


def _keep(text: str, scale: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{datetime.now(UTC):%Y-%m-%d-%H%M}-{scale}.md"
    file.write_text(f"# Experiments at the scale `{scale}`\n\n{text}\n")
    print(f"kept in {file.relative_to(RESULTS.parents[1])}")


if __name__ == "__main__":
    main()
