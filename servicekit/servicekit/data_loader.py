"""Questions that come while others of their kind are on their way go out together.

Who has restarted remembers nothing, and asks about everybody at once. A call for each costs both ends half a
millisecond; one for ten hardly more than one.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextvars import Context, copy_context
from typing import Generic, TypeVar

from servicekit.questions import Unanswerable

Question = TypeVar("Question", bound=Hashable)
State = TypeVar("State")

# So many calls are on their way before questions wait for one another,
AT_ONCE = 2
# and so long they wait at most: a replica that hangs keeps only those who were sent to it.
LONGEST_WAIT_S = 0.02
MOST_QUESTIONS = 50


class DataLoader(Generic[Question, State]):
    """Asks one service about many."""

    def __init__(
        self,
        ask_one: Callable[[Question], Awaitable[State | None]],
        ask_many: Callable[[Sequence[Question]], Awaitable[Mapping[Question, State]]],
        *,
        group_of: Callable[[Question], Hashable] = lambda _: None,
        most_questions: int = MOST_QUESTIONS,
    ) -> None:
        """Describe how questions are asked.

        Args:
            ask_one: returns a state, None when there is none.
            ask_many: returns the states that there are. When it raises Unanswerable, `ask_one` is asked about each.
            group_of: only questions with the same group go out in one call.
            most_questions: so many go out in one call at most, each once.
        """
        self._ask_one = ask_one
        self._ask_many = ask_many
        self._group_of = group_of
        self._most_questions = most_questions
        self._waiting: dict[Question, asyncio.Future[State | None]] = {}
        # What goes out is traced as the first of those who wait.
        self._context: Context | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def load(self, question: Question) -> State | None:
        """Return a state as it is after this question was put, None when there is none; raises what asking raises."""
        answer = self._waiting.get(question)
        if answer is None:
            loop = asyncio.get_running_loop()
            if not self._waiting:
                self._context = copy_context()
            answer = self._waiting[question] = loop.create_future()
            if len(self._calls) < AT_ONCE or len(self._waiting) >= self._most_questions:
                self._send()
            elif self._timer is None:
                self._timer = loop.call_later(LONGEST_WAIT_S, self._send)
        # Who goes away must not take away the answer that others wait for.
        return await asyncio.shield(answer)

    def _send(self) -> None:
        """Let all who wait go out."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return
        batches: defaultdict[Hashable, dict[Question, asyncio.Future[State | None]]] = defaultdict(dict)
        for question, answer in self._waiting.items():
            batches[self._group_of(question)][question] = answer
        self._waiting = {}
        for batch in batches.values():
            context = self._context and self._context.copy()
            call = asyncio.create_task(self._call(batch), context=context)
            self._calls.add(call)
            call.add_done_callback(self._end)

    def _end(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            self._send()

    async def _call(self, batch: Mapping[Question, asyncio.Future[State | None]]) -> None:
        try:
            await self._answer(batch)
        finally:
            # Without an answer it was stopped, as everything is.
            for answer in batch.values():
                answer.cancel()

    async def _answer(self, batch: Mapping[Question, asyncio.Future[State | None]]) -> None:
        if len(batch) > 1:
            try:
                states = await self._ask_many(list(batch))
            except Unanswerable:
                # One of an earlier version does not know the question, and one about whom nothing can be told must
                # not take the answers of all the others away.
                await asyncio.gather(*(self._answer_one(question, answer) for question, answer in batch.items()))
            except Exception as error:  # noqa: BLE001 - it is for those who wait.
                for answer in batch.values():
                    _fail(answer, error)
            else:
                for question, answer in batch.items():
                    answer.set_result(states.get(question))
        else:
            for question, answer in batch.items():
                await self._answer_one(question, answer)

    async def _answer_one(self, question: Question, answer: asyncio.Future[State | None]) -> None:
        try:
            answer.set_result(await self._ask_one(question))
        except Exception as error:  # noqa: BLE001 - it is for those who wait.
            _fail(answer, error)


def _fail(answer: asyncio.Future[State | None], error: Exception) -> None:
    answer.set_exception(error)
    # Nobody may be left who waits for it.
    answer.exception()
