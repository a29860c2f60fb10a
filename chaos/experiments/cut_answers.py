"""3. Answers are cut after the commit, and the requests come again with their key."""

import asyncio
from dataclasses import dataclass

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.proxy import Faults
from chaos.workload import Operation, Outcome


@dataclass
class CutAnswers(Experiment):
    """Loses the first answer of every POST."""

    number = 3
    title = "answer cut after commit, POSTs retried with their key"
    must_show = "as many effects and as many replays as POSTs"
    faults = frozenset({"cut answer"})
    cuts_clients = True

    posts: int = 1000
    at_once: int = 8

    async def measure(self, scene: Scene) -> Finding:
        workload, (edge,) = scene.workload, scene.rig.edges("client-gateway-1")
        posts: list[Operation] = []

        async def post(number: int) -> None:
            person = workload.people[number % len(workload.people)]
            operation = (workload.new_account(person), workload.new_benefit())[number % 4 == 3]
            operation.key = operation.key or f"{scene.seed}-{operation.marker}"
            posts.append(operation)
            await workload.run(operation)

        for start in range(0, self.posts, self.at_once):
            # Every answer of the first attempts is lost; the retries come when the edge behaves again.
            edge.faults = Faults(reset_answers=1.0)
            batch = [workload.begin(post(number)) for number in range(start, min(start + self.at_once, self.posts))]

            async def are_cut(first: int = start, count: int = len(batch)) -> bool:
                return sum(bool(operation.statuses) for operation in posts[first:]) == count

            await scene.rig.until(are_cut, 30, "every answer is cut")
            edge.heal()
            await asyncio.wait(batch)
        replays = sum(operation.replays > 0 for operation in posts)
        done = sum(operation.outcome is Outcome.OK for operation in posts)
        verdict = await scene.verdict()
        finding = Finding(f"{self.posts} POSTs: {done} effects, {replays} replays; {verdict}", problems_of(verdict))
        if done != self.posts or replays != self.posts:
            finding.problems.append(f"{done} done and {replays} replayed")
        return finding
