"""Shows that test_access.py fails for every route whose guard has a mistake: ``make mutate-guards``.

Each mistake of mutated_gateway.py is made in the guards of all routes of one gateway at once. Then each route that it
changes is held against the matrix of test_access.py, by its own test function, until that fails: the mistake is found,
or "killed". A request goes to one route and nothing else is asked of that gateway (all that the matrix needs is made at
the system's own), so that is the same as one gateway for each route and mistake. A gateway without a mistake has to
pass first.

With AAROKYA_TEST_DATA_DIR it takes the system that runs there, else it starts one. It ends with 1 if a mistake lived.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.e2e.conftest import World
from tests.e2e.contract import OPERATIONS, WRITES, Operation
from tests.e2e.gateways import running_gateway
from tests.e2e.mutated_gateway import MUTANTS
from tests.e2e.running import System, own_system
from tests.e2e.test_access import ROLES, WHILE_ONBOARDING, Cast, Role, TestMatrix

CONTROL = "no mistake"


def _takes(kind: str) -> Callable[[Operation], bool]:
    return lambda operation: kind in operation.callers


def _refuses(kind: str) -> Callable[[Operation], bool]:
    return lambda operation: kind not in operation.callers


def _names_its_user(operation: Operation) -> bool:
    return "U" in operation.callers and "{user_id}" in operation.path


# The routes that a mistake changes; a mistake that is not here changes all of them.
CHANGED: dict[str, Callable[[Operation], bool]] = {
    "takes operators": _refuses("A"),
    "takes partners": _refuses("P"),
    "takes users": _refuses("U"),
    "takes Basic": _refuses("B"),
    "takes no operators": _takes("A"),
    "takes no partners": _takes("P"),
    "takes no users": _takes("U"),
    "takes no Basic": _takes("B"),
    "takes users while onboarding": lambda it: "U" in it.callers and str(it) not in WHILE_ONBOARDING,
    "takes no users while onboarding": lambda it: str(it) in WHILE_ONBOARDING,
    "takes users of any status": _takes("U"),
    "takes any user on a user's path": _names_its_user,
    "takes suspended platforms": lambda it: bool(set("PU") & set(it.callers)),
    "takes Basic of another platform": _takes("B"),
    "judges the user before the platform": _takes("U"),
    "judges the owner first": _names_its_user,
    "reads the body first": lambda it: it in WRITES,
    "reads the query first": lambda it: it not in WRITES,
}


@contextmanager
def _system() -> Iterator[System]:
    running = os.environ.get("AAROKYA_TEST_DATA_DIR")
    if running:
        yield System.read(Path(running))
        return
    with tempfile.TemporaryDirectory() as data, own_system(Path(data)) as own:
        yield own.system


def find_killers(http: httpx.Client, cast: Cast, operations: Iterable[Operation]) -> dict[Operation, str | None]:
    """Return for each route the first role for which it answers otherwise than the contract says, if there is one."""
    killers: dict[Operation, str | None] = {}
    roles = list(ROLES)
    for operation in operations:
        killer = next((role for role in roles if not _is_right(http, cast, operation, role)), None)
        killers[operation] = killer and killer.name
        if killer is not None:
            # Who finds a mistake on one route most likely finds it on the next.
            roles.remove(killer)
            roles.insert(0, killer)
    return killers


def _is_right(http: httpx.Client, cast: Cast, operation: Operation, role: Role) -> bool:
    try:
        TestMatrix().test_answers_as_the_table_says(http, cast, operation, role)
    except AssertionError:
        return False
    return True


def main() -> int:
    """Try all mistakes, and say which lived."""
    began, tried, alive = time.monotonic(), 0, []
    with _system() as system, httpx.Client(base_url=system.url, timeout=30, trust_env=False) as http:
        cast = Cast(World(system, http), system)
        for name in MUTANTS:
            with (
                running_gateway(system, "tests.e2e.mutated_gateway", MUTANT=name) as url,
                httpx.Client(base_url=url, timeout=30, trust_env=False) as door,
            ):
                changed = [operation for operation in OPERATIONS if CHANGED.get(name, lambda it: True)(operation)]
                killers = find_killers(door, cast, changed)
            if name == CONTROL:
                wrong = [f"{operation} for {killer}" for operation, killer in killers.items() if killer]
                if wrong:
                    print("The gateway without a mistake does not pass:", *wrong, sep="\n  ")
                    return 1
                continue
            lived = [operation for operation, killer in killers.items() if killer is None]
            tried += len(changed)
            alive += [f"{operation}: {name}" for operation in lived]
            print(f"{name}: killed on {len(changed) - len(lived)} of {len(changed)} routes", flush=True)
    killed = tried - len(alive)
    print(f"{killed} of {tried} killed ({killed / tried:.1%}) in {time.monotonic() - began:.0f} s")
    print(*(f"  lived: {mutant}" for mutant in alive), sep="\n")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
