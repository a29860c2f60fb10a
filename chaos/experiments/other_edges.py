"""16. Every other edge is slow, loses connections and is silent."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.experiments.records_down import FOLLOWS_WITHIN_S
from chaos.http import NoAnswer, NotSent
from chaos.proxy import Faults, Proxy
from chaos.waiting import answers_again, takes_writes
from chaos.workload import MIX, Operation

# What is done to an edge, and by what one sees that it has hit.
FAULTS = {
    # Half there and half back.
    "slow": (Faults(delay_s=0.25), "delayed"),
    # 5 % of what passes, after all connections at once: some edges are quiet.
    "resets": (Faults(reset_requests=0.025, reset_answers=0.025), "reset"),
    "silent": (Faults(is_black_hole=True), "swallowed"),
}
HIT_WITHIN_S = 20.0
WORKS_WITHIN_S = 5.0
# What comes right after one fault says nothing about the next edge.
CALM_S = 1.0
# An event that has waited for longer waits for the edge.
LONGEST_WAY_S = 1.0

_OF_IDENTITY = frozenset({"read user", "register", "onboard", "change profile"})
_OF_CATALOGUE = frozenset({"list benefits", "add benefit"})
_ALL = frozenset(MIX) | _OF_IDENTITY
# What an edge has nothing to do with. The one that experiment 8 spoils is left out.
SPARES = {
    "gateway-identity": frozenset[str](),
    "gateway-catalogue": _ALL - _OF_CATALOGUE,
    # Only events pass here. Who has just joined may have to wait for SELF before a dependant is added.
    "identity-records": _ALL - {"add dependant"},
    "records-identity": _OF_IDENTITY | _OF_CATALOGUE,
    "records-catalogue": _ALL - {"link mrn"},
    "identity-database": frozenset[str](),
    "catalogue-database": _ALL - _OF_CATALOGUE - {"link mrn"},
    "records-database": _OF_IDENTITY | _OF_CATALOGUE,
}
# What asks a service each, and so all databases.
READ_FROM = ("identity-1", "catalogue-1", "records-1")


@dataclass(frozen=True)
class Phase:
    """A time in which an edge was spoilt and recovered, on the loop's clock, and what had nothing to do with it."""

    where: str
    spared: Collection[str]
    began: float
    ended: float


@dataclass
class OtherEdges(Experiment):
    """Spoils the edges between services, and those to the databases, one after the other and in each way."""

    number = 16
    title = "each other edge, databases' too: +500 ms, resets, silence"
    must_show = "0 lost, 0 duplicates; no errors where the edge is not needed; works again ≤ 5 s"
    faults = frozenset({"delayed", "reset", "swallowed"})

    seconds: float = 6.0
    rate: float = 30.0
    warm_up_s: float = 5.0

    async def measure(self, scene: Scene) -> Finding:
        took: list[tuple[float, str]] = []
        followed: list[tuple[float, str]] = []
        phases: list[Phase] = []
        clock = asyncio.get_running_loop().time
        async with scene.workload.traffic(self.rate):
            await asyncio.sleep(self.warm_up_s)
            for name, spared in SPARES.items():
                (edge,) = scene.rig.edges(name)
                for fault in FAULTS:
                    where = f"{name} {fault}"
                    began = clock()
                    await self._spoil(scene, edge, fault)
                    seconds, events_s = await works_again(scene, where)
                    took.append((seconds, where))
                    followed.append((events_s, where))
                    await asyncio.sleep(CALM_S)
                    # What else is needed fails as little while the edge recovers.
                    phases.append(Phase(where, spared, began, clock()))
        elsewhere = errors_elsewhere(scene.workload.history, phases)
        verdict = await scene.verdict()
        (longest, where), (events_s, events_where) = max(took), max(followed)
        finding = Finding(
            f"{len(took)} faults on {len(SPARES)} edges: {verdict}; {elsewhere.total()} errors where the edge is not "
            f"needed; works again ≤ {longest:.1f} s ({where}), events arrive again ≤ {events_s:.1f} s ({events_where})",
            problems_of(verdict),
        )
        if elsewhere:
            finding.problems.append(f"errors where the edge is not needed: {dict(elsewhere)}")
        if longest > WORKS_WITHIN_S:
            finding.problems.append(f"it took {longest:.1f} s until everything worked again after: {where}")
        if events_s > FOLLOWS_WITHIN_S:
            finding.problems.append(f"it took {events_s:.1f} s until events arrived again after: {events_where}")
        return finding

    async def _spoil(self, scene: Scene, edge: Proxy, fault: str) -> None:
        """Spoil an edge for some time."""
        edge.faults, fires = FAULTS[fault]
        before = edge.fired[fires]

        async def has_hit() -> bool:
            return edge.fired[fires] > before

        try:
            if fault == "resets":
                edge.reset_all()
            await asyncio.sleep(self.seconds)
            await scene.rig.until(has_hit, HIT_WITHIN_S, f"{edge.name} is {fault}")
        finally:
            edge.heal()


async def works_again(scene: Scene, where: str) -> tuple[float, float]:
    """Return how long it takes until every service is read from and written to, and until events arrive."""
    works: dict[str, Callable[[], Awaitable[bool]]] = {name: answers_again(scene, name) for name in READ_FROM}
    works |= {
        "writes": partial(takes_writes, scene),
        "MRNs": _links_mrn(scene),
        "events": partial(_events_arrive, scene),
    }
    waits = [scene.rig.until(again, 30, f"{what} after {where}") for what, again in works.items()]
    *seconds, events_s = await asyncio.gather(*waits)
    return max(seconds), events_s


def _links_mrn(scene: Scene) -> Callable[[], Awaitable[bool]]:
    """Return a question whether a dependant can be added and linked, which needs both edges of records."""
    workload = scene.workload
    # Who has just joined may have to wait for SELF.
    person = next(person for person in reversed(workload.people) if person.dependants)
    relative = workload.new_dependant(person)
    workload.give_key(relative)
    links: list[Operation] = []

    async def are_linked() -> bool:
        try:
            if not links:
                answer = await workload.send_once(relative)
                if answer.status != 201:
                    return False
                links.append(workload.new_link(person, answer.json["id"]))
                workload.give_key(links[0])
            return (await workload.send_once(links[0])).status == 201
        except (NotSent, NoAnswer):
            return False

    return are_linked


async def _events_arrive(scene: Scene) -> bool:
    """Return whether no event of identity waits for long."""
    (waiting,) = await scene.rig.ask(
        "identity",
        "SELECT count(*) FROM outbox WHERE delivered_at IS NULL AND created_at < now() - %s * interval '1 s'",
        LONGEST_WAY_S,
    )
    return bool(waiting[0] == 0)


def errors_elsewhere(history: Sequence[Operation], phases: Sequence[Phase]) -> Counter[str]:
    """Return what was answered, to what was sent while an edge was spoilt that it does not need, and is no success."""
    return Counter(
        f"{phase.where}, {operation.kind}: {attempt.status}"
        for operation in history
        for attempt in operation.attempts
        if not attempt.is_good
        for phase in phases
        if operation.kind in phase.spared and phase.began <= attempt.began < phase.ended
    )
