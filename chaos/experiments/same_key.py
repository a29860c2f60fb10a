"""4. One request is sent many times at once, with one key."""

import asyncio
from collections import Counter
from dataclasses import dataclass

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.workload import Operation, Outcome

FITTING = {"201", "409 RQ-109"}


@dataclass
class SameKey(Experiment):
    """Sends the same POST in parallel."""

    number = 4
    title = "same key in parallel"
    must_show = "one effect each"

    keys: int = 200
    parallel: int = 50

    async def measure(self, scene: Scene) -> Finding:
        workload = scene.workload
        told: Counter[str] = Counter()
        wrong = 0
        for number in range(self.keys):
            person = workload.people[number % len(workload.people)]
            first = (workload.new_account(person), workload.new_benefit())[number % 4 == 3]
            first.key = f"{scene.seed}-{first.marker}"
            copies = [
                Operation(
                    first.kind, "POST", first.path, first.headers, first.body, first.marker, first.person, first.key
                )
                for _ in range(self.parallel)
            ]
            await asyncio.gather(*(workload.run(copy) for copy in copies))
            told.update(status for copy in copies for status in copy.statuses)
            fresh = sum(copy.outcome is Outcome.OK and not copy.replays for copy in copies)
            ids = {copy.answer.json.get("id") for copy in copies if copy.answer}
            wrong += fresh != 1 or len(ids) != 1
        verdict = await scene.verdict()
        finding = Finding(f"{self.keys} keys × {self.parallel}: {self.keys - wrong} with one effect; {verdict}")
        finding.problems = problems_of(verdict)
        if wrong:
            finding.problems.append(f"{wrong} keys did not get one first answer and one id")
        if not told["409 RQ-109"]:
            finding.problems.append("none came while another was at it")
        if strange := set(told) - FITTING:
            finding.problems.append(f"answers: {', '.join(sorted(strange))}")
        return finding
