"""DependantService as the gateway sees it: a running process beside a stand-in for identity."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from aarokya.identity.v1.live_state_service_pb2 import UserState
from aarokya.identity.v1.user_pb2 import UserStatus
from aarokya.records.v1 import dependant_service_pb2 as pb
from aarokya.records.v1.dependant_pb2 import Dependant, DependantStatus
from servicekit.caller import Call, Idempotency
from servicekit.server import REPLAYED_KEY


@pytest.fixture
async def state(identity: Any, fake_identity: Any) -> UserState:
    """An active user whom identity knows and has told of."""
    known: UserState = identity.state()
    fake_identity.states[known.user_id] = known
    await identity.user_events.ApplyUserEvent(
        identity.profile_event(known), metadata=identity.asking(identity.identity)
    )
    return known


async def refusal_of(answer: Awaitable[Any]) -> str:
    """Return the reason of the refusal that a call must meet."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await answer
    status = rpc_status.from_call(error.value)
    assert status is not None
    info = ErrorInfo()
    status.details[0].Unpack(info)
    return info.reason


def create(gateway: Any, state: UserState, call: Call | None = None, **fields: Any) -> Any:
    return gateway.dependants.CreateDependant(
        pb.CreateDependantRequest(user_id=state.user_id, dependant=gateway.member(**fields)),
        metadata=gateway.asking(call or gateway.user(state)),
    )


def get(gateway: Any, state: UserState, dependant_id: str, call: Call | None = None) -> Any:
    return gateway.dependants.GetDependant(
        pb.GetDependantRequest(user_id=state.user_id, dependant_id=dependant_id),
        metadata=gateway.asking(call or gateway.user(state)),
    )


def get_each(gateway: Any, call: Call, wanted: Sequence[tuple[str, str]]) -> Any:
    requests = [pb.GetDependantRequest(user_id=user_id, dependant_id=dependant_id) for user_id, dependant_id in wanted]
    return gateway.dependants.BatchGetDependants(
        pb.BatchGetDependantsRequest(requests=requests), metadata=gateway.asking(call)
    )


def list_family(gateway: Any, state: UserState, call: Call | None = None, **asked: Any) -> Any:
    return gateway.dependants.ListDependants(
        pb.ListDependantsRequest(**{"user_id": state.user_id, "page_size": 50, **asked}),
        metadata=gateway.asking(call or gateway.user(state)),
    )


class TestCreateDependant:
    async def test_adds_member(self, gateway: Any, state: UserState) -> None:
        added = (await create(gateway, state)).dependant

        assert added.version == 1
        assert (await get(gateway, state, added.id)).dependant == added

    async def test_does_it_once_for_an_idempotency_key(self, gateway: Any, state: UserState) -> None:
        keyed = Idempotency(secrets.token_bytes(32), b"b" * 32)
        call = replace(gateway.user(state), idempotency=keyed)
        first = await create(gateway, state, call)

        again = create(gateway, state, call)

        assert await again == first
        assert (REPLAYED_KEY, "1") in tuple(await again.trailing_metadata())
        other_body = replace(call, idempotency=replace(keyed, fingerprint=b"c" * 32))
        assert await refusal_of(create(gateway, state, other_body)) == "RQ_108"
        assert len((await list_family(gateway, state)).dependants) == 2

    async def test_holds_the_platforms_limit(self, gateway: Any, state: UserState, fake_identity: Any) -> None:
        fake_identity.states[state.user_id].max_dependants = 1
        await create(gateway, state)

        assert await refusal_of(create(gateway, state, first_name="Two")) == "DE_505"

    @pytest.mark.parametrize("has_key", [False, True])
    async def test_asks_anew_before_it_says_that_the_family_is_full(
        self, gateway: Any, state: UserState, fake_identity: Any, has_key: bool
    ) -> None:
        fake_identity.states[state.user_id].max_dependants = 1
        await create(gateway, state)
        await remembered(gateway, state, fake_identity)
        keyed = Idempotency(secrets.token_bytes(32), b"b" * 32) if has_key else None
        call = replace(gateway.user(state), idempotency=keyed)
        assert await refusal_of(create(gateway, state, call, first_name="Two")) == "DE_505"
        await remembered(gateway, state, fake_identity)

        # Records has not been told yet.
        fake_identity.states[state.user_id].max_dependants = 2
        second = create(gateway, state, call, first_name="Two")

        added = (await second).dependant
        assert (REPLAYED_KEY, "1") not in tuple(await second.trailing_metadata())
        family = (await list_family(gateway, state)).dependants
        assert [one.id for one in family if one.first_name == "Two"] == [added.id]
        again = create(gateway, state, call, first_name="Two")
        assert (await again).dependant == added if has_key else await refusal_of(again) == "DE_505"
        assert len((await list_family(gateway, state)).dependants) == 3

    async def test_does_not_say_that_the_family_is_full_when_identity_is_away(
        self, gateway: Any, state: UserState, fake_identity: Any
    ) -> None:
        fake_identity.states[state.user_id].max_dependants = 1
        await create(gateway, state)
        await remembered(gateway, state, fake_identity)

        fake_identity.is_away = True

        assert await refusal_of(create(gateway, state, first_name="Two")) == "RQ_111"

    async def test_waits_for_self(self, gateway: Any, fake_identity: Any) -> None:
        known = gateway.state()
        fake_identity.states[known.user_id] = known

        assert await refusal_of(create(gateway, known)) == "RQ_111"

    async def test_refuses_operators_change_for_user_who_is_not_active(
        self, gateway: Any, state: UserState, fake_identity: Any
    ) -> None:
        fake_identity.states[state.user_id].status = UserStatus.USER_STATUS_DEACTIVATED

        assert await refusal_of(create(gateway, state, gateway.admin)) == "US_404"

    async def test_tells_field_of_a_broken_rule(self, gateway: Any, state: UserState) -> None:
        assert await refusal_of(create(gateway, state, date_of_birth="2999-01-01")) == "DE_502"


