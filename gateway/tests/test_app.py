"""What the whole gateway answers before it has to ask anybody."""

import asyncio
import base64
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway.app import create_app
from gateway.settings import GatewaySettings

ORIGIN = "https://app.example"
PREFLIGHT = {"origin": ORIGIN, "access-control-request-method": "GET", "access-control-request-headers": "api-key"}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway that was not started, so that it knows nobody."""
    settings = GatewaySettings(
        tls_ca="/ca.pem",
        tls_certificate="/certificate.pem",
        tls_key="/key.pem",
        identity_address="identity:5000",
        catalogue_address="catalogue:5000",
        records_address="records:5000",
        page_token_key=base64.b64encode(bytes(range(32))).decode(),
        jwt_keys="2026-11:Qp2-a-key-for-tokens-of-32-bytes-or-more",
        admin_api_key="Kx7-an-operators-key-of-32-bytes-or-more",
        cors_origins=ORIGIN,
    )
    transport = httpx.ASGITransport(create_app(settings, asyncio.Event()))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def assert_refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]


class TestMethods:
    @pytest.mark.parametrize("user_id", ["1", "%09", "%0D", "%0A1", "%3F", "%23", "%3Fa=b%23c", "a%09b"])
    async def test_are_listed_whatever_is_in_the_path(self, client: httpx.AsyncClient, user_id: str) -> None:
        answer = await client.put(f"/users/{user_id}")
        assert_refused(answer, 405, "RQ-104")
        assert answer.headers["allow"] == "DELETE, GET, PATCH"


class TestPreflights:
    async def test_are_answered(self, client: httpx.AsyncClient) -> None:
        answer = await client.options("/users", headers=PREFLIGHT)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)

    @pytest.mark.parametrize(
        "other",
        [
            {"access-control-request-private-network": "true"},
            {"access-control-request-private-network": ""},
            {"access-control-request-method": "PUT"},
            {"origin": "https://evil.example"},
        ],
    )
    async def test_are_refused_in_the_envelope(self, client: httpx.AsyncClient, other: dict[str, str]) -> None:
        answer = await client.options("/users", headers={**PREFLIGHT, **other})
        assert_refused(answer, 405, "RQ-104")
        assert answer.headers["allow"] == "GET"
        assert not [name for name in answer.headers if name.startswith("access-control-")]
