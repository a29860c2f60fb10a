"""MrnService over the records database; identity and the catalogue are played."""

import secrets
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from aarokya.catalogue.v1.benefit_provider_service_pb2 import CheckMrnProviderResponse
from aarokya.identity.v1.live_state_service_pb2 import UserState
from aarokya.identity.v1.user_pb2 import UserStatus
from aarokya.records.v1 import mrn_service_pb2 as pb
from aarokya.records.v1.mrn_pb2 import Mrn
from records.models import SERVICE, idempotency_keys
from records.mrns.repository import MrnRepository
from records.mrns.rpc import MrnRpc
from records.mrns.service import MrnService
from records.users.errors import UserUnknown
from servicekit.caller import METADATA_KEY, Call, Caller, CallerType, Idempotency, system_call
from servicekit.crypto import generate_key
from servicekit.errors import ServiceAway
from servicekit.idempotency import OnceOnly
from servicekit.page_tokens import PageTokens

ACTIVE = UserStatus.USER_STATUS_ACTIVE


@dataclass
class KnownUsers:
    """What identity would say of users."""

    states: dict[UUID, UserState] = field(default_factory=dict)

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


@dataclass
class KnownProviders:
    """What the catalogue would say of benefit providers, or not say when it is away."""

    answers: dict[UUID, CheckMrnProviderResponse] = field(default_factory=dict)
    asked: int = 0
    is_away: bool = False

    async def check(self, call: Call, benefit_provider_id: UUID) -> CheckMrnProviderResponse:
        self.asked += 1
        if self.is_away:
            raise ServiceAway
        return self.answers.get(benefit_provider_id, CheckMrnProviderResponse())


class MrnDesk:
    """Calls MrnService as one caller or another: the user of the test unless a call is given."""

    def __init__(self, kit: Any) -> None:
        self.kit = kit
        self.users = KnownUsers()
        self.providers = KnownProviders()
        rows = MrnRepository(kit.keys, kit.hashes)
        service = MrnService(rows, self.users, self.providers, kit.audit)
        once = OnceOnly(idempotency_keys, kit.keys, kit.hashes)
        self.rpc = MrnRpc(kit.database, once, PageTokens(generate_key()), self.users, service, rows)
        self.platform_id, self.other_platform_id = uuid4(), uuid4()
        self.admin = Call(Caller(CallerType.ADMIN, "asha"))
        self.partner = Call(Caller(CallerType.PARTNER, "key-1", self.platform_id))
        self.other_partner = Call(Caller(CallerType.PARTNER, "key-2", self.other_platform_id))
        self.provider_id = self.add_provider()

    async def begin(self) -> None:
        """Onboard the user of the test."""
        self.user_id = await self.add_user()
        self.user = self.as_user(self.user_id)
        self.dependant_id = await self.add_dependant()

    async def add_user(self) -> UUID:
        user_id = uuid4()
        state = UserState(user_id=str(user_id), platform_id=str(self.platform_id), status=ACTIVE, max_dependants=20)
        self.users.states[user_id] = state
        await self.kit.onboard(state=state)
        return user_id

    def as_user(self, user_id: UUID) -> Call:
        return Call(Caller(CallerType.USER, str(user_id), self.platform_id))

    def set_status(self, status: UserStatus.ValueType) -> None:
        self.users.states[self.user_id].status = status

    async def add_dependant(self, user_id: UUID | None = None) -> str:
        state = self.users.states[user_id or self.user_id]
        dependant = await self.kit.add(state, relationship="RELATIONSHIP_OTHER", first_name=secrets.token_hex(4))
        return dependant.id

    async def remove_dependant(self, dependant_id: str) -> None:
        await self.kit.remove(await self.kit.find(self.users.states[self.user_id], dependant_id))

    def add_provider(self, mrn_pattern: str | None = None, *, usable: bool = True) -> str:
        provider_id = uuid4()
        self.providers.answers[provider_id] = CheckMrnProviderResponse(usable=usable, mrn_pattern=mrn_pattern)
        return str(provider_id)

    @staticmethod
    def once(call: Call) -> Call:
        """Return the call with an idempotency key."""
        return Call(call.caller, idempotency=Idempotency(secrets.token_bytes(32), secrets.token_bytes(32)))

    async def link(self, call: Call | None = None, **fields: Any) -> Mrn:
        """Link the test's dependant to its provider, unless the fields say otherwise."""
        wanted = {
            "dependant_id": self.dependant_id,
            "benefit_provider_id": self.provider_id,
            "mrn": secrets.token_hex(8),
            **fields,
        }
        request = pb.LinkMrnRequest(mrn=Mrn(**wanted))
        return (await self.rpc.LinkMrn(request, _context(call or self.user))).mrn

    async def get(self, mrn_id: str, call: Call | None = None) -> Mrn:
        return (await self.rpc.GetMrn(pb.GetMrnRequest(mrn_id=mrn_id), _context(call or self.user))).mrn

    async def list_page(self, call: Call | None = None, page_size: int = 50, **filters: Any) -> pb.ListMrnsResponse:
        request = pb.ListMrnsRequest(page_size=page_size, **filters)
        return await self.rpc.ListMrns(request, _context(call or self.user))

    async def list_ids(self, call: Call | None = None, **filters: Any) -> list[str]:
        return [mrn.id for mrn in (await self.list_page(call, **filters)).mrns]

    async def unlink(self, mrn_id: str, reason: str | None = None) -> None:
        await self.rpc.UnlinkMrn(pb.UnlinkMrnRequest(mrn_id=mrn_id, reason=reason), _context(self.admin))

    async def erase(self) -> None:
        """Destroy the user's data key, as an erasure does."""
        async with self.kit.database.transaction(system_call(SERVICE)) as tx:
            await self.kit.keys.destroy(tx, self.user_id, self.platform_id)


def _context(call: Call) -> Any:
    return SimpleNamespace(invocation_metadata=lambda: ((METADATA_KEY, call.to_bytes()),))


@pytest.fixture
async def desk(kit: Any) -> MrnDesk:
    desk = MrnDesk(kit)
    await desk.begin()
    return desk
