"""Accounts: where users' money goes."""

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from aarokya.records.v1 import account_service_pb2 as pb
from aarokya.records.v1.account_pb2 import Account as AccountMessage
from gateway.guards import PARTNER_OR_USER
from gateway.messages import mask_of, to_message
from gateway.schemas.records import Account, AccountList, CreateAccountBody, ListAccountsQuery, UpdateAccountBody
from gateway.server_wrap import ExchangeOf, ServiceRouter

routes = ServiceRouter("records", "Accounts", "Where users' money goes.")


@routes.get(
    "/users/{user_id}/accounts",
    guard=PARTNER_OR_USER,
    summary="List a user's accounts.",
    answer=AccountList,
    codes=("US-401", "RQ-113"),
)
async def list_accounts(exchange: ExchangeOf, user_id: str, query: Annotated[ListAccountsQuery, Query()]) -> Response:
    request = to_message(query, pb.ListAccountsRequest)
    request.user_id = user_id
    answer = await exchange.ask(exchange.stubs.accounts.ListAccounts, request)
    return exchange.page(answer.accounts, answer.next_page_token)


@routes.post(
    "/users/{user_id}/accounts",
    guard=PARTNER_OR_USER,
    status_code=201,
    summary="Store an account.",
    answer=Account,
    codes=("US-401", "US-404", "AC-802", "AC-803"),
)
async def create_account(exchange: ExchangeOf, user_id: str, body: CreateAccountBody) -> Response:
    request = pb.CreateAccountRequest(user_id=user_id, account=to_message(body, AccountMessage))
    account = (await exchange.ask(exchange.stubs.accounts.CreateAccount, request)).account
    return exchange.created(f"/users/{user_id}/accounts/{account.id}", account)


@routes.get(
    "/users/{user_id}/accounts/{account_id}",
    guard=PARTNER_OR_USER,
    summary="Read an account.",
    answer=Account,
    codes=("US-401", "AC-801"),
)
async def get_account(exchange: ExchangeOf, user_id: str, account_id: str) -> Response:
    request = pb.GetAccountRequest(user_id=user_id, account_id=account_id)
    return exchange.ok((await exchange.ask(exchange.stubs.accounts.GetAccount, request)).account)


@routes.patch(
    "/users/{user_id}/accounts/{account_id}",
    guard=PARTNER_OR_USER,
    summary="Change an account.",
    answer=Account,
    codes=("US-401", "US-404", "AC-801", "AC-802", "AC-803"),
)
async def update_account(exchange: ExchangeOf, user_id: str, account_id: str, body: UpdateAccountBody) -> Response:
    request = pb.UpdateAccountRequest(
        user_id=user_id,
        account_id=account_id,
        account=to_message(body, AccountMessage),
        update_mask=mask_of(body),
    )
    return exchange.ok((await exchange.ask(exchange.stubs.accounts.UpdateAccount, request)).account)


@routes.delete(
    "/users/{user_id}/accounts/{account_id}",
    guard=PARTNER_OR_USER,
    summary="Remove an account.",
    codes=("US-401", "US-404", "AC-801"),
)
async def delete_account(exchange: ExchangeOf, user_id: str, account_id: str) -> Response:
    request = pb.DeleteAccountRequest(user_id=user_id, account_id=account_id)
    await exchange.ask(exchange.stubs.accounts.DeleteAccount, request)
    return exchange.no_content()
