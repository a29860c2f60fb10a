"""The rules about tokens, on a real database."""

import asyncio
import contextlib
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest

from aarokya.identity.v1.platform_pb2 import PlatformStatus
from aarokya.identity.v1.user_pb2 import Gender, IdProof, IdProofType, User, UserStatus
from identity.auth.errors import PlatformNotActive
from identity.platforms.errors import PlatformUnknown
from identity.users.errors import UserDeactivated, UserRuleBroken
from servicekit.caller import Call, Caller, CallerType

LICENSE = IdProof(proof_type=IdProofType.ID_PROOF_TYPE_DRIVING_LICENSE, number="KA0120190001234")


def read(token: str, key: str) -> dict[str, Any]:
    """Return a token's claims; its times are looked at by the tests."""
    claims: dict[str, Any] = jwt.decode(
        token, key, algorithms=["HS256"], audience="aarokya", issuer="aarokya", options={"verify_iat": False}
    )
    return claims


def fields_of(refused: pytest.ExceptionInfo[Any]) -> list[str]:
    return [detail.field for detail in refused.value.details]


class TestIssueToken:
    async def test_creates_the_user_of_a_new_number(self, rules: Any) -> None:
        platform, number = await rules.add_platform(), rules.new_number()
        issued = await rules.issue_token(platform, number, "+91")

        user = issued.stored.user
        assert issued.is_new_user
        assert (user.platform_id, user.phone_number) == (platform.id, f"+91{number}")
        assert (user.status, user.version) == (UserStatus.USER_STATUS_ONBOARDING, 1)
        assert UUID(user.id).version == 7
        assert issued.missing_fields == ["first_name", "gender", "date_of_birth"]
        assert await rules.find_user(user.id) == user
        [row] = await rules.history(user.id)
        assert (row.action, row.user_id, row.platform_id) == ("user.create", user.id, platform.id)
        assert '"phone_number": null' in row.changes
        assert number not in row.changes

    async def test_finds_an_existing_user_and_leaves_no_trace(self, rules: Any) -> None:
        platform, number = await rules.add_platform(), rules.new_number()
        first = await rules.issue_token(platform, number)
        again = await rules.issue_token(platform, number)
        assert not again.is_new_user
        assert again.stored == first.stored
        assert again.access_token != first.access_token
        assert len(await rules.history(first.stored.user.id)) == 1

    async def test_signs_with_the_first_key_for_the_platforms_lifetime(self, rules: Any) -> None:
        platform = await rules.add_platform(token_ttl_seconds=300)
        issued = await rules.issue_token(platform, rules.new_number())

        user = issued.stored.user
        assert issued.expires_in == 300
        assert jwt.get_unverified_header(issued.access_token) == {"alg": "HS256", "kid": "new", "typ": "JWT"}
        claims = read(issued.access_token, rules.jwt_key)
        assert set(claims) == {"iss", "aud", "sub", "platform_id", "status", "iat", "exp", "jti"}
        assert (claims["sub"], claims["platform_id"], claims["status"]) == (user.id, platform.id, "onboarding")
        assert claims["exp"] - claims["iat"] == 300
        assert claims["jti"].startswith("0.")

    async def test_follows_a_changed_lifetime(self, rules: Any) -> None:
        platform, number = await rules.add_platform(), rules.new_number()
        assert (await rules.issue_token(platform, number)).expires_in == 3600
        await rules.update_platform(platform.id, token_ttl_seconds=86_400)
        assert (await rules.issue_token(platform, number)).expires_in == 86_400

    async def test_says_where_the_user_stands_now(self, rules: Any) -> None:
        platform, number = await rules.add_platform(), rules.new_number()
        user = (await rules.issue_token(platform, number)).stored.user
        await rules.complete_onboarding(user, **rules.profile)
        issued = await rules.issue_token(platform, number)
        assert read(issued.access_token, rules.jwt_key)["status"] == "active"
        assert issued.missing_fields == []

    async def test_counts_deactivations_in_the_token(self, rules: Any) -> None:
        platform = await rules.add_platform()
        user = await rules.add_active_user(platform)
        await rules.deactivate(user)
        await rules.reactivate(user)
        issued = await rules.issue_token(platform, user.phone_number)
        assert read(issued.access_token, rules.jwt_key)["jti"].startswith("1.")

    async def test_takes_one_number_in_all_its_spellings_for_one_user(self, rules: Any) -> None:
        platform, number = await rules.add_platform(), rules.new_number()
        spellings = [
            (number, ""),
            (number, "91"),
            (number, "+91"),
            (f"0{number}", "+91"),
            (f"+91{number}", ""),
            (f"+91{number}", "+91"),
            # A number in E.164 wins over the code beside it.
            (f"+91{number}", "+1"),
            (f"+91 {number[:5]}-{number[5:]}", "91"),
            (f" {number[:5]}  {number[5:]} ", ""),
            (f"{number[:5]} - {number[5:]}", ""),
        ]
        users = {(await rules.issue_token(platform, *spelling)).stored.user.id for spelling in spellings}
        assert len(users) == 1

    async def test_takes_the_platforms_code_for_an_empty_one(self, rules: Any) -> None:
        platform = await rules.add_platform(default_phone_country_code="+44")
        assert (await rules.issue_token(platform, "07400 123456")).stored.user.phone_number == "+447400123456"

    @pytest.mark.parametrize(
        ("number", "code", "field"),
        [
            ("08022221111", "+91", "phone_number"),
            ("5876543210", "+91", "phone_number"),
            ("98765", "+91", "phone_number"),
            ("98765432101", "+91", "phone_number"),
            ("919876543210", "+91", "phone_number"),
            ("009876543210", "+91", "phone_number"),
            ("+919876543210;ext=4", "", "phone_number"),
            ("tel:+919876543210", "", "phone_number"),
            ("९८७६५४३२१०", "", "phone_number"),
            ("9876543210\n", "", "phone_number"),
            ("ravi", "", "phone_number"),
            ("9876543210", "+999", "phone_country_code"),
            ("+919876543210", "IN", "phone_country_code"),
        ],
    )
    async def test_refuses_what_no_mobile_has(self, rules: Any, number: str, code: str, field: str) -> None:
        with pytest.raises(UserRuleBroken) as refused:
            await rules.issue_token(await rules.add_platform(), number, code)
        assert fields_of(refused) == [field]

    async def test_fills_a_new_profile(self, rules: Any) -> None:
        platform = await rules.add_platform(required_profile_fields=["id_proof_type", "city"])
        issued = await rules.issue_token(
            platform, rules.new_number(), **rules.profile, address_line="12 MG Road", id_proof=LICENSE
        )
        user = issued.stored.user
        assert (user.first_name, user.gender, user.date_of_birth) == ("Ravi", Gender.GENDER_MALE, "1990-05-17")
        assert (user.address_line, user.id_proof) == ("12 MG Road", LICENSE)
        assert issued.missing_fields == ["city"]
        assert await rules.find_user(user.id) == user

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("date_of_birth", "2025-01-01"),
            ("id_proof", IdProof(proof_type=IdProofType.ID_PROOF_TYPE_PAN, number="KA0120190001234")),
            ("id_proof", IdProof(proof_type=IdProofType.ID_PROOF_TYPE_DRIVING_LICENSE, number="2341 2341 2346")),
        ],
    )
    async def test_ignores_what_breaks_a_rule_of_profiles(self, rules: Any, field: str, value: object) -> None:
        user = await rules.add_user(**{"first_name": "Ravi", field: value})
        assert user.first_name == "Ravi"
        assert not user.HasField(field)

    async def test_ignores_what_is_not_the_partners_to_say(self, rules: Any) -> None:
        theirs = User(id=str(uuid4()), status=UserStatus.USER_STATUS_ACTIVE, version=7, phone_number="+919000000000")
        platform, number = await rules.add_platform(), rules.new_number()
        async with rules.database.transaction(rules.partner_of(platform)) as tx:
            user = (await rules.auth.issue_token(tx, UUID(platform.id), number, "", theirs)).stored.user
        assert user.id != theirs.id
        assert (user.status, user.version) == (UserStatus.USER_STATUS_ONBOARDING, 1)
        assert user.phone_number == f"+91{number}"

    async def test_never_overwrites_a_profile(self, rules: Any) -> None:
        platform, number = await rules.add_platform(), rules.new_number()
        first = await rules.issue_token(platform, number, first_name="Ravi")
        again = await rules.issue_token(platform, number, first_name="Other", last_name="Kumar")
        assert again.stored == first.stored

    async def test_keeps_platforms_apart(self, rules: Any) -> None:
        number = rules.new_number()
        users = [(await rules.issue_token(await rules.add_platform(), number)).stored.user for _ in range(2)]
        assert users[0].id != users[1].id

    async def test_refuses_a_deactivated_user(self, rules: Any) -> None:
        platform = await rules.add_platform()
        user = await rules.add_deactivated_user(platform)
        with pytest.raises(UserDeactivated):
            await rules.issue_token(platform, user.phone_number)

    async def test_refuses_a_platform_that_is_not_active(self, rules: Any) -> None:
        platform = await rules.add_platform()
        await rules.set_platform_status(platform.id, PlatformStatus.PLATFORM_STATUS_SUSPENDED)
        with pytest.raises(PlatformNotActive):
            await rules.issue_token(platform, "no number")
        await rules.archive_platform(platform.id)
        with pytest.raises(PlatformNotActive):
            await rules.issue_token(platform, rules.new_number())

    async def test_creates_one_user_for_fifty_calls_at_once(self, rules: Any) -> None:
        platform, number = await rules.add_platform(), rules.new_number()
        with rules.superuser() as connection:
            before = connection.execute("SELECT count(*) FROM data_keys").fetchone()
            issued = await asyncio.gather(*(rules.issue_token(platform, number) for _ in range(50)))
            after = connection.execute("SELECT count(*) FROM data_keys").fetchone()
        assert len({token.stored.user.id for token in issued}) == 1
        assert sum(token.is_new_user for token in issued) == 1
        assert len(await rules.list_users(platform_id=UUID(platform.id))) == 1
        assert after == (before[0] + 1,)
        assert len(await rules.history(issued[0].stored.user.id)) == 1

    async def test_waits_for_a_call_that_has_not_committed(self, rules: Any) -> None:
        platform, number = await rules.add_platform(), rules.new_number()
        async with rules.database.transaction(rules.partner_of(platform)) as tx:
            first = await rules.auth.issue_token(tx, UUID(platform.id), number, "", User(first_name="Ravi"))
            waiting = asyncio.ensure_future(rules.issue_token(platform, number))
            await rules.wait_until_blocked()
        second = await waiting
        assert not second.is_new_user
        assert second.stored == first.stored

    async def test_creates_the_user_when_the_call_before_failed(self, rules: Any) -> None:
        platform, number = await rules.add_platform(), rules.new_number()
        with contextlib.suppress(ConnectionError):
            async with rules.database.transaction(rules.partner_of(platform)) as tx:
                await rules.auth.issue_token(tx, UUID(platform.id), number, "", User())
                waiting = asyncio.ensure_future(rules.issue_token(platform, number))
                await rules.wait_until_blocked()
                raise ConnectionError
        assert (await waiting).is_new_user

    async def test_yields_to_an_operator_who_gives_the_number_away(self, rules: Any) -> None:
        platform, number = await rules.add_platform(), rules.new_number()
        user = await rules.add_user(platform)
        async with rules.as_admin() as tx:
            wanted = User(phone_number=f"+91{number}")
            changed = await rules.users.update_user(tx, UUID(user.id), wanted, ["phone_number"], None)
            waiting = asyncio.ensure_future(rules.issue_token(platform, number))
            await rules.wait_until_blocked()
        issued = await waiting
        assert not issued.is_new_user
        assert issued.stored.user == changed.user

    async def test_sees_no_platform_but_the_callers(self, rules: Any) -> None:
        platform, other = await rules.add_platform(), await rules.add_platform()
        intruder = Call(Caller(CallerType.PARTNER, "key-1", UUID(other.id)))
        with pytest.raises(PlatformUnknown):
            async with rules.database.transaction(intruder) as tx:
                await rules.auth.issue_token(tx, UUID(platform.id), rules.new_number(), "", User())
