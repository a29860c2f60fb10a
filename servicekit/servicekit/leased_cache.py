"""Remembers another service's states for as long as that service is heard to say when they change.

The service streams what must be forgotten, and a heartbeat when there is nothing to say. Every message renews a
`Lease`; a `LeasedCache` answers from memory under a valid lease only, and asks the service without one. A frozen
server never reports its stream down, so silence alone has to be enough to stop trusting what is remembered: change and
heartbeat travel in one stream, in order, hence a change that is not heard yet ends the lease in time.

A stream that delivers late, or a reader that falls behind, is never silent. So a message tells as of when it speaks, on
the sender's clock, and the lease lasts from then on, not from its arrival. What that is on the reader's clock is told
by `RemoteClocks`, which learns it from the opening of the stream and from every question that the sender's process
answers: the quickest of them counts, so that a lease is not lost when the opening took long. A sender of an earlier
version counts from the opening, and is taken to have seen that when the reader asked for it.

A lease that ran out takes nothing with it that is remembered, as long as the stream goes on. For the sender had the
stream when its first message came, and a state that is remembered was asked for later. A change after it was read is
said later still, in order, and hits the state or its fill. So whenever a message that speaks as of A was heard, what is
left had not changed at A; and A is what the next lease is counted from, not what lay between. What was asked for before
the first message came, or while another stream was heard, is forgotten: a change may have been said to nobody.
That is also worth something: what forgets everything whenever it is late asks more, and is late for ever.

A sender that is about to stop says so, and another stream is opened beside the one that is still heard. What changes
from then on the new one says; and what changed before, the old one has said once it speaks as of a moment after the new
one's first message came. By then nothing that is remembered can have been missed, and the new stream takes over. If the
old one breaks off before, all is forgotten as ever.

    Watch ── one stream ──▶ Lease ──▶ LeasedCache (users), LeasedCache (keys), …
      ╰── as of ──▶ RemoteClocks ◀── seen at ── Questions
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Hashable,
    Iterable,
)
from contextlib import aclosing
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

import grpc
import grpc.aio
import structlog

from servicekit.deadline import time_left
from servicekit.errors import ServiceAway
from servicekit.questions import QUESTION_S, QUESTIONS
from servicekit.remote_clock import Moment, RemoteClocks, ReplicaMoment

LEASE_S = 0.75
# A stream that is silent or late for so long is given up, as another one may lead to a quicker replica. Not before: it
# costs all that is remembered, and a process that has too much to do is late without any fault of its stream.
PATIENCE_S = 2 * LEASE_S
LATE_S = 10.0
SHORTEST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 1.0
# An opening that took too long is given more time the next time.
LONGEST_OPENING_S = 6.0
# A process that has too much to do comes late to what has long arrived. It has not looked before it did so many turns.
TURNS = 10
# Whose clock was not heard of for so long is asked something, as it is while messages are late.
FRESH_S = 10.0
ASK_EVERY_S = 1.0
ANOTHER_TRY_S = 0.05
# Why a stream is over.
SILENT = "silent"
ENDING = "ending"
HANDED_OVER = "handed over"
NEVER = float("-inf")
# A change that comes while a state is fetched has it fetched again, but not for ever.
MOST_FETCHES = 3
# A state that is not there by then is of no use to whoever waits for it.
LONGEST_FILL_S = 2 * QUESTIONS * QUESTION_S

Clock = Callable[[], float]
Question = TypeVar("Question")
State = TypeVar("State")
Heard = TypeVar("Heard")

log = structlog.get_logger()


class StreamMessage(Protocol):
    """A message of a stream that tells as of when it speaks, and whether its sender is about to stop.

    `as_of_us` is counted from the opening of the stream, and `as_of` is the same moment; both are optional.
    """

    @property
    def as_of_us(self) -> int:
        """The field."""
        ...

    @property
    def as_of(self) -> ReplicaMoment:
        """The field."""
        ...

    @property
    def ending(self) -> bool:
        """The field."""
        ...

    def HasField(self, field_name: Any, /) -> bool:
        """Return whether a field is set."""
        ...


class AsOf(NamedTuple):
    """The moment as of which a message speaks, both on the sender's clock: all that was so before, it has said."""

    since_opening_us: int
    # None from an older sender.
    moment: ReplicaMoment | None


