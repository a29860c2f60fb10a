"""Input that is wrong in any way is refused with a 4xx in the envelope, and nothing of it comes back or is logged."""

import json
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.conftest import System, World, assert_refused, made
from tests.e2e.contract import OPERATIONS, PUBLIC, WRITES, Document, Operation
from tests.e2e.hostile import BODIES, FIELD_VALUES, HEADERS, body_with, broken_chunks, requests
from tests.e2e.samples import Samples, make_samples

JSON = {"content-type": "application/json"}
HOST = b"Host: localhost\r\n"
# A text that each write takes; rotation takes none.
TEXT_FIELDS = {
    "/auth/token": "phone_number",
    "/platforms": "name",
    "/platforms/{platform_id}": "name",
    "/platforms/{platform_id}/suspend": "reason",
    "/platforms/{platform_id}/activate": "reason",
    "/platforms/{platform_id}/api_keys": "name",
    "/users/{user_id}": "first_name",
    "/users/{user_id}/complete_onboarding": "first_name",
    "/users/{user_id}/reactivate": "reason",
    "/users/{user_id}/release_phone": "reason",
    "/users/{user_id}/erase": "reason",
    "/users/{user_id}/dependants": "first_name",
    "/users/{user_id}/dependants/{dependant_id}": "first_name",
    "/benefit_providers": "legal_name",
    "/benefit_providers/{benefit_provider_id}": "legal_name",
    "/benefits": "name",
    "/benefits/{benefit_id}": "name",
    "/users/{user_id}/accounts": "holder_name",
    "/users/{user_id}/accounts/{account_id}": "holder_name",
    "/mrns": "mrn",
}


@pytest.fixture(scope="module")
def samples(world: World) -> Samples:
    return make_samples(world)


@pytest.fixture(scope="module")
def canary() -> str:
    """A word that must never come back. It has digits, as no name of a field has."""
    return f"zq9{secrets.token_hex(6)}"


@pytest.fixture(scope="module", autouse=True)
def _quiet_logs(system: System, canary: str) -> Iterator[None]:
    """What is refused here is no event for operators, and no input is logged."""
    logs = sorted((system.data / "logs").glob("*.log"))
    sizes = {log: log.stat().st_size for log in logs}
    yield
    for log in logs:
        with log.open(errors="replace") as stream:
            stream.seek(sizes[log])
            written = stream.read()
        assert "Traceback" not in written, f"{log.name} tells of an exception: {written[:2000]}"
        assert canary not in written, f"{log.name} holds what a caller sent"
    assert httpx.get(f"{system.url}/readyz", trust_env=False).status_code == 200


def code_of(response: httpx.Response) -> str | None:
    return None if response.is_success else response.json()["error"]["code"]


def exchange(system: System, data: bytes) -> bytes:
    """Send bytes as they are, and return all that comes until the other side closes."""
    where = urlsplit(system.url)
    with socket.create_connection((where.hostname, where.port), timeout=15) as connection:
        # The answer may come before we are done, and the rest is not wanted then.
        with suppress(ConnectionError):
            connection.sendall(data)
        return receive(connection)


