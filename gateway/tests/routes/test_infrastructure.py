"""What anybody may fetch, asked through the edge."""

from collections.abc import AsyncIterator
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI

from gateway.edge import MAX_BODY_BYTES, Edge
from gateway.routes.infrastructure import ASSETS, MEDIA_TYPES, routes


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI(openapi_url=None)
    app.include_router(routes.router)
    app.state.gatekeeper = None
    app.state.stubs = SimpleNamespace(require_room=lambda service: None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(Edge(app)), base_url="http://localhost") as client:
        yield client


@pytest.mark.parametrize("name", MEDIA_TYPES)
class TestAssets:
    async def test_are_files_of_their_types(self, client: httpx.AsyncClient, name: str) -> None:
        answer = await client.get(f"/api_docs/assets/{name}")
        assert (answer.status_code, answer.content) == (200, (ASSETS / name).read_bytes())
        assert answer.headers["content-type"].partition(";")[0] == MEDIA_TYPES[name]
        assert answer.headers["content-length"] == str(len(answer.content))
        assert answer.headers["cache-control"] == "max-age=86400"

    @pytest.mark.parametrize(
        "asked", ["bytes=0-99", "bytes=999999999-", "bytes=9-1", "bytes=0-1,5-6", "lines=1", "x", ""]
    )
    async def test_are_whole_whatever_range_is_asked_for(
        self, client: httpx.AsyncClient, name: str, asked: str
    ) -> None:
        answer = await client.get(f"/api_docs/assets/{name}", headers={"range": asked})
        assert (answer.status_code, answer.content) == (200, (ASSETS / name).read_bytes())

    async def test_come_whatever_is_sent_along(self, client: httpx.AsyncClient, name: str) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(5):
                yield b"a" * 60_000

        for body in (b"{", b"a" * (MAX_BODY_BYTES + 1), pieces()):
            answer = await client.request("GET", f"/api_docs/assets/{name}", content=body)
            assert (answer.status_code, answer.content) == (200, (ASSETS / name).read_bytes())