async def remembered(gateway: Any, state: UserState, fake_identity: Any) -> None:
    """Wait until the process remembers what identity says of a user."""
    for _ in range(250):
        asked = len(fake_identity.asked)
        await list_family(gateway, state, gateway.admin)
        if state.user_id not in fake_identity.asked[asked:]:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("identity is asked every time")


class TestUserOfPath:
    async def test_is_unknown(self, gateway: Any) -> None:
        nobody = gateway.state()

        assert await refusal_of(list_family(gateway, nobody, gateway.admin)) == "US_401"
        assert await refusal_of(create(gateway, nobody, gateway.admin)) == "US_401"
        assert await refusal_of(get(gateway, nobody, nobody.user_id, gateway.admin)) == "US_401"

    async def test_is_unknown_to_others(self, gateway: Any, state: UserState) -> None:
        neighbour = gateway.user(gateway.state())

        assert await refusal_of(list_family(gateway, state, neighbour)) == "US_401"
        assert await refusal_of(list_family(gateway, state, gateway.partner_elsewhere)) == "US_401"

    async def test_is_not_asked_about_when_it_is_the_caller(
        self, gateway: Any, state: UserState, fake_identity: Any
    ) -> None:
        added = (await create(gateway, state)).dependant
        fake_identity.is_away = True

        assert (await get(gateway, state, added.id)).dependant == added

    async def test_is_waited_for_briefly(self, gateway: Any, state: UserState, fake_identity: Any) -> None:
        fake_identity.delay_s = 10
        began = time.monotonic()

        assert await refusal_of(create(gateway, state)) == "RQ_111"
        assert time.monotonic() - began < 4

    async def test_needs_identity(self, gateway: Any, state: UserState, fake_identity: Any) -> None:
        fake_identity.is_away = True

        assert await refusal_of(create(gateway, state)) == "RQ_111"
        assert await refusal_of(list_family(gateway, state, gateway.admin)) == "RQ_111"


class TestBatchGetDependants:
    async def test_answers_each_in_its_newest_version(self, gateway: Any, state: UserState) -> None:
        first = (await create(gateway, state)).dependant
        second = (await create(gateway, state, first_name="Two")).dependant
        second = (await update(gateway, second, first_name="Three")).dependant
        wanted = [(state.user_id, first.id), (state.user_id, second.id), (state.user_id, str(uuid4()))]

        answer = await get_each(gateway, gateway.user(state), wanted)

        assert sorted(answer.dependants, key=lambda each: each.id) == sorted((first, second), key=lambda each: each.id)

    async def test_knows_nobody_of_another_family_or_platform(
        self, gateway: Any, state: UserState, fake_identity: Any
    ) -> None:
        added = (await create(gateway, state)).dependant
        stranger = gateway.state()
        wanted = [(stranger.user_id, added.id)]

        assert (await get_each(gateway, gateway.user(state), wanted)).dependants == []
        elsewhere = replace(gateway.user(state).caller, platform_id=gateway.partner_elsewhere.caller.platform_id)
        call = replace(gateway.user(state), caller=elsewhere)
        assert (await get_each(gateway, call, [(state.user_id, added.id)])).dependants == []

    async def test_is_for_users_alone(self, gateway: Any, state: UserState) -> None:
        added = (await create(gateway, state)).dependant

        assert await refusal_of(get_each(gateway, gateway.admin, [(state.user_id, added.id)])) == "DE_501"


class TestBatchListDependants:
    async def test_answers_families_as_each_alone(self, gateway: Any, state: UserState) -> None:
        await create(gateway, state)
        gone = (await create(gateway, state, first_name="Two")).dependant
        await delete(gateway, gone)
        stranger = gateway.state()
        request = pb.BatchListDependantsRequest(user_ids=[stranger.user_id, state.user_id])

        answer = await gateway.dependants.BatchListDependants(request, metadata=gateway.asking(gateway.user(state)))

        assert list(answer.dependants) == list((await list_family(gateway, state)).dependants)
        assert len(answer.dependants) == 2

    async def test_is_for_users_alone(self, gateway: Any, state: UserState) -> None:
        request = pb.BatchListDependantsRequest(user_ids=[state.user_id])
        answer = gateway.dependants.BatchListDependants(request, metadata=gateway.asking(gateway.admin))
        assert await refusal_of(answer) == "DE_501"


