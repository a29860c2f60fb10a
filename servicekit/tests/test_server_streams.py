"""How a server's streams end when it drains."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from servicekit.server import _until


class Stream:
    """A servicer's stream that says what the test says, and notes that it was closed."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[str] = asyncio.Queue()
        self.is_closed = False

    async def responses(self) -> AsyncGenerator[str, None]:
        try:
            while (message := await self.said.get()) != "end":
                if message == "fail":
                    raise LookupError
                yield message
        finally:
            self.is_closed = True


@pytest.fixture
def stream() -> Stream:
    return Stream()


async def read(stream: Stream, draining: asyncio.Event) -> list[str]:
    return [message async for message in _until(draining, stream.responses())]


class TestUntil:
    async def test_passes_a_stream_on_to_its_end(self, stream: Stream) -> None:
        for message in ("one", "two", "end"):
            stream.said.put_nowait(message)
        assert await read(stream, asyncio.Event()) == ["one", "two"]
        assert stream.is_closed

    async def test_passes_failures_on(self, stream: Stream) -> None:
        stream.said.put_nowait("fail")
        with pytest.raises(LookupError):
            await read(stream, asyncio.Event())

    async def test_ends_a_silent_stream_when_the_server_drains(self, stream: Stream) -> None:
        draining = asyncio.Event()
        stream.said.put_nowait("one")
        reading = asyncio.create_task(read(stream, draining))
        await asyncio.sleep(0.01)
        draining.set()
        assert await asyncio.wait_for(reading, 1) == ["one"]
        assert stream.is_closed

    async def test_ends_a_talking_stream_when_the_server_drains(self, stream: Stream) -> None:
        draining = asyncio.Event()
        heard = []
        for _ in range(100):
            stream.said.put_nowait("more")
        async for message in _until(draining, stream.responses()):
            heard.append(message)
            draining.set()
            await asyncio.sleep(0)
        assert len(heard) <= 2
        assert stream.is_closed

    async def test_closes_the_stream_when_its_reader_leaves(self, stream: Stream) -> None:
        reading = asyncio.create_task(read(stream, asyncio.Event()))
        await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.wait([reading])
        assert stream.is_closed
