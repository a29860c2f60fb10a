"""Asks the catalogue about benefit providers."""

from uuid import UUID

import grpc.aio
import structlog

from aarokya.catalogue.v1.benefit_provider_service_pb2 import CheckMrnProviderRequest, CheckMrnProviderResponse
from aarokya.catalogue.v1.benefit_provider_service_pb2_grpc import BenefitProviderServiceStub
from records.models import SERVICE
from servicekit.caller import METADATA_KEY, Call
from servicekit.deadline import time_left
from servicekit.errors import ServiceAway
from servicekit.questions import CircuitBreaker
from servicekit.trace_context import onward_trace

ASKING_TIMEOUT_S = 2.0

log = structlog.get_logger()


class MrnProviders:
    """The benefit providers as the catalogue knows them at this moment."""

    def __init__(self, catalogue: grpc.aio.Channel) -> None:
        self._stub = BenefitProviderServiceStub(catalogue)
        # Who links MRNs to a catalogue that hangs must not fill what callers may have open to records.
        self._breaker = CircuitBreaker()

    async def check(self, call: Call, benefit_provider_id: UUID) -> CheckMrnProviderResponse:
        """Return whether an MRN of the provider may be linked, and what it must look like.

        Raises:
            ServiceAway: the catalogue does not answer, or not in time, or was silent up to now.
        """
        request = CheckMrnProviderRequest(benefit_provider_id=str(benefit_provider_id))
        metadata = ((METADATA_KEY, call.as_system(SERVICE).to_bytes()), *onward_trace())
        seconds = time_left(ASKING_TIMEOUT_S)
        self._breaker.before_call()
        try:
            response: CheckMrnProviderResponse = await self._stub.CheckMrnProvider(
                request, timeout=seconds, metadata=metadata
            )
        except grpc.aio.AioRpcError as error:
            self._breaker.on_error(error)
            log.warning("the catalogue cannot be asked", status=error.code().name)
            raise ServiceAway from error
        self._breaker.on_answer()
        return response
