"""What the gateway remembers of users and keys, and that it trusts nothing once identity is silent."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
import pytest

from aarokya.identity.v1.live_state_service_pb2 import (
    ApiKeyState,
    BatchGetUserStatesResponse,
    GetUserStateResponse,
    ReplicaMoment,
    ResolveApiKeyResponse,
    UserState,
    WatchLiveStateResponse,
)
from aarokya.identity.v1.live_state_service_pb2_grpc import (
    LiveStateServiceServicer,
    add_LiveStateServiceServicer_to_server,
)
from gateway.bulkhead import Bulkhead
from gateway.errors import Refused
from gateway.live_state import NOBODY, LiveState
from servicekit.caller import METADATA_KEY, Call, CallerType

RAVI, MEERA = "0199aaaa-1111-7000-8000-000000000001", "0199aaaa-1111-7000-8000-000000000002"
SECRET = "ark_0199aaaa-1111-7000-8000-0000000000aa_" + "s" * 43
OTHER_SECRET = SECRET[:-1] + "t"
BOUND_S = 1.0


class Identity(LiveStateServiceServicer):
    """Identity as the gateway sees it; it can be silent, frozen and away."""

    def __init__(self) -> None:
        self.users = {user_id: UserState(user_id=user_id, platform_id="p1") for user_id in (RAVI, MEERA)}
        self.keys = {SECRET: ApiKeyState(key_id="k1", platform_id="p1")}
        self.asked: list[str] = []
        self.callers: list[Call] = []
        self.streams: set[asyncio.Queue[WatchLiveStateResponse]] = set()
        self.opened = 0
        # The numbers of the streams that say that they end.
        self.ending: set[int] = set()
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.is_away = False
        # Says what changes, and answers no question.
        self.is_deaf = False
        # An identity of this version tells the time by a clock of its own; it may be slow to see a stream opened, and
        # its database may be slow.
        self.replica_id = ""
        self.opens_in_s = 0.0
        self.late_s = 0.0
        # One of the version before is asked about each user by itself.
        self.knows_batches = False

    def _now(self, ago_s: float = 0.0) -> ReplicaMoment | None:
        clock_us = int((time.monotonic() - 500 - ago_s) * 1_000_000)
        return ReplicaMoment(replica_id=self.replica_id, clock_us=clock_us) if self.replica_id else None

    async def _answer(self, question: str, context: Any) -> None:
        self.asked.append(question)
        self.callers += [Call.from_bytes(value) for key, value in context.invocation_metadata() if key == METADATA_KEY]
        await self.goes_on.wait()
        if self.is_away or (self.is_deaf and question != "stream"):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")

    async def GetUserState(self, request: Any, context: Any) -> GetUserStateResponse:
        seen_at = self._now()
        await self._answer(request.user_id, context)
        return GetUserStateResponse(state=self.users.get(request.user_id), seen_at=seen_at)

    async def BatchGetUserStates(self, request: Any, context: Any) -> BatchGetUserStatesResponse:
        if not self.knows_batches:
            await self.goes_on.wait()
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "what is that?")
        seen_at = self._now()
        await self._answer(" ".join(request.user_ids), context)
        known = [self.users[user_id] for user_id in request.user_ids if user_id in self.users]
        return BatchGetUserStatesResponse(states=known, seen_at=seen_at)

    async def ResolveApiKey(self, request: Any, context: Any) -> ResolveApiKeyResponse:
        seen_at = self._now()
        await self._answer(request.secret, context)
        return ResolveApiKeyResponse(state=self.keys.get(request.secret), seen_at=seen_at)

    async def WatchLiveState(self, request: Any, context: Any) -> AsyncIterator[WatchLiveStateResponse]:
        await self._answer("stream", context)
        await asyncio.sleep(self.opens_in_s)
        opened_at = self._now()
        stream: asyncio.Queue[WatchLiveStateResponse] = asyncio.Queue()
        self.streams.add(stream)
        number = self.opened
        self.opened += 1
        try:
            while True:
                message = WatchLiveStateResponse(ending=number in self.ending)
                with suppress(TimeoutError):
                    message.MergeFrom(await asyncio.wait_for(stream.get(), 0.1))
                as_of = self._now(self.late_s)
                if as_of is not None and opened_at is not None:
                    message.as_of_us = as_of.clock_us - opened_at.clock_us
                    message.as_of.CopyFrom(as_of)
                await self.goes_on.wait()
                yield message
        finally:
            self.streams.discard(stream)

    async def say(self, **changed: Any) -> None:
        """Say that something changed, and wait until it was surely heard."""
        for stream in self.streams:
            stream.put_nowait(WatchLiveStateResponse(**changed))
        await asyncio.sleep(0.05)


@pytest.fixture
async def identity() -> Identity:
    return Identity()


@pytest.fixture
async def silent(identity: Identity) -> AsyncIterator[LiveState]:
    """Live state that does not listen yet."""
    server = grpc.aio.server()
    add_LiveStateServiceServicer_to_server(identity, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield LiveState(channel)
    await server.stop(None)


@pytest.fixture
async def live_state(silent: LiveState, identity: Identity) -> AsyncIterator[LiveState]:
    """Live state that listens."""
    running = asyncio.create_task(silent.run())
    await heard(silent)
    identity.asked.clear()
    yield silent
    running.cancel()
    await asyncio.wait([running])


async def heard(live_state: LiveState, is_heard: bool = True) -> float:
    """Wait until identity is heard, or no more, and return how many seconds that took."""
    began = time.monotonic()
    async with asyncio.timeout(5):
        while live_state.is_heard() is not is_heard:  # noqa: ASYNC110  # nothing announces the end of a lease
            await asyncio.sleep(0.01)
    return time.monotonic() - began


class TestUserState:
    async def test_asks_once(self, live_state: LiveState, identity: Identity) -> None:
        states = await asyncio.gather(*(live_state.user_state(RAVI) for _ in range(20)))
        assert states == [identity.users[RAVI]] * 20
        assert await live_state.user_state(RAVI) == identity.users[RAVI]
        assert identity.asked == [RAVI]

    async def test_knows_no_stranger(self, live_state: LiveState) -> None:
        assert await live_state.user_state("0199aaaa-1111-7000-8000-00000000ffff") is None

    async def test_asks_again_when_fresh_is_wanted(self, live_state: LiveState, identity: Identity) -> None:
        await live_state.user_state(RAVI)
        identity.users[RAVI].token_generation = 1
        state = await live_state.user_state(RAVI, fresh=True)
        assert state is not None
        assert state.token_generation == 1

    @pytest.mark.parametrize("knows_batches", [True, False])
    async def test_asks_together_about_those_who_come_at_once(
        self, live_state: LiveState, identity: Identity, knows_batches: bool
    ) -> None:
        identity.knows_batches = knows_batches
        users = [f"0199aaaa-1111-7000-8000-{number:012d}" for number in range(20)]
        stranger = users.pop()
        identity.users |= {user_id: UserState(user_id=user_id, platform_id="p1") for user_id in users}
        identity.goes_on.clear()
        asking = [asyncio.create_task(live_state.user_state(user_id)) for user_id in (*users, stranger)]
        await asyncio.sleep(0.05)
        identity.goes_on.set()
        *states, unknown = await asyncio.gather(*asking)
        assert (states, unknown) == ([identity.users[user_id] for user_id in users], None)
        assert sorted(" ".join(identity.asked).split()) == sorted([*users, stranger])
        assert (len(identity.asked) < len(users)) == knows_batches
        # All of them are remembered, and forgotten one by one.
        identity.asked.clear()
        await identity.say(user_id=users[7])
        await asyncio.gather(*(live_state.user_state(user_id) for user_id in users))
        assert identity.asked == [users[7]]

    async def test_speaks_in_the_gateways_name(self, live_state: LiveState, identity: Identity) -> None:
        await live_state.user_state(RAVI)
        assert {(it.caller.type, it.caller.id) for it in identity.callers} == {(CallerType.SYSTEM, "gateway")}


class TestKeyState:
    async def test_asks_once(self, live_state: LiveState, identity: Identity) -> None:
        assert await live_state.key_state(SECRET) == identity.keys[SECRET]
        assert await live_state.key_state(SECRET) == identity.keys[SECRET]
        assert identity.asked == [SECRET]

    async def test_tells_secrets_apart(self, live_state: LiveState) -> None:
        await live_state.key_state(SECRET)
        assert await live_state.key_state(OTHER_SECRET) is None

    @pytest.mark.parametrize(
        "secret", ["", "short", "s" * 257, "s" * 40 + "\n", "s" * 40 + "\xe9", "s" * 40 + "\ud800", "s" * 40 + "\x7f"]
    )
    async def test_asks_for_nothing_that_is_no_secret(
        self, live_state: LiveState, identity: Identity, secret: str
    ) -> None:
        assert await live_state.key_state(secret) is None
        assert identity.asked == []

    async def test_asks_again_for_unknown_secrets(self, live_state: LiveState, identity: Identity) -> None:
        assert await live_state.key_state(OTHER_SECRET) is None
        identity.keys[OTHER_SECRET] = ApiKeyState(key_id="k2", platform_id="p1")
        assert await live_state.key_state(OTHER_SECRET) is not None

    async def test_keeps_no_secret(self, live_state: LiveState) -> None:
        await live_state.key_state(SECRET)
        gc.collect()
        kept = gc.get_referents(live_state._keys._entries)
        kept += [part for entry in live_state._keys._entries.values() for part in entry]
        assert not any(SECRET in str(part) for part in kept)


class TestForget:
    async def test_forgets_what_it_is_told_by_identity(self, live_state: LiveState, identity: Identity) -> None:
        async def use_all() -> list[str]:
            identity.asked.clear()
            await live_state.user_state(RAVI)
            await live_state.user_state(MEERA)
            await live_state.key_state(SECRET)
            return identity.asked

        assert await use_all() == [RAVI, MEERA, SECRET]
        assert await use_all() == []
        await identity.say(user_id=RAVI)
        assert await use_all() == [RAVI]
        await identity.say(key_id="k1")
        assert await use_all() == [SECRET]
        await identity.say(platform_id="p1")
        assert await use_all() == [RAVI, MEERA, SECRET]
        await identity.say(everything=True)
        assert await use_all() == [RAVI, MEERA, SECRET]
        await identity.say(platform_id="p2")
        assert await use_all() == []

    async def test_forgets_what_this_process_has_changed(self, live_state: LiveState, identity: Identity) -> None:
        for forget, asked in (
            (lambda: live_state.invalidate_user(RAVI), [RAVI]),
            (lambda: live_state.invalidate_key("k1"), [SECRET]),
            (lambda: live_state.invalidate_platform("p1"), [RAVI, SECRET]),
        ):
            await live_state.user_state(RAVI)
            await live_state.key_state(SECRET)
            identity.asked.clear()
            forget()
            await live_state.user_state(RAVI)
            await live_state.key_state(SECRET)
            assert identity.asked == asked


class TestIdentityAboutToStop:
    async def test_hears_another_stream_before_the_first_one_ends(self, silent: LiveState, identity: Identity) -> None:
        identity.replica_id = "a"
        running = asyncio.create_task(silent.run())
        await heard(silent)
        await silent.user_state(RAVI)
        identity.ending.add(0)
        async with asyncio.timeout(5):
            while identity.opened < 2 or len(identity.streams) > 1:  # noqa: ASYNC110  # nothing announces it
                await asyncio.sleep(0.01)
        await silent.user_state(RAVI)
        assert identity.asked.count(RAVI) == 1
        identity.users[RAVI].token_generation = 2
        await identity.say(user_id=RAVI)
        state = await silent.user_state(RAVI)
        assert state is not None
        assert state.token_generation == 2
        running.cancel()
        await asyncio.wait([running])


class TestIdentityNotHeard:
    async def test_asks_every_time_before_it_is_heard(self, silent: LiveState, identity: Identity) -> None:
        assert not silent.is_heard()
        await silent.user_state(RAVI)
        await silent.user_state(RAVI)
        assert identity.asked == [RAVI] * 2

    async def test_trusts_nothing_when_identity_freezes(self, live_state: LiveState, identity: Identity) -> None:
        await live_state.user_state(RAVI)
        await live_state.key_state(SECRET)
        identity.goes_on.clear()
        assert await heard(live_state, False) < BOUND_S
        for ask in (live_state.user_state(RAVI), live_state.key_state(SECRET)):
            with pytest.raises(Refused) as refused:
                await ask
            assert refused.value.code == "RQ-111"

    async def test_asks_once_more_when_there_is_no_answer(self, live_state: LiveState, identity: Identity) -> None:
        identity.goes_on.clear()
        asking = asyncio.create_task(live_state.user_state(RAVI))
        async with asyncio.timeout(5):
            while identity.asked.count(RAVI) < 2:  # noqa: ASYNC110  # the stand-in keeps it simple
                await asyncio.sleep(0.01)
        identity.goes_on.set()
        assert await asking == identity.users[RAVI]

    async def test_answers_from_memory_while_only_questions_fail(
        self, live_state: LiveState, identity: Identity
    ) -> None:
        await live_state.user_state(RAVI)
        identity.is_away = True
        assert await live_state.user_state(RAVI) == identity.users[RAVI]
        with pytest.raises(Refused) as refused:
            await live_state.user_state(MEERA)
        assert refused.value.code == "RQ-111"

    async def test_asks_to_learn_that_a_stream_is_not_as_late_as_it_was_slow_to_open(
        self, silent: LiveState, identity: Identity
    ) -> None:
        identity.replica_id, identity.opens_in_s = "a", 1.0
        running = asyncio.create_task(silent.run())
        await heard(silent)
        assert identity.asked == ["stream", NOBODY]
        running.cancel()
        await asyncio.wait([running])

    @pytest.mark.parametrize("ask", ["user_state", "key_state"])
    async def test_learns_from_every_answer(self, silent: LiveState, identity: Identity, ask: str) -> None:
        identity.replica_id = "a"
        await getattr(silent, ask)(SECRET)
        identity.opens_in_s = 1.0
        running = asyncio.create_task(silent.run())
        await heard(silent)
        assert identity.asked == [SECRET, "stream"]
        running.cancel()
        await asyncio.wait([running])

    @pytest.mark.parametrize("knows_batches", [True, False])
    async def test_asks_little_while_identity_stands_still_and_much_once_it_is_heard(
        self, live_state: LiveState, identity: Identity, knows_batches: bool
    ) -> None:
        identity.knows_batches = knows_batches
        ids = [f"0199aaaa-1111-7000-8000-{number:012}" for number in range(200)]
        people = {user_id: UserState(user_id=user_id, platform_id="p1") for user_id in ids}
        identity.users.update(people)
        identity.goes_on.clear()
        await heard(live_state, False)
        with pytest.raises(Refused):
            await live_state.user_state(RAVI)
        identity.asked.clear()
        refused = await asyncio.gather(*map(live_state.user_state, people), return_exceptions=True)
        assert {type(error) for error in refused} == {Refused}
        assert len(identity.asked) < len(people) / 2
        identity.is_deaf = True
        identity.goes_on.set()
        while not live_state.is_heard():
            with suppress(Refused):
                await live_state.user_state(MEERA)
            await asyncio.sleep(0.01)
        identity.is_deaf = False
        assert await asyncio.gather(*map(live_state.user_state, people)) == list(people.values())

    async def test_listens_again_when_identity_is_back(self, live_state: LiveState, identity: Identity) -> None:
        identity.goes_on.clear()
        await heard(live_state, False)
        identity.goes_on.set()
        assert await heard(live_state) < 3
        # Of the streams that were given up none is left.
        await asyncio.sleep(0.3)
        assert len(identity.streams) == 1


class TestBulkhead:
    async def test_made_up_keys_take_nothing_away_from_users(self, identity: Identity) -> None:
        server = grpc.aio.server()
        add_LiveStateServiceServicer_to_server(identity, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            live_state = LiveState(Bulkhead(channel, 2, 0).channel, keys=Bulkhead(channel, 2, 0).channel)
            identity.goes_on.clear()
            asked = [asyncio.create_task(live_state.key_state(f"{number:032}")) for number in range(5)]
            asked.append(asyncio.create_task(live_state.user_state(RAVI)))
            await asyncio.wait(asked, timeout=0.2)
            identity.goes_on.set()
            *keys, user = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(key) for key in keys].count(Refused) == 3
        assert isinstance(user, UserState)
        await server.stop(None)
