"""The rules about benefits, on a real database."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from aarokya.catalogue.v1.benefit_pb2 import Benefit, BenefitStatus, BenefitTranslation, BenefitType, Relationship
from aarokya.catalogue.v1.benefit_provider_pb2 import BenefitProviderStatus
from catalogue.benefit_providers.errors import BenefitProviderMissing
from catalogue.benefits.errors import BenefitCodeTaken, BenefitRuleBroken, BenefitUnknown
from catalogue.benefits.service import BenefitService
from servicekit.calendar_days import day_in
from servicekit.errors import VersionMismatch

INACTIVE = BenefitProviderStatus.BENEFIT_PROVIDER_STATUS_INACTIVE
DRAFT = BenefitStatus.BENEFIT_STATUS_DRAFT
ACTIVE = BenefitStatus.BENEFIT_STATUS_ACTIVE
PAUSED = BenefitStatus.BENEFIT_STATUS_PAUSED
ARCHIVED = BenefitStatus.BENEFIT_STATUS_ARCHIVED
SON, SPOUSE = Relationship.RELATIONSHIP_SON, Relationship.RELATIONSHIP_SPOUSE
WELLNESS = BenefitType.BENEFIT_TYPE_WELLNESS

ACCEPTED = [
    {"code": "OPD-2026.v_1"},
    {"code": "x" * 64},
    {"valid_from": "2026-01-01", "valid_to": "2026-01-02"},
    {"valid_to": "2020-01-01"},
    {"min_age": 18, "max_age": 18},
    {"min_age": 60},
    {"terms_url": "https://apollo.example/terms"},
    {"translations": {"hi": BenefitTranslation(name="जाँच"), "zh-Hant-TW": BenefitTranslation(name="健檢")}},
    {"price_paise": 0, "coverage_paise": 2**53 - 1},
]
REFUSED = [
    ("code", {"code": "x" * 65}),
    ("code", {"code": "a b"}),
    ("code", {"code": "a\n"}),
    ("valid_to", {"valid_from": "2026-01-02", "valid_to": "2026-01-01"}),
    ("valid_to", {"valid_from": "2026-01-01", "valid_to": "2026-01-01"}),
    ("max_age", {"min_age": 19, "max_age": 18}),
    ("terms_url", {"terms_url": "ftp://apollo.example"}),
    ("translations", {"translations": {"hindi language": BenefitTranslation(name="जाँच")}}),
    ("platform_ids", {"platform_ids": [str(uuid4()) for _ in range(201)]}),
]


def days_from_today(days: int) -> str:
    return (day_in("Asia/Kolkata", datetime.now(UTC)) + timedelta(days=days)).isoformat()


class TestCreateBenefit:
    async def test_answers_all_fields_with_their_provider(self, kit: Any) -> None:
        provider = await kit.add_provider(issues_mrn=True, mrn_pattern="AP[0-9]+", status=INACTIVE)
        wanted = {
            "code": "OPD",
            "name": "Doctor visit",
            "short_description": "One visit.",
            "description": "One visit a year.",
            "valid_from": "2026-01-01",
            "valid_to": "2026-12-31",
            "price_paise": 10_000,
            "coverage_paise": 50_000_00,
            "eligible_relationships": [SON, SPOUSE],
            "min_age": 18,
            "max_age": 60,
            "platform_ids": [str(uuid4()), str(uuid4())],
            "terms_url": "https://apollo.example/terms",
            "translations": {"hi": BenefitTranslation(name="डॉक्टर", short_description="एक बार।")},
        }

        benefit = await kit.add_benefit(provider, **wanted)

        assert benefit.version == 1
        summary = benefit.provider
        assert (summary.id, summary.display_name, summary.type, summary.status) == (
            provider.id,
            provider.display_name,
            provider.type,
            INACTIVE,
        )
        assert summary.issues_mrn
        assert summary.mrn_pattern == "AP[0-9]+"
        given = Benefit(**wanted)
        assert all(getattr(benefit, name) == getattr(given, name) for name in wanted)
        assert await kit.find_benefit(benefit.id) == benefit

    async def test_is_a_draft_unless_said_otherwise(self, kit: Any) -> None:
        provider = await kit.add_provider()
        wanted = Benefit(
            benefit_provider_id=provider.id, code="a", name="A", type=BenefitType.BENEFIT_TYPE_OTHER, price_paise=0
        )
        async with kit.as_admin() as tx:
            benefit = await kit.benefits.create_benefit(tx, wanted)
        assert benefit.status == DRAFT
        assert not benefit.HasField("valid_from")
        assert not benefit.HasField("coverage_paise")

    @pytest.mark.parametrize("fields", ACCEPTED)
    async def test_accepts(self, kit: Any, fields: dict[str, Any]) -> None:
        benefit = await kit.add_benefit(**fields)
        assert all(getattr(benefit, name) == getattr(Benefit(**fields), name) for name in fields)

    @pytest.mark.parametrize(("field", "fields"), REFUSED)
    async def test_refuses_naming_the_field(self, kit: Any, field: str, fields: dict[str, Any]) -> None:
        with pytest.raises(BenefitRuleBroken) as refused:
            await kit.add_benefit(**fields)
        assert [detail.field for detail in refused.value.details] == [field]

    async def test_counts_what_is_repeated_once(self, kit: Any) -> None:
        platform_id = str(uuid4())
        benefit = await kit.add_benefit(
            eligible_relationships=[SON, SPOUSE, SON], platform_ids=[platform_id, platform_id]
        )
        assert list(benefit.eligible_relationships) == [SON, SPOUSE]
        assert list(benefit.platform_ids) == [platform_id]

    async def test_refuses_an_unknown_provider(self, kit: Any) -> None:
        gone = await kit.add_provider()
        await kit.delete_provider(gone.id)
        with pytest.raises(BenefitProviderMissing):
            await kit.add_benefit(gone)

    async def test_refuses_a_code_that_is_taken_at_the_provider(self, kit: Any) -> None:
        provider = await kit.add_provider()
        await kit.add_benefit(provider, code="OPD")
        await kit.add_benefit(code="OPD")
        await kit.add_benefit(provider, code="opd")
        with pytest.raises(BenefitCodeTaken):
            await kit.add_benefit(provider, code="OPD")

    async def test_writes_history_without_long_texts(self, kit: Any) -> None:
        benefit = await kit.add_benefit(description="Text." * 100, translations={"hi": BenefitTranslation(name="जाँच")})

        (entry,) = await kit.history(benefit.id)
        assert (entry.action, entry.entity_type, entry.actor.id) == ("benefit.create", "benefit", "asha")
        changes = json.loads(entry.changes)
        assert changes["status"] == [None, "active"]
        assert changes["benefit_provider_id"] == [None, benefit.benefit_provider_id]
        assert changes["description"] is None
        assert changes["translations"] is None
        assert "provider" not in changes


class TestUpdateBenefit:
    async def test_changes_named_fields_only(self, kit: Any) -> None:
        benefit = await kit.add_benefit(
            description="Text.", platform_ids=[str(uuid4())], translations={"hi": BenefitTranslation(name="जाँच")}
        )

        changed = await kit.update_benefit(
            benefit.id, name="Health check", description=None, platform_ids=[], translations={}
        )

        assert changed.name == "Health check"
        assert not changed.HasField("description")
        assert not changed.platform_ids
        assert not changed.translations
        assert changed.provider == benefit.provider
        assert changed.version == 2
        assert await kit.find_benefit(benefit.id) == changed
        _, entry = await kit.history(benefit.id)
        assert entry.action == "benefit.update"
        assert json.loads(entry.changes) == {
            "name": ["Annual health check", "Health check"],
            "description": None,
            "platform_ids": [list(benefit.platform_ids), []],
            "translations": None,
        }

    async def test_a_change_that_changes_nothing_leaves_no_trace(self, kit: Any) -> None:
        benefit = await kit.add_benefit(eligible_relationships=[SON, SPOUSE])

        assert await kit.update_benefit(benefit.id) == benefit
        assert await kit.update_benefit(benefit.id, eligible_relationships=[SON, SPOUSE, SON]) == benefit
        assert len(await kit.history(benefit.id)) == 1

    async def test_judges_a_change_together_with_what_stays(self, kit: Any) -> None:
        benefit = await kit.add_benefit(valid_from="2026-06-01", min_age=18)
        with pytest.raises(BenefitRuleBroken):
            await kit.update_benefit(benefit.id, valid_to="2026-05-01")
        with pytest.raises(BenefitRuleBroken):
            await kit.update_benefit(benefit.id, max_age=17)
        await kit.update_benefit(benefit.id, valid_from=None, valid_to="2026-05-01", min_age=None, max_age=17)

    async def test_checks_existence_then_version_then_rules(self, kit: Any) -> None:
        benefit = await kit.add_benefit()
        with pytest.raises(BenefitUnknown):
            await kit.update_benefit(str(uuid4()), 2, code="?")
        with pytest.raises(VersionMismatch):
            await kit.update_benefit(benefit.id, 2, code="?")
        with pytest.raises(BenefitRuleBroken):
            await kit.update_benefit(benefit.id, 1, code="?")

    async def test_refuses_a_code_that_is_taken_at_the_provider(self, kit: Any) -> None:
        provider = await kit.add_provider()
        await kit.add_benefit(provider, code="OPD")
        other = await kit.add_benefit(provider)
        with pytest.raises(BenefitCodeTaken):
            await kit.update_benefit(other.id, code="OPD")

    async def test_brings_an_archived_one_back(self, kit: Any) -> None:
        benefit = await kit.add_benefit(status=ARCHIVED)
        await kit.update_benefit(benefit.id, status=ACTIVE)
        assert await kit.list_benefits(kit.user) == [benefit.id]

    async def test_writers_at_once_lose_no_update(self, kit: Any) -> None:
        benefit = await kit.add_benefit()
        changed = await asyncio.gather(*(kit.update_benefit(benefit.id, price_paise=number) for number in range(8)))
        assert sorted(each.version for each in changed) == list(range(2, 10))


class TestArchiveBenefit:
    async def test_keeps_it_for_operators(self, kit: Any) -> None:
        benefit = await kit.add_benefit()

        await kit.archive_benefit(benefit.id)

        archived = await kit.find_benefit(benefit.id)
        assert (archived.status, archived.version) == (ARCHIVED, 2)
        assert await kit.list_benefits(kit.user) == []
        entry = (await kit.history(benefit.id))[-1]
        assert entry.action == "benefit.archive"
        assert json.loads(entry.changes) == {"status": ["active", "archived"]}

    async def test_once_more_changes_nothing(self, kit: Any) -> None:
        benefit = await kit.add_benefit()
        await kit.archive_benefit(benefit.id)
        await kit.archive_benefit(benefit.id)
        assert (await kit.find_benefit(benefit.id)).version == 2
        assert len(await kit.history(benefit.id)) == 2

    async def test_checks_existence_then_version(self, kit: Any) -> None:
        benefit = await kit.add_benefit()
        with pytest.raises(BenefitUnknown):
            await kit.archive_benefit(str(uuid4()), 2)
        with pytest.raises(VersionMismatch):
            await kit.archive_benefit(benefit.id, 2)


class TestWhatUsersSee:
    async def assert_seen(self, kit: Any, benefit: Benefit, is_seen: bool) -> None:
        """The list, the resource itself and the operator's view of both."""
        assert await kit.list_benefits(kit.user) == ([benefit.id] if is_seen else [])
        if is_seen:
            assert await kit.find_benefit(benefit.id, kit.user) == benefit
        else:
            with pytest.raises(BenefitUnknown):
                await kit.find_benefit(benefit.id, kit.user)
        assert await kit.list_benefits() == [benefit.id]
        assert await kit.find_benefit(benefit.id) == benefit

    @pytest.mark.parametrize("status", [DRAFT, ACTIVE, PAUSED, ARCHIVED])
    async def test_sees_active_ones(self, kit: Any, status: BenefitStatus.ValueType) -> None:
        await self.assert_seen(kit, await kit.add_benefit(status=status), status == ACTIVE)

    @pytest.mark.parametrize(
        ("first", "last", "is_seen"),
        [
            (None, None, True),
            (0, None, True),
            (1, None, False),
            (None, 0, True),
            (None, -1, False),
            (-1, 0, True),
            (0, 1, True),
            (-2, -1, False),
            (1, 2, False),
        ],
    )
    async def test_sees_those_of_today(self, kit: Any, first: int | None, last: int | None, is_seen: bool) -> None:
        benefit = await kit.add_benefit(
            valid_from=None if first is None else days_from_today(first),
            valid_to=None if last is None else days_from_today(last),
        )
        await self.assert_seen(kit, benefit, is_seen)

    async def test_today_is_the_day_of_the_product(self, kit: Any) -> None:
        # It is always at least a day later on Kiritimati than on Niue.
        begins = day_in("Pacific/Kiritimati", datetime.now(UTC)).isoformat()
        await kit.add_benefit(valid_from=begins)

        async def count_on(zone: str) -> int:
            rules = BenefitService(kit.benefit_rows, kit.audit, zone)
            nothing = {"kind": None, "provider_id": None, "part_of_name": None, "cursor": None}
            async with kit.database.transaction(kit.user) as tx:
                return len(await rules.list_benefits(tx, page_size=50, **nothing))

        assert await count_on("Pacific/Kiritimati") == 1
        assert await count_on("Pacific/Niue") == 0

    async def test_sees_nothing_of_an_inactive_provider(self, kit: Any) -> None:
        provider = await kit.add_provider()
        benefit = await kit.add_benefit(provider)
        await kit.update_provider(provider.id, status=INACTIVE)
        assert await kit.list_benefits(kit.user) == []
        with pytest.raises(BenefitUnknown):
            await kit.find_benefit(benefit.id, kit.user)
        assert (await kit.find_benefit(benefit.id)).provider.status == INACTIVE

    async def test_sees_what_is_offered_to_the_platform(self, kit: Any) -> None:
        for_all = await kit.add_benefit()
        for_both = await kit.add_benefit(platform_ids=[str(uuid4()), str(kit.platform_id)])
        elsewhere = await kit.add_benefit(platform_ids=[str(kit.user_elsewhere.caller.platform_id)])

        assert await kit.list_benefits(kit.user) == [for_both.id, for_all.id]
        assert await kit.list_benefits(kit.user_elsewhere) == [elsewhere.id, for_all.id]
        with pytest.raises(BenefitUnknown):
            await kit.find_benefit(elsewhere.id, kit.user)
        assert len(await kit.list_benefits()) == 3


