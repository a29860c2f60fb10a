"""Asks another service for states, and probes it only now and then while it does not answer.

Who waits for an answer that does not come asks again, and so does everybody behind. A process that stands still finds
all of that when it goes on, and would answer the dead for seconds before it comes to the living. So when nothing has
come back for `SILENT_S` while questions were asked, one goes out every `PROBE_EVERY_S`, and whoever comes in between is
refused at once. The first answer, or anything that the service says by itself, ends that.

One replica of several that stands still is not noticed so: the others answer. It loses its connection in the end.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from servicekit.caller import METADATA_KEY, Call
from servicekit.errors import ServiceAway
from servicekit.remote_clock import RemoteClocks, ReplicaMoment
from servicekit.trace_context import onward_trace

# A replica that hangs is given up soon, and the second question goes to the next replica.
QUESTION_S = 0.75
QUESTIONS = 2
# An answer that was in time may have to wait for a turn of the event loop.
HANDLING_S = 0.1
# Who was the first to ask has had both questions by then.
SILENT_S = QUESTIONS * QUESTION_S
PROBE_EVERY_S = 0.1
# When nobody asked for so long, what was before tells nothing of now. Nor does it when this process stood still.
LATELY_S = 1.0
NEVER = float("-inf")
_NO_ANSWER_TO_THIS = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
# With these, nobody answered, or somebody who has no database.
_AWAY = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class Unanswerable(ServiceAway):
    """The service does not know such a question yet, or cannot answer this one; or it is not to be asked so much."""


class Answer(Protocol):
    """A message with the optional field `seen_at`: when the question was seen."""

    @property
    def seen_at(self) -> ReplicaMoment:
        """The field."""
        ...

    def HasField(self, field_name: Any, /) -> bool:
        """Return whether a field is set."""
        ...


Response = TypeVar("Response", bound=Answer)


class CircuitBreaker:
    """Whether a service that is asked answers at all; while it is open, the service is only probed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # When the first question was asked that nothing came back after, and when the last was.
        self._unanswered_since: float | None = None
        self._asked_at = NEVER

    def before_call(self) -> float:
        """Take in that a question is about to be asked, and return when.

        Raises:
            ServiceAway: it is not to be asked, for the service has been silent, and another one has just gone out.
        """
        now = self._clock()
        since_last_s = now - self._asked_at
        if self._unanswered_since is None or since_last_s >= LATELY_S:
            self._unanswered_since = now
        if now - self._unanswered_since >= SILENT_S and since_last_s < PROBE_EVERY_S:
            raise ServiceAway
        self._asked_at = now
        return now

    @property
    def is_open(self) -> bool:
        """Whether the service has been silent up to now, so that it is asked only now and then."""
        now, since = self._clock(), self._unanswered_since
        return since is not None and now - since >= SILENT_S and now - self._asked_at < LATELY_S

    def on_answer(self) -> None:
        """Take in that the service has just said something."""
        self._unanswered_since = None

    def on_error(self, error: grpc.aio.AioRpcError) -> None:
        """Take in what came instead of an answer."""
        if error.code() not in _AWAY:
            self.on_answer()


class Questions:
    """What one process asks of a service whose clock it learns from the answers."""

    def __init__(self, clocks: RemoteClocks) -> None:
        self._clocks = clocks
        self._breaker = CircuitBreaker(clocks.now)

    async def ask_about_many(self, rpc: Callable[..., Awaitable[Response]], request: Message, call: Call) -> Response:
        """Ask as `ask` does for the states of many.

        Raises:
            Unanswerable: each may be asked for by itself instead. So it is with a service that is silent, as who asks
                that now and then waits for it: that is to be one, and not many.
            ServiceAway: the service does not answer, or not in time.
        """
        if self._breaker.is_open:
            raise Unanswerable
        return await self.ask(rpc, request, call)

    async def ask(self, rpc: Callable[..., Awaitable[Response]], request: Message, call: Call) -> Response:
        """Ask for a state, and once more when there is no answer: replicas take turns.

        Args:
            rpc: what is called.
            request: what is asked.
            call: who asks.

        Raises:
            Unanswerable: the service answers otherwise, but not this question.
            ServiceAway: the service does not answer, or not in time, or was silent up to now.
        """
        metadata = ((METADATA_KEY, call.to_bytes()), *onward_trace())
        for is_last in (*(False,) * (QUESTIONS - 1), True):
            asked_at = self._breaker.before_call()
            try:
                response = await rpc(request, timeout=QUESTION_S, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                self._breaker.on_error(error)
                if error.code() in _NO_ANSWER_TO_THIS:
                    raise Unanswerable from error
                if is_last or error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise ServiceAway from error
            else:
                self._breaker.on_answer()
                if response.HasField("seen_at"):
                    self._clocks.learn(asked_at, response.seen_at)
                # A process that stood still may find the answer there, as old as it is, before the deadline fires.
                if self._clocks.now() - asked_at <= QUESTION_S + HANDLING_S:
                    return response
                if is_last:
                    raise ServiceAway
        raise AssertionError("the last question returns or raises")

    def note_sign_of_life(self) -> None:
        """Take in that the service has just said something by itself."""
        self._breaker.on_answer()
