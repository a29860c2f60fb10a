"""What experiments wait for."""

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

# What was asked before a process was back may wait for its deadline. That it is back is told by the next question.
PATIENCE_S = 1.0


def answers_again(scene: Scene, name: str, old_pid: int | None = None) -> Callable[[], Awaitable[bool]]:
    """Return a question whether a process, another one than that with the old id, does its work for callers."""

    async def has_recovered() -> bool:
        if old_pid is not None and scene.rig.pid(name) == old_pid:
            return False
        kind = name.rpartition("-")[0]
        person = scene.workload.people[0]
        read = scene.workload.read(NEEDS[kind], person)
        gateway = scene.rig.replicas("gateway")[0]
        return await scene.rig.probe(gateway, read.path, person.headers, PATIENCE_S) == 200

    return has_recovered


async def takes_writes(scene: Scene) -> bool:
    """Return whether a caller can write to records at this moment."""
    try:
        answer = await scene.workload.send_once(scene.workload.new_account(scene.workload.people[0]))
    except (NotSent, NoAnswer):
        return False
    return answer.status == 201
