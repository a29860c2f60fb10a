"""Addresses that come with a request are stored and shown; nobody goes there."""

import socket
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import World, made


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket on this machine that somebody might connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


class TestAddressesInBodies:
    def test_are_never_requested(self, world: World, listener: socket.socket) -> None:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/hook"
        platform = world.platform(metadata={"webhook": url, "$ref": url})
        user = world.user(platform, metadata={"avatar": url}, address_line=url)
        provider = world.provider(website=url, metadata={"jwks_uri": url})
        benefit = world.benefit(provider, terms_url=url)
        headers = {"x-forwarded-host": url, "referer": url, "origin": url, "x-original-url": url}
        for caller, path in (
            (world.admin, f"/platforms/{platform.id}"),
            (user.caller, user.path),
            (world.admin, f"/benefit_providers/{provider['id']}"),
            (user.caller, f"/benefits/{benefit['id']}"),
        ):
            assert url in str(made(caller.get(path, headers=headers), 200))
        with pytest.raises(BlockingIOError):
            listener.accept()
