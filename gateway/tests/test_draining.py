"""How the gateway's server stops."""

import asyncio
import time

import httpx

from gateway.draining import DrainingServer
from gateway.http_protocol import server_config


async def answer(scope, receive, send) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await asyncio.sleep(0.3 if scope["path"] == "/slow" else 0)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


class Running:
    """A server that runs in the test's loop."""

    def __init__(self, drain_seconds: float) -> None:
        self.draining = asyncio.Event()
        self.server = DrainingServer(server_config(answer, "127.0.0.1", 0), self.draining, drain_seconds)

    async def __aenter__(self) -> "Running":
        self._task = asyncio.create_task(self.server._serve())
        while not self.server.started:  # noqa: ASYNC110  # uvicorn offers nothing to wait for
            await asyncio.sleep(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False)
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.http.aclose()
        await self.stopped()

    def stop(self) -> None:
        self.server.handle_exit(15, None)

    async def stopped(self) -> None:
        await asyncio.wait_for(self._task, 5)


async def test_serves_new_connections_while_balancers_are_told() -> None:
    async with Running(drain_seconds=1) as running:
        began = time.monotonic()
        running.stop()
        await asyncio.wait_for(running.draining.wait(), 1)
        assert (await running.http.get("/", headers={"connection": "close"})).text == "done"
        await running.stopped()
        assert time.monotonic() - began >= 1


async def test_ends_kept_connections_while_balancers_are_told() -> None:
    async with Running(drain_seconds=60) as running:
        assert "connection" not in (await running.http.get("/")).headers
        slow = asyncio.create_task(running.http.get("/slow"))
        await asyncio.sleep(0.05)
        running.stop()
        await asyncio.wait_for(running.draining.wait(), 1)
        assert (await slow).headers["connection"] == "close"
        for _ in range(2):
            assert (await running.http.get("/")).headers["connection"] == "close"
        running.stop()
        await running.stopped()


async def test_finishes_what_runs_when_the_time_for_draining_is_over() -> None:
    async with Running(drain_seconds=0.1) as running:
        slow = asyncio.create_task(running.http.get("/slow"))
        await asyncio.sleep(0.05)
        running.stop()
        assert (await slow).text == "done"


async def test_stops_at_the_second_signal() -> None:
    async with Running(drain_seconds=60) as running:
        running.stop()
        await asyncio.wait_for(running.draining.wait(), 1)
        running.stop()
        await running.stopped()


async def test_stops_at_once_without_balancers() -> None:
    async with Running(drain_seconds=0) as running:
        began = time.monotonic()
        running.stop()
        await running.stopped()
        assert time.monotonic() - began < 1
        assert running.draining.is_set()