class TestFilters:
    async def test_by_type_and_provider(self, kit: Any) -> None:
        provider = await kit.add_provider()
        wellness = await kit.add_benefit(provider, type=WELLNESS)
        other = await kit.add_benefit(provider)
        await kit.add_benefit(type=WELLNESS)

        for caller in (kit.admin, kit.user):
            assert await kit.list_benefits(caller, provider_id=UUID(provider.id)) == [other.id, wellness.id]
            assert await kit.list_benefits(caller, provider_id=UUID(provider.id), kind=WELLNESS) == [wellness.id]
            assert len(await kit.list_benefits(caller, kind=WELLNESS)) == 2
            assert await kit.list_benefits(caller, provider_id=uuid4()) == []

    @pytest.mark.parametrize(
        ("name", "part"),
        [
            ("Annual Health Check", "HEALTH"),
            ("Annual Health Check", "l h"),
            ("50% off", "0%"),
            ("opd_visit", "D_V"),
            (r"back\slash", "k\\s"),
            ("it's", "'"),
            ("Straße", "STRASSE"),
            ("स्वास्थ्य जाँच", "जाँच"),
            ("Ｆull width", "full"),
        ],
    )
    async def test_by_part_of_the_name(self, kit: Any, name: str, part: str) -> None:
        found = await kit.add_benefit(name=name)
        await kit.add_benefit(name="Something else")
        assert await kit.list_benefits(part_of_name=part) == [found.id]
        assert await kit.list_benefits(kit.user, part_of_name=part) == [found.id]

    @pytest.mark.parametrize("part", ["%", "_", "a%k", "Annual_health", "\\", "*", "description"])
    async def test_knows_no_wildcards(self, kit: Any, part: str) -> None:
        await kit.add_benefit(name="Annual health check", description="A description")
        assert await kit.list_benefits(part_of_name=part) == []

    async def test_finds_a_new_name_and_no_longer_the_old(self, kit: Any) -> None:
        benefit = await kit.add_benefit(name="Old")
        await kit.update_benefit(benefit.id, name="New")
        assert await kit.list_benefits(part_of_name="new") == [benefit.id]
        assert await kit.list_benefits(part_of_name="old") == []
