"""Every rule about accounts."""

import re
from collections.abc import Sequence
from uuid import UUID

from uuid6 import uuid7

from aarokya.identity.v1.live_state_service_pb2 import UserState
from aarokya.records.v1.account_pb2 import Account, AccountStatus, AccountType, AccountVerificationStatus
from records.accounts.account_number import parts_of_number
from records.accounts.errors import AccountRuleBroken, AccountUnknown
from records.accounts.repository import AccountRepository, StoredAccount
from records.users.states import require_active
from servicekit.audit import AuditLog, changes_between
from servicekit.database import Reader, Transaction
from servicekit.errors import Detail
from servicekit.messages import apply_mask, changed_fields, has

BANK_NUMBER = re.compile(r"[0-9]{9,18}", re.ASCII)
IFSC = re.compile(r"[A-Z]{4}0[A-Z0-9]{6}", re.ASCII)
# The handle is no domain, so a mail address does not match.
UPI_ADDRESS = re.compile(r"[a-z0-9._-]{2,190}@[a-z][a-z0-9]{1,63}", re.ASCII)
OTHER_NUMBER = re.compile(r".{4,64}")
VERIFICATION = ("verification_status", "verification_reference")


class AccountService:
    """Decides what may happen to accounts.

    `state` is None when users change their own accounts: the gateway has seen that they may.
    Whoever changes an account holds the lock of the user's accounts, so that exactly one of them is primary.
    """

    def __init__(self, accounts: AccountRepository, audit: AuditLog) -> None:
        self._accounts = accounts
        self._audit = audit

    async def create_account(self, tx: Transaction, user_id: UUID, state: UserState | None, wanted: Account) -> Account:
        """Store an account; the first one is primary whether that was asked for or not.

        Raises:
            WrongUserStatus: the user is not active, or was erased meanwhile.
            AccountRuleBroken: a value breaks a rule, or is one that only partners may set.
            AccountAlreadyThere: the user has this account already.
        """
        if state is not None:
            require_active(state)
        account = Account(
            id=str(uuid7()),
            user_id=str(user_id),
            verification_status=AccountVerificationStatus.ACCOUNT_VERIFICATION_STATUS_UNVERIFIED,
            status=AccountStatus.ACCOUNT_STATUS_ACTIVE,
        )
        account.MergeFrom(wanted)
        account.account_number = _canonical_number(account)
        account.created_at.FromDatetime(tx.now)
        account.updated_at.FromDatetime(tx.now)
        details = _broken_rules(account)
        if tx.call.caller.is_user:
            details += [_only_partners(field) for field in VERIFICATION if has(wanted, field)]
        if details:
            raise AccountRuleBroken(*details)
        await self._accounts.lock(tx, user_id)
        primary = await self._accounts.find_primary(tx, user_id)
        account.is_primary = account.is_primary or primary is None
        if account.is_primary and primary is not None:
            await self._set_primary(tx, primary, False)
        await self._accounts.insert(tx, account)
        await self._record(tx, "account.create", None, account)
        return await self.get_account(tx, user_id, UUID(account.id))

    async def get_account(self, reader: Reader, user_id: UUID, account_id: UUID) -> Account:
        """Return an account.

        Raises:
            AccountUnknown: the user has no such account, or has removed it.
        """
        return (await self._find(reader, user_id, account_id)).account

    async def update_account(
        self,
        tx: Transaction,
        user_id: UUID,
        state: UserState | None,
        account_id: UUID,
        wanted: Account,
        mask: Sequence[str],
    ) -> Account:
        """Change an account; another number or IFSC has to be verified anew.

        Raises:
            AccountUnknown: the user has no such account, or has removed it.
            WrongUserStatus: the user is not active, or was erased meanwhile.
            AccountRuleBroken: a value breaks a rule, or is one that only partners may set.
            AccountAlreadyThere: another account of the user has this number.
        """
        await self._accounts.lock(tx, user_id)
        stored = await self._find(tx, user_id, account_id)
        if state is not None:
            require_active(state)
        before = stored.account
        after = _patched(before, wanted, mask)
        details = _broken_rules(after)
        if tx.call.caller.is_user:
            details += [
                _only_partners(field)
                for field in VERIFICATION
                # To name what is not there as null changes nothing.
                if field in mask and (has(wanted, field) or has(before, field))
            ]
        if before.is_primary and not after.is_primary:
            details.append(Detail("is_primary", "Make another account primary instead."))
        if details:
            raise AccountRuleBroken(*details)
        if not changed_fields(before, after):
            await tx.wait_for_replication()
            return before
        if after.is_primary and not before.is_primary:
            primary = await self._accounts.find_primary(tx, user_id)
            if primary is not None:
                await self._set_primary(tx, primary, False)
        await self._write(tx, "account.update", stored, after)
        return await self.get_account(tx, user_id, account_id)

    async def remove_account(self, tx: Transaction, user_id: UUID, state: UserState | None, account_id: UUID) -> None:
        """Take an account out of use; if it was the primary one, the oldest of the others becomes that.

        Raises:
            AccountUnknown: the user has no such account, or has removed it.
            WrongUserStatus: the user is not active, or was erased meanwhile.
        """
        await self._accounts.lock(tx, user_id)
        stored = await self._find(tx, user_id, account_id)
        if state is not None:
            require_active(state)
        after = apply_mask(stored.account, stored.account, ())
        after.status = AccountStatus.ACCOUNT_STATUS_REMOVED
        after.is_primary = False
        await self._write(tx, "account.delete", stored, after)
        if stored.account.is_primary:
            oldest = await self._accounts.find_oldest(tx, user_id)
            if oldest is not None:
                await self._set_primary(tx, oldest, True)

    async def _find(self, reader: Reader, user_id: UUID, account_id: UUID) -> StoredAccount:
        stored = await self._accounts.find(reader, user_id, account_id)
        if stored is None:
            raise AccountUnknown
        return stored

    async def _set_primary(self, tx: Transaction, stored: StoredAccount, is_primary: bool) -> None:
        after = apply_mask(stored.account, stored.account, ())
        after.is_primary = is_primary
        await self._write(tx, "account.update", stored, after)

    async def _write(self, tx: Transaction, action: str, before: StoredAccount, after: Account) -> None:
        after.updated_at.FromDatetime(tx.now)
        await self._accounts.update(tx, StoredAccount(after, before.version + 1))
        await self._record(tx, action, before.account, after)

    async def _record(self, tx: Transaction, action: str, before: Account | None, after: Account) -> None:
        await self._audit.record(
            tx,
            action,
            "account",
            after.id,
            user_id=UUID(after.user_id),
            changes=changes_between(before, after, self._accounts.rows.clear_fields),
        )


