"""What records knows of users: asked of a stand-in for identity over mutual TLS, and remembered while that is heard."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from aarokya.identity.v1.live_state_service_pb2 import UserState, WatchLiveStateResponse
from aarokya.identity.v1.user_pb2 import UserStatus
from records.users.errors import UserUnknown, WrongUserStatus
from records.users.states import UserStates, require_active
from servicekit.channel import open_channel
from servicekit.errors import ServiceAway
from servicekit.tls import channel_credentials

ONBOARDING, DEACTIVATED = UserStatus.USER_STATUS_ONBOARDING, UserStatus.USER_STATUS_DEACTIVATED


@pytest.fixture
async def states(standing_in: Any, certificates: Any) -> AsyncIterator[UserStates]:
    """States that do not listen, so that nothing is remembered."""
    files = certificates["records"]
    credentials = channel_credentials(files.ca, files.certificate, files.key)
    async with open_channel("identity", standing_in[2]["identity"], credentials, []) as channel:
        yield UserStates(channel)


@pytest.fixture
async def listening(states: UserStates) -> AsyncIterator[UserStates]:
    """States that listen to identity."""
    task = asyncio.create_task(states.run())
    yield states
    task.cancel()


@pytest.fixture
def user(kit: Any, fake_identity: Any) -> UserState:
    """An active user whom identity knows."""
    known: UserState = kit.state()
    fake_identity.states[known.user_id] = known
    return known


async def until(is_so: Callable[[], Any]) -> None:
    """Ask again and again until the answer is true."""
    for _ in range(250):
        if await is_so():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never became so")


class TestGet:
    async def test_returns_state(self, states: UserStates, kit: Any, user: UserState) -> None:
        for call in (kit.user(user), kit.partner, kit.admin):
            assert await states.get(call, UUID(user.user_id)) == user

    async def test_asks_together_about_those_who_come_at_once(
        self, states: UserStates, kit: Any, fake_identity: Any
    ) -> None:
        fake_identity.delay_s = 0.05
        users = [kit.state() for _ in range(10)]
        fake_identity.states |= {user.user_id: user for user in users}
        fake_identity.asked.clear()
        asking = [states.get(kit.admin, UUID(user.user_id)) for user in users]
        *answers, stranger = await asyncio.gather(*asking, states.get(kit.admin, uuid4()), return_exceptions=True)
        assert answers == users
        assert isinstance(stranger, UserUnknown)
        assert len(fake_identity.asked) == 11

    async def test_hides_user_from_others(self, states: UserStates, kit: Any, user: UserState) -> None:
        for call in (kit.user(kit.state()), kit.partner_elsewhere):
            with pytest.raises(UserUnknown):
                await states.get(call, UUID(user.user_id))

    async def test_refuses_unknown(self, states: UserStates, kit: Any, fake_identity: Any) -> None:
        with pytest.raises(UserUnknown):
            await states.get(kit.admin, uuid4())

    async def test_refuses_when_identity_is_away(
        self, states: UserStates, kit: Any, user: UserState, fake_identity: Any
    ) -> None:
        fake_identity.is_away = True

        with pytest.raises(ServiceAway):
            await states.get(kit.admin, UUID(user.user_id))

    async def test_remembers_callers_themselves(
        self, listening: UserStates, kit: Any, user: UserState, fake_identity: Any
    ) -> None:
        await remembered(listening, kit, user, fake_identity)

        fake_identity.is_away = True

        assert await listening.get(kit.user(user), UUID(user.user_id)) == user

    async def test_asks_about_others_every_time(
        self, listening: UserStates, kit: Any, user: UserState, fake_identity: Any
    ) -> None:
        await remembered(listening, kit, user, fake_identity)

        fake_identity.states[user.user_id] = kit.state(user_id=user.user_id, status=DEACTIVATED)

        assert (await listening.get(kit.admin, UUID(user.user_id))).status == DEACTIVATED
        assert (await listening.get(kit.partner, UUID(user.user_id))).status == DEACTIVATED

    async def test_never_refuses_by_what_is_remembered(
        self, listening: UserStates, kit: Any, user: UserState, fake_identity: Any
    ) -> None:
        fake_identity.states[user.user_id] = kit.state(user_id=user.user_id, status=ONBOARDING)
        await remembered(listening, kit, user, fake_identity)

        fake_identity.states[user.user_id] = user

        assert await listening.get(kit.user(user), UUID(user.user_id)) == user

    @pytest.mark.parametrize("news", ["user_id", "platform_id", "everything"])
    async def test_forgets_what_identity_says(
        self, listening: UserStates, kit: Any, user: UserState, fake_identity: Any, news: str
    ) -> None:
        await remembered(listening, kit, user, fake_identity)
        changed = kit.state(user_id=user.user_id, max_dependants=1)
        fake_identity.states[user.user_id] = changed
        told = {"user_id": user.user_id, "platform_id": user.platform_id, "everything": True}

        # Another process of these tests may be listening too, and take some of the news.
        async def hears() -> bool:
            fake_identity.news.put_nowait(WatchLiveStateResponse(**{news: told[news]}))
            return (await listening.get(kit.user(user), UUID(user.user_id))).max_dependants == 1

        await until(hears)

    async def test_opens_another_stream_when_one_is_about_to_end(
        self, listening: UserStates, kit: Any, user: UserState, fake_identity: Any
    ) -> None:
        await remembered(listening, kit, user, fake_identity)
        before = fake_identity.opened

        async def opens() -> bool:
            fake_identity.news.put_nowait(WatchLiveStateResponse(ending=True, as_of_us=0))
            return bool(fake_identity.opened > before)

        await until(opens)

    async def test_trusts_nothing_once_identity_falls_silent(
        self, listening: UserStates, kit: Any, user: UserState, fake_identity: Any
    ) -> None:
        await remembered(listening, kit, user, fake_identity)
        fake_identity.is_silent = True
        fake_identity.is_away = True
        await asyncio.sleep(1)

        with pytest.raises(ServiceAway):
            await listening.get(kit.user(user), UUID(user.user_id))


class TestAsk:
    async def test_asks_whoever_calls(
        self, listening: UserStates, kit: Any, user: UserState, fake_identity: Any
    ) -> None:
        await remembered(listening, kit, user, fake_identity)
        fake_identity.states[user.user_id] = kit.state(user_id=user.user_id, max_dependants=9)

        assert (await listening.ask(kit.user(user), UUID(user.user_id))).max_dependants == 9

    async def test_hides_user_from_others(self, states: UserStates, kit: Any, user: UserState) -> None:
        for call in (kit.user(kit.state()), kit.partner_elsewhere):
            with pytest.raises(UserUnknown):
                await states.ask(call, UUID(user.user_id))


class TestRequireKnown:
    async def test_asks_nobody_about_callers_themselves(self, states: UserStates, kit: Any, fake_identity: Any) -> None:
        nobody = kit.state()

        await states.require_known(kit.user(nobody), UUID(nobody.user_id))

        assert nobody.user_id not in fake_identity.asked

    async def test_remembers_others(self, listening: UserStates, kit: Any, user: UserState, fake_identity: Any) -> None:
        await remembered(listening, kit, user, fake_identity)

        fake_identity.is_away = True

        await listening.require_known(kit.admin, UUID(user.user_id))
        with pytest.raises(UserUnknown):
            await listening.require_known(kit.partner_elsewhere, UUID(user.user_id))


class TestRequireActive:
    def test_refuses_all_others(self, kit: Any) -> None:
        require_active(kit.state())
        for status in (ONBOARDING, DEACTIVATED):
            with pytest.raises(WrongUserStatus):
                require_active(kit.state(status=status))


async def remembered(states: UserStates, kit: Any, user: UserState, fake_identity: Any) -> None:
    """Wait until the user's state is remembered, that is, until identity is heard and not asked any more."""

    async def is_remembered() -> bool:
        await states.require_known(kit.admin, UUID(user.user_id))
        asked = len(fake_identity.asked)
        await states.require_known(kit.admin, UUID(user.user_id))
        return len(fake_identity.asked) == asked

    await until(is_remembered)
