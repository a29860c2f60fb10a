"""The rules about benefit providers, on a real database."""

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from aarokya.catalogue.v1.benefit_provider_pb2 import BenefitProviderStatus, BenefitProviderType
from catalogue.benefit_providers.errors import (
    BenefitProviderCodeTaken,
    BenefitProviderInUse,
    BenefitProviderMissing,
    BenefitProviderRuleBroken,
    BenefitProviderUnknown,
)
from servicekit.errors import VersionMismatch
from tests.database_server import waits_for_standby, without_standby

INACTIVE = BenefitProviderStatus.BENEFIT_PROVIDER_STATUS_INACTIVE
ACTIVE = BenefitProviderStatus.BENEFIT_PROVIDER_STATUS_ACTIVE

ACCEPTED = [
    ("code", "ab"),
    ("code", "a" + "_9" * 15 + "z"),
    ("support_phone", "1800-103-1111"),
    ("support_phone", "+91 80 2630 4050"),
    ("support_phone", "(080) 2630.4050"),
    ("support_phone", "104"),
    ("support_email", "help@apollo.example"),
    ("website", "https://apollo.example"),
    ("website", "http://apollo.example:8080/help?lang=hi#top"),
    ("website", "HTTPS://अपोलो.भारत/"),
    ("mrn_pattern", r"AP\d{6}"),
    ("mrn_pattern", "(?i)[a-z]{2}-[0-9]+"),
    ("mrn_pattern", "(a+)+"),
    ("mrn_pattern", "a" * 200),
]
REFUSED = [
    ("code", "a"),
    ("code", "Apollo"),
    ("code", "9apollo"),
    ("code", "apollo clinic"),
    ("code", "apollo\n"),
    ("code", "a" * 33),
    ("code", "अपोलो"),
    ("support_phone", "call us"),
    ("support_phone", "12"),
    ("support_phone", "+"),
    ("support_phone", "1" * 16),
    ("support_phone", "१८००१०३११११"),
    ("support_email", "help"),
    ("website", "apollo.example"),
    ("website", "javascript:alert(1)"),
    ("website", "https://"),
    ("website", "https://apollo"),
    ("website", "https://user@apollo.example"),
    ("website", "https://apollo.example/a b"),
    ("mrn_pattern", "("),
    ("mrn_pattern", "(?=AP)"),
    ("mrn_pattern", r"(a)\1"),
    ("mrn_pattern", r"(\pL{1000}){1000}"),
    ("mrn_pattern", "a" * 201),
]


