"""How far a gateway may send requests again to a service that fails, so that its repeats do not keep it down.

A bucket of tokens for each service, as gRPC has one for the reads that a channel retries (gRFC A6): what fails takes a
token, what succeeds brings back a tenth of one, and while half of them are gone nothing is sent again.
"""

from collections import defaultdict

from google.protobuf.message import Message

from servicekit.channel import RETRY_TOKENS, TOKENS_FOR_SUCCESS


class Repeats:
    """The bucket of one service."""

    def __init__(self) -> None:
        self._tokens = float(RETRY_TOKENS)

    @property
    def are_allowed(self) -> bool:
        """Whether something may be sent again."""
        return self._tokens > RETRY_TOKENS / 2

    def note_failure(self) -> None:
        """Count a call whose service was away."""
        self._tokens = max(0.0, self._tokens - 1)

    def note_success(self) -> None:
        """Count a call that succeeded."""
        self._tokens = min(float(RETRY_TOKENS), self._tokens + TOKENS_FOR_SUCCESS)


class RepeatsByService:
    """The buckets of all services."""

    def __init__(self) -> None:
        self._by_package: defaultdict[str, Repeats] = defaultdict(Repeats)

    def of(self, request: Message) -> Repeats:
        """Return the bucket of the service that takes this request: each has a proto package of its own."""
        return self._by_package[request.DESCRIPTOR.file.package]
