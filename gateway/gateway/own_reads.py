"""What users read of their own: reads that come while others are on their way go out in one call.

A call costs both ends more than all the rest of a read. Who reads alone does not wait for anybody.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from aarokya.identity.v1 import user_service_pb2
from aarokya.identity.v1.user_pb2 import User
from aarokya.records.v1 import dependant_service_pb2
from aarokya.records.v1.dependant_pb2 import Dependant
from gateway.errors import Refused
from gateway.stubs import Stubs
from servicekit.caller import Caller
from servicekit.data_loader import MOST_QUESTIONS, DataLoader
from servicekit.deadline import MARGIN_S
from servicekit.questions import Unanswerable

# SELF and as many as a platform may allow. So large a page has all of a family.
LARGEST_FAMILY = 21
# So many families fit into one answer however much is known of each person.
MOST_FAMILIES = 20

Found = TypeVar("Found")


class Asker(Protocol):
    """A request that is being answered, as `Exchange` is one."""

    @property
    def caller(self) -> Caller:
        """Who calls."""
        ...

    @property
    def deadline(self) -> float:
        """When the time for an answer is over, by the event loop's clock."""
        ...

    def ask(self, rpc: Any, request: Message) -> Awaitable[Any]:
        """Ask a service in the caller's name and return its answer."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """What one request reads. Two of the same are not equal: one of them may have more time than the other."""

    user_id: str
    resource_id: str
    asker: Asker

    @property
    def is_own(self) -> bool:
        """Whether a user reads what is the user's own."""
        caller = self.asker.caller
        return caller.is_user and caller.id == self.user_id


class OwnReads:
    """Reads for all requests of a process."""

    def __init__(self, stubs: Stubs) -> None:
        self._stubs = stubs
        self._users = _loader(self._get_user, self._get_users)
        self._dependants = _loader(self._get_dependant, self._get_dependants)
        self._families = _loader(self._list_family, self._list_families, MOST_FAMILIES)

    async def user(self, asker: Asker, user_id: str) -> User:
        """Return a user.

        Raises:
            Refused: what identity refused, or that it did not answer.
        """
        return await _get(self._users, self._get_user, _Read(user_id, user_id, asker))

    async def dependant(self, asker: Asker, user_id: str, dependant_id: str) -> Dependant:
        """Return the newest version of a member of a user's family.

        Raises:
            Refused: what records refused, or that it did not answer.
        """
        return await _get(self._dependants, self._get_dependant, _Read(user_id, dependant_id, asker))

    async def family(
        self, asker: Asker, request: dependant_service_pb2.ListDependantsRequest
    ) -> dependant_service_pb2.ListDependantsResponse:
        """Return a page of a user's family.

        Raises:
            Refused: what records refused, or that it did not answer.
        """
        read = _Read(request.user_id, request.user_id, asker)
        has_all = request.page_size >= LARGEST_FAMILY and not request.page_token
        if read.is_own and has_all and not request.HasField("as_of") and not request.include_removed:
            found = await _get(self._families, self._list_family, read)
            if len(found) <= LARGEST_FAMILY:
                return dependant_service_pb2.ListDependantsResponse(dependants=found)
        answer: dependant_service_pb2.ListDependantsResponse
        answer = await asker.ask(self._stubs.dependants.ListDependants, request)
        return answer

    async def _get_user(self, read: _Read) -> User:
        request = user_service_pb2.GetUserRequest(user_id=read.user_id)
        answer = await read.asker.ask(self._stubs.users.GetUser, request)
        user: User = answer.user
        return user

    async def _get_users(self, reads: Sequence[_Read]) -> dict[_Read, User]:
        request = user_service_pb2.BatchGetUsersRequest(user_ids=[read.user_id for read in reads])
        answer = await _ask_for_all(reads, self._stubs.users.BatchGetUsers, request)
        users = {user.id: user for user in answer.users}
        return {read: users[read.user_id] for read in reads if read.user_id in users}

    async def _get_dependant(self, read: _Read) -> Dependant:
        request = dependant_service_pb2.GetDependantRequest(user_id=read.user_id, dependant_id=read.resource_id)
        answer = await read.asker.ask(self._stubs.dependants.GetDependant, request)
        dependant: Dependant = answer.dependant
        return dependant

    async def _get_dependants(self, reads: Sequence[_Read]) -> dict[_Read, Dependant]:
        request = dependant_service_pb2.BatchGetDependantsRequest(
            requests=(
                dependant_service_pb2.GetDependantRequest(user_id=read.user_id, dependant_id=read.resource_id)
                for read in reads
            )
        )
        answer = await _ask_for_all(reads, self._stubs.dependants.BatchGetDependants, request)
        dependants = {(dependant.user_id, dependant.id): dependant for dependant in answer.dependants}
        found = {read: dependants.get((read.user_id, read.resource_id)) for read in reads}
        return {read: dependant for read, dependant in found.items() if dependant is not None}

    async def _list_family(self, read: _Read) -> Sequence[Dependant]:
        request = dependant_service_pb2.ListDependantsRequest(user_id=read.user_id, page_size=LARGEST_FAMILY + 1)
        answer = await read.asker.ask(self._stubs.dependants.ListDependants, request)
        family: Sequence[Dependant] = answer.dependants
        return family

    async def _list_families(self, reads: Sequence[_Read]) -> dict[_Read, Sequence[Dependant]]:
        request = dependant_service_pb2.BatchListDependantsRequest(user_ids=[read.user_id for read in reads])
        answer = await _ask_for_all(reads, self._stubs.dependants.BatchListDependants, request)
        families: defaultdict[str, list[Dependant]] = defaultdict(list)
        for dependant in answer.dependants:
            families[dependant.user_id].append(dependant)
        # Whose family is empty may be nobody whom records knows.
        return {read: families[read.user_id] for read in reads if read.user_id in families}


def _loader(
    ask_one: Callable[[_Read], Awaitable[Found]],
    ask_many: Callable[[Sequence[_Read]], Awaitable[Mapping[_Read, Found]]],
    most_questions: int = MOST_QUESTIONS,
) -> DataLoader[_Read, Found]:
    # Services see of one platform at a time, whoever asks.
    group_of = attrgetter("asker.caller.platform_id")
    return DataLoader(ask_one, ask_many, group_of=group_of, most_questions=most_questions)


async def _get(loader: DataLoader[_Read, Found], ask_one: Callable[[_Read], Awaitable[Found]], read: _Read) -> Found:
    found = None
    if read.is_own:
        try:
            # Others in the batch may have more time.
            async with asyncio.timeout_at(read.asker.deadline - MARGIN_S):
                found = await loader.load(read)
        except TimeoutError:
            raise Refused("RQ-112") from None
    # For what is not there, the service is to say so itself; and it notes each look of an operator.
    return await ask_one(read) if found is None else found


async def _ask_for_all(reads: Sequence[_Read], rpc: Any, request: Message) -> Any:
    """Ask in the name of who has the most time left.

    Raises:
        Unanswerable: the service does not know the call yet, or fails at one of them; each may be read by itself.
        Refused: the service refused, or did not answer.
    """
    try:
        return await max(reads, key=lambda read: read.asker.deadline).asker.ask(rpc, request)
    except Refused as refused:
        if refused.code == "RQ-100":
            raise Unanswerable from refused
        raise
