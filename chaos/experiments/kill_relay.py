"""5. The relay of events is killed, and events are delivered twice by force."""

import asyncio
from dataclasses import dataclass
from uuid import UUID

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.waiting import answers_again
from chaos.workload import Outcome

# What a relay does that died between delivery and noting it.
FORGET_DELIVERY = (
    "UPDATE outbox SET delivered_at = NULL, leased_until = NULL WHERE id IN "
    "(SELECT id FROM outbox WHERE delivered_at IS NOT NULL ORDER BY random() LIMIT 25) RETURNING id"
)
DELIVERED = "SELECT count(*) FROM outbox WHERE id = ANY(%s) AND delivered_at IS NOT NULL"


@dataclass
class KillRelay(Experiment):
    """Kills identity, where the relay runs, and now and then records with its inbox, while profiles change."""

    number = 5
    title = "relay killed during a stream of events, duplicates forced"
    must_show = "one effect an event, none missing, order kept"
    faults = frozenset({"killed", "duplicates forced"})

    kills: int = 50
    events: int = 5000
    at_once: int = 8

    async def measure(self, scene: Scene) -> Finding:
        rig, workload = scene.rig, scene.workload
        before = await self._count(scene)
        target = before + self.events
        # Every fourth is the inbox's.
        kills = self.kills + self.kills // 3
        is_over = False
        forgotten: set[UUID] = set()

        async def change(number: int) -> None:
            turn = number
            while not is_over:
                operation = await workload.run(workload.new_profile(workload.people[turn % len(workload.people)]))
                turn += self.at_once
                if operation.outcome is not Outcome.OK:
                    await asyncio.sleep(0.1)

        async def kill() -> None:
            for number in range(kills):
                name = "records-1" if number % 4 == 3 else "identity-1"
                start = before + self.events * number // kills

                async def has_come(so_far: int = start) -> bool:
                    count = await self._count(scene)
                    return count >= so_far

                await rig.until(has_come, 120, f"{start} events")
                old = rig.pid(name)
                rig.kill(name)
                await rig.until(answers_again(scene, name, old), 30, f"{name} answers again")
                again = {row[0] for row in await rig.ask("identity", FORGET_DELIVERY)}
                rig.done_to["duplicates forced"] += len(again)
                forgotten.update(again)

        changing = [workload.begin(change(number)) for number in range(self.at_once)]
        await kill()

        async def are_all() -> bool:
            return await self._count(scene) >= target

        await rig.until(are_all, 600, f"{target} events")
        is_over = True
        await asyncio.wait(changing)
        count = await self._count(scene) - before
        verdict = await scene.verdict()
        # By then all that was ever to be delivered is.
        twice = (await rig.ask("identity", DELIVERED, list(forgotten)))[0][0]
        finding = Finding(
            f"{count} events, {self.kills} kills of the relay and {kills - self.kills} of the inbox, "
            f"{twice} delivered again by force: {verdict}",
            problems_of(verdict),
        )
        if twice != len(forgotten):
            finding.problems.append(f"only {twice} of {len(forgotten)} were delivered again")
        return finding

    async def _count(self, scene: Scene) -> int:
        return int((await scene.rig.ask("identity", "SELECT count(*) FROM outbox"))[0][0])
