"""The rules about platforms and their keys, on a real database."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from aarokya.identity.v1.api_key_pb2 import ApiKey, ApiKeyStatus
from aarokya.identity.v1.platform_pb2 import PlatformStatus
from aarokya.identity.v1.user_pb2 import User
from identity.auth.errors import PlatformNotActive
from identity.platforms.errors import (
    ApiKeySecretTaken,
    ApiKeyUnknown,
    PlatformArchived,
    PlatformHasUsers,
    PlatformNameTaken,
    PlatformRuleBroken,
    PlatformUnknown,
)
from servicekit.errors import VersionMismatch

ACTIVE = PlatformStatus.PLATFORM_STATUS_ACTIVE
SUSPENDED = PlatformStatus.PLATFORM_STATUS_SUSPENDED
ARCHIVED = PlatformStatus.PLATFORM_STATUS_ARCHIVED
ALWAYS_REQUIRED = ["first_name", "gender", "date_of_birth"]
SECRET = "the old server's secret, brought along"


def after(seconds: float) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
    return moment


def fields_of(refused: pytest.ExceptionInfo[Any]) -> list[str]:
    return [detail.field for detail in refused.value.details]


class TestCreatePlatform:
    async def test_answers_all_fields_with_their_defaults(self, rules: Any) -> None:
        platform = await rules.add_platform(name="Namma Rides")

        assert platform.name == "Namma Rides"
        assert platform.default_phone_country_code == "+91"
        assert platform.token_ttl_seconds == 3600
        assert platform.min_user_age == 18
        assert platform.required_profile_fields == ALWAYS_REQUIRED
        assert platform.max_dependants == 8
        assert platform.status == ACTIVE
        assert platform.version == 1
        assert platform.created_at == platform.updated_at
        assert not platform.HasField("status_reason")
        assert UUID(platform.id).version == 7
        assert await rules.find_platform(platform.id) == platform

    async def test_takes_what_the_operator_names(self, rules: Any) -> None:
        wanted = {
            "id": str(uuid4()),
            "default_phone_country_code": "+44",
            "token_ttl_seconds": 300,
            "min_user_age": 0,
            "max_dependants": 0,
            "contact_email": "ops@rides.example",
            "metadata": '{"tier":1.0}',
        }
        platform = await rules.add_platform(**wanted)

        assert {name: getattr(platform, name) for name in wanted} == wanted
        assert await rules.find_platform(platform.id) == platform

    async def test_brings_the_country_code_to_its_one_form(self, rules: Any) -> None:
        assert (await rules.add_platform(default_phone_country_code="91")).default_phone_country_code == "+91"

    @pytest.mark.parametrize("field", ["id_proof", "id_proof_type", "last_name", "pincode", "metadata"])
    async def test_adds_required_fields_to_those_that_always_are(self, rules: Any, field: str) -> None:
        platform = await rules.add_platform(required_profile_fields=[field, "gender", field])
        assert platform.required_profile_fields == [*ALWAYS_REQUIRED, field]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("required_profile_fields", ["shoe_size"]),
            ("required_profile_fields", ["status"]),
            ("required_profile_fields", ["id_proof_masked"]),
            ("default_phone_country_code", "+999"),
            ("default_phone_country_code", "0091"),
            ("default_phone_country_code", "IN"),
            ("contact_email", "ops"),
        ],
    )
    async def test_refuses_broken_rules(self, rules: Any, field: str, value: object) -> None:
        with pytest.raises(PlatformRuleBroken) as refused:
            await rules.add_platform(**{field: value})
        assert fields_of(refused) == [field]

    async def test_names_all_broken_rules_at_once(self, rules: Any) -> None:
        with pytest.raises(PlatformRuleBroken) as refused:
            await rules.add_platform(contact_email="ops", default_phone_country_code="x", required_profile_fields=["x"])
        assert len(fields_of(refused)) == 3

    @pytest.mark.parametrize(
        ("first", "second"), [("Rides of {}", "rIDES oF {}"), ("Straße {}", "STRASSE {}"), ("ﬁrst {}", "First {}")]
    )
    async def test_refuses_a_taken_name_in_any_spelling(self, rules: Any, first: str, second: str) -> None:
        unique = str(uuid4())
        await rules.add_platform(name=first.format(unique))
        with pytest.raises(PlatformNameTaken):
            await rules.add_platform(name=second.format(unique))

    async def test_refuses_a_taken_id(self, rules: Any) -> None:
        platform = await rules.add_platform()
        with pytest.raises(PlatformNameTaken):
            await rules.add_platform(id=platform.id)

    async def test_refuses_an_id_that_is_a_users(self, rules: Any) -> None:
        user = await rules.add_user(await rules.add_platform())
        with pytest.raises(PlatformNameTaken):
            await rules.add_platform(id=user.id)
        await rules.deactivate(user)
        await rules.erase(user)
        with pytest.raises(PlatformNameTaken):
            await rules.add_platform(id=user.id)

    async def test_writes_settings_but_no_contact_into_history(self, rules: Any) -> None:
        platform = await rules.add_platform(contact_email="ops@rides.example")

        [row] = await rules.history(platform.id)
        assert (row.action, row.entity_type, row.platform_id) == ("platform.create", "platform", platform.id)
        assert (row.actor.id, row.request_id, row.source_address) == ("asha", "r-1", "192.0.2.7")
        assert '"max_dependants": [null, 8]' in row.changes
        assert '"contact_email": null' in row.changes


class TestGetPlatform:
    async def test_refuses_an_unknown_id(self, rules: Any) -> None:
        with pytest.raises(PlatformUnknown):
            await rules.find_platform(str(uuid4()))


class TestUpdatePlatform:
    async def test_changes_what_is_named_and_nothing_else(self, rules: Any) -> None:
        before = await rules.add_platform(contact_email="ops@rides.example", metadata="{}")
        platform = await rules.update_platform(before.id, token_ttl_seconds=600)

        assert platform.token_ttl_seconds == 600
        assert platform.version == 2
        assert platform.updated_at.ToDatetime() > before.updated_at.ToDatetime()
        assert platform.contact_email == "ops@rides.example"
        assert await rules.find_platform(platform.id) == platform
        row = (await rules.history(platform.id))[-1]
        assert (row.action, row.changes) == ("platform.update", '{"token_ttl_seconds": [3600, 600]}')

    async def test_clears_what_is_null(self, rules: Any) -> None:
        before = await rules.add_platform(contact_email="ops@rides.example", metadata="{}")
        platform = await rules.update_platform(before.id, contact_email=None)
        assert not platform.HasField("contact_email")
        assert platform.metadata == "{}"

    async def test_never_lets_go_of_what_is_always_required(self, rules: Any) -> None:
        before = await rules.add_platform(required_profile_fields=["city"])
        platform = await rules.update_platform(before.id, required_profile_fields=[])
        assert platform.required_profile_fields == ALWAYS_REQUIRED

    @pytest.mark.parametrize(
        "same", [{}, {"max_dependants": 8}, {"default_phone_country_code": "91"}, {"required_profile_fields": []}]
    )
    async def test_leaves_no_trace_of_a_change_that_changes_nothing(self, rules: Any, same: dict[str, Any]) -> None:
        before = await rules.add_platform()
        assert await rules.update_platform(before.id, **same) == before
        assert len(await rules.history(before.id)) == 1

    async def test_accepts_its_own_name_in_another_letter_case(self, rules: Any) -> None:
        before = await rules.add_platform()
        assert (await rules.update_platform(before.id, name=before.name.upper())).name == before.name.upper()

    async def test_refuses_another_platforms_name(self, rules: Any) -> None:
        other, platform = await rules.add_platform(), await rules.add_platform()
        with pytest.raises(PlatformNameTaken):
            await rules.update_platform(platform.id, name=other.name)

    async def test_refuses_broken_rules(self, rules: Any) -> None:
        platform = await rules.add_platform()
        with pytest.raises(PlatformRuleBroken):
            await rules.update_platform(platform.id, contact_email="ops")

    async def test_refuses_another_version_first(self, rules: Any) -> None:
        platform = await rules.add_platform()
        await rules.archive_platform(platform.id)
        with pytest.raises(VersionMismatch):
            await rules.update_platform(platform.id, 1, contact_email="ops")
        with pytest.raises(PlatformArchived):
            await rules.update_platform(platform.id, 2, contact_email="ops")

    async def test_loses_no_update_of_two_at_once(self, rules: Any) -> None:
        platform = await rules.add_platform()
        await asyncio.gather(
            rules.update_platform(platform.id, max_dependants=3), rules.update_platform(platform.id, min_user_age=21)
        )
        platform = await rules.find_platform(platform.id)
        assert (platform.max_dependants, platform.min_user_age, platform.version) == (3, 21, 3)


class TestArchivePlatform:
    async def test_archives_and_keeps_the_name(self, rules: Any) -> None:
        platform = await rules.add_platform()
        await rules.archive_platform(platform.id)

        archived = await rules.find_platform(platform.id)
        assert (archived.status, archived.version) == (ARCHIVED, 2)
        assert (await rules.history(platform.id))[-1].action == "platform.archive"
        with pytest.raises(PlatformNameTaken):
            await rules.add_platform(name=platform.name)

    async def test_changes_nothing_once_more(self, rules: Any) -> None:
        platform = await rules.add_platform()
        await rules.archive_platform(platform.id, 1)
        await rules.archive_platform(platform.id)
        assert (await rules.find_platform(platform.id)).version == 2
        assert len(await rules.history(platform.id)) == 2
        with pytest.raises(VersionMismatch):
            await rules.archive_platform(platform.id, 1)

    async def test_refuses_while_there_are_users(self, rules: Any) -> None:
        platform = await rules.add_platform()
        onboarding, active = await rules.add_user(platform), await rules.add_active_user(platform)
        for user in (onboarding, active):
            with pytest.raises(PlatformHasUsers):
                await rules.archive_platform(platform.id)
            await rules.deactivate(user)
        await rules.archive_platform(platform.id)

    async def test_refuses_another_version_first(self, rules: Any) -> None:
        platform = await rules.add_platform()
        await rules.add_user(platform)
        with pytest.raises(VersionMismatch):
            await rules.archive_platform(platform.id, 7)

    async def test_waits_for_a_user_who_is_just_being_created(self, rules: Any) -> None:
        platform = await rules.add_platform()
        async with rules.database.transaction(rules.partner_of(platform)) as tx:
            assert await rules.platforms.hold_active(tx, UUID(platform.id))
            archiving = asyncio.ensure_future(rules.archive_platform(platform.id))
            await rules.wait_until_blocked()
            await rules.auth.issue_token(tx, UUID(platform.id), rules.new_number(), "", User())
        with pytest.raises(PlatformHasUsers):
            await archiving

    async def test_leaves_no_room_for_a_new_user(self, rules: Any) -> None:
        platform = await rules.add_platform()
        async with rules.as_admin() as tx:
            await rules.platforms.archive_platform(tx, UUID(platform.id), None)
            creating = asyncio.ensure_future(rules.issue_token(platform, rules.new_number()))
            await rules.wait_until_blocked()
        with pytest.raises(PlatformNotActive):
            await creating

    @pytest.mark.parametrize("is_new", [True, False])
    async def test_leaves_no_room_for_a_new_secret(self, rules: Any, is_new: bool) -> None:
        platform = await rules.add_platform()
        key = await rules.add_key(platform)

        async def issue() -> None:
            async with rules.as_admin() as tx:
                if is_new:
                    await rules.keys.create_key(tx, UUID(platform.id), ApiKey(name="another"))
                else:
                    await rules.keys.rotate_key(tx, UUID(platform.id), UUID(key.id), timedelta())

        async with rules.as_admin() as tx:
            await rules.platforms.archive_platform(tx, UUID(platform.id), None)
            issuing = asyncio.ensure_future(issue())
            async with asyncio.timeout(10):
                await rules.wait_until_blocked()
        with pytest.raises(PlatformArchived):
            await issuing


class TestSetStatus:
    async def test_has_its_turn_however_many_sign_up(self, rules: Any) -> None:
        platform = await rules.add_platform()
        stop = asyncio.Event()

        async def sign_up() -> None:
            while not stop.is_set():
                async with rules.database.transaction(rules.partner_of(platform)) as tx:
                    if not await rules.platforms.hold_active(tx, UUID(platform.id)):
                        return
                    await asyncio.sleep(0.1)

        signing_up = []
        for _ in range(4):
            signing_up.append(asyncio.create_task(sign_up()))
            await asyncio.sleep(0.025)
        try:
            # Shorter than the database lets anybody wait.
            async with asyncio.timeout(2):
                await rules.set_platform_status(platform.id, SUSPENDED, "Unpaid.")
        finally:
            stop.set()
            await asyncio.gather(*signing_up)

    async def test_suspends_and_activates_with_a_sealed_reason(self, rules: Any) -> None:
        platform = await rules.add_platform()
        suspended = await rules.set_platform_status(platform.id, SUSPENDED, "Unpaid, says Asha.")
        assert (suspended.status, suspended.status_reason) == (SUSPENDED, "Unpaid, says Asha.")
        assert suspended.version == 2
        activated = await rules.set_platform_status(platform.id, ACTIVE, "Paid.")
        assert (activated.status, activated.status_reason, activated.version) == (ACTIVE, "Paid.", 3)

        _, suspension, activation = await rules.history(platform.id)
        assert (suspension.action, suspension.reason) == ("platform.suspend", "Unpaid, says Asha.")
        assert suspension.changes == '{"status": ["active", "suspended"], "status_reason": null}'
        assert (activation.action, activation.reason) == ("platform.activate", "Paid.")
        with rules.superuser() as connection:
            rows = connection.execute(
                "SELECT row(p)::text FROM platforms p UNION ALL SELECT row(a)::text FROM audit_log a"
            )
            assert not any("Unpaid" in text or b"Unpaid".hex() in text for (text,) in rows)

    async def test_changes_nothing_when_it_is_so_already(self, rules: Any) -> None:
        platform = await rules.add_platform()
        assert await rules.set_platform_status(platform.id, ACTIVE) == platform
        assert len(await rules.history(platform.id)) == 1

    @pytest.mark.parametrize("status", [ACTIVE, SUSPENDED])
    async def test_refuses_an_archived_platform(self, rules: Any, status: Any) -> None:
        platform = await rules.add_platform()
        await rules.archive_platform(platform.id)
        with pytest.raises(PlatformArchived):
            await rules.set_platform_status(platform.id, status)

    async def test_archives_a_suspended_platform(self, rules: Any) -> None:
        platform = await rules.add_platform()
        await rules.set_platform_status(platform.id, SUSPENDED)
        await rules.archive_platform(platform.id)
        archived = await rules.find_platform(platform.id)
        assert archived.status == ARCHIVED
        assert not archived.HasField("status_reason")


class TestCreateKey:
    async def test_answers_a_secret_that_is_stored_as_a_hash_only(self, rules: Any) -> None:
        platform = await rules.add_platform()
        key = await rules.add_key(platform)

        assert re.fullmatch(f"ark_{key.id}_[0-9A-Za-z]{{43}}", key.secret)
        assert key.secret.startswith(key.prefix)
        assert (key.name, key.platform_id, key.status) == ("server", platform.id, ApiKeyStatus.API_KEY_STATUS_ACTIVE)
        assert not key.HasField("expires_at")
        assert not key.HasField("last_used_at")
        assert await rules.status_of_secret(key.secret) == ApiKeyStatus.API_KEY_STATUS_ACTIVE
        assert await rules.status_of_secret(key.secret[:-1]) is None
        random = key.secret.rpartition("_")[2]
        with rules.superuser() as connection:
            for table in ("api_keys", "api_key_secrets", "audit_log"):
                rows = connection.execute(f"SELECT row(t)::text FROM {table} t").fetchall()  # type: ignore[call-overload]
                assert not any(random in text or random.encode().hex() in text for (text,) in rows)
        [row] = await rules.history(key.id)
        assert (row.action, row.platform_id) == ("api_key.create", platform.id)
        assert row.changes == '{"name": [null, "server"], "secret": null}'

    async def test_takes_a_secret_that_is_brought_and_never_answers_it(self, rules: Any) -> None:
        platform, secret = await rules.add_platform(), f"{SECRET} {uuid4()}"
        key = await rules.add_key(platform, secret=secret)
        assert not key.HasField("secret")
        assert key.prefix == "(brought)"
        assert await rules.status_of_secret(secret) == ApiKeyStatus.API_KEY_STATUS_ACTIVE

    async def test_refuses_a_secret_that_no_header_could_carry(self, rules: Any) -> None:
        with pytest.raises(PlatformRuleBroken) as refused:
            await rules.add_key(await rules.add_platform(), secret="ऑटो" * 20)
        for secret in (f" {'s' * 40}", f"{'s' * 40} "):
            with pytest.raises(PlatformRuleBroken):
                await rules.add_key(await rules.add_platform(), secret=secret)
        assert fields_of(refused) == ["secret"]

    async def test_refuses_a_secret_that_is_in_use(self, rules: Any) -> None:
        secret = f"{SECRET} {uuid4()}"
        await rules.add_key(await rules.add_platform(), secret=secret)
        with pytest.raises(ApiKeySecretTaken):
            await rules.add_key(await rules.add_platform(), secret=secret)

    async def test_refuses_an_expiry_that_is_over(self, rules: Any) -> None:
        with pytest.raises(PlatformRuleBroken) as refused:
            await rules.add_key(await rules.add_platform(), expires_at=after(-1))
        assert fields_of(refused) == ["expires_at"]

    async def test_lives_until_its_expiry(self, rules: Any) -> None:
        platform, expiry = await rules.add_platform(), after(3600)
        key = await rules.add_key(platform, expires_at=expiry)
        assert key.expires_at == expiry
        rules.let_expire(key.id)
        assert await rules.status_of_secret(key.secret) == ApiKeyStatus.API_KEY_STATUS_EXPIRED

    async def test_serves_a_suspended_platform_but_no_archived_one(self, rules: Any) -> None:
        platform = await rules.add_platform()
        await rules.set_platform_status(platform.id, SUSPENDED)
        await rules.add_key(platform)
        await rules.archive_platform(platform.id)
        with pytest.raises(PlatformArchived):
            await rules.add_key(platform)

    async def test_refuses_an_unknown_platform(self, rules: Any) -> None:
        platform = await rules.add_platform()
        platform.id = str(uuid4())
        with pytest.raises(PlatformUnknown):
            await rules.add_key(platform)


class TestRotateKey:
    async def rotate(self, rules: Any, platform_id: str, key_id: str, overlap_seconds: int = 0) -> Any:
        async with rules.as_admin() as tx:
            return await rules.keys.rotate_key(tx, UUID(platform_id), UUID(key_id), timedelta(seconds=overlap_seconds))

    async def test_lets_the_old_secret_live_for_the_overlap(self, rules: Any) -> None:
        platform = await rules.add_platform()
        old = await rules.add_key(platform)
        new = await self.rotate(rules, platform.id, old.id, 600)

        assert new.id == old.id
        assert new.secret != old.secret
        assert await rules.status_of_secret(new.secret) == ApiKeyStatus.API_KEY_STATUS_ACTIVE
        assert await rules.status_of_secret(old.secret) == ApiKeyStatus.API_KEY_STATUS_ACTIVE
        rules.let_overlap_end(old.id)
        assert await rules.status_of_secret(old.secret) == ApiKeyStatus.API_KEY_STATUS_EXPIRED
        assert await rules.status_of_secret(new.secret) == ApiKeyStatus.API_KEY_STATUS_ACTIVE
        row = (await rules.history(old.id))[-1]
        assert (row.action, row.changes) == ("api_key.rotate", '{"secret": null, "overlap_seconds": [null, 600]}')

    async def test_ends_the_old_secret_at_once_without_overlap(self, rules: Any) -> None:
        platform = await rules.add_platform()
        old = await rules.add_key(platform)
        new = await self.rotate(rules, platform.id, old.id)
        assert await rules.status_of_secret(old.secret) == ApiKeyStatus.API_KEY_STATUS_EXPIRED
        assert await rules.status_of_secret(new.secret) == ApiKeyStatus.API_KEY_STATUS_ACTIVE

    async def test_never_lengthens_an_earlier_overlap(self, rules: Any) -> None:
        platform = await rules.add_platform()
        first = await rules.add_key(platform)
        second = await self.rotate(rules, platform.id, first.id)
        await self.rotate(rules, platform.id, first.id, 600)
        assert await rules.status_of_secret(first.secret) == ApiKeyStatus.API_KEY_STATUS_EXPIRED
        assert await rules.status_of_secret(second.secret) == ApiKeyStatus.API_KEY_STATUS_ACTIVE

    async def test_keeps_the_keys_own_expiry(self, rules: Any) -> None:
        platform = await rules.add_platform()
        key = await rules.add_key(platform, expires_at=after(3600))
        new = await self.rotate(rules, platform.id, key.id, 600)
        assert new.expires_at == key.expires_at
        rules.let_expire(key.id)
        assert await rules.status_of_secret(new.secret) == ApiKeyStatus.API_KEY_STATUS_EXPIRED

    async def test_replaces_a_secret_that_was_brought(self, rules: Any) -> None:
        platform, secret = await rules.add_platform(), f"{SECRET} {uuid4()}"
        key = await rules.add_key(platform, secret=secret)
        new = await self.rotate(rules, platform.id, key.id)
        assert new.secret.startswith(f"ark_{key.id}_")
        assert new.prefix == f"ark_{key.id}"
        assert await rules.status_of_secret(secret) == ApiKeyStatus.API_KEY_STATUS_EXPIRED

    async def test_refuses_what_is_not_there_before_what_is_not_allowed(self, rules: Any) -> None:
        platform, other = await rules.add_platform(), await rules.add_platform()
        key = await rules.add_key(platform)
        with pytest.raises(ApiKeyUnknown):
            await self.rotate(rules, other.id, key.id)
        await rules.archive_platform(platform.id)
        with pytest.raises(PlatformUnknown):
            await self.rotate(rules, str(uuid4()), key.id)
        with pytest.raises(ApiKeyUnknown):
            await self.rotate(rules, platform.id, str(uuid4()))
        with pytest.raises(PlatformArchived):
            await self.rotate(rules, platform.id, key.id)

    async def test_refuses_a_revoked_key(self, rules: Any) -> None:
        platform = await rules.add_platform()
        key = await rules.add_key(platform)
        async with rules.as_admin() as tx:
            await rules.keys.revoke_key(tx, UUID(platform.id), UUID(key.id))
        with pytest.raises(ApiKeyUnknown):
            await self.rotate(rules, platform.id, key.id)


class TestRevokeKey:
    async def revoke(self, rules: Any, platform_id: str, key_id: str) -> None:
        async with rules.as_admin() as tx:
            await rules.keys.revoke_key(tx, UUID(platform_id), UUID(key_id))

    async def test_stops_all_the_keys_secrets(self, rules: Any) -> None:
        platform = await rules.add_platform()
        old = await rules.add_key(platform)
        async with rules.as_admin() as tx:
            new = await rules.keys.rotate_key(tx, UUID(platform.id), UUID(old.id), timedelta(seconds=600))
        await self.revoke(rules, platform.id, old.id)
        assert await rules.status_of_secret(old.secret) == ApiKeyStatus.API_KEY_STATUS_REVOKED
        assert await rules.status_of_secret(new.secret) == ApiKeyStatus.API_KEY_STATUS_REVOKED

    async def test_changes_nothing_once_more_also_when_archived(self, rules: Any) -> None:
        platform = await rules.add_platform()
        key = await rules.add_key(platform)
        await self.revoke(rules, platform.id, key.id)
        await self.revoke(rules, platform.id, key.id)
        await rules.archive_platform(platform.id)
        await self.revoke(rules, platform.id, key.id)
        assert [row.action for row in await rules.history(key.id)] == ["api_key.create", "api_key.revoke"]

    async def test_says_in_history_that_the_key_was_expired(self, rules: Any) -> None:
        platform = await rules.add_platform()
        key = await rules.add_key(platform, expires_at=after(3600))
        rules.let_expire(key.id)
        await self.revoke(rules, platform.id, key.id)
        assert (await rules.history(key.id))[-1].changes == '{"status": ["expired", "revoked"]}'

    async def test_refuses_an_archived_platform(self, rules: Any) -> None:
        platform = await rules.add_platform()
        key = await rules.add_key(platform)
        await rules.archive_platform(platform.id)
        with pytest.raises(PlatformArchived):
            await self.revoke(rules, platform.id, key.id)

    async def test_refuses_unknown_keys_and_platforms(self, rules: Any) -> None:
        platform, other = await rules.add_platform(), await rules.add_platform()
        key = await rules.add_key(platform)
        with pytest.raises(PlatformUnknown):
            await self.revoke(rules, str(uuid4()), key.id)
        with pytest.raises(ApiKeyUnknown):
            await self.revoke(rules, other.id, key.id)
