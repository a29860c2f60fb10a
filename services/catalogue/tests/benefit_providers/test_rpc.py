"""BenefitProviderService as its peers see it: a real process over mutual TLS."""

import asyncio
import secrets
from dataclasses import replace
from typing import Any
from uuid import uuid4

import grpc
import pytest

from aarokya.catalogue.v1 import benefit_provider_service_pb2 as pb
from aarokya.catalogue.v1.benefit_provider_pb2 import BenefitProvider, BenefitProviderType
from aarokya.catalogue.v1.benefit_provider_service_pb2_grpc import BenefitProviderServiceStub
from servicekit.caller import Idempotency
from servicekit.server import REPLAYED_KEY


def wanted(**fields: Any) -> BenefitProvider:
    given = {
        "code": f"p{secrets.token_hex(4)}",
        "legal_name": "Apollo Clinics Ltd",
        "display_name": "Apollo",
        "type": BenefitProviderType.BENEFIT_PROVIDER_TYPE_CLINIC,
        **fields,
    }
    return BenefitProvider(**given)


async def create(gateway: Any, **fields: Any) -> BenefitProvider:
    response = await gateway.providers.CreateBenefitProvider(
        pb.CreateBenefitProviderRequest(benefit_provider=wanted(**fields)), metadata=gateway.asking(gateway.admin)
    )
    return response.benefit_provider


class TestCreateBenefitProvider:
    async def test_happens_once_for_an_idempotency_key(self, gateway: Any) -> None:
        once = replace(gateway.admin, idempotency=Idempotency(secrets.token_bytes(32), b"f" * 32))
        request = pb.CreateBenefitProviderRequest(benefit_provider=wanted())

        async def send() -> tuple[BenefitProvider, bool]:
            call = gateway.providers.CreateBenefitProvider(request, metadata=gateway.asking(once))
            provider = (await call).benefit_provider
            return provider, (REPLAYED_KEY, "1") in [tuple(entry) for entry in await call.trailing_metadata() or ()]

        first, again = await send(), await send()

        assert first == (again[0], False)
        assert again[1]

    async def test_refuses_a_key_with_another_body(self, gateway: Any) -> None:
        once = replace(gateway.admin, idempotency=Idempotency(secrets.token_bytes(32), b"f" * 32))
        other = replace(once, idempotency=replace(once.idempotency, fingerprint=b"g" * 32))
        request = pb.CreateBenefitProviderRequest(benefit_provider=wanted())
        await gateway.providers.CreateBenefitProvider(request, metadata=gateway.asking(once))

        refused = gateway.providers.CreateBenefitProvider(request, metadata=gateway.asking(other))
        assert await gateway.refusal(refused) == (grpc.StatusCode.INVALID_ARGUMENT, "RQ_108", [])

    async def test_a_refusal_leaves_the_key_free(self, gateway: Any) -> None:
        once = replace(gateway.admin, idempotency=Idempotency(secrets.token_bytes(32), b"f" * 32))
        for _ in range(2):
            call = gateway.providers.CreateBenefitProvider(
                pb.CreateBenefitProviderRequest(benefit_provider=wanted(code="?")), metadata=gateway.asking(once)
            )
            assert await gateway.refusal(call) == (grpc.StatusCode.INVALID_ARGUMENT, "BP_605", ["code"])

    async def test_tells_which_fields_break_a_rule(self, gateway: Any) -> None:
        refused = create(gateway, website="?", mrn_pattern="(")
        assert await gateway.refusal(refused) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "BP_605",
            ["website", "mrn_pattern"],
        )

    async def test_refuses_a_code_that_is_taken(self, gateway: Any) -> None:
        provider = await create(gateway)
        assert await gateway.refusal(create(gateway, code=provider.code)) == (
            grpc.StatusCode.ALREADY_EXISTS,
            "BP_603",
            [],
        )


class TestGetBenefitProvider:
    async def test_answers_it(self, gateway: Any) -> None:
        provider = await create(gateway)
        response = await gateway.providers.GetBenefitProvider(
            pb.GetBenefitProviderRequest(benefit_provider_id=provider.id), metadata=gateway.asking(gateway.admin)
        )
        assert response.benefit_provider == provider

    async def test_refuses_an_unknown_one(self, gateway: Any) -> None:
        call = gateway.providers.GetBenefitProvider(
            pb.GetBenefitProviderRequest(benefit_provider_id=str(uuid4())),
            metadata=gateway.asking(gateway.admin),
        )
        assert await gateway.refusal(call) == (grpc.StatusCode.NOT_FOUND, "BP_601", [])


