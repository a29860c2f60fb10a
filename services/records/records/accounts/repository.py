"""Every SQL statement about accounts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, Text, Uuid, bindparam, exists, func, insert, literal_column, select, update

from aarokya.records.v1.account_pb2 import Account, AccountStatus
from records.accounts.account_number import parts_of_number
from records.accounts.errors import AccountAlreadyThere
from records.models import accounts
from records.users.errors import WrongUserStatus
from servicekit.compiled_statement import CompiledPages, CompiledStatement, Values
from servicekit.crypto import LookupHash
from servicekit.data_keys import DataKeys, OwnerErased
from servicekit.database import AnyRow, Reader, Transaction, refusing
from servicekit.id_numbers import masked
from servicekit.rows import RowMapper

# Written into the statement, or else the planner could not know that the partial indexes fit.
ACTIVE = literal_column("'active'", Text)

_ACCOUNT = bindparam("account_id", type_=Uuid)
_USER = bindparam("user", type_=Uuid)
_PLATFORM = bindparam("platform", type_=Uuid)
_LOCK = CompiledStatement(
    select(func.pg_advisory_xact_lock(func.hashtextextended(bindparam("name", type_=Text), 0)).label("locked"))
)


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
        # Without and with whether others have the account too, which partners are told.
        self._by_id = {
            tells: CompiledStatement(self._select(tells).where(accounts.c.id == _ACCOUNT)) for tells in (False, True)
        }
        self._primary = CompiledStatement(self._select(False).where(accounts.c.is_primary))
        oldest = self._select(False).order_by(accounts.c.created_at, accounts.c.id)
        self._oldest = CompiledStatement(oldest.limit(1))
        self._pages = CompiledPages(self._select, (accounts.c.created_at, accounts.c.id))
        columns = accounts.c.keys()
        self._insert = CompiledStatement(insert(accounts), columns)
        is_row = (accounts.c.id == _ACCOUNT) & (accounts.c.platform_id == _PLATFORM)
        self._update = CompiledStatement(update(accounts).where(is_row), columns)

    async def lock(self, tx: Transaction, user_id: UUID) -> None:
        """Let nobody else change the user's accounts until the transaction ends."""
        await _LOCK.execute(tx, {"name": f"accounts:{user_id}"})

    async def insert(self, tx: Transaction, account: Account) -> None:
        """Add an account."""
        with refusing({"uq_accounts_number": AccountAlreadyThere}):
            await self._insert.execute(tx, await self._values(tx, StoredAccount(account, 1)))

    async def update(self, tx: Transaction, stored: StoredAccount) -> None:
        """Write an account's new state."""
        values = await self._values(tx, stored)
        row = {"account_id": UUID(stored.account.id), "platform": tx.call.caller.platform_id}
        with refusing({"uq_accounts_number": AccountAlreadyThere}):
            await self._update.execute(tx, values | row)

    async def find(self, reader: Reader, user_id: UUID, account_id: UUID) -> StoredAccount | None:
        """Return an account of the user's that is not removed."""
        values = _of_user(reader, user_id, account_id=account_id)
        row = await self._by_id[reader.call.caller.is_partner].one_or_none(reader, values)
        return None if row is None else self.to_stored(row)

    async def find_primary(self, tx: Transaction, user_id: UUID) -> StoredAccount | None:
        """Return the user's primary account; None when the user has no account at all."""
        row = await self._primary.one_or_none(tx, _of_user(tx, user_id))
        return None if row is None else self.to_stored(row)

    async def find_oldest(self, tx: Transaction, user_id: UUID) -> StoredAccount | None:
        """Return the account that the user has had for the longest time."""
        row = await self._oldest.one_or_none(tx, _of_user(tx, user_id))
        return None if row is None else self.to_stored(row)

    async def list_newest(
        self, reader: Reader, user_id: UUID, cursor: Sequence[str] | None, page_size: int
    ) -> Sequence[AnyRow]:
        """Return the rows of a page, and one more."""
        values = _of_user(reader, user_id)
        return await self._pages.rows(reader, values, cursor, page_size, reader.call.caller.is_partner)

    def to_stored(self, row: AnyRow) -> StoredAccount:
        """Return the account that a row holds; an erased person's has no number any more."""
        account = self.rows.message(row)
        if account.HasField("account_number"):
            account.account_number_masked = masked(account.account_number)
        shared = row._mapping.get("shared_with_other_users")
        if shared is not None:
            account.shared_with_other_users = shared
        return StoredAccount(account, row.version)

    def _select(self, tells_shared: bool) -> Select[*tuple[Any, ...]]:
        more = []
        if tells_shared:
            # A partner may know of its own platform's users only, and the policies show no others anyway.
            others = accounts.alias("others")
            is_shared = exists().where(
                others.c.platform_id == _PLATFORM,
                others.c.status == ACTIVE,
                others.c.number_hash == accounts.c.number_hash,
                others.c.user_id != accounts.c.user_id,
            )
            more.append(is_shared.label("shared_with_other_users"))
        return self.rows.select(*more).where(
            accounts.c.user_id == _USER, accounts.c.platform_id == _PLATFORM, accounts.c.status == ACTIVE
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
        """Return the same bytes for the same account, whoever has it."""
        return self._hashes.hash("account_number", *parts_of_number(account))


def _of_user(reader: Reader, user_id: UUID, **more: object) -> Values:
    return {"user": user_id, "platform": reader.call.caller.platform_id, **more}
