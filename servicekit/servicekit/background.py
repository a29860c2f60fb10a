"""Work that goes on beside a server until it stops, whatever happens to one round of it."""

from collections.abc import Awaitable, Callable

import structlog

from servicekit.errors import Refusal

log = structlog.get_logger()


async def repeat(
    work: Callable[[], Awaitable[object]],
    pause: Callable[[], Awaitable[object]],
    trouble: str,
    *,
    expected: tuple[type[Exception], ...] = (Refusal, OSError),
) -> None:
    """Do something again and again until cancelled. A round that fails is told, and the next one begins as usual.

    A mistake of ours, or one damaged row or file, must not end what all others need.

    Args:
        work: one round.
        pause: waits between two rounds.
        trouble: what to log when a round fails.
        expected: what is away now and then, and tells nothing by where it was raised.
    """
    while True:
        await _succeeds(work, trouble, expected)
        await pause()


async def persist(work: Callable[[], Awaitable[object]], pause: Callable[[], Awaitable[object]], trouble: str) -> None:
    """Try something until it succeeds once."""
    while not await _succeeds(work, trouble, (Refusal, OSError)):
        await pause()


async def _succeeds(work: Callable[[], Awaitable[object]], trouble: str, expected: tuple[type[Exception], ...]) -> bool:
    try:
        await work()
    except expected as error:
        log.error(trouble, error=type(error).__name__)
        return False
    except Exception:
        log.exception(trouble)
        return False
    return True
