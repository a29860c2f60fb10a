"""When a remembered state is answered, when it is asked for anew, and that silence is enough to forget."""

import asyncio
import contextlib
import random
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

import pytest

from servicekit import leased_cache
from servicekit.errors import ServiceAway
from servicekit.leased_cache import ASK_EVERY_S, FRESH_S, LATE_S, LEASE_S, AsOf, Lease, LeasedCache, Watch
from servicekit.remote_clock import Moment, RemoteClocks

HEARTBEAT = ""
Stream = TypeVar("Stream")
NONSENSE = "?"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Service:
    """Another service as the cache sees it: states by key, answered at once or when the test says so."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.asked: list[str] = []
        self.is_away = False
        self.answers: asyncio.Event | None = None

    async def fetch(self, key: str) -> str | None:
        self.asked.append(key)
        # What is read before a change and answered after it is what makes caches lie.
        state = self.states.get(key)
        if self.answers is not None:
            await self.answers.wait()
        if self.is_away:
            raise ServiceAway
        return state

    @contextlib.contextmanager
    def slow(self) -> Iterator[asyncio.Event]:
        """Hold answers back until the event is set."""
        self.answers = asyncio.Event()
        yield self.answers
        self.answers = None


async def settle() -> None:
    """Let everything that can go on now go on."""
    for _ in range(30):
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lease(clock: Clock) -> Lease:
    lease = Lease(0.75, clock)
    lease.renew()
    return lease


@pytest.fixture
def service() -> Service:
    service = Service()
    service.states = {"ravi": "active@p1", "meera": "active@p1", "john": "active@p2"}
    return service


@pytest.fixture
def new_cache(service: Service, lease: Lease, clock: Clock) -> Callable[..., LeasedCache[str, str]]:
    def make(*, max_entries: int = 100, max_age_s: float = 30.0) -> LeasedCache[str, str]:
        return LeasedCache(
            lease,
            service.fetch,
            tags_of=lambda state: (state.partition("@")[2],),
            max_entries=max_entries,
            max_age_s=max_age_s,
            clock=clock,
        )

    return make


@pytest.fixture
def cache(new_cache: Callable[..., LeasedCache[str, str]]) -> LeasedCache[str, str]:
    return new_cache()


class TestGet:
    async def test_asks_once(self, cache: LeasedCache[str, str], service: Service) -> None:
        assert [await cache.get("ravi") for _ in range(3)] == ["active@p1"] * 3
        assert service.asked == ["ravi"]

    async def test_asks_every_time_without_a_lease(
        self, cache: LeasedCache[str, str], service: Service, clock: Clock
    ) -> None:
        await cache.get("ravi")
        clock.now += 0.75
        await cache.get("ravi")
        await cache.get("ravi")
        assert service.asked == ["ravi"] * 3

    async def test_keeps_nothing_that_came_without_a_lease(
        self, cache: LeasedCache[str, str], service: Service, lease: Lease
    ) -> None:
        lease.end()
        await cache.get("ravi")
        lease.renew()
        service.states["ravi"] = "deactivated@p1"
        assert await cache.get("ravi") == "deactivated@p1"

    async def test_fails_closed_without_lease_and_service(
        self, cache: LeasedCache[str, str], service: Service, lease: Lease
    ) -> None:
        await cache.get("ravi")
        lease.end()
        service.is_away = True
        with pytest.raises(ServiceAway):
            await cache.get("ravi")

    async def test_answers_from_memory_while_the_service_is_away(
        self, cache: LeasedCache[str, str], service: Service
    ) -> None:
        await cache.get("ravi")
        service.is_away = True
        assert await cache.get("ravi") == "active@p1"

    async def test_asks_again_when_fresh_is_wanted(self, cache: LeasedCache[str, str], service: Service) -> None:
        await cache.get("ravi")
        service.states["ravi"] = "onboarding@p1"
        assert await cache.get("ravi", fresh=True) == "onboarding@p1"
        assert await cache.get("ravi") == "onboarding@p1"

    async def test_asks_again_when_the_state_is_old(
        self, cache: LeasedCache[str, str], service: Service, lease: Lease, clock: Clock
    ) -> None:
        await cache.get("ravi")
        clock.now += 30
        lease.renew()
        await cache.get("ravi")
        assert service.asked == ["ravi"] * 2

    async def test_does_not_remember_that_there_is_nothing(
        self, cache: LeasedCache[str, str], service: Service
    ) -> None:
        assert await cache.get("nobody") is None
        service.states["nobody"] = "active@p1"
        assert await cache.get("nobody") == "active@p1"

    async def test_keeps_nothing_that_is_too_old(
        self, new_cache: Callable[..., LeasedCache[str, str]], lease: Lease, clock: Clock
    ) -> None:
        cache = new_cache(max_age_s=30.0)
        for number in range(20):
            lease.renew()
            await cache.get(f"driver {number}")
            await cache.get("driver 0")
            clock.now += 10
        # Those of the last 30 s, and who was asked for all the time.
        assert len(cache) <= 5

    async def test_drops_what_was_used_longest_ago(
        self, new_cache: Callable[..., LeasedCache[str, str]], service: Service
    ) -> None:
        cache = new_cache(max_entries=2)
        for key in ("ravi", "meera", "ravi", "john", "ravi", "meera"):
            await cache.get(key)
        assert service.asked == ["ravi", "meera", "john", "meera"]
        assert len(cache) == 2

    async def test_remembers_by_what_stands_for_the_question(self, service: Service, lease: Lease) -> None:
        cache = LeasedCache(lease, service.fetch, key_of=lambda question: hash(question), max_entries=2, max_age_s=30.0)
        service.states["secret"] = "state"
        await cache.get("secret")
        assert "secret" not in repr(cache._entries)
        cache.invalidate(hash("secret"))
        await cache.get("secret")
        assert service.asked == ["secret"] * 2


class TestManyAtOnce:
    async def test_ask_once(self, cache: LeasedCache[str, str], service: Service) -> None:
        with service.slow() as answers:
            waiting = [asyncio.create_task(cache.get("ravi")) for _ in range(50)]
            await settle()
            answers.set()
            assert await asyncio.gather(*waiting) == ["active@p1"] * 50
        assert service.asked == ["ravi"]

    async def test_fail_together(self, cache: LeasedCache[str, str], service: Service) -> None:
        service.is_away = True
        failures = await asyncio.gather(*(cache.get("ravi") for _ in range(3)), return_exceptions=True)
        assert all(isinstance(failure, ServiceAway) for failure in failures)
        assert service.asked == ["ravi"]

    async def test_one_who_leaves_takes_nothing_from_the_others(
        self, cache: LeasedCache[str, str], service: Service
    ) -> None:
        with service.slow() as answers:
            leaving, staying = (asyncio.create_task(cache.get("ravi")) for _ in range(2))
            await settle()
            leaving.cancel()
            await settle()
            answers.set()
            assert await staying == "active@p1"

    async def test_fresh_does_not_take_what_was_asked_before(
        self, cache: LeasedCache[str, str], service: Service
    ) -> None:
        with service.slow() as answers:
            early = asyncio.create_task(cache.get("ravi"))
            await settle()
            service.states["ravi"] = "onboarding@p1"
            late = [asyncio.create_task(cache.get("ravi", fresh=True)) for _ in range(20)]
            await settle()
            answers.set()
            assert await early == "active@p1"
            assert await asyncio.gather(*late) == ["onboarding@p1"] * 20
        assert service.asked == ["ravi"] * 2
        assert await cache.get("ravi") == "onboarding@p1"


class TestForget:
    async def test_forgets_one(self, cache: LeasedCache[str, str], service: Service) -> None:
        for key in ("ravi", "meera"):
            await cache.get(key)
        cache.invalidate("ravi")
        for key in ("ravi", "meera"):
            await cache.get(key)
        assert service.asked == ["ravi", "meera", "ravi"]

    async def test_forgets_all_with_a_tag(self, cache: LeasedCache[str, str], service: Service) -> None:
        for key in ("ravi", "meera", "john"):
            await cache.get(key)
        cache.invalidate_tag("p1")
        for key in ("ravi", "meera", "john"):
            await cache.get(key)
        assert service.asked == ["ravi", "meera", "john", "ravi", "meera"]

    async def test_forgets_by_the_newest_tag(self, cache: LeasedCache[str, str], service: Service) -> None:
        await cache.get("ravi")
        service.states["ravi"] = "active@p2"
        await cache.get("ravi", fresh=True)
        cache.invalidate_tag("p1")
        assert len(cache) == 1
        cache.invalidate_tag("p2")
        assert len(cache) == 0

    async def test_forgets_everything(self, cache: LeasedCache[str, str]) -> None:
        for key in ("ravi", "john"):
            await cache.get(key)
        cache.invalidate_everything()
        assert len(cache) == 0

    async def test_keeps_no_tags_of_what_is_gone(self, new_cache: Callable[..., LeasedCache[str, str]]) -> None:
        cache = new_cache(max_entries=1)
        await cache.get("ravi")
        await cache.get("john")
        assert set(cache._keys_by_tag) == {"p2"}

    @pytest.mark.parametrize(
        "forget",
        [
            lambda cache: cache.invalidate("ravi"),
            lambda cache: cache.invalidate_tag("p1"),
            lambda cache: cache.invalidate_everything(),
        ],
        ids=["key", "tag", "everything"],
    )
    async def test_asks_again_for_what_is_on_its_way(
        self, cache: LeasedCache[str, str], service: Service, forget: Callable[[LeasedCache[str, str]], None]
    ) -> None:
        with service.slow() as answers:
            waiting = asyncio.create_task(cache.get("ravi"))
            await settle()
            service.states["ravi"] = "deactivated@p1"
            forget(cache)
            joining = asyncio.create_task(cache.get("ravi"))
            answers.set()
            assert await asyncio.gather(waiting, joining) == ["deactivated@p1"] * 2
        assert service.asked == ["ravi"] * 2

    async def test_does_not_ask_again_for_others(self, cache: LeasedCache[str, str], service: Service) -> None:
        with service.slow() as answers:
            waiting = asyncio.create_task(cache.get("ravi"))
            await settle()
            cache.invalidate("meera")
            cache.invalidate_tag("p2")
            answers.set()
            await waiting
        assert service.asked == ["ravi"]

    async def test_forgets_what_an_overtaken_question_learns(
        self, cache: LeasedCache[str, str], service: Service
    ) -> None:
        with service.slow() as answers:
            first = asyncio.create_task(cache.get("ravi"))
            await settle()
            second = asyncio.create_task(cache.get("ravi", fresh=True))
            await settle()
            service.states["ravi"] = "deactivated@p1"
            cache.invalidate("ravi")
            answers.set()
            assert await asyncio.gather(first, second) == ["deactivated@p1"] * 2

    async def test_gives_up_on_what_never_stands_still(self, service: Service, lease: Lease) -> None:
        async def fetch(key: str) -> str | None:
            cache.invalidate(key)
            return await service.fetch(key)

        cache = LeasedCache(lease, fetch, max_entries=2, max_age_s=30.0)
        with pytest.raises(ServiceAway):
            await cache.get("ravi")
        assert len(service.asked) == leased_cache.MOST_FETCHES


class Opened(Generic[Stream]):
    """The streams that a watch has opened, one after the other."""

    def __init__(self) -> None:
        self.opened: list[Stream] = []
        self._one_more = asyncio.Event()

    def add(self, stream: Stream) -> None:
        self.opened.append(stream)
        self._one_more.set()

    async def wait_for(self, count: int) -> None:
        """Wait until so many have been opened."""
        async with asyncio.timeout(5):
            while len(self.opened) < count:
                self._one_more.clear()
                await self._one_more.wait()


class Streams(Opened[asyncio.Queue[str | None]]):
    """Streams on which the test says something."""

    async def open(self) -> AsyncIterator[str]:
        said: asyncio.Queue[str | None] = asyncio.Queue()
        self.add(said)
        while (message := await said.get()) is not None:
            yield message

    async def say(self, *messages: str | None) -> None:
        """Say something on the newest stream; None ends it."""
        for message in messages:
            self.opened[-1].put_nowait(message)
        await settle()


class TestWatch:
    @pytest.fixture
    def streams(self) -> Streams:
        return Streams()

    @pytest.fixture
    def lease(self, clock: Clock) -> Lease:
        return Lease(0.75, clock)

    @pytest.fixture(autouse=True)
    async def watch(self, cache: LeasedCache[str, str], lease: Lease, streams: Streams) -> AsyncIterator[Watch[str]]:
        def hear(message: str) -> None:
            if message == NONSENSE:
                raise LookupError
            if message != HEARTBEAT:
                cache.invalidate(message)

        watch = Watch(streams.open, hear, [cache], lease, patience_s=0.2)
        running = asyncio.create_task(watch.run())
        await streams.wait_for(1)
        yield watch
        running.cancel()
        await asyncio.wait([running])

    async def test_trusts_nothing_before_the_first_message(
        self, cache: LeasedCache[str, str], service: Service
    ) -> None:
        await cache.get("ravi")
        await cache.get("ravi")
        assert service.asked == ["ravi"] * 2

    async def test_every_message_renews_the_lease(self, streams: Streams, lease: Lease, clock: Clock) -> None:
        for message in (HEARTBEAT, "ravi", HEARTBEAT):
            await streams.say(message)
            clock.now += 0.7
            assert lease.is_valid
        clock.now += 0.05
        assert not lease.is_valid

    async def test_forgets_what_it_hears_of(
        self, cache: LeasedCache[str, str], service: Service, streams: Streams
    ) -> None:
        await streams.say(HEARTBEAT)
        for key in ("ravi", "meera"):
            await cache.get(key)
        await streams.say("ravi")
        for key in ("ravi", "meera"):
            await cache.get(key)
        assert service.asked == ["ravi", "meera", "ravi"]

    async def test_forgets_everything_when_a_stream_ends(
        self, cache: LeasedCache[str, str], lease: Lease, streams: Streams
    ) -> None:
        await streams.say(HEARTBEAT)
        await cache.get("ravi")
        await streams.say(None)
        assert not lease.is_valid
        assert len(cache) == 0
        await streams.wait_for(2)
        await streams.say(HEARTBEAT)
        assert lease.is_valid

    async def test_forgets_everything_after_a_gap(
        self, cache: LeasedCache[str, str], service: Service, streams: Streams, clock: Clock
    ) -> None:
        await streams.say(HEARTBEAT)
        await cache.get("ravi")
        # This process stood still: what comes now may have been said long ago, and what it says of ravi is behind it.
        clock.now += 10
        await streams.say(HEARTBEAT)
        service.states["ravi"] = "deactivated@p1"
        assert await cache.get("ravi") == "deactivated@p1"

    async def test_goes_on_after_a_message_that_it_cannot_read(
        self, cache: LeasedCache[str, str], lease: Lease, streams: Streams
    ) -> None:
        await streams.say(HEARTBEAT)
        await cache.get("ravi")
        await streams.say(NONSENSE)
        assert not lease.is_valid
        assert len(cache) == 0
        await streams.wait_for(2)
        await streams.say(HEARTBEAT)
        assert lease.is_valid

    async def test_gives_up_a_silent_stream(self, lease: Lease, streams: Streams) -> None:
        await streams.say(HEARTBEAT)
        await streams.wait_for(2)
        assert not lease.is_valid

    async def test_forgets_what_is_on_its_way_when_a_stream_ends(
        self, cache: LeasedCache[str, str], service: Service, streams: Streams
    ) -> None:
        await streams.say(HEARTBEAT)
        with service.slow() as answers:
            waiting = asyncio.create_task(cache.get("ravi"))
            await settle()
            service.states["ravi"] = "deactivated@p1"
            await streams.say(None)
            answers.set()
            assert await waiting == "deactivated@p1"


class TestSilence:
    """What counts as silent, on the loop's own clock."""

    async def test_a_process_that_stood_still_looks_before_it_gives_up(
        self, lease: Lease, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        streams = Streams()

        async def open_stream() -> AsyncIterator[str]:
            async for message in streams.open():
                # Who reads a message takes some turns of the loop.
                for _ in range(5):
                    await asyncio.sleep(0)
                yield message

        running = asyncio.create_task(Watch(open_stream, lambda message: None, [], lease, patience_s=0.5).run())
        await streams.wait_for(1)
        await streams.say(HEARTBEAT)
        loop = asyncio.get_running_loop()
        now, ahead = loop.time, 0.0
        monkeypatch.setattr(loop, "time", lambda: now() + ahead)
        for _ in range(5):
            # As after a standstill: the time is over, and the message is there.
            ahead += 5.0
            await streams.say(HEARTBEAT)
        assert len(streams.opened) == 1
        assert lease.is_fed
        running.cancel()
        await asyncio.wait([running])

    async def test_gives_a_stream_that_is_slow_to_open_more_time_each_time(
        self, lease: Lease, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(leased_cache, "SHORTEST_PAUSE_S", 0.0)
        opened = Streams()
        patience: list[float] = []

        async def talk(stream: AsyncIterator[str], opening_s: float, patience_s: float) -> AsyncIterator[str]:
            patience.append(opening_s)
            if len(patience) < 7:
                raise TimeoutError
            yield await anext(stream)
            raise TimeoutError

        monkeypatch.setattr(leased_cache, "_while_talking", talk)
        running = asyncio.create_task(Watch(opened.open, lambda message: None, [], lease, patience_s=1.0).run())
        await opened.wait_for(1)
        await opened.say(HEARTBEAT)
        while len(patience) < 8:  # noqa: ASYNC110  # nothing announces a stream that is not read
            await asyncio.sleep(0)
        assert patience == [1.0, 2.0, 4.0, 6.0, 6.0, 6.0, 6.0, 1.0]
        running.cancel()
        await asyncio.wait([running])


class Said(NamedTuple):
    """A message of a stream that tells as of when it speaks."""

    changed: str
    as_of: AsOf
    is_ending: bool = False


class Wire:
    """One stream of a sender, until its reader leaves or the test ends it."""

    def __init__(self, replica_id: str, opened_us: int) -> None:
        self.replica_id = replica_id
        self.opened_us = opened_us
        self.is_ending = False
        self.is_over = False
        self.said: asyncio.Queue[Said | None] = asyncio.Queue()


class Sender(Opened[Wire]):
    """Streams that arrive as late as the test says, from processes with clocks of their own."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        # Each one's clock less ours.
        self.ahead = {"a": 4321.0, "b": -321.0, "c": 87654.0}
        # Who gets the next stream.
        self.replica_id = "a"
        self.is_old = False
        # How long it takes to see that a stream was opened.
        self.opens_in_s = 0.0
        self.opens = asyncio.Event()
        self.opens.set()

    def moment(self, at: float, replica_id: str = "a") -> Moment:
        return Moment(replica_id, int((at + self.ahead[replica_id]) * 1_000_000))

    async def open(self) -> AsyncIterator[Said]:
        await self.opens.wait()
        self._clock.now += self.opens_in_s
        wire = Wire(self.replica_id, self.moment(self._clock.now, self.replica_id).clock_us + 1)
        self.add(wire)
        try:
            while (message := await wire.said.get()) is not None:
                yield message
        finally:
            wire.is_over = True

    def message(self, at: float, changed: str = HEARTBEAT, stream: int = -1) -> Said:
        wire = self.opened[stream]
        moment = self.moment(at, wire.replica_id)
        as_of = AsOf(moment.clock_us - wire.opened_us, None if self.is_old else moment)
        return Said(changed, as_of, wire.is_ending)

    async def deliver(self, message: Said | None, stream: int = -1) -> None:
        self.opened[stream].said.put_nowait(message)
        await settle()

    async def beat(self, delay_s: float, stream: int = -1) -> None:
        """Let a heartbeat arrive now that was sent before."""
        await self.deliver(self.message(self._clock.now - delay_s, stream=stream), stream)

    async def take_over(self, stream: int = 0) -> None:
        """Let the newest stream be heard, and then a heartbeat of an older one, which is left for it."""
        await self.beat(delay_s=0)
        self._clock.now += 0.25
        await self.beat(delay_s=0, stream=stream)
        assert self.opened[stream].is_over


class Watching:
    """A watch of the sender's streams."""

    @pytest.fixture
    def sender(self, clock: Clock) -> Sender:
        return Sender(clock)

    @pytest.fixture
    def lease(self, clock: Clock) -> Lease:
        return Lease(LEASE_S, clock)

    @pytest.fixture
    def clocks(self, clock: Clock) -> RemoteClocks:
        return RemoteClocks(clock)

    @pytest.fixture
    def asked(self) -> list[None]:
        """One for each question that was asked for the clock's sake."""
        return []

    @pytest.fixture
    def opens_in_s(self) -> float:
        return 0.0

    @pytest.fixture(autouse=True)
    async def watch(
        self,
        cache: LeasedCache[str, str],
        lease: Lease,
        sender: Sender,
        clocks: RemoteClocks,
        asked: list[None],
        opens_in_s: float,
        monkeypatch: pytest.MonkeyPatch,
    ) -> AsyncIterator[None]:
        monkeypatch.setattr(leased_cache, "SHORTEST_PAUSE_S", 0.0)
        sender.opens_in_s = opens_in_s

        def hear(message: Said) -> None:
            if message.changed != HEARTBEAT:
                cache.invalidate(message.changed)

        async def ask() -> None:
            asked.append(None)
            raise ServiceAway

        watch = Watch(
            sender.open,
            hear,
            [cache],
            lease,
            as_of=lambda said: said.as_of,
            is_ending=lambda said: said.is_ending,
            clocks=clocks,
            ask=ask,
            patience_s=5,
        )
        running = asyncio.create_task(watch.run())
        await sender.wait_for(1)
        yield
        running.cancel()
        await asyncio.wait([running])


class TestWatchOfALateStream(Watching):
    @pytest.mark.parametrize("is_old", [False, True], ids=["new sender", "old sender"])
    async def test_the_lease_lasts_from_when_the_message_speaks(
        self, sender: Sender, lease: Lease, clock: Clock, is_old: bool
    ) -> None:
        sender.is_old = is_old
        clock.now += 10
        await sender.beat(delay_s=0.2)
        assert lease.until == pytest.approx(clock.now + 0.55, abs=0.02)
        assert lease.until <= clock.now + 0.55

    @pytest.mark.parametrize("is_old", [False, True], ids=["new sender", "old sender"])
    async def test_keeps_nothing_that_was_asked_for_before_the_first_message(
        self, sender: Sender, cache: LeasedCache[str, str], service: Service, is_old: bool
    ) -> None:
        sender.is_old = is_old
        with service.slow() as answers:
            waiting = asyncio.create_task(cache.get("ravi"))
            await settle()
            # Nobody is told of that: it happens before the sender has the stream.
            service.states["ravi"] = "deactivated@p1"
            await sender.beat(delay_s=0)
            answers.set()
            assert await waiting == "deactivated@p1"
        assert await cache.get("ravi") == "deactivated@p1"

    @pytest.mark.parametrize("opens_in_s", [2.0])
    async def test_one_quick_question_makes_up_for_a_slow_opening(
        self, sender: Sender, lease: Lease, clocks: RemoteClocks, clock: Clock
    ) -> None:
        for _ in range(4):
            clock.now += 0.25
            await sender.beat(delay_s=0)
            assert not lease.is_valid
        clocks.learn(clock.now - 0.01, sender.moment(clock.now))
        clock.now += 0.25
        await sender.beat(delay_s=0)
        assert clock.now + 0.7 < lease.until <= clock.now + 0.74
        assert len(sender.opened) == 1

    @pytest.mark.parametrize("opens_in_s", [2.0])
    async def test_a_question_to_another_process_proves_nothing(
        self, sender: Sender, lease: Lease, clocks: RemoteClocks, clock: Clock
    ) -> None:
        clocks.learn(clock.now, Moment("b", sender.moment(clock.now).clock_us))
        await sender.beat(delay_s=0)
        assert not lease.is_valid

    async def test_a_quick_question_outlasts_the_stream(
        self, sender: Sender, lease: Lease, clocks: RemoteClocks, clock: Clock
    ) -> None:
        await sender.beat(delay_s=0)
        sender.opens_in_s = 2.0
        await sender.deliver(None)
        await sender.wait_for(2)
        await sender.beat(delay_s=0)
        assert lease.is_valid

    async def test_keeps_what_it_remembers_over_a_gap(
        self, sender: Sender, lease: Lease, cache: LeasedCache[str, str], service: Service, clock: Clock
    ) -> None:
        await sender.beat(delay_s=0)
        for key in ("ravi", "meera"):
            await cache.get(key)
        clock.now += 5
        service.states["ravi"] = "deactivated@p1"
        # Sent at the beginning of the gap, and still on its way.
        late, news = sender.message(clock.now - 4), sender.message(clock.now - 0.1, "ravi")
        await sender.deliver(late)
        assert not lease.is_valid
        assert len(cache) == 2
        await sender.deliver(news)
        assert lease.is_valid
        assert await cache.get("meera") == "active@p1"
        assert await cache.get("ravi") == "deactivated@p1"
        assert service.asked == ["ravi", "meera", "ravi"]

    async def test_keeps_what_it_learns_in_a_gap(
        self, sender: Sender, lease: Lease, cache: LeasedCache[str, str], service: Service, clock: Clock
    ) -> None:
        await sender.beat(delay_s=0)
        clock.now += 2
        for _ in range(2):
            await cache.get("ravi")
            await cache.get("meera")
        await sender.deliver(sender.message(clock.now, "meera"))
        await cache.get("ravi")
        await cache.get("meera")
        assert service.asked == ["ravi", "meera"] * 2 + ["meera"]

    async def test_asks_again_for_what_changed_on_its_way_in_a_gap(
        self, sender: Sender, cache: LeasedCache[str, str], service: Service, clock: Clock
    ) -> None:
        await sender.beat(delay_s=0)
        clock.now += 2
        with service.slow() as answers:
            waiting = asyncio.create_task(cache.get("ravi"))
            await settle()
            service.states["ravi"] = "deactivated@p1"
            await sender.deliver(sender.message(clock.now - 1, "ravi"))
            answers.set()
            assert await waiting == "deactivated@p1"

    async def test_forgets_all_when_the_stream_breaks(
        self, sender: Sender, cache: LeasedCache[str, str], service: Service
    ) -> None:
        await sender.beat(delay_s=0)
        await cache.get("ravi")
        service.states["ravi"] = "deactivated@p1"
        await sender.deliver(None)
        await sender.wait_for(2)
        await cache.get("ravi")
        await sender.beat(delay_s=0)
        await cache.get("ravi")
        # What came between the streams is not kept either.
        assert service.asked == ["ravi"] * 3

    async def test_opens_another_stream_when_all_is_late_for_long(
        self, sender: Sender, lease: Lease, clock: Clock
    ) -> None:
        await sender.beat(delay_s=0)
        waited = 0.0
        while waited < LATE_S:
            clock.now += 0.25
            assert len(sender.opened) == 1
            await sender.beat(delay_s=2)
            assert not lease.is_valid or waited < 1
            waited += 0.25 if not lease.is_valid else 0.0
        clock.now += 0.25
        await sender.beat(delay_s=2)
        await sender.wait_for(2)
        await sender.beat(delay_s=0)
        assert lease.is_valid

    async def test_keeps_a_stream_that_is_not_always_late(self, sender: Sender, clock: Clock) -> None:
        for _ in range(4):
            await sender.beat(delay_s=0)
            for _ in range(3):
                clock.now += LATE_S / 4
                await sender.beat(delay_s=2)
        assert len(sender.opened) == 1

    async def test_catches_up_after_a_standstill_on_the_same_stream(
        self, sender: Sender, lease: Lease, clock: Clock
    ) -> None:
        await sender.beat(delay_s=0)
        waiting = []
        for _ in range(100):
            clock.now += 0.25
            waiting.append(sender.message(clock.now))
        for message in waiting:
            await sender.deliver(message)
        assert lease.is_valid
        assert len(sender.opened) == 1

    async def test_asks_when_nothing_was_learned_for_long(
        self, sender: Sender, asked: list[None], clocks: RemoteClocks, clock: Clock
    ) -> None:
        for _ in range(int(FRESH_S)):
            await sender.beat(delay_s=0)
            assert asked == []
            clock.now += 1
        await sender.beat(delay_s=0)
        await sender.beat(delay_s=0)
        assert len(asked) == 1
        # Another replica has answered.
        clock.now += ASK_EVERY_S
        await sender.beat(delay_s=0)
        assert len(asked) == 2
        clocks.learn(clock.now, sender.moment(clock.now))
        clock.now += ASK_EVERY_S
        await sender.beat(delay_s=0)
        assert len(asked) == 2

    @pytest.mark.parametrize("opens_in_s", [2.0])
    async def test_asks_while_messages_look_late(self, sender: Sender, asked: list[None], clock: Clock) -> None:
        for _ in range(9):
            await sender.beat(delay_s=0)
            clock.now += 0.25
        assert len(asked) == 3

    async def test_trusts_nothing_from_the_future(
        self, sender: Sender, lease: Lease, clocks: RemoteClocks, clock: Clock
    ) -> None:
        await sender.beat(delay_s=0)
        # This machine was suspended, and its clock with it.
        await sender.beat(delay_s=-30)
        assert not lease.is_valid
        sender.ahead["a"] += 30
        await sender.beat(delay_s=0)
        assert not lease.is_valid
        clocks.learn(clock.now, sender.moment(clock.now))
        await sender.beat(delay_s=0)
        assert lease.is_valid


class TestHandOver(Watching):
    """From a stream that says that it ends to the next one."""

    @pytest.fixture(autouse=True)
    async def two_streams(self, watch: None, sender: Sender, cache: LeasedCache[str, str], clock: Clock) -> None:
        """One that ends, under which something is remembered, and one that has said nothing yet."""
        await sender.beat(delay_s=0)
        for key in ("ravi", "meera"):
            await cache.get(key)
        clock.now += 0.25
        sender.replica_id = "b"
        sender.opened[0].is_ending = True
        await sender.beat(delay_s=0, stream=0)
        await sender.wait_for(2)

    async def test_keeps_what_it_remembers(
        self, sender: Sender, lease: Lease, cache: LeasedCache[str, str], service: Service, clock: Clock
    ) -> None:
        await sender.take_over()
        for _ in range(20):
            clock.now += 0.25
            await sender.beat(delay_s=0)
            assert lease.is_valid
        service.states["ravi"] = "deactivated@p1"
        await sender.deliver(sender.message(clock.now, "ravi"))
        assert await cache.get("ravi") == "deactivated@p1"
        await cache.get("meera")
        assert service.asked == ["ravi", "meera", "ravi"]
        assert len(sender.opened) == 2

    async def test_hears_both_until_then(
        self, sender: Sender, lease: Lease, cache: LeasedCache[str, str], service: Service, clock: Clock
    ) -> None:
        await sender.beat(delay_s=0)
        service.states.update(ravi="deactivated@p1", meera="deactivated@p1")
        await sender.deliver(sender.message(clock.now, "ravi", stream=0), stream=0)
        await sender.deliver(sender.message(clock.now, "meera"))
        assert lease.is_valid
        assert [await cache.get(key) for key in ("ravi", "meera")] == ["deactivated@p1"] * 2

    async def test_the_lease_lasts_as_long_as_the_old_one_says_until_then(
        self, sender: Sender, lease: Lease, clock: Clock
    ) -> None:
        until = lease.until
        clock.now += 0.5
        await sender.beat(delay_s=0)
        await sender.beat(delay_s=0)
        assert lease.until == until

    async def test_forgets_all_when_the_old_one_breaks_off_before_it_has_said_all(
        self, sender: Sender, lease: Lease, cache: LeasedCache[str, str], clock: Clock
    ) -> None:
        clock.now += 0.25
        await sender.beat(delay_s=0)
        # Something may have changed since, before the new stream was there.
        await sender.beat(delay_s=0.1, stream=0)
        assert not sender.opened[0].is_over
        assert lease.is_valid
        await sender.deliver(None, stream=0)
        assert not lease.is_valid
        assert len(cache) == 0
        await sender.wait_for(3)
        assert sender.opened[1].is_over
        await sender.beat(delay_s=0)
        assert lease.is_valid

    async def test_leaves_another_one_that_ends_too(
        self, sender: Sender, lease: Lease, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(leased_cache, "ANOTHER_TRY_S", 0.0)
        for number in range(1, 5):
            sender.opened[number].is_ending = True
            await sender.beat(delay_s=0)
            await sender.wait_for(number + 2)
            assert sender.opened[number].is_over
        await sender.take_over()
        assert lease.is_valid
        assert len(sender.opened) == 6

    async def test_does_not_take_one_that_was_heard_and_then_ended_for_the_next(
        self, sender: Sender, lease: Lease, cache: LeasedCache[str, str], service: Service, clock: Clock
    ) -> None:
        await sender.beat(delay_s=0)
        sender.opened[1].is_ending = True
        sender.opens.clear()
        sender.replica_id = "c"
        await sender.beat(delay_s=0)
        assert sender.opened[1].is_over
        clock.now += 0.25
        await sender.beat(delay_s=0, stream=0)
        # Nobody else is heard yet, so who ends has to say it.
        assert not sender.opened[0].is_over
        service.states["ravi"] = "deactivated@p1"
        await sender.deliver(sender.message(clock.now, "ravi", stream=0), stream=0)
        sender.opens.set()
        await sender.wait_for(3)
        await sender.take_over()
        assert lease.is_valid
        assert await cache.get("ravi") == "deactivated@p1"

    async def test_looks_for_another_one_when_one_breaks(
        self, sender: Sender, lease: Lease, cache: LeasedCache[str, str]
    ) -> None:
        await sender.deliver(None)
        await sender.beat(delay_s=0, stream=0)
        await sender.wait_for(3)
        await sender.take_over()
        assert lease.is_valid
        assert len(cache) == 2

    async def test_hands_over_again(self, sender: Sender, lease: Lease, cache: LeasedCache[str, str]) -> None:
        for number in range(5):
            sender.opened[number + 1].is_ending = False
            await sender.take_over(number)
            sender.replica_id = "abc"[number % 3]
            sender.opened[-1].is_ending = True
            await sender.beat(delay_s=0)
            await sender.wait_for(number + 3)
        assert lease.is_valid
        assert len(cache) == 2


class CountingWatch(Watch[Said]):
    """Counts how often one stream has taken over from another."""

    handed_over = 0

    async def _read(self, stream: leased_cache._Stream, opening_s: float) -> str:
        reason = await super()._read(stream, opening_s)
        self.handed_over += reason == leased_cache.HANDED_OVER
        return reason


class World:
    """A state that changes, its sender, and a reader that hears and asks with any delay; the test knows all."""

    def __init__(self, seed: int, clock: Clock) -> None:
        self.rng = random.Random(seed)
        self.clock = clock
        # Where nothing breaks, streams are handed over.
        self.is_calm = seed % 2 == 0
        self.sender = Sender(clock)
        self.sender.is_old = seed % 5 == 0
        self.clocks = RemoteClocks(clock)
        self.lease = Lease(LEASE_S, clock)
        self.cache: LeasedCache[str, str] = LeasedCache(
            self.lease, self._fetch, max_entries=2, max_age_s=30.0, clock=clock
        )
        self.watch = CountingWatch(
            self.sender.open,
            self._hear,
            [self.cache],
            self.lease,
            as_of=lambda said: said.as_of,
            is_ending=lambda said: said.is_ending,
            clocks=self.clocks,
            patience_s=60,
        )
        self.version = 0
        # When the version after this one came.
        self.ended_at: list[float] = []
        # As of when each process speaks, and what is on its way on each stream.
        self.as_of = dict.fromkeys(self.sender.ahead, clock.now)
        self.heard_as_of = float("-inf")
        self.on_their_way: defaultdict[int, deque[tuple[Said, float]]] = defaultdict(deque)
        self.unseen: list[asyncio.Event] = []
        self.unanswered: list[asyncio.Event] = []
        self.asked = 0
        self.from_memory = 0

    async def _fetch(self, key: str) -> str:
        self.asked += 1
        asked_at = self.clock.now
        for events in (self.unseen, self.unanswered):
            events.append(asyncio.Event())
            await events[-1].wait()
            if events is self.unseen:
                replica_id = self.rng.choice(list(self.sender.ahead))
                state, seen_at = str(self.version), self.sender.moment(self.clock.now, replica_id)
        if not self.sender.is_old:
            self.clocks.learn(asked_at, seen_at)
        return state

    def _hear(self, message: Said) -> None:
        if message.changed != HEARTBEAT:
            self.cache.invalidate(message.changed)

    async def go_on(self) -> None:
        """Let something happen."""
        self.clock.now += 10 ** self.rng.uniform(-4, -1 if self.is_calm else self.rng.choice((-1, -1, 0.5)))
        streams = [number for number, wire in enumerate(self.sender.opened) if not wire.is_over]
        stream = self.rng.choice(streams) if streams else None
        match self.rng.choices(
            ("change", "beat", "deliver", "end", "close", "break", "open", "see", "answer", "get"),
            (1, 9, 12, 0.7, 1, 0, 1, 9, 9, 9) if self.is_calm else (1, 7, 11, 0.1, 0.1, 0.15, 1, 6, 6, 9),
        ):
            case ["change"]:
                self.version += 1
                self.ended_at.append(self.clock.now)
                for number in streams:
                    self._say("ravi", number)
            case ["beat"] if stream is not None:
                self.as_of[self.sender.opened[stream].replica_id] = self.clock.now
                self._say(HEARTBEAT, stream)
            case ["deliver"] if stream is not None:
                on_their_way = self.on_their_way[stream]
                for _ in range(min(len(on_their_way), self.rng.randrange(1, 6))):
                    said, as_of = on_their_way.popleft()
                    self.heard_as_of = max(self.heard_as_of, as_of)
                    await self.sender.deliver(said, stream)
            case ["end"] if stream is not None:
                self.sender.opened[stream].is_ending = True
            case ["close"]:
                self.sender.opens.clear()
            case ["break"] if stream is not None:
                self.sender.opens.clear()
                await self.sender.deliver(None, stream)
            case ["open"] if not self.sender.opens.is_set():
                self.sender.opens_in_s = self.rng.choice((0.0, 0.01, 3.0))
                self.sender.opens.set()
            case ["see"]:
                self._release(self.unseen)
            case ["answer"]:
                self._release(self.unanswered)
            case ["get"]:
                await self._get()
        # The next stream is another process's.
        self.sender.replica_id = self.rng.choice(list(self.sender.ahead))
        await settle()
        assert self.lease.until <= self.heard_as_of + LEASE_S

    def _say(self, changed: str, stream: int) -> None:
        as_of = self.as_of[self.sender.opened[stream].replica_id]
        self.on_their_way[stream].append((self.sender.message(as_of, changed, stream), as_of))

    def _release(self, events: list[asyncio.Event]) -> None:
        if events:
            events.pop(self.rng.randrange(len(events))).set()

    async def _get(self) -> None:
        asked = self.asked
        getting = asyncio.create_task(self.cache.get("ravi", fresh=self.rng.random() < 0.1))
        await settle()
        if getting.done() and self.asked == asked:
            self.from_memory += 1
            version = int(getting.result() or 0)
            assert version == self.version or self.ended_at[version] > self.clock.now - LEASE_S
        getting.add_done_callback(lambda task: task.cancelled() or task.exception())


@pytest.mark.parametrize("seed", [*range(25), 196, 316])
async def test_never_answers_from_memory_what_is_over_for_longer_than_a_lease(
    seed: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("SHORTEST_PAUSE_S", "ANOTHER_TRY_S"):
        monkeypatch.setattr(leased_cache, pause, 0.0)
    world = World(seed, clock)
    running = asyncio.create_task(world.watch.run())
    await world.sender.wait_for(1)
    for _ in range(600):
        await world.go_on()
    running.cancel()
    await asyncio.wait([running])
    assert world.from_memory > 10 or world.sender.is_old
    assert world.watch.handed_over > 0 or not world.is_calm
