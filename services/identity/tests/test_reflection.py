"""Whether a service tells a tool what it serves."""

from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub


async def test_lists_its_services_to_nobody_in_production(identity_server: Any) -> None:
    """Production is what a process runs in unless it is told otherwise, as this one is not."""
    async with identity_server.channel() as channel:
        answers = ServerReflectionStub(channel).ServerReflectionInfo(iter([ServerReflectionRequest(list_services="")]))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await answers.read()
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
