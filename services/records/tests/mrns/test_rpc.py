"""What callers of MrnService see, on a real database."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

from aarokya.identity.v1.user_pb2 import UserStatus
from aarokya.records.v1.mrn_pb2 import Mrn, MrnSource
from records.dependants.errors import DependantRemoved, DependantUnknown
from records.models import SERVICE
from records.mrns.errors import (
    MrnAlreadyLinked,
    MrnFormatWrong,
    MrnOfAnotherDependant,
    MrnUnknown,
    ProviderUnusable,
)
from records.users.errors import UserUnknown, WrongUserStatus
from servicekit import idempotency
from servicekit.caller import system_call
from servicekit.errors import BadPageToken, InvalidField, ServiceAway

# A fixture of this folder's conftest; modules of tests are not importable.
Desk = Any


class TestLinkMrn:
    async def test_links_mrn(self, desk: Desk) -> None:
        mrn = await desk.link(mrn="AP004711")
        assert (mrn.dependant_id, mrn.benefit_provider_id) == (desk.dependant_id, desk.provider_id)
        assert (mrn.mrn, mrn.user_id, mrn.source) == ("AP004711", str(desk.user_id), MrnSource.MRN_SOURCE_USER)
        assert mrn.HasField("created_at")
        assert await desk.get(mrn.id) == mrn

    async def test_notes_partner_as_source(self, desk: Desk) -> None:
        assert (await desk.link(desk.partner)).source == MrnSource.MRN_SOURCE_PARTNER

    async def test_links_self(self, desk: Desk) -> None:
        state = desk.users.states[desk.user_id]
        assert (await desk.link(dependant_id=(await desk.kit.self_of(state)).id)).mrn

    async def test_seals_number(self, desk: Desk) -> None:
        mrn = await desk.link(mrn="AP004711")
        with desk.kit.superuser() as connection:
            row = connection.execute("SELECT mrns FROM mrns WHERE id = %s", (mrn.id,)).fetchone()
        assert "AP004711" not in str(row)
        assert b"AP004711".hex() not in str(row)

    @pytest.mark.parametrize("number", ["AP004711", "other"])
    async def test_rejects_second_mrn_for_pair(self, desk: Desk, number: str) -> None:
        await desk.link(mrn="AP004711")
        for call in (desk.user, desk.partner):
            with pytest.raises(MrnAlreadyLinked):
                await desk.link(call, mrn=number)

    async def test_rejects_number_of_another_dependant(self, desk: Desk) -> None:
        await desk.link(mrn="AP004711")
        with pytest.raises(MrnOfAnotherDependant):
            await desk.link(mrn="AP004711", dependant_id=await desk.add_dependant())

    async def test_tells_of_pair_before_number(self, desk: Desk) -> None:
        second_id = await desk.add_dependant()
        await desk.link(mrn="AP004711")
        await desk.link(mrn="AP004712", dependant_id=second_id)
        with pytest.raises(MrnAlreadyLinked):
            await desk.link(mrn="AP004711", dependant_id=second_id)

    async def test_links_when_what_was_in_the_way_is_just_unlinked(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        linked = await desk.link()
        rows = desk.rpc._mrn_rows
        is_linked = rows.is_linked

        async def is_still_linked(*arguments: Any) -> bool:
            await desk.unlink(linked.id)
            return await is_linked(*arguments)

        monkeypatch.setattr(rows, "is_linked", is_still_linked)
        assert (await desk.link()).id != linked.id

    async def test_allows_number_elsewhere(self, desk: Desk) -> None:
        await desk.link(mrn="AP004711")
        second_id = await desk.add_dependant()
        await desk.link(mrn="ap004711", dependant_id=second_id)
        await desk.link(mrn="AP004711", dependant_id=second_id, benefit_provider_id=desk.add_provider())
        other_id = await desk.add_user()
        dependant_id = await desk.add_dependant(other_id)
        await desk.link(desk.as_user(other_id), mrn="AP004711", dependant_id=dependant_id)

    @pytest.mark.parametrize("same_number", [True, False])
    async def test_hundred_at_once_link_once(self, desk: Desk, same_number: bool) -> None:
        attempts = (desk.link(mrn="AP004711" if same_number else f"AP{number}") for number in range(100))
        answers = await asyncio.gather(*attempts, return_exceptions=True)
        assert sum(isinstance(answer, Mrn) for answer in answers) == 1
        assert sum(isinstance(answer, MrnAlreadyLinked) for answer in answers) == 99

    async def test_same_number_for_two_at_once_links_one(self, desk: Desk) -> None:
        dependants = [await desk.add_dependant() for _ in range(8)]
        answers = await asyncio.gather(
            *(desk.link(mrn="AP004711", dependant_id=dependant_id) for dependant_id in dependants),
            return_exceptions=True,
        )
        assert sum(isinstance(answer, Mrn) for answer in answers) == 1
        assert sum(isinstance(answer, MrnOfAnotherDependant) for answer in answers) == 7

    async def test_rejects_unusable_provider(self, desk: Desk) -> None:
        for provider_id in (str(uuid4()), desk.add_provider("[0-9]+", usable=False)):
            with pytest.raises(ProviderUnusable):
                await desk.link(benefit_provider_id=provider_id)

    @pytest.mark.parametrize("number", ["AP12345", "AP1234567", "xAP123456", "ap123456", "AP123456\u00e9"])
    async def test_rejects_wrong_format(self, desk: Desk, number: str) -> None:
        with pytest.raises(MrnFormatWrong):
            await desk.link(benefit_provider_id=desk.add_provider(r"AP\d{6}"), mrn=number)

    @pytest.mark.parametrize(
        ("pattern", "number"), [(r"AP\d{6}", "AP123456"), ("A|AB", "AB"), ("^AB$", "AB"), ("(?i)ab", "AB"), (".", "é")]
    )
    async def test_accepts_format(self, desk: Desk, pattern: str, number: str) -> None:
        await desk.link(benefit_provider_id=desk.add_provider(pattern), mrn=number)

    async def test_is_quick_with_expensive_pattern(self, desk: Desk) -> None:
        with pytest.raises(MrnFormatWrong):
            await asyncio.wait_for(
                desk.link(benefit_provider_id=desk.add_provider("(a+)+"), mrn="a" * 63 + "b"), timeout=1
            )

    async def test_hides_other_platforms_dependant(self, desk: Desk) -> None:
        with pytest.raises(DependantUnknown):
            await desk.link(desk.other_partner)

    async def test_hides_other_users_dependant(self, desk: Desk) -> None:
        other_id = await desk.add_user()
        with pytest.raises(DependantUnknown):
            await desk.link(desk.as_user(other_id))

    async def test_rejects_unknown_dependant(self, desk: Desk) -> None:
        for call in (desk.user, desk.partner):
            with pytest.raises(DependantUnknown):
                await desk.link(call, dependant_id=str(uuid4()))

    async def test_rejects_removed_dependant(self, desk: Desk) -> None:
        mrn = await desk.link()
        await desk.remove_dependant(desk.dependant_id)
        for call in (desk.user, desk.partner):
            with pytest.raises(DependantRemoved):
                await desk.link(call, benefit_provider_id=desk.add_provider())
        assert await desk.get(mrn.id) == mrn

    async def test_partner_needs_active_user(self, desk: Desk) -> None:
        mrn = await desk.link()
        desk.set_status(UserStatus.USER_STATUS_DEACTIVATED)
        with pytest.raises(WrongUserStatus):
            await desk.link(desk.partner, benefit_provider_id=str(uuid4()))
        assert await desk.get(mrn.id, desk.partner) == mrn
        assert await desk.list_ids(desk.partner, user_id=str(desk.user_id)) == [mrn.id]

    async def test_is_never_linked_blind(self, desk: Desk) -> None:
        desk.providers.is_away = True
        with pytest.raises(ServiceAway):
            await desk.link()
        assert await desk.list_ids() == []

    async def test_asks_catalogue_last(self, desk: Desk) -> None:
        desk.providers.is_away = True
        with pytest.raises(DependantUnknown):
            await desk.link(dependant_id=str(uuid4()))
        await desk.remove_dependant(desk.dependant_id)
        with pytest.raises(DependantRemoved):
            await desk.link()
        assert desk.providers.asked == 0

    async def test_refuses_erased_user(self, desk: Desk) -> None:
        await desk.erase()
        with pytest.raises(WrongUserStatus):
            await desk.link()

    async def test_repeated_call_is_answered_again(self, desk: Desk) -> None:
        call = desk.once(desk.partner)
        mrn = await desk.link(call, mrn="AP004711")
        desk.providers.is_away = True
        assert await desk.link(call, mrn="AP004711") == mrn
        desk.providers.is_away = False
        desk.providers.answers.clear()
        assert await desk.link(call, mrn="AP004711") == mrn
        await desk.remove_dependant(desk.dependant_id)
        desk.set_status(UserStatus.USER_STATUS_DEACTIVATED)
        assert await desk.link(call, mrn="AP004711") == mrn
        assert await desk.list_ids() == [mrn.id]

    async def test_answers_of_yesterday_are_forgotten_bit_by_bit(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(idempotency, "MOST_FORGOTTEN", 2)
        for _ in range(3):
            await desk.link(desk.once(desk.user), dependant_id=await desk.add_dependant())
        with desk.kit.superuser() as connection:
            connection.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
        await desk.link(desk.once(desk.user), dependant_id=await desk.add_dependant())
        left, is_more = [], True
        while is_more:
            async with desk.kit.database.transaction(system_call(SERVICE)) as tx:
                is_more = await desk.rpc._once.forget_old(tx)
            with desk.kit.superuser() as connection:
                left.append(connection.execute("SELECT count(*) FROM idempotency_keys").fetchone()[0])
        assert left[-1] == 1
        assert left[-2] - left[-1] <= 2

    async def test_refusal_leaves_key_free(self, desk: Desk) -> None:
        call = desk.once(desk.user)
        desk.providers.is_away = True
        with pytest.raises(ServiceAway):
            await desk.link(call)
        desk.providers.is_away = False
        await desk.link(call)

    async def test_is_told_in_audit_log(self, desk: Desk) -> None:
        mrn = await desk.link()
        (told,) = await desk.kit.history(mrn.id)
        assert (told.action, told.entity_type, told.actor.id) == ("mrn.link", "mrn", str(desk.user_id))
        assert (told.user_id, told.platform_id) == (str(desk.user_id), str(desk.platform_id))
        assert json.loads(told.changes) == {
            "dependant_id": [None, mrn.dependant_id],
            "benefit_provider_id": [None, mrn.benefit_provider_id],
            "mrn": None,
            "user_id": [None, mrn.user_id],
            "source": [None, "USER"],
        }


class TestGetMrn:
    async def test_refuses_unknown_and_foreign(self, desk: Desk) -> None:
        mrn = await desk.link()
        other_id = await desk.add_user()
        assert (await desk.get(mrn.id, desk.partner)).id == mrn.id
        for mrn_id, call in (
            (str(uuid4()), desk.user),
            (str(uuid4()), desk.partner),
            (mrn.id, desk.as_user(other_id)),
            (mrn.id, desk.other_partner),
        ):
            with pytest.raises(MrnUnknown):
                await desk.get(mrn_id, call)

    async def test_says_no_number_once_erased(self, desk: Desk) -> None:
        mrn = await desk.link()
        await desk.erase()
        erased = await desk.get(mrn.id, desk.partner)
        assert (erased.id, erased.dependant_id) == (mrn.id, mrn.dependant_id)
        assert not erased.HasField("mrn")


class TestListMrns:
    async def test_shows_users_their_own(self, desk: Desk) -> None:
        mine = await desk.link()
        other_id = await desk.add_user()
        dependant_id = await desk.add_dependant(other_id)
        theirs = await desk.link(desk.as_user(other_id), dependant_id=dependant_id)
        assert await desk.list_ids() == [mine.id]
        assert await desk.list_ids(user_id=str(desk.user_id)) == [mine.id]
        assert await desk.list_ids(desk.as_user(other_id)) == [theirs.id]
        assert await desk.list_ids(dependant_id=dependant_id) == []

    async def test_filters(self, desk: Desk) -> None:
        second_id, second_provider_id = await desk.add_dependant(), desk.add_provider()
        one = await desk.link(mrn="A")
        two = await desk.link(mrn="B", dependant_id=second_id)
        three = await desk.link(mrn="A", dependant_id=second_id, benefit_provider_id=second_provider_id)
        user_id = str(desk.user_id)
        for call in (desk.user, desk.partner):
            assert await desk.list_ids(call, user_id=user_id) == [three.id, two.id, one.id]
            assert await desk.list_ids(call, dependant_id=second_id) == [three.id, two.id]
            assert await desk.list_ids(call, user_id=user_id, benefit_provider_id=desk.provider_id) == [two.id, one.id]
            assert await desk.list_ids(call, user_id=user_id, mrn="A") == [three.id, one.id]
            assert await desk.list_ids(call, user_id=user_id, mrn="a") == []
            assert await desk.list_ids(call, dependant_id=second_id, mrn="A") == [three.id]
            assert await desk.list_ids(call, mrn="A", benefit_provider_id=desk.provider_id) == [one.id]
            assert await desk.list_ids(call, user_id=user_id, mrn="A", benefit_provider_id=str(uuid4())) == []
        assert await desk.list_ids(mrn="A") == [three.id, one.id]

    async def test_finds_number_across_users_for_partner_only(self, desk: Desk) -> None:
        mine = await desk.link(mrn="A")
        other_id = await desk.add_user()
        theirs = await desk.link(desk.as_user(other_id), mrn="A", dependant_id=await desk.add_dependant(other_id))
        wanted = {"mrn": "A", "benefit_provider_id": desk.provider_id}
        assert await desk.list_ids(desk.partner, **wanted) == [theirs.id, mine.id]
        assert await desk.list_ids(desk.user, **wanted) == [mine.id]
        assert await desk.list_ids(desk.other_partner, **wanted) == []

    @pytest.mark.parametrize("filters", [{}, {"mrn": "A"}, {"benefit_provider_id": str(uuid4())}])
    async def test_partner_must_say_whose(self, desk: Desk, filters: dict[str, str]) -> None:
        with pytest.raises(InvalidField) as refused:
            await desk.list_page(desk.partner, **filters)
        assert [detail.field for detail in refused.value.details] == ["user_id"]

    async def test_hides_other_platforms_users(self, desk: Desk) -> None:
        await desk.link()
        with pytest.raises(UserUnknown):
            await desk.list_page(desk.other_partner, user_id=str(desk.user_id))
        with pytest.raises(UserUnknown):
            await desk.list_page(desk.partner, user_id=str(uuid4()))
        assert await desk.list_ids(desk.other_partner, dependant_id=desk.dependant_id) == []

    async def test_pages_newest_first(self, desk: Desk) -> None:
        made = [(await desk.link(benefit_provider_id=desk.add_provider())).id for _ in range(5)]
        seen, token = [], ""
        while True:
            page = await desk.list_page(page_size=2, page_token=token)
            seen += [mrn.id for mrn in page.mrns]
            token = page.next_page_token
            if not token:
                break
        assert seen == made[::-1]

    async def test_token_is_bound_to_filters(self, desk: Desk) -> None:
        for _ in range(2):
            await desk.link(benefit_provider_id=desk.add_provider())
        token = (await desk.list_page(page_size=1)).next_page_token
        with pytest.raises(BadPageToken):
            await desk.list_page(page_size=1, page_token=token, dependant_id=desk.dependant_id)


class TestUnlinkMrn:
    async def test_unlinks(self, desk: Desk) -> None:
        mrn = await desk.link(mrn="AP004711")
        await desk.unlink(mrn.id)
        assert await desk.list_ids() == []
        with pytest.raises(MrnUnknown):
            await desk.get(mrn.id)
        with pytest.raises(MrnUnknown):
            await desk.unlink(mrn.id)
        assert (await desk.link(mrn="AP004711")).id != mrn.id

    async def test_refuses_unknown(self, desk: Desk) -> None:
        with pytest.raises(MrnUnknown):
            await desk.unlink(str(uuid4()))

    async def test_is_told_in_audit_log(self, desk: Desk) -> None:
        mrn = await desk.link()
        await desk.unlink(mrn.id, reason="typed wrong, ticket 12")
        told = (await desk.kit.history(mrn.id))[-1]
        assert (told.action, told.actor.id, told.reason) == ("mrn.unlink", "asha", "typed wrong, ticket 12")
        assert (told.user_id, told.platform_id) == (str(desk.user_id), str(desk.platform_id))
        assert json.loads(told.changes)["source"] == ["USER", None]
        with desk.kit.superuser() as connection:
            row = connection.execute("SELECT audit_log FROM audit_log WHERE id = %s", (told.id,)).fetchone()
        assert "ticket" not in str(row)
        assert b"ticket".hex() not in str(row)

    async def test_waits_for_an_erasure_of_its_user_before_it_takes_the_mrn(self, desk: Desk) -> None:
        mrn = await desk.link()
        keys = "SELECT id FROM data_keys WHERE owner_id = %s FOR UPDATE"
        with desk.kit.superuser() as erasing, erasing.transaction():
            erasing.execute(keys, (desk.user_id,))
            unlinking = asyncio.create_task(desk.unlink(mrn.id, reason="typed wrong"))
            blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while erasing.execute(blocked).fetchone() == (0,):  # noqa: ASYNC110  # the database tells nobody
                await asyncio.sleep(0.02)
            assert erasing.execute("SELECT id FROM mrns WHERE id = %s FOR UPDATE NOWAIT", (mrn.id,)).fetchone()
        await unlinking

    async def test_simultaneous_unlinks_remove_once(self, desk: Desk) -> None:
        mrn = await desk.link()
        answers = await asyncio.gather(*(desk.unlink(mrn.id) for _ in range(6)), return_exceptions=True)
        assert answers.count(None) == 1
        assert sum(isinstance(answer, MrnUnknown) for answer in answers) == 5
        assert len(await desk.kit.history(mrn.id)) == 2
