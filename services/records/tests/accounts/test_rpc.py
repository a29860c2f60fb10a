"""What callers of AccountService see, on a real database."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

from aarokya.identity.v1.user_pb2 import UserStatus
from aarokya.records.v1.account_pb2 import AccountStatus, AccountType, AccountVerificationStatus
from records.accounts.errors import AccountAlreadyThere, AccountRuleBroken, AccountUnknown
from records.users.errors import UserUnknown, WrongUserStatus
from servicekit.errors import BadPageToken, KeyReused
from tests.database_server import waits_for_standby, without_standby

BANK = AccountType.ACCOUNT_TYPE_BANK
UPI = AccountType.ACCOUNT_TYPE_UPI
WALLET = AccountType.ACCOUNT_TYPE_WALLET
OTHER = AccountType.ACCOUNT_TYPE_OTHER
UNVERIFIED = AccountVerificationStatus.ACCOUNT_VERIFICATION_STATUS_UNVERIFIED
VERIFIED = AccountVerificationStatus.ACCOUNT_VERIFICATION_STATUS_VERIFIED
FAILED = AccountVerificationStatus.ACCOUNT_VERIFICATION_STATUS_FAILED

# Fixtures of this folder's conftest; modules of tests are not importable.
Desk = Any

ACCEPTED = [
    (BANK, "123456789", "HDFC0001234"),
    (BANK, "123456789012345678", "SBIN0ABC123"),
    (BANK, "  123456789012 ", "HDFC0001234"),
    # Twelve digits that look like an Aadhaar number.
    (BANK, "234123412346", "HDFC0001234"),
    (UPI, "ravi@okhdfcbank", None),
    (UPI, "ravi.k-1_x@ybl", None),
    (UPI, "9876543210@Paytm", None),
    (WALLET, "9876543210", None),
    (OTHER, "AB-1", None),
    (OTHER, "x" * 64, None),
]
REFUSED = [
    (BANK, "12345678", "HDFC0001234", "account_number"),
    (BANK, "1" * 19, "HDFC0001234", "account_number"),
    (BANK, "12345678A", "HDFC0001234", "account_number"),
    (BANK, "1234 56789", "HDFC0001234", "account_number"),
    (BANK, "१२३४५६७८९", "HDFC0001234", "account_number"),
    (BANK, "123456789", None, "ifsc"),
    (BANK, "123456789", "hdfc0001234", "ifsc"),
    (BANK, "123456789", "HDFC1001234", "ifsc"),
    (BANK, "123456789", "HDFC000123", "ifsc"),
    (BANK, "123456789", "HDFC0001234 ", "ifsc"),
    (UPI, "ravi", None, "account_number"),
    (UPI, "@ybl", None, "account_number"),
    (UPI, "ravi@", None, "account_number"),
    (UPI, "ravi@@ybl", None, "account_number"),
    (UPI, "ra vi@ybl", None, "account_number"),
    (UPI, "ravi@example.org", None, "account_number"),
    (UPI, "ravi@ybl", "HDFC0001234", "ifsc"),
    (WALLET, "123", None, "account_number"),
    (WALLET, "x" * 65, None, "account_number"),
    (WALLET, "9876543210", "HDFC0001234", "ifsc"),
    (OTHER, "  x  ", None, "account_number"),
]


class TestCreateAccount:
    async def test_stores_account(self, desk: Desk) -> None:
        account = await desk.create(
            account_number="00112233445566", holder_name="Ravi Kumar", provider_name="HDFC Bank", is_primary=False
        )
        assert account.user_id == str(desk.user_id)
        assert account.account_number_masked == "••••5566"
        assert (account.ifsc, account.holder_name, account.provider_name) == ("HDFC0001234", "Ravi Kumar", "HDFC Bank")
        assert account.verification_status == UNVERIFIED
        assert not account.HasField("verification_reference")
        assert account.status == AccountStatus.ACCOUNT_STATUS_ACTIVE
        assert account.created_at == account.updated_at
        assert await desk.get(account.id) == account

    async def test_never_answers_number(self, desk: Desk) -> None:
        account = await desk.create(account_number="00112233445566")
        changed = await desk.update(account.id, holder_name="Ravi")
        for answer in (account, changed, await desk.get(account.id), *await desk.list_all()):
            assert not answer.HasField("account_number")
            assert b"0011223344" not in answer.SerializeToString()

    async def test_seals_personal_data(self, desk: Desk) -> None:
        account = await desk.create(account_number="00112233445566", holder_name="Ravi Kumar")
        with desk.kit.superuser() as connection:
            row = connection.execute("SELECT accounts FROM accounts WHERE id = %s", (account.id,)).fetchone()
        text = str(row)
        for hidden in ("00112233445566", "5566", "HDFC0001234", "Ravi", b"00112233445566".hex(), b"Ravi".hex()):
            assert hidden not in text

    @pytest.mark.parametrize(("kind", "number", "ifsc"), ACCEPTED)
    async def test_accepts_number(self, desk: Desk, kind: AccountType.ValueType, number: str, ifsc: str | None) -> None:
        account = await desk.create(type=kind, account_number=number, ifsc=ifsc)
        assert account.account_number_masked.startswith("••••")

    @pytest.mark.parametrize(("kind", "number", "ifsc", "field"), REFUSED)
    async def test_refuses_number(
        self, desk: Desk, kind: AccountType.ValueType, number: str, ifsc: str | None, field: str
    ) -> None:
        with pytest.raises(AccountRuleBroken) as refused:
            await desk.create(type=kind, account_number=number, ifsc=ifsc)
        assert [detail.field for detail in refused.value.details] == [field]

    async def test_shows_at_most_half_of_short_number(self, desk: Desk) -> None:
        assert (await desk.create(type=OTHER, account_number="ABCD")).account_number_masked == "••••CD"

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ({"account_number": "123456789012"}, {"account_number": " 123456789012 ", "holder_name": "Someone"}),
            ({"type": UPI, "account_number": "ravi@ybl"}, {"type": UPI, "account_number": "Ravi@YBL"}),
            ({"type": WALLET, "account_number": "9876543210"}, {"type": WALLET, "account_number": "9876543210"}),
        ],
    )
    async def test_refuses_same_account(self, desk: Desk, first: dict[str, Any], second: dict[str, Any]) -> None:
        await desk.create(**first)
        with pytest.raises(AccountAlreadyThere):
            await desk.create(**second)
        assert len(await desk.list_all()) == 1

    async def test_allows_same_number_elsewhere(self, desk: Desk) -> None:
        await desk.create(account_number="123456789012")
        await desk.create(account_number="123456789012", ifsc="SBIN0001234")
        await desk.create(type=WALLET, account_number="123456789012")
        await desk.create(type=WALLET, account_number="123456789012", provider_name="PhonePe")
        assert len(await desk.list_all()) == 4

    async def test_first_becomes_primary(self, desk: Desk) -> None:
        first = await desk.create(is_primary=False)
        second = await desk.create()
        assert first.is_primary
        assert not second.is_primary

    async def test_new_primary_clears_old(self, desk: Desk) -> None:
        first = await desk.create()
        second = await desk.create(is_primary=True)
        assert await desk.primary() == [second.id]
        told = (await desk.kit.history(first.id))[-1]
        assert told.action == "account.update"
        assert json.loads(told.changes) == {"is_primary": [True, False]}

    async def test_refused_primary_leaves_old(self, desk: Desk) -> None:
        first = await desk.create(account_number="123456789012")
        with pytest.raises(AccountAlreadyThere):
            await desk.create(account_number="123456789012", is_primary=True)
        assert await desk.get(first.id) == first
        assert first.is_primary

    async def test_simultaneous_firsts_leave_one_primary(self, desk: Desk) -> None:
        await asyncio.gather(*(desk.create(is_primary=number % 2 == 0) for number in range(12)))
        assert len(await desk.primary()) == 1

    async def test_simultaneous_same_account_is_stored_once(self, desk: Desk) -> None:
        answers = await asyncio.gather(
            *(desk.create(account_number="123456789012") for _ in range(12)), return_exceptions=True
        )
        assert sum(isinstance(answer, AccountAlreadyThere) for answer in answers) == 11
        assert len(await desk.list_all()) == 1

    async def test_user_cannot_verify(self, desk: Desk) -> None:
        with pytest.raises(AccountRuleBroken) as refused:
            await desk.create(verification_status=VERIFIED, verification_reference="UTR1")
        assert [detail.field for detail in refused.value.details] == ["verification_status", "verification_reference"]
        with pytest.raises(AccountRuleBroken):
            await desk.create(verification_status=UNVERIFIED)

    async def test_partner_may_verify(self, desk: Desk) -> None:
        account = await desk.create(desk.partner, verification_status=VERIFIED, verification_reference="UTR1")
        assert (account.verification_status, account.verification_reference) == (VERIFIED, "UTR1")

    async def test_tells_partner_of_sharing(self, desk: Desk) -> None:
        other_id = desk.users.set_state(uuid4(), desk.platform_id)
        alone = await desk.create(desk.partner, account_number="123456789012")
        assert alone.HasField("shared_with_other_users")
        assert not alone.shared_with_other_users
        shared = await desk.create(desk.partner, user_id=other_id, account_number="123456789012")
        assert shared.shared_with_other_users
        assert (await desk.get(alone.id, desk.partner)).shared_with_other_users
        assert [account.shared_with_other_users for account in await desk.list_all(desk.partner)] == [True]
        await desk.delete(alone.id)
        again = await desk.get(shared.id, desk.partner, user_id=other_id)
        assert not again.shared_with_other_users

    async def test_tells_user_nothing_of_sharing(self, desk: Desk) -> None:
        other_id = uuid4()
        await desk.create(desk.as_user(other_id), user_id=other_id, account_number="123456789012")
        account = await desk.create(account_number="123456789012")
        for answer in (account, await desk.get(account.id), *await desk.list_all()):
            assert not answer.HasField("shared_with_other_users")

    async def test_partner_needs_active_user(self, desk: Desk) -> None:
        account = await desk.create()
        for status in (UserStatus.USER_STATUS_ONBOARDING, UserStatus.USER_STATUS_DEACTIVATED):
            desk.users.set_state(desk.user_id, desk.platform_id, status)
            # The status comes before what is wrong with the account.
            with pytest.raises(WrongUserStatus):
                await desk.create(desk.partner, account_number="1")
            with pytest.raises(WrongUserStatus):
                await desk.update(account.id, desk.partner, account_number="1")
            with pytest.raises(WrongUserStatus):
                await desk.delete(account.id, desk.partner)
            assert (await desk.get(account.id, desk.partner)).id == account.id
            assert len(await desk.list_all(desk.partner)) == 1

    async def test_refuses_erased_user(self, desk: Desk) -> None:
        await desk.create()
        await desk.erase()
        with pytest.raises(WrongUserStatus):
            await desk.create()

    async def test_hides_other_platforms_users(self, desk: Desk) -> None:
        account = await desk.create()
        for attempt in (
            desk.create(desk.other_partner),
            desk.get(account.id, desk.other_partner),
            desk.list_page(desk.other_partner),
            desk.update(account.id, desk.other_partner, holder_name="Ravi"),
            desk.delete(account.id, desk.other_partner),
            desk.list_page(desk.partner, user_id=uuid4()),
            desk.list_page(desk.user, user_id=uuid4()),
        ):
            with pytest.raises(UserUnknown):
                await attempt

    async def test_repeated_call_is_answered_again(self, desk: Desk) -> None:
        call = desk.once(desk.partner)
        account = await desk.create(call, account_number="123456789012")
        desk.users.set_state(desk.user_id, desk.platform_id, UserStatus.USER_STATUS_DEACTIVATED)
        assert await desk.create(call, account_number="123456789012") == account
        assert len(await desk.list_all()) == 1

    async def test_refusal_leaves_key_free(self, desk: Desk) -> None:
        call = desk.once(desk.user)
        with pytest.raises(AccountRuleBroken):
            await desk.create(call, account_number="1")
        await desk.create(call)

    async def test_refuses_key_with_another_body(self, desk: Desk) -> None:
        call = desk.once(desk.user)
        await desk.create(call)
        other = desk.once(desk.user)
        object.__setattr__(other.idempotency, "scope", call.idempotency.scope)
        with pytest.raises(KeyReused):
            await desk.create(other)

    async def test_is_told_in_audit_log(self, desk: Desk) -> None:
        account = await desk.create(holder_name="Ravi")
        (told,) = await desk.kit.history(account.id)
        assert (told.action, told.entity_type, told.actor.id) == ("account.create", "account", str(desk.user_id))
        assert (told.user_id, told.platform_id) == (str(desk.user_id), str(desk.platform_id))
        changes = json.loads(told.changes)
        assert changes["type"] == [None, "BANK"]
        assert changes["is_primary"] == [None, True]
        assert changes["account_number"] is changes["holder_name"] is changes["ifsc"] is None


class TestGetAccount:
    async def test_refuses_unknown(self, desk: Desk) -> None:
        for call in (desk.user, desk.partner):
            with pytest.raises(AccountUnknown):
                await desk.get(str(uuid4()), call)

    async def test_hides_another_users(self, desk: Desk) -> None:
        account = await desk.create()
        other_id = desk.users.set_state(uuid4(), desk.platform_id)
        for call in (desk.as_user(other_id), desk.partner):
            with pytest.raises(AccountUnknown):
                await desk.get(account.id, call, user_id=other_id)

    async def test_says_nothing_personal_once_erased(self, desk: Desk) -> None:
        account = await desk.create(holder_name="Ravi")
        await desk.erase()
        erased = await desk.get(account.id, desk.partner)
        assert (erased.id, erased.type, erased.is_primary) == (account.id, BANK, True)
        for field in ("account_number_masked", "ifsc", "holder_name"):
            assert not erased.HasField(field)


class TestListAccounts:
    async def test_pages_newest_first(self, desk: Desk) -> None:
        made = [(await desk.create()).id for _ in range(5)]
        seen, token = [], ""
        while True:
            page = await desk.list_page(page_size=2, page_token=token)
            seen += [account.id for account in page.accounts]
            token = page.next_page_token
            if not token:
                break
        assert seen == made[::-1]

    async def test_token_is_bound_to_caller_and_user(self, desk: Desk) -> None:
        for _ in range(2):
            await desk.create()
        token = (await desk.list_page(page_size=1)).next_page_token
        other_id = desk.users.set_state(uuid4(), desk.platform_id)
        for call, user_id in ((desk.partner, desk.user_id), (desk.as_user(other_id), other_id)):
            with pytest.raises(BadPageToken):
                await desk.list_page(call, user_id=user_id, page_size=1, page_token=token)


class TestUpdateAccount:
    async def test_changes_named_fields(self, desk: Desk) -> None:
        account = await desk.create(holder_name="Ravi", provider_name="HDFC")
        changed = await desk.update(account.id, holder_name="Ravi Kumar", provider_name=None)
        assert changed.holder_name == "Ravi Kumar"
        assert not changed.HasField("provider_name")
        assert changed.account_number_masked == account.account_number_masked
        assert changed.created_at == account.created_at
        assert changed.updated_at.ToMicroseconds() > account.updated_at.ToMicroseconds()
        assert await desk.get(account.id) == changed

    @pytest.mark.parametrize("fields", [{}, {"holder_name": "Ravi"}, {"account_number": " 123456789012"}])
    async def test_change_of_nothing_leaves_no_trace(self, desk: Desk, fields: dict[str, Any]) -> None:
        account = await desk.create(account_number="123456789012", holder_name="Ravi")
        assert await desk.update(account.id, **fields) == account
        assert len(await desk.kit.history(account.id)) == 1

    async def test_finds_nothing_to_change_only_when_no_standby_can_lack_it(self, desk: Desk) -> None:
        account = await desk.create()
        with without_standby(desk.kit.superuser_dsn):
            assert await waits_for_standby(desk.update(account.id))
        assert await desk.update(account.id) == account

    @pytest.mark.parametrize("fields", [{"account_number": "998877665544"}, {"ifsc": "SBIN0001234"}])
    async def test_new_number_must_be_verified_anew(self, desk: Desk, fields: dict[str, Any]) -> None:
        account = await desk.create(desk.partner, verification_status=VERIFIED, verification_reference="UTR1")
        changed = await desk.update(account.id, **fields)
        assert changed.verification_status == UNVERIFIED
        assert not changed.HasField("verification_reference")

    async def test_wallet_elsewhere_must_be_verified_anew(self, desk: Desk) -> None:
        """The same number with another provider is another wallet."""
        wallet = {"type": WALLET, "account_number": "9876543210", "provider_name": "Paytm"}
        account = await desk.create(desk.partner, **wallet, verification_status=VERIFIED, verification_reference="UTR1")
        assert (await desk.update(account.id, provider_name="PAYTM")).verification_status == VERIFIED
        changed = await desk.update(account.id, provider_name="PhonePe")
        assert changed.verification_status == UNVERIFIED
        assert not changed.HasField("verification_reference")

    async def test_other_changes_keep_verification(self, desk: Desk) -> None:
        account = await desk.create(
            desk.partner, type=UPI, account_number="ravi@ybl", verification_status=VERIFIED, verification_reference="U"
        )
        await desk.update(account.id, holder_name="Ravi", provider_name="PhonePe")
        changed = await desk.update(account.id, account_number="RAVI@ybl")
        assert (changed.verification_status, changed.verification_reference) == (VERIFIED, "U")

    async def test_partner_may_verify_new_number_at_once(self, desk: Desk) -> None:
        account = await desk.create(desk.partner, verification_status=FAILED, verification_reference="UTR1")
        changed = await desk.update(
            account.id, desk.partner, account_number="998877665544", verification_status=VERIFIED
        )
        assert changed.verification_status == VERIFIED
        assert not changed.HasField("verification_reference")
        assert json.loads((await desk.kit.history(account.id))[-1].changes) == {
            "account_number": None,
            "verification_status": ["failed", "verified"],
            "verification_reference": None,
        }

    @pytest.mark.parametrize(
        "fields",
        [
            {"verification_status": VERIFIED},
            {"verification_status": FAILED},
            {"verification_reference": "UTR2"},
            {"verification_reference": None},
            {"account_number": "998877665544", "verification_status": VERIFIED},
        ],
    )
    async def test_user_cannot_verify(self, desk: Desk, fields: dict[str, Any]) -> None:
        account = await desk.create(desk.partner, verification_status=FAILED, verification_reference="UTR1")
        with pytest.raises(AccountRuleBroken):
            await desk.update(account.id, **fields)
        assert (await desk.get(account.id)).verification_status == FAILED

    async def test_user_may_leave_verification_empty(self, desk: Desk) -> None:
        account = await desk.create()
        assert await desk.update(account.id, verification_reference=None) == account

    @pytest.mark.parametrize(
        "fields", [{"ifsc": None}, {"ifsc": "x"}, {"account_number": "1"}, {"account_number": "ravi@ybl"}]
    )
    async def test_refuses_broken_rule(self, desk: Desk, fields: dict[str, Any]) -> None:
        account = await desk.create()
        with pytest.raises(AccountRuleBroken):
            await desk.update(account.id, **fields)
        assert await desk.get(account.id) == account

    async def test_refuses_number_that_user_has(self, desk: Desk) -> None:
        await desk.create(account_number="123456789012")
        account = await desk.create()
        with pytest.raises(AccountAlreadyThere):
            await desk.update(account.id, account_number="123456789012")

    async def test_frees_old_number(self, desk: Desk) -> None:
        account = await desk.create(account_number="123456789012")
        await desk.update(account.id, account_number="998877665544")
        await desk.create(account_number="123456789012")

    async def test_makes_primary(self, desk: Desk) -> None:
        first, second = await desk.create(), await desk.create()
        changed = await desk.update(second.id, is_primary=True)
        assert changed.is_primary
        assert await desk.primary() == [second.id]
        assert [told.action for told in await desk.kit.history(first.id)] == ["account.create", "account.update"]
        assert json.loads((await desk.kit.history(second.id))[-1].changes) == {"is_primary": [False, True]}

    async def test_primary_cannot_step_down(self, desk: Desk) -> None:
        first, second = await desk.create(), await desk.create()
        with pytest.raises(AccountRuleBroken) as refused:
            await desk.update(first.id, is_primary=False)
        assert refused.value.details[0].field == "is_primary"
        assert await desk.update(second.id, is_primary=False) == second

    async def test_simultaneous_primaries_leave_one(self, desk: Desk) -> None:
        accounts = [await desk.create() for _ in range(6)]
        await asyncio.gather(*(desk.update(account.id, is_primary=True) for account in accounts))
        assert len(await desk.primary()) == 1

    async def test_unknown_comes_before_status(self, desk: Desk) -> None:
        desk.users.set_state(desk.user_id, desk.platform_id, UserStatus.USER_STATUS_DEACTIVATED)
        with pytest.raises(AccountUnknown):
            await desk.update(str(uuid4()), desk.partner, holder_name="Ravi")


class TestDeleteAccount:
    async def test_removes_account(self, desk: Desk) -> None:
        account = await desk.create(account_number="123456789012")
        await desk.delete(account.id)
        assert await desk.list_all() == []
        for attempt in (desk.get(account.id), desk.update(account.id, holder_name="R"), desk.delete(account.id)):
            with pytest.raises(AccountUnknown):
                await attempt
        told = (await desk.kit.history(account.id))[-1]
        assert told.action == "account.delete"
        assert json.loads(told.changes) == {"is_primary": [True, False], "status": ["active", "removed"]}

    async def test_keeps_row_and_frees_number(self, desk: Desk) -> None:
        account = await desk.create(account_number="123456789012")
        await desk.delete(account.id)
        with desk.kit.superuser() as connection:
            row = connection.execute(
                "SELECT status, is_primary, number_hash, version FROM accounts WHERE id = %s", (account.id,)
            ).fetchone()
        assert row == ("removed", False, None, 2)
        again = await desk.create(account_number="123456789012")
        assert again.id != account.id
        assert again.is_primary

    async def test_primary_passes_to_oldest(self, desk: Desk) -> None:
        first, second, third = [await desk.create() for _ in range(3)]
        await desk.update(third.id, is_primary=True)
        await desk.delete(third.id)
        assert await desk.primary() == [first.id]
        assert json.loads((await desk.kit.history(first.id))[-1].changes) == {"is_primary": [False, True]}
        await desk.delete(first.id)
        assert await desk.primary() == [second.id]

    async def test_other_than_primary_leaves_primary(self, desk: Desk) -> None:
        first, second = await desk.create(), await desk.create()
        await desk.delete(second.id)
        assert await desk.primary() == [first.id]

    async def test_simultaneous_deletes_remove_once(self, desk: Desk) -> None:
        account, other = await desk.create(), await desk.create()
        answers = await asyncio.gather(*(desk.delete(account.id) for _ in range(6)), return_exceptions=True)
        assert answers.count(None) == 1
        assert await desk.primary() == [other.id]
