"""How often a gateway may send requests again to a service that fails, so that its repeats do not keep it down.

A bucket of tokens for each kind of request, as gRPC has one for the reads that a channel retries (gRFC A6): who was
away takes a token, a success brings back a tenth of one, and while half of them are gone nothing is sent again. That
happens when for some time more than one in eleven fails. A token comes back each second as well, because there may be
few calls.
"""

import time
from collections import defaultdict
from collections.abc import Callable

from google.protobuf.message import Message

from servicekit.channel import RETRY_TOKENS, TOKENS_FOR_SUCCESS

TOKENS_A_SECOND = 1.0


class RetryBudget:
    """The bucket of one kind of request."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tokens = float(RETRY_TOKENS)
        self._counted_at = clock()

    @property
    def allows_retry(self) -> bool:
        """Whether something may be sent again."""
        self._add(0.0)
        return self._tokens > RETRY_TOKENS / 2

    def note_failure(self) -> None:
        """Count a call whose service was away."""
        self._add(-1.0)

    def note_success(self) -> None:
        """Count a call that succeeded."""
        self._add(TOKENS_FOR_SUCCESS)

    def _add(self, tokens: float) -> None:
        now = self._clock()
        refilled = min(float(RETRY_TOKENS), self._tokens + (now - self._counted_at) * TOKENS_A_SECOND)
        self._tokens = max(0.0, min(float(RETRY_TOKENS), refilled + tokens))
        self._counted_at = now


class RetryBudgets:
    """The buckets of all kinds of requests."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._by_kind: defaultdict[str, RetryBudget] = defaultdict(lambda: RetryBudget(clock))

    def of(self, request: Message) -> RetryBudget:
        """Return the bucket of such a request: each RPC has a message of its own."""
        return self._by_kind[request.DESCRIPTOR.full_name]
