"""BenefitService as its peers see it: a real process over mutual TLS."""

import secrets
from dataclasses import replace
from typing import Any
from uuid import uuid4

import grpc
import pytest

from aarokya.audit.v1.audit_log_service_pb2 import ListAuditLogsRequest
from aarokya.catalogue.v1 import benefit_provider_service_pb2 as providers_pb
from aarokya.catalogue.v1 import benefit_service_pb2 as pb
from aarokya.catalogue.v1.benefit_pb2 import Benefit, BenefitStatus, BenefitTranslation, BenefitType
from aarokya.catalogue.v1.benefit_provider_pb2 import BenefitProvider, BenefitProviderType
from servicekit.caller import Idempotency


@pytest.fixture
async def provider_id(gateway: Any) -> str:
    provider = BenefitProvider(
        code=f"p{secrets.token_hex(4)}",
        legal_name="Apollo Clinics Ltd",
        display_name="Apollo",
        type=BenefitProviderType.BENEFIT_PROVIDER_TYPE_CLINIC,
    )
    response = await gateway.providers.CreateBenefitProvider(
        providers_pb.CreateBenefitProviderRequest(benefit_provider=provider),
        metadata=gateway.asking(gateway.admin),
    )
    return str(response.benefit_provider.id)


async def create(gateway: Any, provider_id: str, call: Any = None, **fields: Any) -> Benefit:
    given = {
        "benefit_provider_id": provider_id,
        "code": secrets.token_hex(4),
        "name": "Annual health check",
        "type": BenefitType.BENEFIT_TYPE_DIAGNOSTICS,
        "status": BenefitStatus.BENEFIT_STATUS_ACTIVE,
        "price_paise": 49_900,
        **fields,
    }
    response = await gateway.benefits.CreateBenefit(
        pb.CreateBenefitRequest(benefit=Benefit(**given)), metadata=gateway.asking(call or gateway.admin)
    )
    return response.benefit


async def pages(gateway: Any, call: Any, **asked: Any) -> list[list[str]]:
    """Return the ids of all pages of a list."""
    found: list[list[str]] = []
    token = ""
    while token or not found:
        response = await gateway.benefits.ListBenefits(
            pb.ListBenefitsRequest(page_token=token, **asked), metadata=gateway.asking(call)
        )
        found.append([benefit.id for benefit in response.benefits])
        token = response.next_page_token
    return found


class TestCreateBenefit:
    async def test_happens_once_for_an_idempotency_key(self, gateway: Any, provider_id: str) -> None:
        once = replace(gateway.admin, idempotency=Idempotency(secrets.token_bytes(32), b"f" * 32))
        first = await create(gateway, provider_id, once, code="OPD")
        assert await create(gateway, provider_id, once, code="OPD") == first
        assert first.provider.display_name == "Apollo"

    async def test_refuses_with_the_codes_of_the_contract(self, gateway: Any, provider_id: str) -> None:
        await create(gateway, provider_id, code="OPD")
        assert await gateway.refusal(create(gateway, provider_id, code="OPD")) == (
            grpc.StatusCode.ALREADY_EXISTS,
            "BE_703",
            [],
        )
        assert await gateway.refusal(create(gateway, provider_id, code="?")) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "BE_702",
            ["code"],
        )
        assert await gateway.refusal(create(gateway, str(uuid4()))) == (grpc.StatusCode.INVALID_ARGUMENT, "BP_602", [])


class TestGetBenefit:
    async def test_hides_what_a_user_cannot_use(self, gateway: Any, provider_id: str) -> None:
        seen = await create(gateway, provider_id)
        hidden = await create(gateway, provider_id, platform_ids=[str(uuid4())])

        async def get(benefit_id: str) -> Benefit:
            response = await gateway.benefits.GetBenefit(
                pb.GetBenefitRequest(benefit_id=benefit_id), metadata=gateway.asking(gateway.user)
            )
            return response.benefit

        assert await get(seen.id) == seen
        assert await gateway.refusal(get(hidden.id)) == (grpc.StatusCode.NOT_FOUND, "BE_701", [])


