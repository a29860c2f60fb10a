"""When a remembered state is answered, when it is asked for anew, and that silence is enough to forget."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Generic, TypeVar

import pytest

from servicekit import leased_cache
from servicekit.errors import ServiceAway
from servicekit.leased_cache import MOST_LATE, Lease, LeasedCache, Watch

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
    for _ in range(10):
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

    async def test_drops_what_was_used_longest_ago(
        self, new_cache: Callable[..., LeasedCache[str, str]], service: Service
    ) -> None:
        cache = new_cache(max_entries=2)
        for key in ("ravi", "meera", "ravi", "john", "ravi", "meera"):
            await cache.get(key)
        assert service.asked == ["ravi", "meera", "john", "meera"]
        assert len(cache) == 2

    async def test_remembers_by_what_stands_for_the_question(self, service: Service, lease: Lease) -> None:
        cache = LeasedCache(lease, service.fetch, key_of=lambda question: hash(question), max_entries=2)
        service.states["secret"] = "state"
        await cache.get("secret")
        assert "secret" not in repr(cache._entries)
        cache.forget(hash("secret"))
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
        cache.forget("ravi")
        for key in ("ravi", "meera"):
            await cache.get(key)
        assert service.asked == ["ravi", "meera", "ravi"]

    async def test_forgets_all_with_a_tag(self, cache: LeasedCache[str, str], service: Service) -> None:
        for key in ("ravi", "meera", "john"):
            await cache.get(key)
        cache.forget_tag("p1")
        for key in ("ravi", "meera", "john"):
            await cache.get(key)
        assert service.asked == ["ravi", "meera", "john", "ravi", "meera"]

    async def test_forgets_by_the_newest_tag(self, cache: LeasedCache[str, str], service: Service) -> None:
        await cache.get("ravi")
        service.states["ravi"] = "active@p2"
        await cache.get("ravi", fresh=True)
        cache.forget_tag("p1")
        assert len(cache) == 1
        cache.forget_tag("p2")
        assert len(cache) == 0

    async def test_forgets_everything(self, cache: LeasedCache[str, str]) -> None:
        for key in ("ravi", "john"):
            await cache.get(key)
        cache.forget_everything()
        assert len(cache) == 0

    async def test_keeps_no_tags_of_what_is_gone(self, new_cache: Callable[..., LeasedCache[str, str]]) -> None:
        cache = new_cache(max_entries=1)
        await cache.get("ravi")
        await cache.get("john")
        assert set(cache._keys_by_tag) == {"p2"}

    @pytest.mark.parametrize(
        "forget",
        [
            lambda cache: cache.forget("ravi"),
            lambda cache: cache.forget_tag("p1"),
            lambda cache: cache.forget_everything(),
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
            cache.forget("meera")
            cache.forget_tag("p2")
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
            cache.forget("ravi")
            answers.set()
            assert await asyncio.gather(first, second) == ["deactivated@p1"] * 2

    async def test_gives_up_on_what_never_stands_still(self, service: Service, lease: Lease) -> None:
        async def fetch(key: str) -> str | None:
            cache.forget(key)
            return await service.fetch(key)

        cache = LeasedCache(lease, fetch, max_entries=2)
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
                cache.forget(message)

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


class Delayed(Opened[tuple[float, asyncio.Queue[float]]]):
    """A stream whose messages tell as of when they speak, by a clock of its sender's own, and arrive later."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        # How long the sender takes to see that the stream was opened.
        self.opens_in_s = 0.0

    async def open(self) -> AsyncIterator[float]:
        said: asyncio.Queue[float] = asyncio.Queue()
        self._clock.now += self.opens_in_s
        self.add((self._clock.now, said))
        while True:
            yield await said.get()

    async def beat(self, delay_s: float) -> None:
        """Let a heartbeat arrive now that was sent before."""
        opened_at, said = self.opened[-1]
        said.put_nowait(self._clock.now - opened_at - delay_s)
        await settle()


class TestWatchOfALateStream:
    @pytest.fixture
    def stream(self, clock: Clock) -> Delayed:
        return Delayed(clock)

    @pytest.fixture
    def lease(self, clock: Clock) -> Lease:
        return Lease(0.75, clock)

    @pytest.fixture(autouse=True)
    async def watch(self, cache: LeasedCache[str, str], lease: Lease, stream: Delayed) -> AsyncIterator[None]:
        watch = Watch(stream.open, lambda message: None, [cache], lease, as_of=lambda message: message, patience_s=5)
        running = asyncio.create_task(watch.run())
        await stream.wait_for(1)
        yield
        running.cancel()
        await asyncio.wait([running])

    async def test_the_lease_lasts_from_when_the_message_speaks(
        self, stream: Delayed, lease: Lease, clock: Clock
    ) -> None:
        clock.now += 10
        await stream.beat(delay_s=0.2)
        assert lease.until == pytest.approx(clock.now + 0.55)

    async def test_forgets_all_when_messages_become_late(
        self, stream: Delayed, lease: Lease, cache: LeasedCache[str, str], clock: Clock
    ) -> None:
        await stream.beat(delay_s=0)
        await cache.get("ravi")
        for _ in range(8):
            clock.now += 0.25
            # Heartbeats go on, but news takes 2 s.
            await stream.beat(delay_s=2)
        assert not lease.is_valid
        assert len(cache) == 0
        await stream.wait_for(2)
        await stream.beat(delay_s=0)
        assert lease.is_valid

    async def test_measures_anew_when_the_stream_was_slow_to_open(
        self, stream: Delayed, lease: Lease, clock: Clock
    ) -> None:
        stream.opens_in_s = 0.5
        clock.now += 1
        await stream.beat(delay_s=1)
        await stream.wait_for(2)
        stream.opens_in_s = 0
        for _ in range(MOST_LATE):
            clock.now += 0.25
            await stream.beat(delay_s=0)
            assert lease.until < clock.now + 0.75
        await stream.wait_for(3)
        await stream.beat(delay_s=0)
        assert lease.until == clock.now + 0.75
