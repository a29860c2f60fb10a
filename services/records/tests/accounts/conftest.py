"""AccountService over the records database; only identity is played."""

import secrets
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from aarokya.identity.v1.live_state_service_pb2 import UserState
from aarokya.identity.v1.user_pb2 import UserStatus
from aarokya.records.v1 import account_service_pb2 as pb
from aarokya.records.v1.account_pb2 import Account, AccountType
from records.accounts.repository import AccountRepository
from records.accounts.rpc import AccountRpc
from records.accounts.service import AccountService
from records.models import SERVICE, idempotency_keys
from records.users.errors import UserUnknown
from servicekit.caller import METADATA_KEY, Call, Caller, CallerType, Idempotency, system_call
from servicekit.crypto import generate_key
from servicekit.idempotency import OnceOnly
from servicekit.page_tokens import PageTokens

ACTIVE = UserStatus.USER_STATUS_ACTIVE


@dataclass
class KnownUsers:
    """What identity would say of users."""

    states: dict[UUID, UserState] = field(default_factory=dict)

    def set_state(self, user_id: UUID, platform_id: UUID, status: UserStatus.ValueType = ACTIVE) -> UUID:
        self.states[user_id] = UserState(user_id=str(user_id), platform_id=str(platform_id), status=status)
        return user_id

    async def get_unless_own(self, call: Call, user_id: UUID) -> UserState | None:
        return None if call.caller.id == str(user_id) else self._find(call, user_id)

    async def require_known(self, call: Call, user_id: UUID) -> None:
        if call.caller.id != str(user_id):
            self._find(call, user_id)

    def _find(self, call: Call, user_id: UUID) -> UserState:
        state = self.states.get(user_id)
        if call.caller.is_user or state is None or state.platform_id != str(call.caller.platform_id):
            raise UserUnknown
        return state


class AccountDesk:
    """Calls AccountService as one caller or another: the user of the test unless a call is given."""

    def __init__(self, kit: Any) -> None:
        self.kit = kit
        self.users = KnownUsers()
        rows = AccountRepository(kit.keys, kit.hashes)
        self.rpc = AccountRpc(
            kit.database,
            OnceOnly(idempotency_keys, kit.keys, kit.hashes),
            PageTokens(generate_key()),
            self.users,
            AccountService(rows, kit.audit),
            rows,
        )
        self.platform_id, self.other_platform_id = uuid4(), uuid4()
        self.user_id = self.users.set_state(uuid4(), self.platform_id)
        self.user = self.as_user(self.user_id)
        self.partner = Call(Caller(CallerType.PARTNER, "key-1", self.platform_id))
        self.other_partner = Call(Caller(CallerType.PARTNER, "key-2", self.other_platform_id))

    def as_user(self, user_id: UUID) -> Call:
        return Call(Caller(CallerType.USER, str(user_id), self.platform_id))

    @staticmethod
    def once(call: Call) -> Call:
        """Return the call with an idempotency key."""
        return Call(call.caller, idempotency=Idempotency(secrets.token_bytes(32), secrets.token_bytes(32)))

    async def create(self, call: Call | None = None, *, user_id: UUID | None = None, **fields: Any) -> Account:
        """Store a bank account unless the fields say otherwise."""
        wanted = {"type": AccountType.ACCOUNT_TYPE_BANK, "account_number": _new_number(), **fields}
        if wanted["type"] == AccountType.ACCOUNT_TYPE_BANK:
            wanted.setdefault("ifsc", "HDFC0001234")
        request = pb.CreateAccountRequest(user_id=str(user_id or self.user_id), account=Account(**wanted))
        return (await self.rpc.CreateAccount(request, _context(call or self.user))).account

    async def get(self, account_id: str, call: Call | None = None, *, user_id: UUID | None = None) -> Account:
        request = pb.GetAccountRequest(user_id=str(user_id or self.user_id), account_id=account_id)
        return (await self.rpc.GetAccount(request, _context(call or self.user))).account

    async def list_page(
        self, call: Call | None = None, *, user_id: UUID | None = None, page_size: int = 50, page_token: str = ""
    ) -> pb.ListAccountsResponse:
        request = pb.ListAccountsRequest(
            user_id=str(user_id or self.user_id), page_size=page_size, page_token=page_token
        )
        return await self.rpc.ListAccounts(request, _context(call or self.user))

    async def list_all(self, call: Call | None = None) -> list[Account]:
        return list((await self.list_page(call)).accounts)

    async def update(self, account_id: str, call: Call | None = None, **fields: Any) -> Account:
        """Change the given fields; one that is None is cleared."""
        request = pb.UpdateAccountRequest(user_id=str(self.user_id), account_id=account_id, account=Account(**fields))
        request.update_mask.paths.extend(fields)
        return (await self.rpc.UpdateAccount(request, _context(call or self.user))).account

    async def delete(self, account_id: str, call: Call | None = None) -> None:
        request = pb.DeleteAccountRequest(user_id=str(self.user_id), account_id=account_id)
        await self.rpc.DeleteAccount(request, _context(call or self.user))

    async def primary(self) -> list[str]:
        """Return the ids of the user's primary accounts: it must be one, or none without accounts."""
        return [account.id for account in await self.list_all() if account.is_primary]

    async def erase(self) -> None:
        """Destroy the user's data key, as an erasure does."""
        async with self.kit.database.transaction(system_call(SERVICE)) as tx:
            await self.kit.keys.destroy(tx, self.user_id, self.platform_id)


def _new_number() -> str:
    return str(10**11 + secrets.randbelow(10**11))


def _context(call: Call) -> Any:
    return SimpleNamespace(invocation_metadata=lambda: ((METADATA_KEY, call.to_bytes()),))


@pytest.fixture
def desk(kit: Any) -> AccountDesk:
    return AccountDesk(kit)
