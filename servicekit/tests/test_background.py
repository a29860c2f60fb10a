"""That work beside a server goes on whatever happens to a round of it."""

import asyncio

import pytest

from servicekit.background import persist, repeat
from servicekit.errors import ServiceAway


class Work:
    """Fails as often as the test says, each time in another way."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.rounds = 0
        self.is_done = asyncio.Event()

    async def __call__(self) -> None:
        self.rounds += 1
        if self.failures:
            raise self.failures.pop(0)
        self.is_done.set()


async def no_pause() -> None:
    await asyncio.sleep(0)


@pytest.fixture
def work() -> Work:
    return Work(ServiceAway(), OSError(), KeyError(), ValueError())


async def test_repeats_whatever_fails(work: Work) -> None:
    running = asyncio.create_task(repeat(work, no_pause, "work stands still"))
    await asyncio.wait_for(work.is_done.wait(), 5)
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


async def test_persists_until_it_succeeds_once(work: Work) -> None:
    await asyncio.wait_for(persist(work, no_pause, "work does not succeed"), 5)
    assert work.rounds == 5