class TestListBenefitProviders:
    async def test_pages_newest_first_while_rows_are_added(self, gateway: Any) -> None:
        added = [(await create(gateway)).id for _ in range(5)]
        seen: list[str] = []
        token = ""
        while len(seen) < 5:
            page = await gateway.providers.ListBenefitProviders(
                pb.ListBenefitProvidersRequest(page_size=2, page_token=token),
                metadata=gateway.asking(gateway.admin),
            )
            seen += [provider.id for provider in page.benefit_providers]
            token = page.next_page_token
            await create(gateway)
        assert seen[:5] == added[::-1]

    async def test_refuses_a_token_that_was_changed(self, gateway: Any) -> None:
        call = gateway.providers.ListBenefitProviders(
            pb.ListBenefitProvidersRequest(page_size=2, page_token="AAAA"),
            metadata=gateway.asking(gateway.admin),
        )
        assert await gateway.refusal(call) == (grpc.StatusCode.INVALID_ARGUMENT, "RQ_113", [])


class TestUpdateBenefitProvider:
    async def test_takes_the_mask_and_the_version(self, gateway: Any) -> None:
        provider = await create(gateway, website="https://apollo.example")
        request = pb.UpdateBenefitProviderRequest(
            benefit_provider_id=provider.id,
            benefit_provider=BenefitProvider(display_name="Apollo Plus"),
            update_mask={"paths": ["display_name", "website"]},
            expected_version=1,
        )

        metadata = gateway.asking(gateway.admin)
        changed = (await gateway.providers.UpdateBenefitProvider(request, metadata=metadata)).benefit_provider

        assert (changed.display_name, changed.HasField("website"), changed.version) == ("Apollo Plus", False, 2)
        again = gateway.providers.UpdateBenefitProvider(request, metadata=metadata)
        assert await gateway.refusal(again) == (grpc.StatusCode.FAILED_PRECONDITION, "RQ_110", [])


class TestDeleteBenefitProvider:
    async def test_removes_it(self, gateway: Any) -> None:
        provider = await create(gateway)
        request = pb.DeleteBenefitProviderRequest(benefit_provider_id=provider.id, expected_version=1)
        metadata = gateway.asking(gateway.admin)
        await gateway.providers.DeleteBenefitProvider(request, metadata=metadata)
        again = gateway.providers.DeleteBenefitProvider(request, metadata=metadata)
        assert await gateway.refusal(again) == (grpc.StatusCode.NOT_FOUND, "BP_601", [])


class TestCheckMrnProvider:
    async def check(self, peer: Any, provider_id: str, call: Any) -> pb.CheckMrnProviderResponse:
        return await peer.providers.CheckMrnProvider(
            pb.CheckMrnProviderRequest(benefit_provider_id=provider_id), metadata=peer.asking(call)
        )

    async def test_tells_records_and_remembers(self, gateway: Any, records: Any) -> None:
        provider = await create(gateway, issues_mrn=True, mrn_pattern="AP[0-9]+")

        answers = await asyncio.gather(*(self.check(records, provider.id, records.records) for _ in range(5)))

        assert all(answer.usable and answer.mrn_pattern == "AP[0-9]+" for answer in answers)
        refused = gateway.providers.DeleteBenefitProvider(
            pb.DeleteBenefitProviderRequest(benefit_provider_id=provider.id),
            metadata=gateway.asking(gateway.admin),
        )
        assert await gateway.refusal(refused) == (grpc.StatusCode.FAILED_PRECONDITION, "BP_604", [])

    async def test_says_when_there_is_no_pattern(self, gateway: Any, records: Any) -> None:
        provider = await create(gateway, issues_mrn=True)
        answer = await self.check(records, provider.id, records.records)
        assert answer.usable
        assert not answer.HasField("mrn_pattern")

    async def test_an_unknown_one_is_not_usable(self, records: Any) -> None:
        assert not (await self.check(records, str(uuid4()), records.records)).usable


class TestPeers:
    async def test_only_records_may_check(self, gateway: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await gateway.providers.CheckMrnProvider(
                pb.CheckMrnProviderRequest(benefit_provider_id=str(uuid4())),
                metadata=gateway.asking(gateway.admin),
            )
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED

    @pytest.mark.parametrize("method", ["Create", "Get", "List", "Update", "Delete"])
    async def test_records_may_do_nothing_else(self, records: Any, method: str) -> None:
        name = f"{method}BenefitProvider{'s' if method == 'List' else ''}"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await getattr(records.providers, name)(
                getattr(pb, f"{name}Request")(), metadata=records.asking(records.records)
            )
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED

    async def test_records_may_not_speak_for_an_operator(self, records: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await TestCheckMrnProvider().check(records, str(uuid4()), records.admin)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED

    async def test_identity_may_do_nothing(self, running: Any, records: Any) -> None:
        async with running.channel("identity") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await BenefitProviderServiceStub(channel).CheckMrnProvider(
                    pb.CheckMrnProviderRequest(benefit_provider_id=str(uuid4())),
                    metadata=records.asking(records.records),
                )
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
