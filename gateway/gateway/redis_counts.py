"""The counts of rate limits in Redis, for several gateways.

Redis's client takes a while to load, so only a gateway that shares its counts imports this.
"""

import asyncio
import logging
from collections.abc import Callable
from urllib.parse import urlsplit

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

REDIS_CONNECTIONS = 16


class RedisCounts:
    """Counts in Redis; when Redis is away it says so at once and is left alone."""

    def __init__(
        self, redis_url: str, timeout_seconds: float, pause_seconds: float, clock: Callable[[], float]
    ) -> None:
        if urlsplit(redis_url).scheme not in ("redis", "rediss"):
            raise ValueError("the address of Redis must begin with redis:// or rediss://")
        # Requests wait for a free connection, within their timeout. Left to itself, redis-py would open one for each
        # concurrent request, and try three times with pauses.
        self._connections = BlockingConnectionPool.from_url(
            redis_url, max_connections=REDIS_CONNECTIONS, timeout=None, retry=Retry(NoBackoff(), 0)
        )
        storage = RedisStorage(
            redis_url,
            implementation="redispy",
            key_prefix="aarokya",
            connection_pool=self._connections,  # type: ignore[arg-type]  # as documented, but missing in its types
        )
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._timeout_seconds = timeout_seconds
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._paused_until: float | None = None

    async def take(self, name: str, amount: int, seconds: int, key: str) -> bool | None:
        """Count one of `amount` in so many seconds, and say whether there was room; None when Redis doesn't answer.

        Args:
            name: what is limited.
            amount: how many there may be.
            seconds: in which time.
            key: who is limited.
        """
        if self._paused_until is not None:
            if self._clock() < self._paused_until:
                return None
            # Only this request finds out whether Redis is back; the others go on without it meanwhile.
            self._paused_until = self._clock() + self._pause_seconds
        try:
            async with asyncio.timeout(self._timeout_seconds):
                taken = await self._limiter.hit(RateLimitItemPerSecond(amount, seconds), name, key)
        except (RedisError, OSError, TimeoutError) as error:
            if self._paused_until is None:
                logger.warning("Redis does not answer (%s): limits are kept per process", type(error).__name__)
            self._paused_until = self._clock() + self._pause_seconds
            return None
        if self._paused_until is not None:
            logger.info("Redis answers again: limits are shared")
            self._paused_until = None
        return taken

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.disconnect()
