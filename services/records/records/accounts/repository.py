"""Every SQL statement about accounts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, exists, func, insert, literal, select, update

from aarokya.records.v1.account_pb2 import Account, AccountStatus, AccountType
from records.accounts.errors import AccountAlreadyThere
from records.models import accounts
from records.users.errors import WrongUserStatus
from servicekit.crypto import LookupHash
from servicekit.data_keys import DataKeys, OwnerErased
from servicekit.database import AnyRow, Transaction, refusing
from servicekit.id_numbers import masked
from servicekit.paging import newest_first
from servicekit.rows import RowMapper

# Written into the statement, or else the planner could not know that the partial indexes fit.
ACTIVE = literal("active", literal_execute=True)


@dataclass(slots=True)
class StoredAccount:
    """An account and what of its row no answer shows.

    Attributes:
        account: the whole account, its number included.
        version: counts the row's states, so that an older ciphertext cannot be put back.
    """

    account: Account
    version: int


class AccountRepository:
    """Reads and writes the accounts of the caller's platform."""

    def __init__(self, keys: DataKeys, hashes: LookupHash) -> None:
        self._keys = keys
        self._hashes = hashes
        self.rows = RowMapper(
            accounts,
            Account,
            keys,
            owner_column="user_id",
            computed=("account_number_masked", "shared_with_other_users"),
        )

    async def lock(self, tx: Transaction, user_id: UUID) -> None:
        """Let nobody else change the user's accounts until the transaction ends."""
        await tx.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"accounts:{user_id}", 0))))

    async def insert(self, tx: Transaction, account: Account) -> None:
        """Add an account."""
        with refusing({"uq_accounts_number": AccountAlreadyThere}):
            await tx.execute(insert(accounts).values(await self._values(tx, StoredAccount(account, 1))))

    async def update(self, tx: Transaction, stored: StoredAccount) -> None:
        """Write an account's new state."""
        statement = update(accounts).where(
            accounts.c.id == UUID(stored.account.id), accounts.c.platform_id == tx.call.caller.platform_id
        )
        with refusing({"uq_accounts_number": AccountAlreadyThere}):
            await tx.execute(statement.values(await self._values(tx, stored)))

    async def find(self, tx: Transaction, user_id: UUID, account_id: UUID) -> StoredAccount | None:
        """Return an account of the user's that is not removed."""
        row = (await tx.execute(self._select(tx, user_id).where(accounts.c.id == account_id))).one_or_none()
        return None if row is None else self.to_stored(row)

    async def find_primary(self, tx: Transaction, user_id: UUID) -> StoredAccount | None:
        """Return the user's primary account; None when the user has no account at all."""
        row = (await tx.execute(self._select(tx, user_id).where(accounts.c.is_primary))).one_or_none()
        return None if row is None else self.to_stored(row)

    async def find_oldest(self, tx: Transaction, user_id: UUID) -> StoredAccount | None:
        """Return the account that the user has had for the longest time."""
        statement = self._select(tx, user_id).order_by(accounts.c.created_at, accounts.c.id).limit(1)
        row = (await tx.execute(statement)).one_or_none()
        return None if row is None else self.to_stored(row)

    async def list_newest(
        self, tx: Transaction, user_id: UUID, cursor: Sequence[str] | None, page_size: int
    ) -> Sequence[AnyRow]:
        """Return the rows of a page, and one more."""
        order = (accounts.c.created_at, accounts.c.id)
        return (await tx.execute(newest_first(self._select(tx, user_id), order, cursor, page_size))).all()

    def to_stored(self, row: AnyRow) -> StoredAccount:
        """Return the account that a row holds; an erased person's has no number any more."""
        account = self.rows.message(row)
        if account.HasField("account_number"):
            account.account_number_masked = masked(account.account_number)
        shared = row._mapping.get("shared_with_other_users")
        if shared is not None:
            account.shared_with_other_users = shared
        return StoredAccount(account, row.version)

    def _select(self, tx: Transaction, user_id: UUID) -> Select[*tuple[Any, ...]]:
        caller = tx.call.caller
        more = []
        if caller.is_partner:
            # A partner may know of its own platform's users only, and the policies show no others anyway.
            others = accounts.alias("others")
            is_shared = exists().where(
                others.c.platform_id == caller.platform_id,
                others.c.status == ACTIVE,
                others.c.number_hash == accounts.c.number_hash,
                others.c.user_id != accounts.c.user_id,
            )
            more.append(is_shared.label("shared_with_other_users"))
        return self.rows.select(*more).where(
            accounts.c.user_id == user_id,
            accounts.c.platform_id == caller.platform_id,
            accounts.c.status == ACTIVE,
        )

    async def _values(self, tx: Transaction, stored: StoredAccount) -> dict[str, Any]:
        account = stored.account
        platform_id = tx.call.caller.platform_id
        is_there = account.status == AccountStatus.ACCOUNT_STATUS_ACTIVE
        try:
            key = await self._keys.for_owner(tx, UUID(account.user_id), platform_id)
        except OwnerErased as error:
            # The user was erased after the call was let in.
            raise WrongUserStatus from error
        return self.rows.values(
            account,
            key=key,
            version=stored.version,
            platform_id=platform_id,
            # What is removed leaves its number free.
            number_hash=self._number_hash(account) if is_there else None,
        )

    def _number_hash(self, account: Account) -> bytes:
        """Return the same bytes for the same account, whoever has it.

        Banks number their accounts by branch; the number of a wallet is often the phone's, with several providers.
        """
        parts = {
            AccountType.ACCOUNT_TYPE_BANK: (account.ifsc,),
            AccountType.ACCOUNT_TYPE_UPI: (),
        }.get(account.type, (account.provider_name.casefold(),))
        return self._hashes.hash("account_number", str(account.type), account.account_number, *parts)