def receive(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def read_answer(received: bytes) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Return status, headers and error of the only answer in what was received."""
    assert received.count(b"HTTP/1.1 ") == 1, received[:2000]
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split(" ")[1]), headers, json.loads(body)["error"]


def with_credential(data: bytes, samples: Samples, operation: Operation) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in samples.caller(operation).headers.items())
    return data.replace(HOST, lines.encode() + HOST, 1)


@pytest.mark.parametrize("operation", WRITES, ids=str)
class TestHostileRequests:
    """Every write, with the right credential."""

    def test_refuses_bodies(self, samples: Samples, operation: Operation) -> None:
        caller, path = samples.caller(operation), samples.path(operation)
        wrong = []
        for hostile in BODIES:
            response = caller.request(operation.method, path, content=hostile.body, headers=JSON)
            if code_of(response) != hostile.code or "Ravi" in response.text:
                wrong.append((hostile.name, response.status_code, response.text[:200]))
        assert not wrong

    def test_refuses_values_of_a_text(self, samples: Samples, operation: Operation) -> None:
        caller, path = samples.caller(operation), samples.path(operation)
        field = TEXT_FIELDS.get(operation.path, "overlap_seconds")
        others = {name: value for name, value in samples.body(operation).items() if name != field}
        wrong = []
        for hostile in FIELD_VALUES:
            if field == "overlap_seconds" and hostile.literal in (b"0", b"1", b"-0"):
                continue
            body = body_with(field, hostile, **others)
            response = caller.request(operation.method, path, content=body, headers=JSON)
            named = [detail["field"] for detail in response.json()["error"]["details"]] if response.is_error else []
            if code_of(response) != hostile.code or (hostile.code == "RQ-101" and named != [field]):
                wrong.append((hostile.name, response.status_code, response.text[:200]))
        assert not wrong

    def test_refuses_or_ignores_headers(self, samples: Samples, operation: Operation) -> None:
        caller, path = samples.caller(operation), samples.path(operation)
        # What a PATCH of nothing answers, and a POST of a list.
        body, ignored = (b"{}", None) if operation.method == "PATCH" else (b"[]", "RQ-101")
        wrong = []
        for hostile in HEADERS:
            names = {name for name, _ in hostile.headers}
            if b"idempotency-key" in names:
                # Here they would be told from the body's refusal by nothing; test_idempotency has them all.
                continue
            kind = [] if b"content-type" in names else [(b"content-type", b"application/json")]
            credential = [(name.encode(), value.encode()) for name, value in caller.headers.items()]
            headers = httpx.Headers([*kind, *credential, *hostile.headers])
            response = caller.http.request(operation.method, path, content=body, headers=headers)
            if code_of(response) != (hostile.code or ignored):
                wrong.append((hostile.name, response.status_code, response.text[:200]))
        assert not wrong

    def test_refuses_malformed_http(self, system: System, samples: Samples, operation: Operation) -> None:
        path = samples.path(operation)
        wrong = []
        for hostile in (*requests(operation.method, path), *broken_chunks(operation.method, path)):
            received = exchange(system, with_credential(hostile.data, samples, operation))
            status, headers, error = read_answer(received)
            is_right = (error["code"], 400 <= status < 500) == (hostile.code, True)
            if not is_right or headers["connection"] != "close" or headers["x-request-id"] != error["request_id"]:
                wrong.append((hostile.name, received[:300]))
        assert not wrong


class TestSlowRequests:
    def test_gives_up_waiting_for_heads_and_bodies(self, system: System, samples: Samples) -> None:
        """All at once, because each takes the whole time that the gateway waits."""
        where = urlsplit(system.url)
        with ExitStack() as stack:
            waiting = []
            for operation in WRITES:
                start = f"{operation.method} {samples.path(operation)} HTTP/1.1\r\n".encode() + HOST
                body = b"Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{"
                for name, data in (
                    ("head", start + b"X-A: "),
                    ("body", with_credential(start + body, samples, operation)),
                ):
                    connection = stack.enter_context(socket.create_connection((where.hostname, where.port), timeout=30))
                    connection.sendall(data)
                    waiting.append((f"{operation}, slow {name}", connection))
            answers = {name: read_answer(receive(connection)) for name, connection in waiting}
        wrong = {
            name: (status, error)
            for name, (status, headers, error) in answers.items()
            if (status, error["code"], headers["connection"]) != (408, "RQ-116", "close")
        }
        assert not wrong


class TestEcho:
    """Nothing of what is refused comes back, neither in the body nor in a header."""

    def assert_silent(self, response: httpx.Response, canary: str) -> None:
        assert canary not in response.text
        assert not any(canary in name or canary in value for name, value in response.headers.items())

    @pytest.mark.parametrize("operation", WRITES, ids=str)
    def test_keeps_bodies(self, samples: Samples, canary: str, document: Document, operation: Operation) -> None:
        schema = document.document["paths"][operation.path][operation.method.lower()]["requestBody"]["content"]
        schema = schema["application/json"]["schema"]
        if "$ref" in schema:
            schema = document.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        caller, path = samples.caller(operation), samples.path(operation)
        # Metadata may be any object, but for control characters.
        values = (f"{canary}\x07", {canary: f"{canary}\x07"}, [canary, {canary: [canary]}], f"{canary}@@##\u202e")
        bodies = [
            *({name: value} for name in schema["properties"] for value in values),
            {canary: canary},
            [canary],
            canary,
        ]
        for body in bodies:
            response = caller.request(operation.method, path, json=body)
            assert code_of(response) == "RQ-101", (body, response.text)
            self.assert_silent(response, canary)
        self.assert_silent(caller.request(operation.method, path, content=f"{{{canary}", headers=JSON), canary)

    @pytest.mark.parametrize("operation", OPERATIONS, ids=str)
    def test_keeps_queries_paths_and_headers(self, samples: Samples, canary: str, operation: Operation) -> None:
        caller, path = samples.caller(operation), samples.path(operation)
        content = None if operation.method in ("GET", "DELETE") else json.dumps(samples.body(operation))
        response = caller.request(operation.method, path, content=content, headers=JSON, params={canary: canary})
        assert_refused(response, 422, "RQ-101")
        self.assert_silent(response, canary)
        response = caller.request(
            operation.method,
            operation.path.format(**dict.fromkeys(samples.ids, canary)),
            content=content,
            headers={**JSON, "if-match": canary, "x-request-id": f"{canary}.", "accept": canary, "traceparent": canary},
            params={"page_token": canary} if operation.method == "GET" else None,
        )
        self.assert_silent(response, canary)
        for headers in (
            {"authorization": f"Bearer {canary}"},
            {"authorization": f"{canary} {canary}"},
            {"api-key": canary},
            {"admin-api-key": canary},
        ):
            response = caller.http.request(operation.method, path, content=content, headers={**JSON, **headers})
            assert_refused(response, 401, "AU-202")
            self.assert_silent(response, canary)


class TestQueries:
    @pytest.mark.parametrize("operation", OPERATIONS, ids=str)
    def test_refuses_unknown_and_repeated_parameters(
        self, samples: Samples, document: Document, operation: Operation
    ) -> None:
        caller, path = samples.caller(operation), samples.path(operation)
        described = document.document["paths"][operation.path][operation.method.lower()].get("parameters", [])
        known = [parameter["name"] for parameter in described if parameter.get("in") == "query"]
        content = None if operation.method in ("GET", "DELETE") else json.dumps(samples.body(operation))
        for query in ("unknown=1", "unknown", "=", *(f"{name}=a&{name}=a" for name in known), "Page_Size=1"):
            response = caller.request(operation.method, f"{path}?{query}", content=content, headers=JSON)
            assert_refused(response, 422, "RQ-101")

    @pytest.mark.parametrize("path", PUBLIC)
    def test_refuses_unknown_parameters_of_public_operations(self, world: World, path: str) -> None:
        assert_refused(world.http.get(f"{path}?unknown=1"), 422, "RQ-101")

    @pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.method == "GET"], ids=str)
    def test_refuses_values_of_another_form(self, samples: Samples, document: Document, operation: Operation) -> None:
        described = document.document["paths"][operation.path]["get"].get("parameters", [])
        caller, path = samples.caller(operation), samples.path(operation)
        wrong = {
            "integer": ("0", "-1", "1.5", "1e2", "+1", " 1", "", "one", "0x1", "１", "true"),
            "boolean": ("1", "yes", "True", "", "null"),
            "uuid": ("", "1", "null", "019a9f3c7c1e7d52b9a43f1f0d6c2b11", "019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b1g"),
            "date-time": (
                "",
                "now",
                "2026-11-20",
                "2026-11-20T09:30:00",
                "2026-02-30T00:00:00Z",
                "1",
                "0001-01-01T00:00:00+14:00",
            ),
            "enum": ("", "ACTIVE!", "null"),
            "text": ("", "a\x00b", "a\x07", "a\u202e", "a" * 3_000),
        }
        for parameter in described:
            name, schema = parameter["name"], parameter["schema"]
            if parameter["in"] != "query" or name == "page_token":
                continue
            if "$ref" in schema:
                schema = document.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            kind = "enum" if "enum" in schema else schema.get("format") or schema["type"]
            for value in wrong["text" if kind == "string" else kind]:
                response = caller.get(path, params={name: value})
                assert code_of(response) == "RQ-101", (name, value, response.text)


class TestBodies:
    """What is good although it looks odd, and what is not."""

    def test_takes_json_in_any_spelling(self, world: World, samples: Samples) -> None:
        path = samples.user.path
        for content, kind in (
            (b' \t\r\n{"first_name"\n:\t"Ra\\u0076i" } ', "application/json"),
            (b'{"first_name":"Ravi"}', "application/json;charset=utf-8"),
            (b'{"first_name":"Ravi"}', 'Application/JSON; Charset="UTF-8"'),
            (b'{"first_name":"Ravi"}', "application/json;"),
        ):
            response = samples.user.caller.request("PATCH", path, content=content, headers={"content-type": kind})
            assert made(response, 200)["first_name"] == "Ravi"

    def test_takes_a_body_of_256_kib_and_no_byte_more(self, samples: Samples) -> None:
        patch = samples.user.caller.request
        full = b"{" + b" " * (256 * 1024 - 2) + b"}"
        assert patch("PATCH", samples.user.path, content=full, headers=JSON).status_code == 200
        assert_refused(patch("PATCH", samples.user.path, content=full + b" ", headers=JSON), 413, "RQ-106")

        def in_chunks() -> Iterator[bytes]:
            yield from (full[start : start + 50_000] for start in range(0, len(full), 50_000))
            yield b" "

        assert_refused(patch("PATCH", samples.user.path, content=in_chunks(), headers=JSON), 413, "RQ-106")

    def test_refuses_a_body_without_media_type(self, samples: Samples) -> None:
        response = samples.user.caller.request("PATCH", samples.user.path, content=b"{}")
        assert_refused(response, 415, "RQ-105")
        assert_refused(samples.user.caller.request("PATCH", samples.user.path), 415, "RQ-105")

    def test_refuses_a_bad_credential_before_reading_the_body(self, world: World, samples: Samples) -> None:
        for operation in WRITES:
            response = world.http.request(
                operation.method, samples.path(operation), content=b"{" * 300_000, headers=JSON
            )
            assert_refused(response, 401, "AU-201")

    @pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.method == "GET"], ids=str)
    def test_ignores_bodies_of_get(self, samples: Samples, operation: Operation) -> None:
        caller, path = samples.caller(operation), samples.path(operation)
        expected = caller.get(path).status_code
        for content in (b"{", b'{"a": 1, "a": 2}', b"a" * 300_000):
            assert caller.request("GET", path, content=content, headers=JSON).status_code == expected

    def test_ignores_bodies_of_delete(self, world: World, samples: Samples) -> None:
        dependant = world.dependant(samples.user)
        path = f"{samples.user.path}/dependants/{dependant['id']}"
        response = samples.user.caller.request("DELETE", path, content=b'{"a": "\xff"', headers=JSON)
        assert response.status_code == 204


class TestNames:
    @pytest.mark.parametrize(
        ("sent", "stored"),
        [
            ("  Ravi \t".strip("\t"), "Ravi"),
            ("Jose\u0301", "José"),
            ("\u0915\u094d\u200d\u0937", "\u0915\u094d\u200d\u0937"),
            ("\u0d28\u0d4d\u200c\u0d2e", "\u0d28\u0d4d\u200c\u0d2e"),
            ("O'Brien-Smith 2nd", "O'Brien-Smith 2nd"),
        ],
    )
    def test_normalises_and_trims(self, world: World, sent: str, stored: str) -> None:
        user = world.user()
        assert made(user.caller.patch(user.path, {"first_name": sent}), 200)["first_name"] == stored

    @pytest.mark.parametrize(
        "name", ["", "   ", "\u200d", "\u200b", "a\u202eb", "a\ufeffb", "a\u2028b", "a\tb", "a\nb", "a" * 101]
    )
    def test_refuses_what_looks_empty_or_deceives(self, world: World, samples: Samples, name: str) -> None:
        assert_refused(samples.user.caller.patch(samples.user.path, {"first_name": name}), 422, "RQ-101")

    @pytest.mark.parametrize(
        ("path", "field"),
        [
            ("/users/{user_id}/accounts", "account_number"),
            ("/mrns", "mrn"),
            ("/benefit_providers", "code"),
            ("/benefits", "code"),
            ("/auth/token", "phone_number"),
        ],
    )
    @pytest.mark.parametrize("joiner", ["\u200c", "\u200d"])
    def test_refuses_joiners_in_identifiers(self, samples: Samples, path: str, field: str, joiner: str) -> None:
        operation = next(o for o in WRITES if (o.method, o.path) == ("POST", path))
        body = {**samples.body(operation), field: f"12{joiner}34"}
        assert_refused(samples.caller(operation).post(samples.path(operation), body), 422, "RQ-101")
