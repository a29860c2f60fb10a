"""Questions that come while others are on their way go out together."""

import asyncio
from contextvars import ContextVar

import pytest

from servicekit import data_loader as module
from servicekit.data_loader import AT_ONCE, MOST_QUESTIONS, DataLoader
from servicekit.errors import ServiceAway
from servicekit.questions import Unanswerable

trace: ContextVar[str] = ContextVar("trace", default="none")


class Service:
    """Is asked; answers when it is let."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.traced_as: list[str] = []
        self.goes_on = asyncio.Event()
        self.error: Exception | None = None
        self.knows_many = True

    async def one(self, question: str) -> str | None:
        return (await self._answer([question])).get(question)

    async def many(self, questions: list[str]) -> dict[str, str]:
        if not self.knows_many:
            raise Unanswerable
        return await self._answer(questions)

    async def _answer(self, questions: list[str]) -> dict[str, str]:
        self.asked.append(list(questions))
        self.traced_as.append(trace.get())
        if questions == ["broken"]:
            raise ServiceAway
        await self.goes_on.wait()
        if self.error is not None:
            raise self.error
        return {question: f"state of {question}" for question in questions if question != "nobody"}


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def loader(service: Service, monkeypatch) -> DataLoader[str, str]:
    # Nothing goes out because of time alone.
    monkeypatch.setattr(module, "LONGEST_WAIT_S", 60.0)
    return DataLoader(service.one, service.many)


async def ask(loader: DataLoader[str, str], *questions: str) -> list[asyncio.Task[str | None]]:
    tasks = [asyncio.create_task(loader.load(question)) for question in questions]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


class TestDataLoader:
    async def test_asks_at_once_when_nothing_is_on_its_way(self, loader, service):
        service.goes_on.set()
        assert await loader.load("a") == "state of a"
        assert await loader.load("nobody") is None
        assert service.asked == [["a"], ["nobody"]]

    async def test_asks_together_what_comes_meanwhile(self, loader, service):
        tasks = await ask(loader, *"abcde", "nobody")
        assert service.asked == [[question] for question in "ab"]
        assert len(service.asked) == AT_ONCE
        service.goes_on.set()
        assert await asyncio.gather(*tasks) == [*(f"state of {question}" for question in "abcde"), None]
        assert service.asked[AT_ONCE:] == [["c", "d", "e", "nobody"]]

    async def test_asks_once_what_many_want_to_know_and_again_what_is_on_its_way(self, loader, service):
        tasks = await ask(loader, "a", "b", "c", "c", "a")
        service.goes_on.set()
        assert await asyncio.gather(*tasks) == [f"state of {question}" for question in "abcca"]
        # What was asked before this question may be answered with what no longer holds.
        assert service.asked == [["a"], ["b"], ["c", "a"]]

    async def test_does_not_wait_for_a_replica_that_hangs(self, service, monkeypatch):
        monkeypatch.setattr(module, "LONGEST_WAIT_S", 0.001)
        loader = DataLoader(service.one, service.many)
        hanging = await ask(loader, *"ab")
        answered, service.goes_on = service.goes_on, asyncio.Event()
        service.goes_on.set()
        async with asyncio.timeout(5):
            assert await loader.load("c") == "state of c"
        assert not any(task.done() for task in hanging)
        answered.set()
        await asyncio.gather(*hanging)

    async def test_asks_about_no_more_than_so_many_at_once(self, loader, service):
        tasks = await ask(loader, *map(str, range(2 * MOST_QUESTIONS + AT_ONCE + 3)))
        service.goes_on.set()
        await asyncio.gather(*tasks)
        assert sorted(map(len, service.asked)) == [1, 1, 3, MOST_QUESTIONS, MOST_QUESTIONS]

    async def test_asks_by_one_call_only_what_belongs_together(self, service, monkeypatch):
        monkeypatch.setattr(module, "LONGEST_WAIT_S", 60.0)
        loader = DataLoader(service.one, service.many, group_of=lambda question: question[0])
        tasks = await ask(loader, "a1", "b1", "a2", "c1", "b2", "a3")
        service.goes_on.set()
        assert await asyncio.gather(*tasks) == [f"state of {each}" for each in ("a1", "b1", "a2", "c1", "b2", "a3")]
        assert service.asked == [["a1"], ["b1"], ["a2", "a3"], ["c1"], ["b2"]]

    async def test_tells_all_who_wait_of_a_failure_and_goes_on(self, loader, service):
        tasks = await ask(loader, *"abcd")
        service.error = ServiceAway()
        service.goes_on.set()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, ServiceAway)
        service.error = None
        assert await loader.load("c") == "state of c"

    async def test_one_who_goes_away_takes_nothing_from_the_others(self, loader, service):
        tasks = await ask(loader, "a", "b", "c", "c", "d")
        tasks[2].cancel()
        tasks[0].cancel()
        service.goes_on.set()
        assert await tasks[3] == "state of c"
        assert await tasks[4] == "state of d"
        assert await tasks[1] == "state of b"

    async def test_asks_one_by_one_who_cannot_answer_all(self, loader, service):
        service.knows_many = False
        tasks = await ask(loader, "a", "b", "c", "broken", "d")
        service.goes_on.set()
        *answers, last = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers.pop(), ServiceAway)
        assert [*answers, last] == [f"state of {question}" for question in "abcd"]
        assert sorted(service.asked) == [["a"], ["b"], ["broken"], ["c"], ["d"]]

    async def test_is_traced_as_one_who_asks(self, loader, service):
        for question in "abcd":
            trace.set(f"trace of {question}")
            await ask(loader, question)
        trace.set("another")
        service.goes_on.set()
        await loader.load("d")
        assert service.asked[AT_ONCE:] == [["c", "d"]]
        assert service.traced_as[AT_ONCE:] == ["trace of c"]

    async def test_who_waits_is_stopped_with_everything(self, loader, service):
        tasks = await ask(loader, "a")
        (call,) = loader._calls
        call.cancel()
        await asyncio.wait(tasks)
        assert tasks[0].cancelled()
