"""A real server on a real socket, spoken to in raw bytes: what is not HTTP as we accept it is answered and closed."""

import contextlib
import gc
import json
import logging
import select
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response

from gateway.edge import Edge
from gateway.errors import REGISTRY
from gateway.http_protocol import MAX_PIPELINED_REQUESTS, ConnectionLimits, server_config
from gateway.load_shedding import AdmissionQueue
from gateway.retry_after import A_SECOND
from tests.e2e.hostile import broken_chunks, requests

PATIENT = ConnectionLimits()
HASTY = ConnectionLimits(head_seconds=0.3, write_seconds=0.3, linger_seconds=0.3)
HOST = b"Host: localhost\r\n"
REQUESTS = tuple(requests("POST", "/a"))
BROKEN_CHUNKS = tuple(broken_chunks("POST", "/a"))


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict:
        return json.loads(self.body)["error"]


@dataclass
class Application:
    """Records what reached it, and answers by path."""

    reached: list[str] = field(default_factory=list)

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.reached.append(scope["path"])
        if scope["path"] == "/early":
            response = Response("early", 401)
        elif scope["path"] == "/large":
            response = Response(b"a" * 20_000_000)
        elif scope["path"] == "/boom":
            raise RuntimeError("sesame")
        elif scope["path"] == "/headers":
            await Request(scope, receive).body()
            response = Response(json.dumps([name.decode() for name, _ in scope["headers"]]))
        else:
            response = Response(b"%d bytes" % len(await Request(scope, receive).body()))
        await response(scope, receive, send)


class Served:
    """A running server, and the sockets that were opened to it."""

    def __init__(self, application: Application, server: uvicorn.Server, stack: contextlib.ExitStack) -> None:
        self.application = application
        self.server = server
        self.port = server.servers[0].sockets[0].getsockname()[1]
        self._stack = stack

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        connection = self._stack.enter_context(socket.socket())
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(15)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def say(self, data: bytes) -> list[Answer]:
        """Send, and read every answer until the server closes."""
        connection = self.connect()
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        return read_answers(connection)


