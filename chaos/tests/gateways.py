"""Stands for a rig: a server that answers what it is told to, and nothing behind it."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from chaos.proxy import Proxy
from chaos.rig import Rig

ROOM_FOR_ALL = {"id": "1", "secret": "s", "access_token": "t", "user": {"id": "1"}}


def spell(status: int, body: object = ROOM_FOR_ALL, **headers: str) -> bytes:
    """Return an answer as it travels."""
    content = b"" if status == 204 else json.dumps(body).encode()
    lines = [f"{name.replace('_', '-')}: {text}" for name, text in {"X_Request_Id": "r1", **headers}.items()]
    head = "\r\n".join([f"HTTP/1.1 {status} Told", *lines, f"Content-Length: {len(content)}", "", ""])
    return head.encode() + content


def refuse(status: int, code: str, **headers: str) -> bytes:
    """Return a refusal as it travels."""
    error = {"code": code, "message": "No.", "request_id": "r1", "details": []}
    return spell(status, {"error": error}, **headers)


class Gateways:
    """Two gateways, which are one server."""

    until = Rig.until

    def __init__(self) -> None:
        # What is answered to a method and a path; the next of these first, if there are any.
        self.answer: Callable[[str, str], bytes] = lambda method, path: spell(200 if method == "GET" else 201)
        self.answers: list[bytes] = []
        self.probed: Counter[str] = Counter()
        self.done_to: Counter[str] = Counter()
        self.unplanned: list[str] = []
        self.rng = random.Random(1)
        self.admin_key = "k"
        self.edge = Proxy("gateway-identity-1", 1, self.rng)
        self.happened_at = 0.0
        self._port = 0

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        return server

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while lines := (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n"):
                method, path, _ = lines[0].split(" ")
                lengths = [line.partition(": ")[2] for line in lines if line.startswith("Content-Length")]
                await reader.readexactly(int(lengths[0]) if lengths else 0)
                writer.write(self.answers.pop(0) if self.answers else self.answer(method, path))
        except (EOFError, OSError):
            writer.close()

    def replicas(self, *kinds: str) -> list[str]:
        return [f"{kind}-{number}" for kind in kinds for number in (1, 2)]

    def client_port(self, gateway: str) -> int:
        return self._port

    def edges(self, start: str) -> list[Proxy]:
        return [self.edge]

    def fired(self) -> Counter[str]:
        return self.done_to + self.edge.fired

    async def until_ready(self, gateway: str) -> float:
        return 0.0

    async def migrate(self, service: str, tree: object) -> None:
        self.done_to["migrated"] += 1

    async def ask(self, service: str, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Say when a right ended."""
        return [(datetime.fromtimestamp(time.time() - (time.monotonic() - self.happened_at), UTC),)]
