"""What a process counts, served to Prometheus on a port of its own."""

from prometheus_client import Counter, Gauge, Histogram, start_http_server

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

CALLS = Counter("aarokya_rpc_calls_total", "RPCs answered.", ("method", "status"))
CALL_SECONDS = Histogram("aarokya_rpc_seconds", "Time to answer an RPC, in seconds.", ("method",), buckets=BUCKETS)
AUDIT_UNSEALED = Gauge("aarokya_audit_unsealed_rows", "Audit rows that wait for the chain for more than 5 s.")
OUTBOX_WAITING = Gauge("aarokya_outbox_waiting_events", "Events that are not delivered yet.")
OUTBOX_OLDEST_SECONDS = Gauge("aarokya_outbox_oldest_seconds", "Age of the oldest event not delivered yet, in seconds.")
CERTIFICATE_EXPIRY = Gauge("aarokya_certificate_expiry_timestamp_seconds", "When this process's certificate expires.")


def serve_metrics(listen: str) -> None:
    """Serve the metrics on ``host:port``; an empty text serves none."""
    if listen:
        host, _, port = listen.rpartition(":")
        start_http_server(int(port), host)