class TestListDependants:
    async def test_pages(self, gateway: Any, state: UserState) -> None:
        added = [(await create(gateway, state, first_name=f"Child {n}")).dependant.id for n in range(3)]

        first = await list_family(gateway, state, page_size=2)
        second = await list_family(gateway, state, page_size=50, page_token=first.next_page_token)

        assert [one.id for one in (*first.dependants, *second.dependants)][:3] == added[::-1]
        assert (len(second.dependants), second.next_page_token) == (2, "")

    async def test_refuses_token_of_another_list(self, gateway: Any, state: UserState) -> None:
        await create(gateway, state)
        token = (await list_family(gateway, state, page_size=1)).next_page_token

        for other in ({"include_removed": True}, {"page_token": token[:-4] + "AAAA"}):
            asked = {"page_token": token, **other}
            assert await refusal_of(list_family(gateway, state, **asked)) == "RQ_113"
        assert await refusal_of(list_family(gateway, state, gateway.admin, page_token=token)) == "RQ_113"

    async def test_shows_family_as_it_was(self, gateway: Any, state: UserState) -> None:
        added = (await create(gateway, state)).dependant
        await create(gateway, state, first_name="Later")

        family = (await list_family(gateway, state, as_of=added.created_at)).dependants

        assert family[0] == added
        assert len(family) == 2


class TestListDependantVersions:
    async def test_pages_through_history(self, gateway: Any, state: UserState) -> None:
        added = (await create(gateway, state)).dependant
        for name in ("One", "Two"):
            await update(gateway, added, first_name=name)

        first = await versions(gateway, added, page_size=2)
        second = await versions(gateway, added, page_size=2, page_token=first.next_page_token)

        assert [one.version for one in (*first.dependants, *second.dependants)] == [3, 2, 1]
        assert second.next_page_token == ""

    async def test_refuses_unknown(self, gateway: Any, state: UserState) -> None:
        nobody = Dependant(id=state.user_id, user_id=state.user_id, platform_id=state.platform_id)

        assert await refusal_of(versions(gateway, nobody, page_size=2)) == "DE_501"


class TestUpdateDependant:
    async def test_changes_and_clears(self, gateway: Any, state: UserState) -> None:
        added = (await create(gateway, state)).dependant

        changed = (await update(gateway, added, 1, first_name="Mina", last_name=None)).dependant

        assert (changed.version, changed.first_name, changed.HasField("last_name")) == (2, "Mina", False)
        assert await refusal_of(update(gateway, added, 1, first_name="Late")) == "RQ_110"

    async def test_refuses_to_remove(self, gateway: Any, state: UserState) -> None:
        added = (await create(gateway, state)).dependant

        assert await refusal_of(update(gateway, added, status=DependantStatus.DEPENDANT_STATUS_REMOVED)) == "DE_502"


class TestDeleteDependant:
    async def test_removes_once(self, gateway: Any, state: UserState) -> None:
        added = (await create(gateway, state)).dependant

        await delete(gateway, added, 1)

        shown = (await get(gateway, state, added.id)).dependant
        assert (shown.version, shown.status) == (2, DependantStatus.DEPENDANT_STATUS_REMOVED)
        assert await refusal_of(delete(gateway, added)) == "DE_506"
        assert added.id not in [one.id for one in (await list_family(gateway, state)).dependants]


def update(gateway: Any, dependant: Dependant, expected_version: int | None = None, **fields: Any) -> Any:
    request = pb.UpdateDependantRequest(
        user_id=dependant.user_id,
        dependant_id=dependant.id,
        dependant=Dependant(**{name: value for name, value in fields.items() if value is not None}),
        update_mask=FieldMask(paths=list(fields)),
        expected_version=expected_version,
    )
    return gateway.dependants.UpdateDependant(request, metadata=gateway.asking(gateway.user(dependant)))


def delete(gateway: Any, dependant: Dependant, expected_version: int | None = None) -> Any:
    request = pb.DeleteDependantRequest(
        user_id=dependant.user_id, dependant_id=dependant.id, expected_version=expected_version
    )
    return gateway.dependants.DeleteDependant(request, metadata=gateway.asking(gateway.user(dependant)))


def versions(gateway: Any, dependant: Dependant, **asked: Any) -> Any:
    request = pb.ListDependantVersionsRequest(user_id=dependant.user_id, dependant_id=dependant.id, **asked)
    return gateway.dependants.ListDependantVersions(request, metadata=gateway.asking(gateway.user(dependant)))