class TestCreateProvider:
    async def test_answers_all_fields_with_their_defaults(self, kit: Any) -> None:
        provider = await kit.add_provider(code="apollo", metadata=json.dumps({"z": 1.0, "a": [None, "é"]}))

        assert provider.code == "apollo"
        assert provider.type == BenefitProviderType.BENEFIT_PROVIDER_TYPE_CLINIC
        assert provider.status == ACTIVE
        assert not provider.issues_mrn
        assert not provider.HasField("mrn_pattern")
        assert provider.version == 1
        assert provider.created_at == provider.updated_at
        async with kit.as_admin() as tx:
            assert await kit.providers.get_provider(tx, UUID(provider.id)) == provider

    async def test_keeps_the_status_that_was_given(self, kit: Any) -> None:
        assert (await kit.add_provider(status=INACTIVE)).status == INACTIVE

    @pytest.mark.parametrize(("field", "value"), ACCEPTED)
    async def test_accepts(self, kit: Any, field: str, value: str) -> None:
        assert getattr(await kit.add_provider(**{field: value}), field) == value

    @pytest.mark.parametrize(("field", "value"), REFUSED)
    async def test_refuses_naming_the_field(self, kit: Any, field: str, value: str) -> None:
        with pytest.raises(BenefitProviderRuleBroken) as refused:
            await kit.add_provider(**{field: value})
        assert [detail.field for detail in refused.value.details] == [field]

    async def test_refuses_a_pattern_without_a_word_in_the_log(
        self, kit: Any, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(BenefitProviderRuleBroken):
            await kit.add_provider(mrn_pattern="(SECRET")
        assert "SECRET" not in capfd.readouterr().err

    async def test_tells_all_broken_rules_at_once(self, kit: Any) -> None:
        with pytest.raises(BenefitProviderRuleBroken) as refused:
            await kit.add_provider(code="?", website="?", support_email="?")
        assert [detail.field for detail in refused.value.details] == ["code", "support_email", "website"]

    async def test_refuses_a_code_that_is_taken(self, kit: Any) -> None:
        await kit.add_provider(code="apollo")
        with pytest.raises(BenefitProviderCodeTaken):
            await kit.add_provider(code="apollo")

    async def test_writes_history(self, kit: Any) -> None:
        provider = await kit.add_provider(metadata='{"owner":"Ravi"}')

        (entry,) = await kit.history(provider.id)
        assert (entry.action, entry.entity_type, entry.actor.id) == (
            "benefit_provider.create",
            "benefit_provider",
            "asha",
        )
        changes = json.loads(entry.changes)
        assert changes["code"] == [None, provider.code]
        assert changes["status"] == [None, "active"]
        assert changes["metadata"] is None


class TestGetProvider:
    async def test_refuses_an_unknown_one(self, kit: Any) -> None:
        async with kit.as_admin() as tx:
            with pytest.raises(BenefitProviderUnknown):
                await kit.providers.get_provider(tx, uuid4())


class TestUpdateProvider:
    async def test_changes_named_fields_only(self, kit: Any) -> None:
        provider = await kit.add_provider(website="https://apollo.example", mrn_pattern="AP[0-9]+")

        changed = await kit.update_provider(provider.id, display_name="Apollo Plus", website=None, issues_mrn=True)

        assert changed.display_name == "Apollo Plus"
        assert not changed.HasField("website")
        assert changed.issues_mrn
        assert changed.mrn_pattern == "AP[0-9]+"
        assert changed.version == 2
        assert changed.created_at == provider.created_at
        assert changed.updated_at.ToNanoseconds() > provider.updated_at.ToNanoseconds()
        _, entry = await kit.history(provider.id)
        assert entry.action == "benefit_provider.update"
        assert json.loads(entry.changes) == {
            "display_name": ["Apollo", "Apollo Plus"],
            "website": ["https://apollo.example", None],
            "issues_mrn": [False, True],
        }

    async def test_a_change_that_changes_nothing_leaves_no_trace(self, kit: Any) -> None:
        provider = await kit.add_provider(metadata='{"b":1,"a":2}')

        assert await kit.update_provider(provider.id) == provider
        assert await kit.update_provider(provider.id, display_name="Apollo", metadata='{"b":1,"a":2}') == provider
        assert len(await kit.history(provider.id)) == 1

    async def test_checks_the_version_before_the_rules(self, kit: Any) -> None:
        provider = await kit.add_provider()
        with pytest.raises(VersionMismatch):
            await kit.update_provider(provider.id, 2, code="?")
        with pytest.raises(BenefitProviderUnknown):
            await kit.update_provider(str(uuid4()), 2, code="?")
        with pytest.raises(BenefitProviderRuleBroken):
            await kit.update_provider(provider.id, 1, code="?")

    async def test_refuses_a_code_that_is_taken(self, kit: Any) -> None:
        await kit.add_provider(code="apollo")
        other = await kit.add_provider()
        with pytest.raises(BenefitProviderCodeTaken):
            await kit.update_provider(other.id, code="apollo")

    async def test_writers_at_once_lose_no_update(self, kit: Any) -> None:
        provider = await kit.add_provider()

        changed = await asyncio.gather(
            *(kit.update_provider(provider.id, display_name=f"Apollo {number}") for number in range(8))
        )

        assert sorted(each.version for each in changed) == list(range(2, 10))

    async def test_one_of_two_writers_with_the_same_version_wins(self, kit: Any) -> None:
        provider = await kit.add_provider()

        answers = await asyncio.gather(
            *(kit.update_provider(provider.id, 1, display_name=f"Apollo {number}") for number in range(2)),
            return_exceptions=True,
        )

        assert sorted(isinstance(answer, VersionMismatch) for answer in answers) == [False, True]


class TestDeleteProvider:
    async def test_removes_one_that_nothing_refers_to(self, kit: Any) -> None:
        provider = await kit.add_provider(code="apollo")

        await kit.delete_provider(provider.id)

        with pytest.raises(BenefitProviderUnknown):
            await kit.delete_provider(provider.id)
        assert (await kit.history(provider.id))[-1].action == "benefit_provider.delete"
        await kit.add_provider(code="apollo")

    async def test_honours_the_version(self, kit: Any) -> None:
        provider = await kit.add_provider()
        with pytest.raises(VersionMismatch):
            await kit.delete_provider(provider.id, 2)
        await kit.delete_provider(provider.id, 1)

    async def test_refuses_one_with_a_benefit_even_archived(self, kit: Any) -> None:
        provider = await kit.add_provider()
        benefit = await kit.add_benefit(provider)
        await kit.archive_benefit(benefit.id)
        with pytest.raises(BenefitProviderInUse):
            await kit.delete_provider(provider.id)

    async def test_refuses_one_whose_mrn_was_checked(self, kit: Any) -> None:
        provider = await kit.add_provider(issues_mrn=True)
        await kit.check_mrn(provider.id)
        await kit.update_provider(provider.id, issues_mrn=False)
        with pytest.raises(BenefitProviderInUse):
            await kit.delete_provider(provider.id)

    async def test_leaves_no_benefit_without_its_provider(self, kit: Any) -> None:
        for _ in range(5):
            provider = await kit.add_provider()

            deleted, added = await asyncio.gather(
                kit.delete_provider(provider.id), kit.add_benefit(provider), return_exceptions=True
            )

            if deleted is None:
                assert isinstance(added, BenefitProviderMissing)
            else:
                assert isinstance(deleted, BenefitProviderInUse)
                assert (await kit.find_benefit(added.id)).provider.id == provider.id

    async def test_leaves_no_checked_mrn_without_its_provider(self, kit: Any) -> None:
        for _ in range(5):
            provider = await kit.add_provider(issues_mrn=True)

            deleted, usable = await asyncio.gather(
                kit.delete_provider(provider.id), kit.check_mrn(provider.id), return_exceptions=True
            )

            if deleted is None:
                assert usable is None
            else:
                assert isinstance(deleted, BenefitProviderInUse)
                assert usable.id == provider.id


class TestCheckMrnProvider:
    async def test_answers_one_that_is_active_and_issues(self, kit: Any) -> None:
        provider = await kit.add_provider(issues_mrn=True, mrn_pattern="AP[0-9]+")
        assert (await kit.check_mrn(provider.id)).mrn_pattern == "AP[0-9]+"

    async def test_answers_no_other(self, kit: Any) -> None:
        silent = await kit.add_provider()
        inactive = await kit.add_provider(issues_mrn=True, status=INACTIVE)

        for provider_id in (silent.id, inactive.id, str(uuid4())):
            assert await kit.check_mrn(provider_id) is None
        await kit.delete_provider(silent.id)
        await kit.delete_provider(inactive.id)

    async def test_writes_once_however_often_it_is_asked(self, kit: Any) -> None:
        provider = await kit.add_provider(issues_mrn=True)

        answers = await asyncio.gather(*(kit.check_mrn(provider.id) for _ in range(8)))

        assert all(answer.id == provider.id for answer in answers)
        entries = await kit.history(provider.id)
        assert [entry.action for entry in entries] == ["benefit_provider.create", "benefit_provider.note_mrn_issued"]
        assert entries[-1].actor.id == "records"

    async def test_answers_only_when_no_standby_can_lack_that_there_may_be_mrns(self, kit: Any) -> None:
        provider = await kit.add_provider(issues_mrn=True)
        with without_standby(kit.superuser_dsn):
            assert await waits_for_standby(kit.check_mrn(provider.id))
            # Everybody sees what was given up, so it is not written again.
            assert await waits_for_standby(kit.check_mrn(provider.id))
        assert await kit.check_mrn(provider.id) == provider
        kit.providers.note_checked(UUID(provider.id))
        with without_standby(kit.superuser_dsn):
            assert await kit.check_mrn(provider.id) == provider

    async def test_leaves_the_version_as_it_is(self, kit: Any) -> None:
        provider = await kit.add_provider(issues_mrn=True)
        assert await kit.check_mrn(provider.id) == provider
        assert (await kit.update_provider(provider.id, 1, display_name="Apollo Plus")).version == 2
