"""That faults happen as described, and are counted."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from chaos.http import HttpClient, NoAnswer, NotSent
from chaos.proxy import Faults, Proxy

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers whatever is asked, and counts it."""

    def __init__(self) -> None:
        self.asked = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.asked += 1
                writer.write(ANSWER)
        except (EOFError, OSError):
            writer.close()


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    listener = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    proxy = Proxy("client-server", listener.sockets[0].getsockname()[1], random.Random(1))
    await proxy.start()
    yield proxy
    await proxy.stop()
    listener.close()


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[HttpClient]:
    client = HttpClient(proxy.port)
    yield client
    client.close()


async def test_passes_everything_on(client: HttpClient, proxy: Proxy) -> None:
    assert (await client.request("GET", "/", {})).body == b"ok"
    assert not proxy.fired


async def test_delays_each_way(client: HttpClient, proxy: Proxy) -> None:
    proxy.faults = Faults(delay_s=0.1)

    answer = await client.request("GET", "/", {})

    assert 0.2 <= answer.seconds < 0.4
    assert proxy.fired["delayed"] == 2


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_keeps_the_order_whatever_the_delay(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def send() -> None:
        arrived = bytearray()
        ended = asyncio.Event()

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            arrived.extend(await reader.read(-1))
            ended.set()
            writer.close()

        listener = await asyncio.start_server(take, "127.0.0.1", 0)
        proxy = Proxy("client-server", listener.sockets[0].getsockname()[1], random.Random(1))
        await proxy.start()
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        sent = bytes(number % 251 for number in range(3000))
        for number, byte in enumerate(sent):
            proxy.faults = Faults(delay_s=0.005 if number % 10 == 0 else 0.0)
            writer.write(bytes([byte]))
            await asyncio.sleep(0.0002)
        writer.close()
        await asyncio.wait_for(ended.wait(), 5)
        assert arrived == sent
        await proxy.stop()
        listener.close()

    run(send())


async def test_delays_answers_alone(client: HttpClient, proxy: Proxy, server: Server) -> None:
    proxy.faults = Faults(delay_answers_s=0.2)

    asking = asyncio.create_task(client.request("GET", "/", {}))
    await asyncio.sleep(0.1)
    assert server.asked == 1
    assert not asking.done()

    assert (await asking).seconds >= 0.2
    assert proxy.fired["delayed"] == 1


async def test_cuts_an_answer_after_the_effect(client: HttpClient, proxy: Proxy, server: Server) -> None:
    proxy.faults = Faults(reset_answers=1.0)
    with pytest.raises(NoAnswer):
        await client.request("POST", "/", {})
    assert server.asked == 1
    assert proxy.fired["cut answer"] == 1


async def test_resets_a_request_before_it_arrives(client: HttpClient, proxy: Proxy, server: Server) -> None:
    proxy.faults = Faults(reset_requests=1.0)
    with pytest.raises(NoAnswer):
        await client.request("POST", "/", {})
    assert server.asked == 0


async def test_swallows_everything_and_heals(client: HttpClient, proxy: Proxy, server: Server) -> None:
    proxy.faults = Faults(is_black_hole=True)
    with pytest.raises(NoAnswer):
        await client.request("GET", "/", {}, timeout_s=0.2)
    assert server.asked == 0

    proxy.heal()

    assert (await client.request("GET", "/", {})).status == 200


async def test_nobody_listening_is_told_apart_from_no_answer() -> None:
    with pytest.raises(NotSent):
        await HttpClient(1).request("GET", "/", {})