@contextlib.contextmanager
def serving(
    limits: ConnectionLimits = PATIENT,
    body_seconds: float = 10.0,
    keep_alive_seconds: int = 75,
    admission: AdmissionQueue | None = None,
) -> Iterator[Served]:
    application = Application()
    edge = Edge(application, body_timeout_seconds=body_seconds)
    config = server_config(
        edge,
        "127.0.0.1",
        0,
        limits=limits,
        admission=admission,
        keep_alive_seconds=keep_alive_seconds,
        graceful_shutdown_seconds=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        with contextlib.ExitStack() as sockets:
            yield Served(application, server, sockets)
    finally:
        server.should_exit = True
        thread.join()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    with contextlib.ExitStack() as servers:
        yield lambda *args, **kwargs: servers.enter_context(serving(*args, **kwargs))


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    with serving() as served:
        yield served


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    return serve()


def read_until(connection: socket.socket, expected: bytes) -> bytes:
    received = bytearray()
    while expected not in received:
        data = connection.recv(65536)
        assert data, "the connection was closed"
        received += data
    return bytes(received)


def read_to_end(connection: socket.socket) -> bytes:
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return bytes(received)


def read_answers(connection: socket.socket) -> list[Answer]:
    return parse_answers(read_to_end(connection))


def parse_answers(rest: bytes) -> list[Answer]:
    answers = []
    while rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        start, *lines = head.decode().split("\r\n")
        assert start.startswith("HTTP/1.1 ")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        assert len(headers) == len(lines), "a header was sent twice"
        length = int(headers["content-length"])
        answers.append(Answer(int(start.split(" ")[1]), headers, rest[:length]))
        rest = rest[length:]
    return answers


def assert_refused(answer: Answer, code: str) -> None:
    assert answer.error["code"] == code
    assert answer.status == REGISTRY[code].http_status
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == answer.error["request_id"]
    assert answer.headers["x-content-type-options"] == "nosniff"


class TestOrdinaryRequests:
    def test_answers_and_keeps_the_connection(self, served):
        connection = served.connect()
        for _ in range(3):
            connection.sendall(b"POST /a?q=1 HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc")
            read_until(connection, b"3 bytes")
        connection.sendall(b"GET /a HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        (answer,) = read_answers(connection)
        assert (answer.status, answer.body) == (200, b"0 bytes")
        assert "server" not in answer.headers

    def test_reads_a_chunked_body_and_drops_its_trailers(self, served):
        head = b"POST /headers HTTP/1.1\r\n" + HOST + b"Connection: close\r\nTransfer-Encoding: Chunked\r\n\r\n"
        (answer,) = served.say(head + b"3;a=b\r\nabc\r\n0\r\nAdmin-Api-Key: x\r\n\r\n")
        assert json.loads(answer.body) == ["host", "connection", "transfer-encoding"]

    def test_answers_pipelined_requests_in_their_order(self, served):
        request = b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n%s"
        data = b"".join(request % (length, b"a" * length) for length in range(9))
        last = b"GET /a HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
        assert [answer.body for answer in served.say(data + last)] == [b"%d bytes" % n for n in (*range(9), 0)]

    def test_waits_for_the_body_of_a_pipelined_request(self, serve):
        connection = serve(HASTY).connect()
        post = b"POST /a HTTP/1.1\r\nConnection: close\r\nContent-Length: 3\r\n" + HOST + b"\r\n"
        connection.sendall(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n" + post)
        read_until(connection, b"0 bytes")
        time.sleep(3 * HASTY.linger_seconds)
        connection.sendall(b"abc")
        assert b"3 bytes" in read_to_end(connection)

    def test_invites_a_body_that_waits_for_it(self, served):
        connection = served.connect()
        head = (
            b"POST /a HTTP/1.1\r\n" + HOST + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        )
        connection.sendall(head)
        assert read_until(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        assert b"3 bytes" in read_to_end(connection)

    def test_serves_version_1_0_without_a_host(self, served):
        (answer,) = served.say(b"GET /a HTTP/1.0\r\n\r\n")
        assert (answer.status, answer.headers["connection"]) == (200, "close")

    @pytest.mark.parametrize(
        "body", [b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"]
    )
    def test_ignores_the_upgrade_that_java_offers(self, served, body):
        offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
        close = b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n"
        start = b"POST /a HTTP/1.1\r\n" + HOST
        answers = served.say(start + offer + body + start + body + start + close + body + start + body)
        assert [(answer.status, answer.body) for answer in answers] == [(200, b"3 bytes")] * 3
        assert answers[2].headers["connection"] == "close"

    @pytest.mark.parametrize("host", [b"localhost", b"a.example:8080", b"10.0.0.1", b"[::1]:80", b"a_b.svc", b"a:"])
    def test_takes_the_hosts_there_are(self, served, host):
        (answer,) = served.say(b"GET /a HTTP/1.1\r\nConnection: close\r\nHost: " + host + b"\r\n\r\n")
        assert answer.status == 200

    def test_logs_no_query(self, served, caplog):
        with caplog.at_level(logging.DEBUG):
            served.say(b"GET /a?sesame=1 HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")
            served.say(b"GET /boom?open=1 HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")
            served.say(b"GET /a?sesame=1 HTTP/9\r\n" + HOST + b"\r\n")
        assert "sesame=1" not in caplog.text
        assert "open=1" not in caplog.text


class TestMalformedRequests:
    @pytest.mark.parametrize("hostile", REQUESTS, ids=lambda hostile: hostile.name)
    def test_is_refused_once_and_closed(self, shared, hostile):
        shared.application.reached.clear()
        (answer,) = shared.say(hostile.data)
        assert_refused(answer, hostile.code)
        assert shared.application.reached == []

    @pytest.mark.parametrize("hostile", REQUESTS, ids=lambda hostile: hostile.name)
    def test_is_refused_byte_by_byte(self, shared, hostile):
        connection = shared.connect()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):
            for position in range(min(len(hostile.data), 300)):
                connection.sendall(hostile.data[position : position + 1])
            connection.sendall(hostile.data[300:])
        (answer,) = read_answers(connection)
        assert_refused(answer, hostile.code)

    @pytest.mark.parametrize("hostile", BROKEN_CHUNKS, ids=lambda hostile: hostile.name)
    def test_is_refused_while_the_body_is_read(self, shared, hostile):
        (answer,) = shared.say(hostile.data + b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n")
        assert_refused(answer, hostile.code)
        assert "/smuggled" not in shared.application.reached

    def test_leaves_the_answer_before_it_alone(self, served):
        good = b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\na"
        answers = served.say(good + good + b"\x00garbage\r\n\r\n" + good)
        assert [answer.status for answer in answers] == [200, 200]
        assert answers[-1].headers["connection"] == "close"
        assert served.application.reached == ["/a", "/a"]

    def test_bounds_what_is_pipelined(self, served):
        answers = served.say((b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n") * 5_000)
        assert {answer.status for answer in answers} == {200}
        assert 32 <= len(answers) < 100
        assert answers[-1].headers["connection"] == "close"

    @pytest.mark.parametrize("trailer", [b"X-A: ", b""])
    def test_bounds_a_trailer_without_end(self, served, trailer):
        connection = served.connect()
        head = b"POST /a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"0\r\n" + trailer)
        for _ in range(1_000):
            if select.select([connection], [], [], 0)[0]:
                break
            connection.sendall(b"a" * 65_536)
        else:
            pytest.fail("nothing was answered")
        assert b'"RQ-115"' in read_to_end(connection)

    def test_takes_heads_up_to_the_limits(self, served):
        close = b"Connection: close\r\n"
        line = b"GET /" + b"a" * 8_000 + b" HTTP/1.1\r\n" + HOST + close
        assert served.say(line + b"X-A: " + b"a" * 16_000 + b"\r\n\r\n")[0].status == 200
        assert served.say(line + b"X-A: a\r\n" * 98 + b"\r\n")[0].status == 200


class TestRequestIds:
    @pytest.mark.parametrize("rest", [b"Host: a b\r\n\r\n", HOST + b"Transfer-Encoding: chunked\r\n\r\nno length"])
    def test_of_what_cannot_be_read_to_its_end_are_kept(self, served, rest):
        (answer,) = served.say(b"POST /a HTTP/1.1\r\nX-Request-Id: ride-1\r\n" + rest)
        assert_refused(answer, "RQ-114")
        assert answer.error["request_id"] == "ride-1"

    def test_of_an_earlier_request_are_not_taken_again(self, served):
        connection = served.connect()
        connection.sendall(b"GET /a HTTP/1.1\r\nX-Request-Id: ride-1\r\n" + HOST + b"\r\n")
        read_until(connection, b"0 bytes")
        connection.sendall(b"NONSENSE\r\n\r\n")
        (refused,) = read_answers(connection)
        assert_refused(refused, "RQ-114")
        assert refused.error["request_id"] != "ride-1"


class TestDawdlingClients:
    @pytest.mark.parametrize(
        "start",
        [b"G", b"GET /a HTTP/1.1\r\n", b"GET /a HTTP/1.1\r\n" + HOST + b"X-A: b", b"GET /\r\n", b"\r\nGET /"],
    )
    def test_closes_a_head_that_does_not_end(self, serve, start):
        (answer,) = serve(HASTY).say(start)
        assert_refused(answer, "RQ-116")

    def test_closes_a_head_that_trickles(self, serve):
        connection = serve(HASTY).connect()
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET /a HTTP/1.1\r\n" + HOST)
            for _ in range(1_000):
                connection.sendall(b"X-A: b\r\n")
                time.sleep(0.02)
            pytest.fail("the connection was never closed")
        (answer,) = read_answers(connection)
        assert_refused(answer, "RQ-116")

    def test_closes_a_second_head_that_does_not_end(self, serve):
        answers = serve(HASTY).say(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\nGET /b")
        assert answers[0].status == 200
        assert_refused(answers[1], "RQ-116")

    @pytest.mark.parametrize("nothing", [b"", b"\r\n", b"\r\n\r\n\r\n"])
    def test_closes_an_unused_connection_without_a_word(self, serve, nothing):
        assert serve(HASTY).say(nothing) == []

    def test_closes_a_used_connection_that_sends_only_line_ends(self, serve):
        connection = serve(HASTY).connect()
        connection.sendall(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n")
        read_until(connection, b"0 bytes")
        connection.sendall(b"\r\n")
        assert read_to_end(connection) == b""

    def test_closes_an_idle_connection(self, serve):
        (answer,) = serve(keep_alive_seconds=1).say(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n")
        assert answer.status == 200

    @pytest.mark.parametrize("length", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
    def test_closes_a_body_that_does_not_end(self, serve, length):
        served = serve(HASTY, body_seconds=0.3)
        (answer,) = served.say(b"POST /a HTTP/1.1\r\n" + HOST + length + b"\r\n\r\n5\r\n")
        assert_refused(answer, "RQ-116")

    def test_closes_a_body_that_trickles(self, serve):
        connection = serve(HASTY, body_seconds=0.3).connect()
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 90000\r\n\r\n")
            for _ in range(1_000):
                connection.sendall(b"a")
                time.sleep(0.02)
            pytest.fail("the connection was never closed")
        (answer,) = read_answers(connection)
        assert_refused(answer, "RQ-116")

    def test_closes_when_a_body_nobody_asked_for_does_not_end(self, serve):
        (answer,) = serve(HASTY).say(b"POST /early HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\n")
        assert (answer.status, answer.body) == (401, b"early")

    def test_cuts_off_a_client_that_does_not_read(self, serve):
        served = serve(HASTY)
        connection = served.connect(receive_buffer=4096)
        connection.sendall(b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n")
        wait_until(lambda: served.application.reached)
        wait_until(lambda: not served.server.server_state.connections)
        assert len(read_to_end(connection)) < 20_000_000

    def test_gives_one_who_reads_slowly_the_time_it_takes(self, serve):
        connection = serve(ConnectionLimits(write_seconds=1.0)).connect(receive_buffer=65536)
        connection.sendall(b"GET /large HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        read, began = 0, time.monotonic()
        while chunk := connection.recv(2**20):
            read += len(chunk)
            # For longer than anybody has who reads nothing.
            if time.monotonic() - began < 3:
                time.sleep(0.1)
        assert read > 20_000_000

    def test_serves_others_meanwhile(self, serve):
        served = serve()
        dawdlers = [served.connect() for _ in range(200)]
        for dawdler in dawdlers:
            dawdler.sendall(b"POST /a HTTP/1.1\r\n")
        (answer,) = served.say(b"GET /a HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")
        assert answer.status == 200
        for dawdler in dawdlers:
            dawdler.sendall(HOST + b"Connection: close\r\n\r\n")
            assert b"0 bytes" in read_to_end(dawdler)


class TestBodiesThatAreNotRead:
    @pytest.mark.parametrize("connection_header", [b"", b"Connection: close\r\n"])
    def test_lets_the_client_read_the_answer(self, served, connection_header):
        body = b"a" * 3_000_000
        head = b"POST /early HTTP/1.1\r\n" + HOST + connection_header + b"Content-Length: %d\r\n\r\n" % len(body)
        connection = served.connect()
        connection.sendall(head + body)
        if not connection_header:
            read_until(connection, b"early")
            connection.sendall(b"GET /a HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")
            assert b"0 bytes" in read_to_end(connection)
        else:
            assert b"early" in read_to_end(connection)

    @pytest.mark.parametrize("connection_header", [b"", b"Connection: close\r\n"])
    def test_refuses_a_large_body_while_it_is_sent(self, served, connection_header):
        body = b"a" * 3_000_000
        head = b"POST /a HTTP/1.1\r\n" + HOST + connection_header + b"Content-Length: %d\r\n\r\n" % len(body)
        connection = served.connect()
        connection.sendall(head + body)
        read_until(connection, b'"RQ-106"')

    def test_does_not_invite_a_body_that_is_too_large(self, served):
        connection = served.connect()
        head = b"POST /a HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 300000\r\n\r\n"
        connection.sendall(head)
        assert read_until(connection, b'"RQ-106"').startswith(b"HTTP/1.1 413 ")


class TestConnections:
    def test_refuses_more_than_it_can_serve(self, serve):
        served = serve(replace(PATIENT, max_connections=8))
        open_ones = [served.connect() for _ in range(8)]
        wait_until(lambda: len(served.server.server_state.connections) == 8)
        (answer,) = served.say(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n")
        assert_refused(answer, "RQ-111")
        assert answer.headers["retry-after"] == "1"
        open_ones[0].close()
        wait_until(lambda: len(served.server.server_state.connections) == 7)
        (answer,) = served.say(b"GET /a HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")
        assert answer.status == 200

    def test_closes_those_that_are_idle_for_longest_to_make_room(self, serve):
        served = serve(replace(PATIENT, max_connections=4))
        kept = [served.connect() for _ in range(4)]
        for connection in kept:
            connection.sendall(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n")
            read_until(connection, b"0 bytes")
        for _ in range(2):
            newcomer = served.connect()
            newcomer.sendall(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n")
            read_until(newcomer, b"0 bytes")
            kept.append(newcomer)
        assert [read_to_end(connection) for connection in kept[:2]] == [b"", b""]
        for connection in kept[2:]:
            connection.sendall(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n")
            read_until(connection, b"0 bytes")

    def test_drops_those_beyond(self, serve):
        served = serve(replace(PATIENT, max_connections=8))
        connections = [served.connect() for _ in range(30)]
        wait_until(lambda: len(served.server.server_state.connections) <= 10)
        assert any(connection.recv(1) == b"H" for connection in connections[8:11])

    def test_survives_clients_that_vanish(self, served):
        get, post = b"GET /a HTTP/1.1\r\n" + HOST, b"POST /a HTTP/1.1\r\n" + HOST
        for data in (b"", b"GET", get, get + b"\r\n", post + b"Content-Length: 9\r\n\r\na"):
            connection = served.connect()
            connection.sendall(data)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        wait_until(lambda: not served.server.server_state.connections)
        (answer,) = served.say(b"GET /a HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")
        assert answer.status == 200


class FullHouse(AdmissionQueue):
    """Turns everybody away as long as it is full."""

    is_full = True

    def should_shed_early(self) -> bool:
        return self.is_full


class TestClosedConnections:
    """Nothing is left of them that only the garbage collector finds."""

    GET = b"GET /a HTTP/1.1\r\n" + HOST

    @pytest.fixture(autouse=True)
    def no_collections(self) -> Iterator[None]:
        gc.disable()
        yield
        gc.enable()

    def open(self, served: Served) -> tuple[socket.socket, Callable[[], object]]:
        connection = served.connect()
        wait_until(lambda: served.server.server_state.connections)
        (one,) = map(weakref.ref, served.server.server_state.connections)
        return connection, one

    @pytest.mark.parametrize("closing", [b"", b"Connection: close\r\n"])
    def test_that_were_served(self, served, closing):
        connection, one = self.open(served)
        connection.sendall(self.GET + b"\r\n" + self.GET + closing + b"\r\n")
        read_until(connection, b"0 bytes")
        connection.close()
        wait_until(lambda: one() is None)

    def test_that_were_turned_away(self, serve):
        connection, one = self.open(serve(admission=FullHouse()))
        connection.sendall(self.GET + b"\r\n")
        read_until(connection, b"RQ-111")
        connection.close()
        wait_until(lambda: one() is None)

    def test_with_requests_that_never_began(self, served, caplog):
        connection, one = self.open(served)
        post = b"POST /a HTTP/1.1\r\nContent-Length: 1\r\n" + HOST + b"\r\n"
        # The answer to the first is never read, so the last ones wait for their turn, which may come to the second.
        connection.sendall(b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n" + self.GET + b"\r\n" + post)
        wait_until(lambda: served.application.reached)
        connection.close()
        wait_until(lambda: one() is None)
        assert not caplog.records


class TestTurningAway:
    def test_does_nothing_of_what_comes_behind_the_last_answer(self, serve):
        served = serve(admission=FullHouse())
        (answer,) = served.say(self.LAST + b"DELETE /b HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        assert not served.application.reached

    def test_does_nothing_of_what_arrives_in_part_behind_the_last_answer(self, serve):
        served = serve()
        part = b"DELETE /b HTTP/1.1\r\nContent-Length: 5\r\n" + HOST + b"\r\nab"
        (answer,) = served.say(self.LAST + part)
        assert answer.status == 200
        wait_until(lambda: not served.server.server_state.connections)
        assert served.application.reached == ["/a"]

    GET = b"GET /a HTTP/1.1\r\n" + HOST
    LAST = GET + b"Connection: close\r\n\r\n"

    def test_answers_in_the_envelope_and_asks_no_application(self, serve):
        served = serve(admission=FullHouse())
        connection = served.connect()
        connection.sendall(self.GET + b"X-Request-Id: ride-1\r\n\r\n")
        head = read_until(connection, b"}}")
        connection.sendall(self.LAST)
        (last,) = read_answers(connection)
        (refused,) = parse_answers(head)
        for answer in (refused, last):
            assert (answer.status, answer.error["code"]) == (503, "RQ-111")
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-request-id"] == answer.error["request_id"]
        assert refused.error["request_id"] == "ride-1"
        assert "connection" not in refused.headers
        assert last.headers["connection"] == "close"
        assert not served.application.reached

    def test_tells_a_crowd_to_come_back_one_after_the_other(self, serve):
        connection = serve(admission=FullHouse()).connect()
        told = []
        for _ in range(2 * A_SECOND + 1):
            connection.sendall(self.GET + b"\r\n")
            (refused,) = parse_answers(read_until(connection, b"}}"))
            told.append(int(refused.headers["retry-after"]))
        # Some of the time that was given out first may be over.
        assert told[0] == 1
        assert 2 <= told[-1] <= 3

    def test_serves_the_connection_again_when_there_is_room(self, serve):
        admission = FullHouse()
        connection = serve(HASTY, admission=admission).connect()
        connection.sendall(self.GET + b"\r\n")
        read_until(connection, b"RQ-111")
        # An idle connection is kept for longer than a head that does not end.
        time.sleep(3 * HASTY.head_seconds)
        admission.is_full = False
        connection.sendall(self.GET + b"\r\n")
        assert b"0 bytes" in read_until(connection, b"0 bytes")

    def test_turns_away_one_of_all_that_arrive_together(self, serve):
        served = serve(admission=FullHouse())
        answers = served.say((self.GET + b"\r\n") * (MAX_PIPELINED_REQUESTS - 1) + self.LAST)
        assert [answer.status for answer in answers] == [503] + [200] * (MAX_PIPELINED_REQUESTS - 1)

    def test_bounds_what_is_pipelined_behind_it(self, serve):
        served = serve(admission=FullHouse())
        served.say((self.GET + b"\r\n") * 500)
        assert len(served.application.reached) <= MAX_PIPELINED_REQUESTS + 1

    def test_does_not_take_a_connection_for_idle_that_goes_on_at_once(self, serve):
        served = serve(admission=FullHouse())
        connection = served.connect()
        post = b"POST /a HTTP/1.1\r\nConnection: close\r\nContent-Length: 3\r\n" + HOST + b"\r\n"
        connection.sendall(self.GET + b"\r\n" + post)
        read_until(connection, b"RQ-111")
        wait_until(lambda: served.application.reached == ["/a"])
        assert [one.timeout_keep_alive_task for one in served.server.server_state.connections] == [None]
        connection.sendall(b"abc")
        assert b"3 bytes" in read_to_end(connection)

    def test_answers_a_client_that_has_not_read_what_came_before(self, serve):
        admission = FullHouse()
        admission.is_full = False
        served = serve(admission=admission)
        connection = served.connect(receive_buffer=4096)
        connection.sendall(b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n")
        read_until(connection, b"aaaa")
        admission.is_full = True
        connection.sendall(self.LAST)
        assert b"RQ-111" in read_to_end(connection) or served.application.reached == ["/large", "/a"]

    def test_answers_in_order_behind_one_that_was_let_in(self, serve):
        admission = FullHouse()
        served = serve(admission=admission)
        post = b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n" + HOST + b"\r\nabc"
        first, second, third = served.say(post + self.GET + b"\r\n" + self.LAST)
        assert [answer.body for answer in (first, second, third)] == [b"3 bytes", b"0 bytes", b"0 bytes"]

    @pytest.mark.parametrize(
        "request_",
        [
            b"GET /livez HTTP/1.1\r\n",
            b"GET /readyz HTTP/1.1\r\n",
            b"POST /a HTTP/1.1\r\nContent-Length: 0\r\n",
            b"GET /a HTTP/1.1\r\nOrigin: https://drivers.example\r\n",
        ],
    )
    def test_leaves_to_the_application_what_is_not_the_same_for_all(self, serve, request_):
        (answer,) = serve(admission=FullHouse()).say(request_ + HOST + b"Connection: close\r\n\r\n")
        assert answer.status == 200
