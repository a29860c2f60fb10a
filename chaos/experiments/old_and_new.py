"""13. Processes of two versions run side by side, as they do in the middle of an upgrade."""

import asyncio
import contextlib
import io
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from chaos.experiment import Before, Experiment, Finding, Scene, problems_of
from chaos.rig import PACKAGES, PROCESSES, ROOT, Layout, running_rig
from chaos.rights import REFUSED, end_rights
from chaos.workload import Outcome, Workload, refusals
from deploy.system import GATEWAY, SERVICES

# What has to differ between the two versions, or nothing is shown.
COMPARED = (GATEWAY, "protos/aarokya", *(f"services/{service}/{service}" for service in SERVICES))
# Whose database gets one migration more while both versions use it, and what its two steps do: the newer version has a
# column that the older one knows nothing of, and later nobody needs it any more.
MIGRATED = "records"
STEPS = {
    "expand": "ALTER TABLE accounts ADD COLUMN nickname text NOT NULL DEFAULT ''",
    "contract": "ALTER TABLE accounts DROP COLUMN nickname",
}
MIGRATION = '''"""A step of an experiment."""

from alembic import op

revision = "{name}"
down_revision = "{previous}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("{statement}")
'''
REVISION = re.compile(r'^revision = "(.+)"$', re.MULTILINE)


@dataclass
class OldAndNew(Experiment):
    """Runs gateways of an older revision with the services of this one, the reverse, and both versions of everything.

    Old services live on the newest schema, as they do when its migrations have just run. Under traffic the database of
    one service is expanded and contracted by migrations as any release brings them; after that, rights are ended.
    """

    number = 13
    title = "old gateways with new services, the reverse, and all mixed, across one expand/contract migration"
    must_show = "journeys pass both ways, and rights end ≤ 1 s after the answer"
    faults = frozenset({"migrated"})

    # Of 2026-11-21 16:07, with today's tables: later revisions have changed the messages that tell of rights.
    revision: str = "964a24076a5deb612f1c8f80dfc5722dca43b0bc"
    seconds: float = 30.0
    rate: float = 40.0
    _old: Path = field(default=Path(), repr=False)

    @contextlib.asynccontextmanager
    async def scene(self, seed: int) -> AsyncIterator[Scene]:
        """Set up the new services with the old gateways."""
        with tempfile.TemporaryDirectory(prefix="aarokya-chaos-old-") as folder:
            self._old = Path(folder)
            await asyncio.to_thread(_check_out, self.revision, self._old)
            async with self._version(seed, GATEWAY) as scene:
                yield scene

    @contextlib.asynccontextmanager
    async def _version(self, seed: int, *old: str) -> AsyncIterator[Scene]:
        # Two gateways, because the one at which rights are ended need not be told.
        layout = Layout(replicas=2, trees=dict.fromkeys(old, self._old))
        async with running_rig(seed, layout) as rig, contextlib.AsyncExitStack() as stack:
            for service in SERVICES:
                await rig.migrate(service, ROOT)
            workload = Workload(rig, seed)
            stack.callback(workload.close)
            await workload.open()
            yield Scene(rig, workload, seed)

    async def measure(self, scene: Scene) -> Finding:
        finding = Finding("")
        if same := await asyncio.to_thread(unchanged, self._old, ROOT):
            finding.problems.append(f"the same in both versions: {', '.join(same)}")
        parts = [await self._journeys(scene, "old gateways", finding)]
        async with self._version(scene.seed + 1, *SERVICES) as other:
            before = Before(other)
            parts.append(await self._journeys(other, "old services", finding))
            before.tell(finding, may_be_silent=self.cuts_clients)
        async with self._version(scene.seed + 2, *(f"{kind}-1" for kind in PROCESSES)) as mixed:
            before = Before(mixed)
            parts.append(await self._journeys(mixed, "one old replica of each", finding))
            before.tell(finding, may_be_silent=self.cuts_clients)
        finding.figure = f"{self.revision[:7]} and now: {'; '.join(parts)}"
        return finding

    async def _journeys(self, scene: Scene, which: str, finding: Finding) -> str:
        """Let traffic run while a column comes and goes, and end rights after it."""
        workload = scene.workload
        start = len(workload.history)
        with tempfile.TemporaryDirectory(prefix="aarokya-chaos-newer-") as folder:
            newer = Path(folder)
            lay_out_newer(newer)
            async with workload.traffic(self.rate):
                for name, statement in STEPS.items():
                    await asyncio.sleep(self.seconds / 3)
                    add_migration(newer, name, statement)
                    await scene.rig.migrate(MIGRATED, newer)
                await asyncio.sleep(self.seconds / 3)
        during = workload.history[start:]
        # Not beside the traffic: who uses these rights asks a lot, and of the traffic nothing may fail.
        ended = [await end_rights(scene, what) for what in REFUSED]
        failed = [operation for operation in during if operation.outcome is not Outcome.OK]
        verdict = await scene.verdict()
        finding.problems += problems_of(verdict)
        for end in ended:
            finding.problems += [f"{which}: {problem}" for problem in end.problems]
            finding.told += end.heard
        if failed:
            finding.problems.append(f"{which}: {dict(refusals(failed).most_common(3))}")
        longest = max(end.seconds for end in ended) * 1000
        return (
            f"{which}: {len(failed)} of {len(during)} requests failed, rights ended after {longest:.0f} ms at most, "
            f"{verdict}"
        )


def unchanged(old: Path, new: Path) -> list[str]:
    """Return which of the compared packages hold the same code in two trees."""
    return [package for package in COMPARED if _code(old / package) == _code(new / package)]


def lay_out_newer(folder: Path) -> None:
    """Make a tree in which one service's migrations can be added to, and all else is this checkout's."""
    for package in PACKAGES:
        (folder / package).parent.mkdir(parents=True, exist_ok=True)
        if package != "." and package != f"services/{MIGRATED}":
            (folder / package).symlink_to(ROOT / package)
    ours = shutil.ignore_patterns("__pycache__", "tests")
    shutil.copytree(ROOT / "services" / MIGRATED, folder / "services" / MIGRATED, ignore=ours)


def add_migration(tree: Path, name: str, statement: str) -> None:
    """Add a migration to the end of a service's."""
    versions = tree / "services" / MIGRATED / MIGRATED / "migrations" / "versions"
    newest = max(versions.glob("*.py"))
    revision = REVISION.search(newest.read_text())
    assert revision is not None, newest
    number = int(newest.name[:4]) + 1
    step = MIGRATION.format(name=f"{number:04d}", previous=revision[1], statement=statement)
    (versions / f"{number:04d}_{name}.py").write_text(step)


def _code(folder: Path) -> dict[Path, bytes]:
    files = (path for path in folder.rglob("*") if path.suffix in (".py", ".proto"))
    return {path.relative_to(folder): path.read_bytes() for path in files if "tests" not in path.parts}


def _check_out(revision: str, folder: Path) -> None:
    """Unpack an older revision."""
    packed = subprocess.run(["git", "archive", revision], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
