"""Questions that come while others of their kind are on their way go out together.

Who has restarted remembers nothing, and asks about everybody at once. A call for each costs both ends half a
millisecond; one for ten hardly more than one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from servicekit.questions import Unimplemented

Question = TypeVar("Question", bound=Hashable)
State = TypeVar("State")

# So many calls are on their way before questions wait for one another,
AT_ONCE = 2
# and so long they wait at most: a replica that hangs keeps only those who were sent to it.
LONGEST_WAIT_S = 0.02
MOST_QUESTIONS = 100


class Batches(Generic[Question, State]):
    """Asks one service about many."""

    def __init__(
        self,
        ask_one: Callable[[Question], Awaitable[State | None]],
        ask_many: Callable[[Sequence[Question]], Awaitable[Mapping[Question, State]]],
    ) -> None:
        """Describe how questions are asked.

        Args:
            ask_one: returns a state, None when there is none.
            ask_many: returns the states that there are; it is asked for `MOST_QUESTIONS` at most, each once. When the
                service does not know this question, it raises Unimplemented, and `ask_one` is asked instead.
        """
        self._ask_one = ask_one
        self._ask_many = ask_many
        self._waiting: dict[Question, asyncio.Future[State | None]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def get(self, question: Question) -> State | None:
        """Return a state as it is after this question was put, None when there is none; raises what asking raises."""
        answer = self._waiting.get(question)
        if answer is None:
            loop = asyncio.get_running_loop()
            answer = self._waiting[question] = loop.create_future()
            if len(self._calls) < AT_ONCE or len(self._waiting) >= MOST_QUESTIONS:
                self._send()
            elif self._timer is None:
                self._timer = loop.call_later(LONGEST_WAIT_S, self._send)
        # Who goes away must not take the answer with him that others wait for.
        return await asyncio.shield(answer)

    def _send(self) -> None:
        """Let all who wait go out."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return
        batch, self._waiting = self._waiting, {}
        call = asyncio.create_task(self._call(batch))
        self._calls.add(call)
        call.add_done_callback(self._end)

    def _end(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._send()

    async def _call(self, batch: Mapping[Question, asyncio.Future[State | None]]) -> None:
        try:
            states = await self._states(list(batch))
        except asyncio.CancelledError:
            for answer in batch.values():
                answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - it is for those who wait.
            for answer in batch.values():
                answer.set_exception(error)
                # Nobody may be left who does.
                answer.exception()
        else:
            for question, answer in batch.items():
                answer.set_result(states.get(question))

    async def _states(self, questions: Sequence[Question]) -> Mapping[Question, State | None]:
        if len(questions) > 1:
            try:
                return await self._ask_many(questions)
            except Unimplemented:
                # It is of an earlier version.
                pass
        states = await asyncio.gather(*map(self._ask_one, questions))
        return dict(zip(questions, states, strict=True))
