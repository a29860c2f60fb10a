"""PlatformService as the gateway calls it: what is repeated, what pages hold, what never comes back."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from aarokya.identity.v1 import platform_service_pb2 as pb
from aarokya.identity.v1.api_key_pb2 import ApiKey, ApiKeyStatus
from aarokya.identity.v1.platform_pb2 import Platform, PlatformStatus
from tests.database_server import waits_for_standby, without_standby


class TestCreatePlatform:
    async def test_happens_once_for_one_key(self, identity: Any) -> None:
        call = identity.with_key(identity.admin)
        request = pb.CreatePlatformRequest(platform=Platform(name=f"Once {uuid4()}"))
        first = identity.platforms.CreatePlatform(request, metadata=identity.said_by(call))
        platform = (await first).platform
        assert not await identity.was_replayed(first)
        again = identity.platforms.CreatePlatform(request, metadata=identity.said_by(call))
        assert (await again).platform == platform
        assert await identity.was_replayed(again)

    async def test_waits_for_standbys_when_it_is_repeated_too(self, identity: Any, identity_database: Any) -> None:
        call = identity.with_key(identity.admin)
        request = pb.CreatePlatformRequest(platform=Platform(name=f"Once {uuid4()}"))
        await identity.platforms.CreatePlatform(request, metadata=identity.said_by(call))
        with without_standby(identity_database.superuser_dsn):
            again = identity.platforms.CreatePlatform(request, metadata=identity.said_by(call))
            assert await waits_for_standby(again)
        await identity.platforms.CreatePlatform(request, metadata=identity.said_by(call))

    async def test_is_repeated_while_somebody_else_repeats_it(self, identity: Any, identity_database: Any) -> None:
        call = identity.with_key(identity.admin)
        request = pb.CreatePlatformRequest(platform=Platform(name=f"Once {uuid4()}"))
        with identity_database.superuser() as connection:
            lock = (int.from_bytes(call.idempotency.scope[:8], signed=True),)
            connection.execute("SELECT pg_advisory_lock(%s)", lock)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await identity.platforms.CreatePlatform(request, metadata=identity.said_by(call))
            assert identity.reason_of(error.value) == "RQ_109"
            connection.execute("SELECT pg_advisory_unlock(%s)", lock)
            first = await identity.platforms.CreatePlatform(request, metadata=identity.said_by(call))
            connection.execute("SELECT pg_advisory_lock(%s)", lock)
            again = identity.platforms.CreatePlatform(request, metadata=identity.said_by(call))
            assert (await again) == first
            assert await identity.was_replayed(again)

    async def test_refuses_a_key_that_comes_back_with_another_body(self, identity: Any) -> None:
        call = identity.with_key(identity.admin)
        request = pb.CreatePlatformRequest(platform=Platform(name=f"Once {uuid4()}"))
        await identity.platforms.CreatePlatform(request, metadata=identity.said_by(call))
        other = replace(call, idempotency=replace(call.idempotency, fingerprint=bytes(32)))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await identity.platforms.CreatePlatform(request, metadata=identity.said_by(other))
        assert identity.reason_of(error.value) == "RQ_108"

    async def test_leaves_the_key_of_a_refused_call_free(self, identity: Any) -> None:
        call, name = identity.with_key(identity.admin), f"Free {uuid4()}"
        refused = pb.CreatePlatformRequest(platform=Platform(name=name, contact_email="ops"))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await identity.platforms.CreatePlatform(refused, metadata=identity.said_by(call))
        assert identity.reason_of(error.value) == "PL_302"
        request = pb.CreatePlatformRequest(platform=Platform(name=name))
        answered = identity.platforms.CreatePlatform(request, metadata=identity.said_by(call))
        assert (await answered).platform.name == name
        assert not await identity.was_replayed(answered)


class TestListPlatforms:
    async def test_pages_newest_first_without_gaps_while_rows_are_added(self, identity: Any) -> None:
        made = [(await identity.create_platform()).id for _ in range(5)]
        listed: list[str] = []
        request = pb.ListPlatformsRequest(page_size=2)
        while len(listed) < len(made):
            page = await identity.platforms.ListPlatforms(request, metadata=identity.said_by(identity.admin))
            listed += [platform.id for platform in page.platforms]
            request.page_token = page.next_page_token
            await identity.create_platform()
        assert listed[:5] == made[::-1]

    async def test_refuses_a_token_that_was_changed(self, identity: Any) -> None:
        request = pb.ListPlatformsRequest(page_size=2, page_token="bm8")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await identity.platforms.ListPlatforms(request, metadata=identity.said_by(identity.admin))
        assert identity.reason_of(error.value) == "RQ_113"


class TestUpdatePlatform:
    async def test_tells_absent_from_null(self, identity: Any) -> None:
        platform = await identity.create_platform(contact_email="ops@rides.example", metadata="{}")
        request = pb.UpdatePlatformRequest(
            platform_id=platform.id,
            platform=Platform(max_dependants=0),
            update_mask=FieldMask(paths=["contact_email", "max_dependants"]),
            expected_version=1,
        )
        answer = await identity.platforms.UpdatePlatform(request, metadata=identity.said_by(identity.admin))
        assert not answer.platform.HasField("contact_email")
        assert (answer.platform.max_dependants, answer.platform.metadata, answer.platform.version) == (0, "{}", 2)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await identity.platforms.UpdatePlatform(request, metadata=identity.said_by(identity.admin))
        assert identity.reason_of(error.value) == "RQ_110"


class TestDeletePlatform:
    async def test_archives_and_answers_the_same_once_more(self, identity: Any) -> None:
        platform = await identity.create_platform()
        for _ in range(2):
            request = pb.DeletePlatformRequest(platform_id=platform.id)
            await identity.platforms.DeletePlatform(request, metadata=identity.said_by(identity.admin))
        read = pb.GetPlatformRequest(platform_id=platform.id)
        answer = await identity.platforms.GetPlatform(read, metadata=identity.said_by(identity.admin))
        assert (answer.platform.status, answer.platform.version) == (PlatformStatus.PLATFORM_STATUS_ARCHIVED, 2)


class TestSuspendPlatform:
    async def test_suspends_and_activates(self, identity: Any) -> None:
        platform = await identity.create_platform()
        suspend = pb.SuspendPlatformRequest(platform_id=platform.id, reason="Unpaid.")
        answer = await identity.platforms.SuspendPlatform(suspend, metadata=identity.said_by(identity.admin))
        assert answer.platform.status == PlatformStatus.PLATFORM_STATUS_SUSPENDED
        activate = pb.ActivatePlatformRequest(platform_id=platform.id, reason="Paid.")
        answer = await identity.platforms.ActivatePlatform(activate, metadata=identity.said_by(identity.admin))
        assert (answer.platform.status, answer.platform.status_reason) == (
            PlatformStatus.PLATFORM_STATUS_ACTIVE,
            "Paid.",
        )


class TestCreateApiKey:
    async def test_answers_the_secret_once(self, identity: Any) -> None:
        platform = await identity.create_platform()
        metadata = identity.said_by(identity.with_key(identity.admin))
        request = pb.CreateApiKeyRequest(platform_id=platform.id, api_key=ApiKey(name="server"))
        first = (await identity.platforms.CreateApiKey(request, metadata=metadata)).api_key
        again = (await identity.platforms.CreateApiKey(request, metadata=metadata)).api_key
        assert first.HasField("secret")
        assert not again.HasField("secret")
        first.ClearField("secret")
        assert again == first


class TestListApiKeys:
    async def test_shows_no_secrets(self, identity: Any) -> None:
        platform = await identity.create_platform()
        made = [await identity.create_key(platform) for _ in range(3)]
        await identity.create_key(await identity.create_platform())
        for key in made:
            key.ClearField("secret")
        request = pb.ListApiKeysRequest(platform_id=platform.id, page_size=2)
        first = await identity.platforms.ListApiKeys(request, metadata=identity.said_by(identity.admin))
        request.page_token = first.next_page_token
        last = await identity.platforms.ListApiKeys(request, metadata=identity.said_by(identity.admin))
        assert [*first.api_keys, *last.api_keys] == made[::-1]
        assert last.next_page_token == ""

    async def test_refuses_an_unknown_platform(self, identity: Any) -> None:
        request = pb.ListApiKeysRequest(platform_id=str(uuid4()), page_size=2)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await identity.platforms.ListApiKeys(request, metadata=identity.said_by(identity.admin))
        assert identity.reason_of(error.value) == "PL_301"


class TestRotateApiKey:
    async def test_answers_the_new_secret_once_and_rotates_once(self, identity: Any) -> None:
        platform = await identity.create_platform()
        key = await identity.create_key(platform)
        metadata = identity.said_by(identity.with_key(identity.admin))
        request = pb.RotateApiKeyRequest(platform_id=platform.id, key_id=key.id, overlap_seconds=60)
        first = (await identity.platforms.RotateApiKey(request, metadata=metadata)).api_key
        again = (await identity.platforms.RotateApiKey(request, metadata=metadata)).api_key
        assert first.secret not in ("", key.secret)
        assert not again.HasField("secret")


class TestRevokeApiKey:
    async def test_answers_the_same_once_more(self, identity: Any) -> None:
        platform = await identity.create_platform()
        key = await identity.create_key(platform)
        for _ in range(2):
            request = pb.RevokeApiKeyRequest(platform_id=platform.id, key_id=key.id)
            await identity.platforms.RevokeApiKey(request, metadata=identity.said_by(identity.admin))
        listing = pb.ListApiKeysRequest(platform_id=platform.id, page_size=9)
        answer = await identity.platforms.ListApiKeys(listing, metadata=identity.said_by(identity.admin))
        assert [key.status for key in answer.api_keys] == [ApiKeyStatus.API_KEY_STATUS_REVOKED]
