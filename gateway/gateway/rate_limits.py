"""How often a partner, a user and a guesser may call; shared through Redis where there is one, else per process."""

import ipaddress
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.errors import Refused

if TYPE_CHECKING:
    from gateway.redis_counts import RedisCounts

PARTNER_REQUESTS_PER_SECOND = 200
USER_REQUESTS_PER_SECOND = 20
FAILURES_PER_MINUTE = 30

# More keys than this are not counted within one window: memory stays bounded, and nobody is refused for it.
MAX_COUNTED_KEYS = 100_000


# One answer of Redis takes a fraction of a millisecond. A request waits for it no longer than this, and after a
# failure none asks it again for a while, so that a Redis that hangs costs a few requests this much and no more.
REDIS_TIMEOUT_SECONDS = 0.1
REDIS_PAUSE_SECONDS = 5.0


class RateLimits:
    """How often partners and users may call, and credentials may fail. Admins are not limited, nor known here."""

    def __init__(
        self,
        *,
        enabled: bool = True,
        redis_url: str | None = None,
        partner_requests_per_second: int = PARTNER_REQUESTS_PER_SECOND,
        user_requests_per_second: int = USER_REQUESTS_PER_SECOND,
        failures_per_minute: int = FAILURES_PER_MINUTE,
        redis_timeout_seconds: float = REDIS_TIMEOUT_SECONDS,
        redis_pause_seconds: float = REDIS_PAUSE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`redis_url` is `redis://…` or `rediss://…`; connecting is left to the first request."""
        self._enabled = enabled
        self._shared: RedisCounts | None = None
        if enabled and redis_url:
            from gateway import redis_counts

            self._shared = redis_counts.RedisCounts(redis_url, redis_timeout_seconds, redis_pause_seconds, clock)
        self._partners = _Limit("partner", partner_requests_per_second, 1, clock)
        self._users = _Limit("user", user_requests_per_second, 1, clock)
        self._failures = _Limit("failure", failures_per_minute, 60, clock)

    async def check_partner(self, key_id: str) -> None:
        """Count a partner key's request; raise `Refused("RQ-107")` when it is one too many."""
        await self._check(self._partners, key_id)

    async def check_user(self, user_id: str) -> None:
        """Count a user's request; raise `Refused("RQ-107")` when it is one too many."""
        await self._check(self._users, user_id)

    async def count_failure(self, source_address: str) -> bool:
        """Count an authentication that failed with AU-202 or AU-208; True when the answer has to be RQ-107 instead.

        A good credential never comes here, so it is never refused, whoever else guesses from the same address.
        """
        return not await self._take(self._failures, _network_of(source_address))

    def too_many_failures(self) -> Refused:
        """Build the refusal for an address that `count_failure` found over the limit."""
        return self._failures.refusal()

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._shared is not None:
            await self._shared.close()

    async def _check(self, limit: "_Limit", key: str) -> None:
        if not await self._take(limit, key):
            raise limit.refusal()

    async def _take(self, limit: "_Limit", key: str) -> bool:
        """Count one; False when it is one too many, which is then not counted."""
        if not self._enabled:
            return True
        if self._shared is not None:
            taken = await self._shared.take(limit.name, limit.amount, limit.seconds, key)
            if taken is not None:
                return taken
        return limit.take_locally(key)


class _Limit:
    """One limit and its counts in this process.

    The counts of the running window and a share of those of the window before, by how much of it is still less than a
    window ago: no burst at the edge of two windows, and constant time for each request, which the memory storage of
    `limits` does not have (it looks at every key it knows on every hit: 0.1 ms with 8,000 keys; this takes 0.5 µs).
    """

    def __init__(self, name: str, amount: int, seconds: int, clock: Callable[[], float]) -> None:
        self.name = name
        self.amount = amount
        self.seconds = seconds
        self._clock = clock
        self._window = 0
        self._counts: dict[str, int] = {}
        self._counts_before: dict[str, int] = {}

    def take_locally(self, key: str) -> bool:
        position = self._clock() / self.seconds
        window = int(position)
        if window != self._window:
            self._counts_before = self._counts if window == self._window + 1 else {}
            self._counts = {}
            self._window = window
        count = self._counts.get(key, 0)
        if int(self._counts_before.get(key, 0) * (1 - position + window)) + count >= self.amount:
            return False
        if count or len(self._counts) < MAX_COUNTED_KEYS:
            self._counts[key] = count + 1
        return True

    def refusal(self) -> Refused:
        return Refused("RQ-107", headers={"Retry-After": str(self.seconds)})


def _network_of(source_address: str) -> str:
    """Count an IPv6 network as one source, because whoever has an address there has 2^64 of them."""
    if ":" not in source_address:
        return source_address
    try:
        return str(ipaddress.ip_network((source_address, 64), strict=False))
    except ValueError:
        return source_address