class TestListBenefits:
    async def test_pages_newest_first_within_filters(self, gateway: Any, provider_id: str) -> None:
        added = [(await create(gateway, provider_id)).id for _ in range(5)]
        await create(gateway, provider_id, name="Something else")
        await create(gateway, provider_id, type=BenefitType.BENEFIT_TYPE_WELLNESS)

        found = await pages(
            gateway,
            gateway.user,
            page_size=2,
            benefit_provider_id=provider_id,
            q="HEALTH",
            type=BenefitType.BENEFIT_TYPE_DIAGNOSTICS,
        )

        assert found == [[added[4], added[3]], [added[2], added[1]], [added[0]]]

    async def test_binds_the_token_to_caller_and_filters(self, gateway: Any, provider_id: str) -> None:
        for _ in range(2):
            await create(gateway, provider_id)
        asked = {"page_size": 1, "benefit_provider_id": provider_id}
        first = await gateway.benefits.ListBenefits(
            pb.ListBenefitsRequest(**asked), metadata=gateway.asking(gateway.user)
        )
        token = first.next_page_token
        other_caller = gateway.benefits.ListBenefits(
            pb.ListBenefitsRequest(page_token=token, **asked), metadata=gateway.asking(gateway.admin)
        )
        other_filter = gateway.benefits.ListBenefits(
            pb.ListBenefitsRequest(page_token=token, q="health", **asked), metadata=gateway.asking(gateway.user)
        )
        for call in (other_caller, other_filter):
            assert await gateway.refusal(call) == (grpc.StatusCode.INVALID_ARGUMENT, "RQ_113", [])

    async def test_shortens_a_page_that_no_answer_could_carry(self, gateway: Any, provider_id: str) -> None:
        texts = {f"aa-{number:04}": BenefitTranslation(name="जाँच" * 50) for number in range(600)}
        added = [(await create(gateway, provider_id, translations=texts)).id for _ in range(12)]

        found = await pages(gateway, gateway.admin, page_size=200, benefit_provider_id=provider_id)

        assert len(found) > 1
        assert [benefit_id for page in found for benefit_id in page] == added[::-1]


class TestUpdateBenefit:
    async def test_takes_the_mask_and_the_version(self, gateway: Any, provider_id: str) -> None:
        benefit = await create(gateway, provider_id, description="Text.")
        request = pb.UpdateBenefitRequest(
            benefit_id=benefit.id,
            benefit=Benefit(name="Health check"),
            update_mask={"paths": ["name", "description"]},
            expected_version=1,
        )
        metadata = gateway.asking(gateway.admin)

        changed = (await gateway.benefits.UpdateBenefit(request, metadata=metadata)).benefit

        assert (changed.name, changed.HasField("description"), changed.version) == ("Health check", False, 2)
        again = gateway.benefits.UpdateBenefit(request, metadata=metadata)
        assert await gateway.refusal(again) == (grpc.StatusCode.FAILED_PRECONDITION, "RQ_110", [])

    async def test_leaves_no_more_than_a_page_of_the_audit_log_can_tell(self, gateway: Any, provider_id: str) -> None:
        benefit = await create(gateway, provider_id)
        metadata = gateway.asking(gateway.admin)
        for number in range(201):
            longest = Benefit(
                platform_ids=[str(uuid4()) for _ in range(200)], terms_url=f"https://a.example/{number}/{'é' * 2000}"
            )
            request = pb.UpdateBenefitRequest(
                benefit_id=benefit.id, benefit=longest, update_mask={"paths": ["platform_ids", "terms_url"]}
            )
            await gateway.benefits.UpdateBenefit(request, metadata=metadata)
        listing = ListAuditLogsRequest(entity_id=benefit.id, limit=201)
        answer = await gateway.audit_logs.ListAuditLogs(listing, metadata=metadata)
        assert len(answer.audit_logs) == 201


class TestDeleteBenefit:
    async def test_archives_it_and_may_be_repeated(self, gateway: Any, provider_id: str) -> None:
        benefit = await create(gateway, provider_id)
        metadata = gateway.asking(gateway.admin)
        for _ in range(2):
            await gateway.benefits.DeleteBenefit(pb.DeleteBenefitRequest(benefit_id=benefit.id), metadata=metadata)
        response = await gateway.benefits.GetBenefit(pb.GetBenefitRequest(benefit_id=benefit.id), metadata=metadata)
        assert response.benefit.status == BenefitStatus.BENEFIT_STATUS_ARCHIVED
        assert response.benefit.version == 2


class TestPeers:
    @pytest.mark.parametrize("method", ["Create", "Get", "List", "Update", "Delete"])
    async def test_records_may_do_nothing(self, records: Any, method: str) -> None:
        name = f"{method}Benefit{'s' if method == 'List' else ''}"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await getattr(records.benefits, name)(
                getattr(pb, f"{name}Request")(), metadata=records.asking(records.records)
            )
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED

    async def test_a_user_writes_nothing_even_by_mistake_of_the_gateway(self, gateway: Any, provider_id: str) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await create(gateway, provider_id, gateway.user)
        assert refused.value.code() is grpc.StatusCode.INTERNAL