def _patched(before: Account, wanted: Account, mask: Sequence[str]) -> Account:
    """Return the account with the named fields changed. What is said of the verification is said of the new number."""
    after = apply_mask(before, wanted, [field for field in mask if field not in VERIFICATION])
    after.account_number = _canonical_number(after)
    if parts_of_number(after) != parts_of_number(before):
        after.verification_status = AccountVerificationStatus.ACCOUNT_VERIFICATION_STATUS_UNVERIFIED
        after.ClearField("verification_reference")
    return apply_mask(after, wanted, [field for field in mask if field in VERIFICATION])


def _canonical_number(account: Account) -> str:
    """Return the number as it is stored. A UPI address means the same in capitals."""
    number = account.account_number.strip()
    return number.lower() if account.type == AccountType.ACCOUNT_TYPE_UPI else number


def _broken_rules(account: Account) -> list[Detail]:
    """Return what is wrong with an account.

    Whether a number is an Aadhaar number is not asked: one in ten bank numbers of twelve digits looks like one.
    """
    details = []
    message = _wrong_number(account)
    if message is not None:
        details.append(Detail("account_number", message))
    if account.type != AccountType.ACCOUNT_TYPE_BANK:
        if account.HasField("ifsc"):
            details.append(Detail("ifsc", "Only a bank account has an IFSC."))
    elif not account.HasField("ifsc"):
        details.append(Detail("ifsc", "A bank account needs its branch's IFSC."))
    elif not IFSC.fullmatch(account.ifsc):
        details.append(Detail("ifsc", "An IFSC has four capital letters, a zero and six capital letters or digits."))
    return details


def _wrong_number(account: Account) -> str | None:
    number = account.account_number
    if account.type == AccountType.ACCOUNT_TYPE_BANK:
        return None if BANK_NUMBER.fullmatch(number) else "A bank account's number has 9 to 18 digits."
    if account.type == AccountType.ACCOUNT_TYPE_UPI:
        return None if UPI_ADDRESS.fullmatch(number) else "A UPI address looks like ravi@okbank."
    return None if OTHER_NUMBER.fullmatch(number) else "The number has 4 to 64 characters."


def _only_partners(field: str) -> Detail:
    return Detail(field, "Only partners may say whether an account is verified.")
