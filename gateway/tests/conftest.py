"""What the gateway's tests share."""

import pytest


class Clock:
    """Stands still until the test turns it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()
