"""Channels to other services: mutual TLS, balancing over replicas, quick reconnects, retries where they are safe."""

import json
from collections.abc import Iterable

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor

from servicekit.server import LARGEST_ANSWER, LARGEST_REQUEST

# What fails takes one of so many tokens, what succeeds brings some back, and nothing is retried while half are gone.
RETRY_TOKENS = 100
TOKENS_FOR_SUCCESS = 0.1
READING_VERBS = ("Get", "BatchGet", "List", "BatchList", "Check", "Resolve", "Verify")


def open_channel(
    service: str, address: str, credentials: grpc.ChannelCredentials, services: Iterable[ServiceDescriptor]
) -> grpc.aio.Channel:
    """Open a channel to all replicas of a service.

    Args:
        service: the DNS name that its certificate must carry.
        address: ``host:port`` or ``dns:///name:port``.
        credentials: this process's certificate and the authority that it trusts.
        services: what will be called; reads among it are retried when a replica goes away.
    """
    return grpc.aio.secure_channel(
        address,
        credentials,
        options=(
            ("grpc.ssl_target_name_override", service),
            ("grpc.default_authority", service),
            ("grpc.max_send_message_length", LARGEST_REQUEST),
            ("grpc.max_receive_message_length", LARGEST_ANSWER),
            ("grpc.initial_reconnect_backoff_ms", 100),
            # Also how long a whole handshake may take.
            ("grpc.min_reconnect_backoff_ms", 2000),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.dns_min_time_between_resolutions_ms", 1000),
            # One that stands still finds little that waits for it when it goes on.
            ("grpc.keepalive_time_ms", 5_000),
            ("grpc.keepalive_timeout_ms", 2_000),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.service_config", _service_config(services)),
        ),
    )


def _service_config(services: Iterable[ServiceDescriptor]) -> str:
    reads = [
        {"service": service.full_name, "method": method.name}
        for service in services
        for method in service.methods
        if method.name.startswith(READING_VERBS)
    ]
    config: dict[str, object] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "retryThrottling": {"maxTokens": RETRY_TOKENS, "tokenRatio": TOKENS_FOR_SUCCESS},
        # A replica that is about to stop says so first: nothing is sent there any more, and so nothing gets lost there.
        "healthCheckConfig": {"serviceName": ""},
    }
    if reads:
        config["methodConfig"] = [
            {
                "name": reads,
                "retryPolicy": {
                    # Together longer than it takes to connect again after a failed handshake.
                    "maxAttempts": 5,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.4s",
                    "backoffMultiplier": 2,
                    # CANCELLED is what a server that stops answers to calls that it has not looked at.
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            }
        ]
    return json.dumps(config)
