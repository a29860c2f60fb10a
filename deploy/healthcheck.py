"""Ends well when this container's process is ready to serve; Docker asks now and then."""

import os
import sys
import urllib.request
from pathlib import Path

TIMEOUT_S = 5


def main() -> None:
    """Ask the gateway over HTTP, a service over gRPC with its own certificate."""
    service = os.environ["SERVICE"]
    is_ready = _gateway_is_ready() if service == "gateway" else _service_is_ready(service)
    sys.exit(0 if is_ready else 1)


def _gateway_is_ready() -> bool:
    port = os.environ.get("AAROKYA_HTTP_PORT", "8080")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _service_is_ready(service: str) -> bool:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from servicekit.tls import channel_credentials

    credentials = channel_credentials(
        *(Path(os.environ[f"AAROKYA_TLS_{part}"]) for part in ("CA", "CERTIFICATE", "KEY"))
    )
    port = os.environ["AAROKYA_LISTEN"].rpartition(":")[2]
    options = (("grpc.ssl_target_name_override", service),)
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    main()