class Lease:
    """Until when what was learned may be used.

    Attributes:
        until: the moment on the clock at which it ends.
        is_fed: whether every change is heard sooner or later, so that what is learned now can be used once it is valid.
    """

    __slots__ = ("_clock", "_seconds", "is_fed", "until")

    def __init__(self, seconds: float = LEASE_S, clock: Clock = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self.until = NEVER
        self.is_fed = False

    @property
    def is_valid(self) -> bool:
        return self._clock() < self.until

    def now(self) -> float:
        """Return the moment on the clock."""
        return self._clock()

    def renew(self, since: float | None = None) -> None:
        """Let the lease last its whole time from a moment on, which may be so long ago that it is over; from now on."""
        self.until = (self._clock() if since is None else since) + self._seconds
        self.is_fed = True

    def end(self) -> None:
        """End the lease at once: changes are not heard any more."""
        self.until = NEVER
        self.is_fed = False


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
        max_age_s: float,
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
        # When states are too old to be used, in the order in which they were stored.
        self._ageing: deque[tuple[float, Hashable]] = deque()
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

    def invalidate(self, key: Hashable) -> None:
        """Forget the state of a key."""
        for fill in self._running:
            fill.forgotten.add(key)
        self._drop(key)

    def invalidate_tag(self, tag: Hashable) -> None:
        """Forget all states with a tag."""
        for fill in self._running:
            fill.forgotten.add(tag)
        for key in tuple(self._keys_by_tag.get(tag, ())):
            self._drop(key)

    def invalidate_everything(self) -> None:
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
        if not self._lease.is_fed:
            return
        self._drop(key)
        while len(self._entries) >= self._max_entries:
            self._drop(next(iter(self._entries)))
        now = self._clock()
        self._entries[key] = _Entry(state, tags, now + self._max_age_s)
        self._drop_aged(now)
        self._ageing.append((now + self._max_age_s, key))
        for tag in tags:
            self._keys_by_tag.setdefault(tag, set()).add(key)

    def _drop_aged(self, now: float) -> None:
        """Drop what is too old to be used; else callers who never come back would fill the memory."""
        while self._ageing and self._ageing[0][0] <= now:
            aged_at, key = self._ageing.popleft()
            entry = self._entries.get(key)
            if entry is not None and entry.usable_until == aged_at:
                self._drop(key)

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        for tag in entry.tags:
            keys = self._keys_by_tag[tag]
            keys.discard(key)
            if not keys:
                del self._keys_by_tag[tag]


class _Over(Exception):
    """A stream is not read any further."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Stream:
    """What is known of a stream.

    Attributes:
        asked_at: when it was asked for.
        heard_at: when its first message was heard.
        late_since: since when its messages have arrived too late, or nothing has proved that they did not.
        successor: another stream that is to take over from this one, which is about to end.
        reading: returns why the stream is over.
    """

    __slots__ = ("asked_at", "heard_at", "late_since", "reading", "successor")

    def __init__(self) -> None:
        self.asked_at = NEVER
        self.heard_at: float | None = None
        self.late_since: float | None = None
        self.successor: _Stream | None = None
        self.reading: asyncio.Task[str]


class Watch(Generic[Heard]):
    """A stream of what must be forgotten, and the next one when it ends, for all caches under a lease."""

    def __init__(
        self,
        open_stream: Callable[[], AsyncIterable[Heard]],
        hear: Callable[[Heard], None],
        caches: Iterable[LeasedCache[Any, Any]],
        lease: Lease,
        *,
        as_of: Callable[[Heard], AsOf | None] = lambda message: None,
        is_ending: Callable[[Heard], bool] = lambda message: False,
        clocks: RemoteClocks | None = None,
        ask: Callable[[], Awaitable[object]] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Describe the stream; `run` opens it.

        Args:
            open_stream: asks the service for the stream.
            hear: forgets what a message says, nothing for a heartbeat.
            caches: what is forgotten altogether when messages may have been missed.
            lease: is renewed by every message.
            as_of: as of when a message speaks. None for one that does not tell, from a sender that is older still: it
                is taken for as new as its arrival.
            is_ending: whether a message says that its sender is about to stop.
            clocks: what is known of the senders' clocks, by the same clock as the lease.
            ask: asks the service anything, so that `clocks` learns, when it did not for long. May raise ServiceAway.
            patience_s: a stream that is silent for so long, in seconds, is given up.
        """
        self._open_stream = open_stream
        self._hear = hear
        self._caches = tuple(caches)
        self._lease = lease
        self._as_of = as_of
        self._is_ending = is_ending
        self._clocks = clocks or RemoteClocks(lease.now)
        self._ask = ask
        self._patience_s = patience_s
        # The stream that renews the lease.
        self._leading = _Stream()
        self._readings: set[asyncio.Task[str]] = set()
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = NEVER

    async def run(self) -> None:
        """Listen until cancelled, and open a new stream whenever one ends or falls silent."""
        try:
            await self._listen()
        finally:
            if self._asking is not None:
                self._asking.cancel()
            for reading in self._readings:
                reading.cancel()
            if self._readings:
                await asyncio.wait(self._readings)

    async def _listen(self) -> None:
        pause, opening_s = SHORTEST_PAUSE_S, self._patience_s
        while True:
            stream = self._leading = self._begin(self._read, opening_s)
            while (reason := await stream.reading) == HANDED_OVER:
                stream = self._leading
                pause, opening_s = SHORTEST_PAUSE_S, self._patience_s
            self._lease.end()
            self.invalidate_everything()
            if stream.heard_at is not None:
                log.warning("watched stream is lost", reason=reason)
                pause, opening_s = SHORTEST_PAUSE_S, self._patience_s
            elif reason == SILENT:
                opening_s = min(2 * opening_s, max(LONGEST_OPENING_S, self._patience_s))
            if stream.successor is not None:
                stream.successor.reading.cancel()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _begin(self, read: Callable[[_Stream, float], Coroutine[Any, Any, str]], opening_s: float) -> _Stream:
        stream = _Stream()
        stream.reading = asyncio.create_task(read(stream, opening_s))
        self._readings.add(stream.reading)
        stream.reading.add_done_callback(self._readings.discard)
        return stream

    async def _read(self, stream: _Stream, opening_s: float) -> str:
        """Take all messages of a stream, and return why there are no more."""
        stream.asked_at = self._lease.now()
        try:
            async with aclosing(_while_talking(self._open_stream(), opening_s, self._patience_s)) as messages:
                async for message in messages:
                    self._take(message, stream)
        except _Over as over:
            return over.reason
        except TimeoutError:
            return SILENT
        except grpc.aio.AioRpcError as error:
            return error.code().name
        except Exception:
            # A mistake of ours must not leave the process deaf for good.
            log.exception("watched stream could not be read")
        return "ended"

    async def _read_another(self, stream: _Stream, opening_s: float) -> str:
        """Read a stream from a sender that goes on. Who answers is chance, so it may take some tries."""
        while (reason := await self._read(stream, opening_s)) == ENDING:  # noqa: ASYNC110  # each try is a new stream
            await asyncio.sleep(ANOTHER_TRY_S)
        return reason

    def _take(self, message: Heard, stream: _Stream) -> None:
        """Forget what a message says, then let the lease last from when it speaks, if its stream is the leading one.

        Raises:
            _Over: the stream is not worth reading any further.
        """
        leads = stream is self._leading
        is_ending = self._is_ending(message)
        if is_ending and not leads:
            # Whatever is heard of this sender, the next one that is tried has not said it.
            stream.heard_at = None
            raise _Over(ENDING)
        as_of = self._as_of(message)
        is_first = stream.heard_at is None
        if leads and (is_first or (as_of is None and not self._lease.is_valid)):
            # Changes may have been said to nobody; or all of this was said long ago, and more is behind it.
            self.invalidate_everything()
        self._hear(message)
        if is_first:
            stream.heard_at = self._lease.now()
            if as_of is not None and as_of.moment is not None:
                opened_us = as_of.moment.clock_us - as_of.since_opening_us
                self._clocks.learn(stream.asked_at, Moment(as_of.moment.replica_id, opened_us))
        if not leads:
            return
        if as_of is None:
            self._lease.renew()
            return
        since = self._since(as_of, stream.asked_at)
        self._renew(since, as_of, stream)
        if is_ending:
            self._hand_over(stream, since)

    def _renew(self, since: float, as_of: AsOf, stream: _Stream) -> None:
        self._lease.renew(since)
        if as_of.moment is not None:
            self._ask_if_needed(as_of.moment)
        if self._lease.is_valid:
            stream.late_since = None
            return
        now = self._lease.now()
        if stream.late_since is None:
            stream.late_since = now
        if now - stream.late_since >= LATE_S:
            raise _Over("late")

    def _hand_over(self, stream: _Stream, since: float) -> None:
        """Let another stream lead once this one, which is about to end, has said all that the other may have missed.

        Args:
            stream: the leading stream.
            since: the moment before which nothing changed that it has not said.
        """
        successor = stream.successor
        if successor is None or successor.reading.done():
            # The old stream does not wait for long for one that does not open.
            stream.successor = self._begin(self._read_another, min(self._patience_s, LEASE_S))
        elif successor.heard_at is not None and since >= successor.heard_at:
            self._leading = successor
            raise _Over(HANDED_OVER)

    def _since(self, as_of: AsOf, asked_at: float) -> float:
        if as_of.moment is None:
            return min(asked_at + as_of.since_opening_us / 1_000_000, self._lease.now())
        earliest = self._clocks.earliest(as_of.moment)
        return NEVER if earliest is None else earliest

    def _ask_if_needed(self, moment: ReplicaMoment) -> None:
        """Ask something if that may prove that messages are newer than they look. Which replica answers is chance."""
        now = self._lease.now()
        if self._ask is None or now - self._asked_at < ASK_EVERY_S:
            return
        if self._lease.is_valid and self._clocks.age(moment.replica_id) < FRESH_S:
            return
        if self._asking is None or self._asking.done():
            self._asked_at = now
            self._asking = asyncio.create_task(self._ask_once(self._ask))

    @staticmethod
    async def _ask_once(ask: Callable[[], Awaitable[object]]) -> None:
        try:
            await ask()
        except ServiceAway:
            # Another question will be answered.
            return
        except Exception:
            log.exception("service could not be asked")

    def invalidate_everything(self) -> None:
        """Forget all states in all caches."""
        for cache in self._caches:
            cache.invalidate_everything()


async def _while_talking(
    stream: AsyncIterable[Heard], opening_s: float, patience_s: float
) -> AsyncGenerator[Heard, None]:
    """Yield a stream's messages. Raises TimeoutError when it is silent for too long.

    Args:
        stream: the stream.
        opening_s: how long the first message may take, in seconds.
        patience_s: how long all others may.
    """
    messages = aiter(stream)
    longest = opening_s
    while True:
        reading = asyncio.create_task(_read(messages))
        # It may fail after it was given up, and nobody asks for it.
        reading.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            for _ in range(TURNS):
                # What stood still finds the time over at once, and looks for the message only then.
                if (await asyncio.wait((reading,), timeout=longest / TURNS))[0]:
                    break
            else:
                raise TimeoutError
            message = reading.result()
        except StopAsyncIteration:
            return
        finally:
            reading.cancel()
        try:
            yield message
        except GeneratorExit:
            # The sender is to know at once that nobody listens any more.
            if isinstance(stream, grpc.aio.RpcContext):
                stream.cancel()
            raise
        longest = patience_s


async def _read(messages: AsyncIterator[Heard]) -> Heard:
    return await anext(messages)


def read_as_of(message: StreamMessage) -> AsOf | None:
    """Return as of when a message of a stream speaks, as it tells."""
    if not message.HasField("as_of_us"):
        return None
    return AsOf(message.as_of_us, message.as_of if message.HasField("as_of") else None)


def read_is_ending(message: StreamMessage) -> bool:
    """Return whether a message of a stream says that its sender is about to stop."""
    return message.ending
