"""AccountService over gRPC: opens the transaction, translates, decides nothing."""

from typing import Any
from uuid import UUID

import grpc

from aarokya.records.v1 import account_service_pb2 as pb
from aarokya.records.v1.account_pb2 import Account
from aarokya.records.v1.account_service_pb2_grpc import AccountServiceServicer
from records.accounts.repository import AccountRepository
from records.accounts.service import AccountService
from records.users.states import UserStates
from servicekit.database import Database
from servicekit.idempotency import OnceOnly
from servicekit.page_tokens import PageTokens
from servicekit.server import GATEWAY, allow_peers, call_of

Context = grpc.aio.ServicerContext[Any, Any]


class AccountRpc(AccountServiceServicer):
    """Answers AccountService."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["AccountService"]

    def __init__(
        self,
        database: Database,
        once: OnceOnly,
        pages: PageTokens,
        states: UserStates,
        accounts: AccountService,
        account_rows: AccountRepository,
    ) -> None:
        self._database = database
        self._once = once
        self._pages = pages
        self._states = states
        self._accounts = accounts
        self._account_rows = account_rows

    @allow_peers(GATEWAY)
    async def CreateAccount(self, request: pb.CreateAccountRequest, context: Context) -> pb.CreateAccountResponse:
        call, user_id = call_of(context), UUID(request.user_id)
        state = await self._states.get_unless_own(call, user_id)
        async with self._database.transaction(call) as tx:

            async def effect() -> pb.CreateAccountResponse:
                account = await self._accounts.create_account(tx, user_id, state, request.account)
                return pb.CreateAccountResponse(account=_public(account))

            return await self._once.once(tx, effect, pb.CreateAccountResponse, owner=lambda _: user_id)

    @allow_peers(GATEWAY)
    async def GetAccount(self, request: pb.GetAccountRequest, context: Context) -> pb.GetAccountResponse:
        call, user_id = call_of(context), UUID(request.user_id)
        await self._states.require_known(call, user_id)
        async with self._database.reading(call) as reader:
            account = await self._accounts.get_account(reader, user_id, UUID(request.account_id))
        return pb.GetAccountResponse(account=_public(account))

    @allow_peers(GATEWAY)
    async def ListAccounts(self, request: pb.ListAccountsRequest, context: Context) -> pb.ListAccountsResponse:
        call, user_id = call_of(context), UUID(request.user_id)
        cursor = self._pages.open(call, request)
        await self._states.require_known(call, user_id)
        async with self._database.reading(call) as reader:
            rows = await self._account_rows.list_newest(reader, user_id, cursor, request.page_size)
        page, token = self._pages.cut(call, request, rows)
        accounts = [_public(self._account_rows.to_stored(row).account) for row in page]
        return pb.ListAccountsResponse(accounts=accounts, next_page_token=token)

    @allow_peers(GATEWAY)
    async def UpdateAccount(self, request: pb.UpdateAccountRequest, context: Context) -> pb.UpdateAccountResponse:
        call, user_id = call_of(context), UUID(request.user_id)
        state = await self._states.get_unless_own(call, user_id)
        async with self._database.transaction(call) as tx:
            account = await self._accounts.update_account(
                tx, user_id, state, UUID(request.account_id), request.account, request.update_mask.paths
            )
        return pb.UpdateAccountResponse(account=_public(account))

    @allow_peers(GATEWAY)
    async def DeleteAccount(self, request: pb.DeleteAccountRequest, context: Context) -> pb.DeleteAccountResponse:
        call, user_id = call_of(context), UUID(request.user_id)
        state = await self._states.get_unless_own(call, user_id)
        async with self._database.transaction(call) as tx:
            await self._accounts.remove_account(tx, user_id, state, UUID(request.account_id))
        return pb.DeleteAccountResponse()


def _public(account: Account) -> Account:
    """Return the account as an answer shows it: without its number."""
    public = Account()
    public.CopyFrom(account)
    public.ClearField("account_number")
    return public
