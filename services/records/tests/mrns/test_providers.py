"""How the catalogue is asked, over gRPC."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import grpc
import pytest

from aarokya.catalogue.v1.benefit_provider_service_pb2 import CheckMrnProviderResponse
from aarokya.catalogue.v1.benefit_provider_service_pb2_grpc import (
    BenefitProviderServiceServicer,
    add_BenefitProviderServiceServicer_to_server,
)
from records.mrns import providers as mrn_providers
from records.mrns.providers import MrnProviders
from servicekit.caller import METADATA_KEY, Call, Caller, CallerType
from servicekit.errors import ServiceAway
from servicekit.questions import PROBE_EVERY_S, SILENT_S

USER = Call(Caller(CallerType.USER, str(uuid4()), uuid4()), request_id="r-1")


class Catalogue(BenefitProviderServiceServicer):
    """Answers the same of every provider and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Call]] = []
        self.delay_s = 0.0

    async def CheckMrnProvider(self, request: Any, context: Any) -> CheckMrnProviderResponse:
        await asyncio.sleep(self.delay_s)
        metadata = dict(context.invocation_metadata())
        self.asked.append((request.benefit_provider_id, Call.from_bytes(metadata[METADATA_KEY])))
        return CheckMrnProviderResponse(usable=True, mrn_pattern="[0-9]+")


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue()


@pytest.fixture
async def providers(catalogue: Catalogue) -> AsyncIterator[MrnProviders]:
    server = grpc.aio.server()
    add_BenefitProviderServiceServicer_to_server(catalogue, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield MrnProviders(channel)
    await server.stop(None)


class TestCheck:
    async def test_asks_in_records_name(self, providers: MrnProviders, catalogue: Catalogue) -> None:
        provider_id = uuid4()
        answer = await providers.check(USER, provider_id)
        assert (answer.usable, answer.mrn_pattern) == (True, "[0-9]+")
        ((asked_id, call),) = catalogue.asked
        assert asked_id == str(provider_id)
        assert (call.caller.type, call.caller.id, call.request_id) == (CallerType.SYSTEM, "records", "r-1")

    async def test_does_not_wait_for_ever(
        self, providers: MrnProviders, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mrn_providers, "ASKING_TIMEOUT_S", 0.05)
        catalogue.delay_s = 5
        with pytest.raises(ServiceAway):
            await asyncio.wait_for(providers.check(USER, uuid4()), timeout=2)

    async def test_asks_little_while_the_catalogue_hangs(
        self, providers: MrnProviders, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mrn_providers, "ASKING_TIMEOUT_S", 0.2)
        catalogue.delay_s = 0.5
        began = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() - began <= SILENT_S:
            with pytest.raises(ServiceAway):
                await providers.check(USER, uuid4())
        catalogue.delay_s = 0.0
        refused = await asyncio.gather(*(providers.check(USER, uuid4()) for _ in range(50)), return_exceptions=True)
        assert sum(isinstance(answer, ServiceAway) for answer in refused) >= 49
        await asyncio.sleep(2 * PROBE_EVERY_S)
        await providers.check(USER, uuid4())
        assert all([(await providers.check(USER, uuid4())).usable for _ in range(50)])

    async def test_says_that_catalogue_is_away(self) -> None:
        async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
            with pytest.raises(ServiceAway):
                await MrnProviders(channel).check(USER, uuid4())
