"""Remembers another service's states for as long as that service is heard to say when they change.

The service streams what must be forgotten, and a heartbeat when there is nothing to say. Every message renews a
`Lease`; a `LeasedCache` answers from memory under a valid lease only, and asks the service without one. A frozen
server never reports its stream down, so silence alone has to be enough to stop trusting what is remembered: change and
heartbeat travel in one stream, in order, hence a change that is not heard yet ends the lease in time.

A stream that delivers late, or a reader that falls behind, is never silent. So a message tells as of when it speaks, on
the sender's clock, counted from the opening of the stream; and the lease lasts from then on, not from its arrival. The
clocks need not agree: the sender sees the stream opened after the reader asked for it, so a message is at most as old
as the reader's own time since it asked, less what the sender counts.

    Watch ── one stream ──▶ Lease ──▶ LeasedCache (users), LeasedCache (keys), …
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterable, Awaitable, Callable, Hashable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar, cast

import grpc
import grpc.aio
import structlog
from google.protobuf.message import Message

from servicekit.caller import METADATA_KEY, Call
from servicekit.deadline import time_left
from servicekit.errors import ServiceAway
from servicekit.trace_context import onward_trace

LEASE_S = 0.75
# A stream that was slow to open has all its messages look older than they are. After so many that do, one after the
# other (some ten seconds of heartbeats), another stream is opened, which may be quicker. Not before: it costs all that
# is remembered, and a process that has too much to do is late for a while without any fault of its stream.
LATE_S = LEASE_S / 3
MOST_LATE = 40
SHORTEST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 1.0
# A change that comes while a state is fetched has it fetched again, but not for ever.
MOST_FETCHES = 3
# A replica that hangs is given up soon, and the second question goes to the next replica.
QUESTION_S = 0.75
QUESTIONS = 2

# A state that is not there by then is of no use to whoever waits for it.
LONGEST_FILL_S = 2 * QUESTIONS * QUESTION_S

Clock = Callable[[], float]
Question = TypeVar("Question")
State = TypeVar("State")
Response = TypeVar("Response", bound=Message)
Heard = TypeVar("Heard")

log = structlog.get_logger()


class Lease:
    """Until when what was learned may be used.

    Attributes:
        until: the moment on the clock at which it ends.
    """

    __slots__ = ("_clock", "_seconds", "until")

    def __init__(self, seconds: float = LEASE_S, clock: Clock = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self.until = 0.0

    @property
    def is_valid(self) -> bool:
        return self._clock() < self.until

    def now(self) -> float:
        """Return the moment on the clock."""
        return self._clock()

    def renew(self, since: float | None = None) -> None:
        """Let the lease last its whole time from a moment on, which may be so long ago that it is over; from now on."""
        self.until = (self._clock() if since is None else since) + self._seconds

    def end(self) -> None:
        """End the lease at once."""
        self.until = 0.0


class _Entry(NamedTuple, Generic[State]):
    state: State
    tags: tuple[Hashable, ...]
    usable_until: float


class _Fill(Generic[State]):
    """A state on its way, and what was forgotten meanwhile."""

    __slots__ = ("forgotten", "has_begun", "is_spoiled", "task")

    def __init__(self) -> None:
        self.forgotten: set[Hashable] = set()
        self.is_spoiled = False
        self.has_begun = False
        self.task: asyncio.Task[State | None]

    def begin(self) -> None:
        self.forgotten.clear()
        self.is_spoiled = False
        self.has_begun = True

    def is_outdated(self, key: Hashable, tags: Iterable[Hashable]) -> bool:
        return self.is_spoiled or key in self.forgotten or not self.forgotten.isdisjoint(tags)


class LeasedCache(Generic[Question, State]):
    """The states that were used last. When many ask for one at once, the service is asked once.

    That there is no state is never remembered: a stranger could make up keys without end and push out the others.
    """

    def __init__(
        self,
        lease: Lease,
        fetch: Callable[[Question], Awaitable[State | None]],
        *,
        key_of: Callable[[Question], Hashable] = lambda question: cast(Hashable, question),
        tags_of: Callable[[State], tuple[Hashable, ...]] = lambda state: (),
        max_entries: int,
        max_age_s: float = float("inf"),
        clock: Clock = time.monotonic,
    ) -> None:
        """Make an empty cache.

        Args:
            lease: without it nothing is answered from memory.
            fetch: asks the service, which answers None when there is no such state; raises ServiceAway.
            key_of: what an answer is remembered by, when that is not the question itself.
            tags_of: by which a state is forgotten together with others.
            max_entries: how many states are kept.
            max_age_s: for how long a state is used before it is fetched anew, in seconds.
            clock: counts seconds.
        """
        self._lease = lease
        self._fetch = fetch
        self._key_of = key_of
        self._tags_of = tags_of
        self._max_entries = max_entries
        self._max_age_s = max_age_s
        self._clock = clock
        self._entries: OrderedDict[Hashable, _Entry[State]] = OrderedDict()
        self._keys_by_tag: dict[Hashable, set[Hashable]] = {}
        self._fills: dict[Hashable, _Fill[State]] = {}
        # Those of a key that were overtaken by a fresh one are no longer in `_fills` but run on.
        self._running: set[_Fill[State]] = set()

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, question: Question, *, fresh: bool = False) -> State | None:
        """Return a state, or None when there is none. It is shared, so nobody may change it.

        Args:
            question: what the service is asked.
            fresh: ask the service even if the state is remembered.

        Raises:
            ServiceAway: the service had to be asked, and did not answer.
        """
        key = self._key_of(question)
        if not fresh:
            entry = self._entries.get(key)
            if entry is not None:
                now = self._clock()
                if now < self._lease.until and now < entry.usable_until:
                    self._entries.move_to_end(key)
                    return entry.state
        fill = self._fills.get(key)
        # A question that was asked before this call may be answered with what no longer holds.
        if fill is None or (fresh and fill.has_begun):
            fill = self._start(key, question, after=fill)
        try:
            async with asyncio.timeout(time_left(LONGEST_FILL_S)):
                return await asyncio.shield(fill.task)
        except TimeoutError:
            raise ServiceAway from None

    def forget(self, key: Hashable) -> None:
        """Forget the state of a key."""
        for fill in self._running:
            fill.forgotten.add(key)
        self._drop(key)

    def forget_tag(self, tag: Hashable) -> None:
        """Forget all states with a tag."""
        for fill in self._running:
            fill.forgotten.add(tag)
        for key in tuple(self._keys_by_tag.get(tag, ())):
            self._drop(key)

    def forget_everything(self) -> None:
        """Forget all states."""
        for fill in self._running:
            fill.is_spoiled = True
        self._entries.clear()
        self._keys_by_tag.clear()

    def _start(self, key: Hashable, question: Question, after: _Fill[State] | None) -> _Fill[State]:
        fill = _Fill[State]()
        self._fills[key] = fill
        self._running.add(fill)
        fill.task = asyncio.create_task(self._fill(key, question, fill, after))
        # Nobody may be left to hear of a failure, which is no reason to log it.
        fill.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return fill

    async def _fill(
        self, key: Hashable, question: Question, fill: _Fill[State], after: _Fill[State] | None
    ) -> State | None:
        try:
            if after is not None:
                # One question a key at a time: who is refused again and again must not flood the service.
                await asyncio.wait([after.task])
            for _ in range(MOST_FETCHES):
                fill.begin()
                state = await self._fetch(question)
                tags = () if state is None else self._tags_of(state)
                if not fill.is_outdated(key, tags):
                    if state is not None:
                        self._store(key, state, tags)
                    return state
            # The state changes faster than it can be learned.
            raise ServiceAway
        finally:
            self._running.discard(fill)
            if self._fills.get(key) is fill:
                del self._fills[key]

    def _store(self, key: Hashable, state: State, tags: tuple[Hashable, ...]) -> None:
        if not self._lease.is_valid:
            return
        self._drop(key)
        while len(self._entries) >= self._max_entries:
            self._drop(next(iter(self._entries)))
        self._entries[key] = _Entry(state, tags, self._clock() + self._max_age_s)
        for tag in tags:
            self._keys_by_tag.setdefault(tag, set()).add(key)

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        for tag in entry.tags:
            keys = self._keys_by_tag[tag]
            keys.discard(key)
            if not keys:
                del self._keys_by_tag[tag]


class _Late(Exception):
    """The stream's messages arrive too late, or it was opened too slowly to tell."""


