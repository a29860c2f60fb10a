"""What experiments wait for."""

import asyncio
from collections.abc import Awaitable, Callable

from chaos.experiment import Scene
from chaos.http import NoAnswer, NotSent

# By what a caller sees that a process does its work: a read that needs it.
NEEDS = {
    "identity": "read user",
    "catalogue": "list benefits",
    "records": "list dependants",
    "gateway": "list benefits",
}

# What was asked before a process was back may wait for its deadline. So the next question does not wait for that.
ASK_EVERY_S = 0.25
# One good answer may be luck.
IN_A_ROW = 3


def answers_again(scene: Scene, name: str, old_pid: int | None = None) -> Callable[[], Awaitable[bool]]:
    """Return a question whether a process, another one than that with the old id, does its work for some in a row."""

    # Each with its number.
    asked: dict[asyncio.Task[int], int] = {}
    count = in_a_row = since = 0

    async def has_recovered() -> bool:
        nonlocal count, in_a_row, since
        if old_pid is not None and scene.rig.pid(name) == old_pid:
            return False
        person = scene.workload.people[0]
        read = scene.workload.read(NEEDS[name.rpartition("-")[0]], person)
        gateway = scene.rig.replicas("gateway")[0]
        count += 1
        asked[asyncio.create_task(scene.rig.probe(gateway, read.path, person.headers))] = count
        answered, _ = await asyncio.wait(asked, timeout=ASK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        for question in answered:
            number = asked.pop(question)
            if question.result() == 200:
                since = since if in_a_row else number
                in_a_row += 1
            elif number > since:
                # What was asked before the first good answer of a row tells of the time before.
                in_a_row = 0
        if in_a_row < IN_A_ROW:
            return False
        for question in asked:
            question.cancel()
        return True

    return has_recovered


async def takes_writes(scene: Scene) -> bool:
    """Return whether a caller can write to records at this moment."""
    try:
        answer = await scene.workload.send_once(scene.workload.new_account(scene.workload.people[0]))
    except (NotSent, NoAnswer):
        return False
    return answer.status == 201
