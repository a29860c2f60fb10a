"""Reads of users' own go out together, and nobody else's do."""

import asyncio
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from aarokya.identity.v1 import user_service_pb2
from aarokya.identity.v1.user_pb2 import User
from aarokya.records.v1 import dependant_service_pb2
from aarokya.records.v1.dependant_pb2 import Dependant
from aarokya.records.v1.dependant_service_pb2 import ListDependantsRequest
from gateway.errors import Refused
from gateway.own_reads import LARGEST_FAMILY, OwnReads
from servicekit.caller import Caller, CallerType
from servicekit.data_loader import AT_ONCE

PLATFORM_ID, OTHER_PLATFORM_ID = uuid4(), uuid4()


class Services:
    """Know everybody but those who are unknown; answer when they are let."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str], str]] = []
        self.goes_on = asyncio.Event()
        self.unknown: set[str] = set()
        self.failing: dict[str, str] = {}
        self.deadlines: dict[str, float] = {}
        # By how much a family is larger than any.
        self.times = 1

    @property
    def stubs(self) -> Any:
        users = SimpleNamespace(GetUser="GetUser", BatchGetUsers="BatchGetUsers")
        names = ("GetDependant", "BatchGetDependants", "ListDependants", "BatchListDependants")
        dependants = SimpleNamespace(**{name: name for name in names})
        return SimpleNamespace(users=users, dependants=dependants)

    async def answer(self, caller: Caller, rpc: str, request: Any) -> Any:
        wanted = _wanted(request)
        self.asked.append((rpc, [each for _, each in wanted], caller.id))
        await self.goes_on.wait()
        if rpc in self.failing:
            raise Refused(self.failing[rpc])
        known = [(user_id, each) for user_id, each in wanted if each not in self.unknown]
        match request:
            case user_service_pb2.BatchGetUsersRequest():
                return user_service_pb2.BatchGetUsersResponse(users=[User(id=each) for _, each in reversed(known)])
            case dependant_service_pb2.BatchGetDependantsRequest():
                dependants = [Dependant(id=each, user_id=user_id) for user_id, each in reversed(known)]
                return dependant_service_pb2.BatchGetDependantsResponse(dependants=dependants)
            case dependant_service_pb2.BatchListDependantsRequest():
                # Newest first, whoever's they are.
                members = [Dependant(id=f"{each}-{n}", user_id=each) for n in range(2, 0, -1) for _, each in known]
                return dependant_service_pb2.BatchListDependantsResponse(dependants=members)
            case dependant_service_pb2.ListDependantsRequest():
                members = [Dependant(id=f"{each}-{n}", user_id=each) for n in range(2, 0, -1) for _, each in known]
                return dependant_service_pb2.ListDependantsResponse(dependants=members * self.times)
        if not known:
            raise Refused("US-401")
        [(user_id, each)] = known
        if rpc == "GetUser":
            return user_service_pb2.GetUserResponse(user=User(id=each))
        return dependant_service_pb2.GetDependantResponse(dependant=Dependant(id=each, user_id=user_id))


def _wanted(request: Any) -> list[tuple[str, str]]:
    match request:
        case user_service_pb2.GetUserRequest():
            return [(request.user_id, request.user_id)]
        case dependant_service_pb2.ListDependantsRequest():
            return [(request.user_id, request.user_id)]
        case user_service_pb2.BatchGetUsersRequest() | dependant_service_pb2.BatchListDependantsRequest():
            return [(each, each) for each in request.user_ids]
        case dependant_service_pb2.GetDependantRequest():
            return [(request.user_id, request.dependant_id)]
        case _:
            return [(each.user_id, each.dependant_id) for each in request.requests]


@pytest.fixture
def services() -> Services:
    return Services()


@pytest.fixture
def reads(services: Services) -> OwnReads:
    return OwnReads(services.stubs)


def asker(services: Services, caller: Caller) -> Any:
    deadline = asyncio.get_running_loop().time() + services.deadlines.get(caller.id, 4.5)
    return SimpleNamespace(
        caller=caller, deadline=deadline, ask=lambda rpc, request: services.answer(caller, rpc, request)
    )


def user(user_id: str, platform_id: Any = PLATFORM_ID) -> Caller:
    return Caller(CallerType.USER, user_id, platform_id)


async def begin(*reading: Any) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(each) for each in reading]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


def own(reads: OwnReads, services: Services, *user_ids: str, platform_id: Any = PLATFORM_ID) -> list[Any]:
    return [reads.user(asker(services, user(user_id, platform_id)), user_id) for user_id in user_ids]


class TestOwnReads:
    async def test_does_not_wait_when_alone(self, reads, services):
        services.goes_on.set()
        assert (await own(reads, services, "a")[0]).id == "a"
        assert services.asked == [("GetUser", ["a"], "a")]

    async def test_goes_out_together_in_the_name_of_who_has_most_time(self, reads, services):
        services.deadlines = {"c": 4.0, "d": 5.0, "e": 3.0}
        tasks = await begin(*own(reads, services, *"abcde"))
        services.goes_on.set()
        assert [each.id for each in await asyncio.gather(*tasks)] == list("abcde")
        assert services.asked[AT_ONCE:] == [("BatchGetUsers", ["c", "d", "e"], "d")]

    async def test_waits_no_longer_than_the_caller_does(self, reads, services):
        services.deadlines = {"c": 0.1}
        tasks = await begin(*own(reads, services, *"abcd"))
        with pytest.raises(Refused) as caught:
            await tasks[2]
        assert caught.value.code == "RQ-112"
        services.goes_on.set()
        assert (await tasks[3]).id == "d"

    async def test_gives_who_reads_the_same_the_time_of_both(self, reads, services):
        tasks = await begin(*own(reads, services, *"ab"))
        services.deadlines = {"c": 0.1}
        tasks += await begin(*own(reads, services, "c"))
        services.deadlines = {"c": 4.0}
        tasks += await begin(*own(reads, services, "c"))
        await asyncio.sleep(0.2)
        services.goes_on.set()
        with pytest.raises(Refused):
            await tasks[2]
        assert (await tasks[3]).id == "c"
        assert services.asked[AT_ONCE:] == [("BatchGetUsers", ["c", "c"], "c")]

    async def test_asks_of_one_platform_at_a_time(self, reads, services):
        elsewhere = own(reads, services, "x", "y", platform_id=OTHER_PLATFORM_ID)
        tasks = await begin(*own(reads, services, *"abcd"), *elsewhere)
        services.goes_on.set()
        assert [each.id for each in await asyncio.gather(*tasks)] == list("abcdxy")
        assert services.asked[AT_ONCE:] == [("BatchGetUsers", ["c", "d"], "d"), ("BatchGetUsers", ["x", "y"], "y")]

    async def test_gives_everybody_the_own_dependant(self, reads, services):
        pairs = [(user_id, f"{user_id}-{number}") for user_id in "abc" for number in range(2)]
        tasks = await begin(*(reads.dependant(asker(services, user(who)), who, each) for who, each in pairs))
        services.goes_on.set()
        assert [(each.user_id, each.id) for each in await asyncio.gather(*tasks)] == pairs
        assert services.asked[AT_ONCE:] == [
            ("BatchGetDependants", [each for _, each in pairs[AT_ONCE:]], "c"),
        ]

    async def test_has_the_service_say_what_is_not_there(self, reads, services):
        services.unknown.add("c")
        tasks = await begin(*own(reads, services, *"abcd"))
        services.goes_on.set()
        *answers, missing, last = await asyncio.gather(*tasks, return_exceptions=True)
        assert [each.id for each in [*answers, last]] == ["a", "b", "d"]
        assert isinstance(missing, Refused)
        assert missing.code == "US-401"
        assert services.asked[-1] == ("GetUser", ["c"], "c")

    @pytest.mark.parametrize(
        "caller",
        [Caller(CallerType.ADMIN, "asha"), Caller(CallerType.PARTNER, "a", PLATFORM_ID), user("b")],
    )
    async def test_asks_for_others_one_by_one(self, reads, services, caller):
        tasks = await begin(*(reads.user(asker(services, caller), "a") for _ in range(AT_ONCE + 3)))
        services.goes_on.set()
        await asyncio.gather(*tasks)
        assert services.asked == [("GetUser", ["a"], caller.id)] * (AT_ONCE + 3)

    async def test_asks_one_by_one_of_a_service_that_does_not_know_the_call(self, reads, services):
        services.failing["BatchGetUsers"] = "RQ-100"
        tasks = await begin(*own(reads, services, *"abcde"))
        services.goes_on.set()
        assert [each.id for each in await asyncio.gather(*tasks)] == list("abcde")
        assert [rpc for rpc, _, _ in services.asked] == ["GetUser", "GetUser", "BatchGetUsers", *["GetUser"] * 3]

    async def test_does_not_ask_again_of_a_service_that_is_away(self, reads, services):
        services.failing["BatchGetUsers"] = "RQ-111"
        tasks = await begin(*own(reads, services, *"abcd"))
        services.goes_on.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [each.code for each in outcomes[AT_ONCE:]] == ["RQ-111"] * 2
        assert len(services.asked) == AT_ONCE + 1


class TestFamilies:
    def ask(self, services: Services, *user_ids: str, **asked: Any) -> list[Any]:
        reads = OwnReads(services.stubs)
        requests = [ListDependantsRequest(**{"user_id": each, "page_size": 50, **asked}) for each in user_ids]
        return [reads.family(asker(services, user(each.user_id)), each) for each in requests]

    async def test_go_out_together_and_come_apart(self, services):
        services.unknown.add("d")
        tasks = await begin(*self.ask(services, *"abcde"))
        services.goes_on.set()
        answers = await asyncio.gather(*tasks)
        told = [[each.id for each in answer.dependants] for answer in answers]
        assert told == [["a-2", "a-1"], ["b-2", "b-1"], ["c-2", "c-1"], [], ["e-2", "e-1"]]
        assert [rpc for rpc, _, _ in services.asked] == [
            "ListDependants", "ListDependants", "BatchListDependants", "ListDependants"
        ]  # fmt: skip

    @pytest.mark.parametrize(
        "asked", [{"page_size": 20}, {"page_token": "next"}, {"include_removed": True}, {"as_of": Timestamp()}]
    )
    async def test_of_another_kind_go_out_alone(self, services, asked):
        tasks = await begin(*self.ask(services, *"abcd", **asked))
        services.goes_on.set()
        await asyncio.gather(*tasks)
        assert [rpc for rpc, _, _ in services.asked] == ["ListDependants"] * 4

    async def test_that_are_larger_than_any_are_asked_for_by_pages(self, services):
        services.times = LARGEST_FAMILY
        services.goes_on.set()
        (answer,) = [await each for each in self.ask(services, "a")]
        assert len(answer.dependants) == 2 * LARGEST_FAMILY
        assert [rpc for rpc, _, _ in services.asked] == ["ListDependants"] * 2

    async def test_of_others_are_listed_once(self, services):
        services.goes_on.set()
        request = ListDependantsRequest(user_id="a", page_size=50)
        operator = Caller(CallerType.ADMIN, "asha")
        await OwnReads(services.stubs).family(asker(services, operator), request)
        assert services.asked == [("ListDependants", ["a"], "asha")]
