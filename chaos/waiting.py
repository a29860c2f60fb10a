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


def answers_again(scene: Scene, name: str, old_pid: int | None = None) -> Callable[[], Awaitable[bool]]:
    """Return a question whether a process, another one than that with the old id, does its work for callers."""

    async def has_recovered() -> bool:
        if old_pid is not None and scene.rig.pid(name) == old_pid:
            return False
        kind = name.rpartition("-")[0]
        person = scene.workload.people[0]
        read = scene.workload.read(NEEDS[kind], person)
        return await scene.rig.probe(scene.rig.replicas("gateway")[0], read.path, person.headers) == 200

    return has_recovered


async def takes_writes(scene: Scene) -> bool:
    """Return whether a caller can write to records at this moment."""
    try:
        answer = await scene.workload.send_once(scene.workload.new_account(scene.workload.people[0]))
    except (NotSent, NoAnswer):
        return False
    return answer.status == 201
