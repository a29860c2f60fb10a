"""UserService as the gateway calls it: what is shown, repeated and told to records."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from aarokya.identity.v1 import user_service_pb2 as pb
from aarokya.identity.v1.user_pb2 import IdProof, IdProofType, User, UserStatus

LICENSE = IdProof(proof_type=IdProofType.ID_PROOF_TYPE_DRIVING_LICENSE, number="KA0120190001234")


async def complete(identity: Any, user: User, metadata: Any = None, **fields: Any) -> User:
    fields = {**identity.profile, **fields}
    request = pb.CompleteOnboardingRequest(user_id=user.id, user=User(**fields), update_mask=FieldMask(paths=fields))
    metadata = metadata or identity.said_by(identity.user_of(user))
    answer = await identity.users.CompleteOnboarding(request, metadata=metadata)
    completed: User = answer.user
    return completed


async def deactivate(identity: Any, user: User) -> None:
    request = pb.DeactivateUserRequest(user_id=user.id)
    await identity.users.DeactivateUser(request, metadata=identity.said_by(identity.user_of(user)))


@pytest.fixture
def records_away(records: Any) -> Iterator[Any]:
    records.is_away = True
    yield records
    records.is_away = False


class TestGetUser:
    async def test_never_shows_a_documents_number(self, identity: Any) -> None:
        user = await complete(identity, await identity.create_user(await identity.create_platform()), id_proof=LICENSE)
        request = pb.GetUserRequest(user_id=user.id)
        for call in (identity.admin, identity.user_of(user)):
            shown = (await identity.users.GetUser(request, metadata=identity.said_by(call))).user
            assert shown == user
            assert not shown.HasField("id_proof")
            assert (shown.id_proof_type, shown.id_proof_masked) == (LICENSE.proof_type, "••••1234")


class TestBatchGetUsers:
    async def test_answers_each_as_alone(self, identity: Any) -> None:
        platform = await identity.create_platform()
        users = [
            await complete(identity, await identity.create_user(platform), id_proof=LICENSE),
            await identity.create_user(platform),
        ]
        request = pb.BatchGetUsersRequest(user_ids=[*(user.id for user in users), str(uuid4())])
        metadata = identity.said_by(identity.user_of(users[0]))
        answer = await identity.users.BatchGetUsers(request, metadata=metadata)
        by_id = {user.id: user for user in answer.users}
        assert len(answer.users) == len(users)
        for user in users:
            alone = pb.GetUserRequest(user_id=user.id)
            metadata = identity.said_by(identity.user_of(user))
            assert by_id[user.id] == (await identity.users.GetUser(alone, metadata=metadata)).user

    async def test_knows_nobody_of_another_platform(self, identity: Any) -> None:
        user, stranger = [await identity.create_user(await identity.create_platform()) for _ in range(2)]
        request = pb.BatchGetUsersRequest(user_ids=[stranger.id, user.id])
        answer = await identity.users.BatchGetUsers(request, metadata=identity.said_by(identity.user_of(user)))
        assert [each.id for each in answer.users] == [user.id]

    async def test_is_for_users_alone(self, identity: Any) -> None:
        user = await identity.create_user(await identity.create_platform())
        request = pb.BatchGetUsersRequest(user_ids=[user.id])
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await identity.users.BatchGetUsers(request, metadata=identity.said_by(identity.admin))
        assert identity.reason_of(error.value) == "US_401"


class TestListUsers:
    async def test_pages_newest_first(self, identity: Any) -> None:
        platform = await identity.create_platform()
        made = [(await identity.create_user(platform)).id for _ in range(5)]
        request, listed = pb.ListUsersRequest(platform_id=platform.id, page_size=2), []
        while True:
            page = await identity.users.ListUsers(request, metadata=identity.said_by(identity.admin))
            listed += [user.id for user in page.users]
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
        assert listed == made[::-1]

    async def test_binds_a_page_to_its_filters(self, identity: Any) -> None:
        platform = await identity.create_platform()
        for _ in range(2):
            await identity.create_user(platform)
        request = pb.ListUsersRequest(platform_id=platform.id, page_size=1)
        page = await identity.users.ListUsers(request, metadata=identity.said_by(identity.admin))
        request.page_token = page.next_page_token
        request.status = UserStatus.USER_STATUS_ONBOARDING
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await identity.users.ListUsers(request, metadata=identity.said_by(identity.admin))
        assert identity.reason_of(error.value) == "RQ_113"


class TestUpdateUser:
    async def test_tells_records_before_it_answers(self, identity: Any, records: Any) -> None:
        user = await complete(identity, await identity.create_user(await identity.create_platform()))
        request = pb.UpdateUserRequest(
            user_id=user.id, user=User(first_name="Asha"), update_mask=FieldMask(paths=["first_name"])
        )
        await identity.users.UpdateUser(request, metadata=identity.said_by(identity.user_of(user)))
        assert [event.profile.first_name for event in records.events_of(user.id)] == ["Ravi", "Asha"]

    async def test_names_the_fields_that_break_rules_and_never_their_values(self, identity: Any) -> None:
        user = await identity.create_user(await identity.create_platform())
        request = pb.UpdateUserRequest(
            user_id=user.id,
            user=User(pincode="0secret", email="secret"),
            update_mask=FieldMask(paths=["email", "pincode"]),
        )
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await identity.users.UpdateUser(request, metadata=identity.said_by(identity.user_of(user)))
        assert identity.reason_of(error.value) == "US_402"
        told = str(error.value.trailing_metadata())
        assert "email" in told
        assert "pincode" in told
        assert "secret" not in told


class TestCompleteOnboarding:
    async def test_tells_records_before_it_answers_and_once(self, identity: Any, records: Any) -> None:
        user = await identity.create_user(await identity.create_platform())
        metadata = identity.said_by(identity.with_key(identity.user_of(user)))
        first = await complete(identity, user, metadata)
        assert first.status == UserStatus.USER_STATUS_ACTIVE
        [event] = records.events_of(user.id)
        assert (event.user_version, event.profile.phone_number) == (2, user.phone_number)
        assert await complete(identity, user, metadata) == first
        assert len(records.events_of(user.id)) == 1

    async def test_answers_though_records_is_away_and_tells_it_later(self, identity: Any, records_away: Any) -> None:
        user = await identity.create_user(await identity.create_platform())
        assert (await complete(identity, user)).status == UserStatus.USER_STATUS_ACTIVE
        assert records_away.events_of(user.id) == []
        records_away.is_away = False
        await records_away.wait_for(user.id)

    async def test_names_all_that_is_missing(self, identity: Any) -> None:
        user = await identity.create_user(await identity.create_platform())
        request = pb.CompleteOnboardingRequest(user_id=user.id)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await identity.users.CompleteOnboarding(request, metadata=identity.said_by(identity.user_of(user)))
        assert identity.reason_of(error.value) == "US_405"
        told = str(error.value.trailing_metadata())
        assert all(field in told for field in ("first_name", "gender", "date_of_birth"))


class TestReactivateUser:
    async def test_happens_once_for_one_key(self, identity: Any) -> None:
        user = await complete(identity, await identity.create_user(await identity.create_platform()))
        await deactivate(identity, user)
        metadata = identity.said_by(identity.with_key(identity.admin))
        request = pb.ReactivateUserRequest(user_id=user.id, reason="He came back.")
        first = await identity.users.ReactivateUser(request, metadata=metadata)
        assert first.user.status == UserStatus.USER_STATUS_ACTIVE
        assert await identity.users.ReactivateUser(request, metadata=metadata) == first
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await identity.users.ReactivateUser(request, metadata=identity.said_by(identity.admin))
        assert identity.reason_of(error.value) == "US_404"


class TestReleasePhone:
    async def test_shows_no_number_from_then_on(self, identity: Any) -> None:
        user = await identity.create_user(await identity.create_platform())
        await deactivate(identity, user)
        request = pb.ReleasePhoneRequest(user_id=user.id, reason="The SIM was recycled.")
        released = (await identity.users.ReleasePhone(request, metadata=identity.said_by(identity.admin))).user
        assert not released.HasField("phone_number")
        read = pb.GetUserRequest(user_id=user.id)
        assert (await identity.users.GetUser(read, metadata=identity.said_by(identity.admin))).user == released
        listing = pb.ListUsersRequest(platform_id=user.platform_id, page_size=9)
        listed = await identity.users.ListUsers(listing, metadata=identity.said_by(identity.admin))
        assert list(listed.users) == [released]


class TestEraseUser:
    async def test_tells_records_before_it_answers_and_repeats_its_answer(self, identity: Any, records: Any) -> None:
        user = await complete(identity, await identity.create_user(await identity.create_platform()))
        await deactivate(identity, user)
        metadata = identity.said_by(identity.with_key(identity.admin))
        request = pb.EraseUserRequest(user_id=user.id, reason="Ticket 4711.")
        erased = (await identity.users.EraseUser(request, metadata=metadata)).user
        assert erased.HasField("erased_at")
        assert not erased.HasField("first_name")
        assert [event.WhichOneof("event") for event in records.events_of(user.id)] == ["profile", "erased"]
        assert (await identity.users.EraseUser(request, metadata=metadata)).user == erased
        read = pb.GetUserRequest(user_id=user.id)
        assert (await identity.users.GetUser(read, metadata=identity.said_by(identity.admin))).user == erased
