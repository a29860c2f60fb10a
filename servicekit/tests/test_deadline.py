"""That no process is given more time than whoever asked still has."""

import asyncio
from contextvars import Context

import pytest

from servicekit.deadline import MARGIN_S, set_deadline, time_left
from servicekit.errors import ServiceAway


async def in_a_call_of(seconds: float | None, *, after_s: float = 0.0) -> float:
    async def call() -> float:
        set_deadline(seconds)
        await asyncio.sleep(after_s)
        return time_left(2.0)

    return await asyncio.create_task(call(), context=Context())


async def test_what_is_asked_of_others_gets_what_remains_less_a_margin():
    assert await in_a_call_of(1.0) == pytest.approx(1.0 - MARGIN_S, abs=0.01)


async def test_it_gets_no_more_than_it_would_have_got():
    assert await in_a_call_of(5.0) == 2.0


async def test_without_a_deadline_it_gets_that():
    assert await in_a_call_of(None) == 2.0


async def test_nothing_is_asked_when_no_time_is_left():
    with pytest.raises(ServiceAway):
        await in_a_call_of(0.05, after_s=0.04)