class Watch(Generic[Heard]):
    """One stream of what must be forgotten, for all caches under a lease."""

    def __init__(
        self,
        open_stream: Callable[[], AsyncIterable[Heard]],
        hear: Callable[[Heard], None],
        caches: Iterable[LeasedCache[Any, Any]],
        lease: Lease,
        *,
        as_of: Callable[[Heard], float | None] = lambda message: None,
        patience_s: float = LEASE_S,
    ) -> None:
        """Describe the stream; `run` opens it.

        Args:
            open_stream: asks the service for the stream.
            hear: forgets what a message says, nothing for a heartbeat.
            caches: what is forgotten altogether when messages may have been missed.
            lease: is renewed by every message.
            as_of: how many seconds after the opening of the stream the sender knew all that it has said by a message.
                None for one that does not tell, from an older sender: it is taken for as new as its arrival.
            patience_s: a stream that is silent for so long, in seconds, is given up.
        """
        self._open_stream = open_stream
        self._hear = hear
        self._caches = tuple(caches)
        self._lease = lease
        self._as_of = as_of
        self._patience_s = patience_s

    async def run(self) -> None:
        """Listen until cancelled, and open a new stream whenever one ends or falls silent."""
        pause = SHORTEST_PAUSE_S
        while True:
            reason = "ended"
            was_heard = False
            late, newest = 0, float("-inf")
            try:
                asked_at = self._lease.now()
                async for message in _while_talking(self._open_stream(), self._patience_s):
                    if not self._lease.is_valid:
                        # Whether all was heard in time is not known, be it the stream or this process that stood still.
                        self.forget_everything()
                    self._hear(message)
                    as_of = self._as_of(message)
                    self._lease.renew(None if as_of is None else asked_at + as_of)
                    if as_of is not None and as_of > newest:
                        newest = as_of
                        late = late + 1 if self._lease.now() - asked_at - as_of > LATE_S else 0
                    if late >= MOST_LATE or not self._lease.is_valid:
                        raise _Late
                    was_heard = True
            except _Late:
                reason = "late"
            except TimeoutError:
                reason = "silent"
            except grpc.aio.AioRpcError as error:
                reason = error.code().name
            except Exception:
                # A mistake of ours must not leave the process deaf for good.
                log.exception("watched stream could not be read")
            self._lease.end()
            self.forget_everything()
            if was_heard or reason == "late":
                log.warning("watched stream is lost", reason=reason)
            if was_heard:
                pause = SHORTEST_PAUSE_S
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def forget_everything(self) -> None:
        """Forget all states in all caches."""
        for cache in self._caches:
            cache.forget_everything()


async def _while_talking(stream: AsyncIterable[Heard], patience_s: float) -> AsyncIterable[Heard]:
    """Yield a stream's messages. Raises TimeoutError when it is silent for too long."""
    messages = aiter(stream)
    while True:
        try:
            async with asyncio.timeout(patience_s):
                message = await anext(messages)
        except StopAsyncIteration:
            return
        yield message


async def ask_for_state(rpc: Callable[..., Awaitable[Response]], request: Message, call: Call) -> Response:
    """Ask a service for a state, and once more when it does not answer: replicas take turns.

    Raises:
        ServiceAway: it does not answer, or not in time.
    """
    metadata = ((METADATA_KEY, call.to_bytes()), *onward_trace())
    for is_last in (*(False,) * (QUESTIONS - 1), True):
        try:
            return await rpc(request, timeout=QUESTION_S, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if is_last or error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise ServiceAway from error
    raise AssertionError("the last question returns or raises")
