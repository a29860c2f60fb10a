"""The one public door: HTTP and JSON outside, typed gRPC calls inside.

In the order in which a request meets them:

The socket
    http_protocol, json_body: what is malformed is refused. edge: an id, a size and a time for every request.
    cors, draining, readiness: browsers, balancers.
    load_shedding, retry_after: what cannot be answered in time is refused at once.
Who calls
    credentials, guards: who it is and may do it. live_state: whether that still holds.
    rate_limits, redis_counts: how often. refusals, user_agent: what the audit log hears of it.
What is asked
    server_wrap: how a route is declared, and runs behind its guard. routes: all of them, a file a domain.
    validation, fields, messages, schemas: bodies and queries, and the messages that they become.
The services
    exchange: one request and its answer. stubs, bulkhead: calls, and how many at once.
    retry_budget: what is tried again. own_reads: what goes out together.
The answer
    errors: every code, and the envelope. openapi: what is told of all this.
The process
    app: puts it together. settings: what it reads. `python -m gateway` starts it.
"""
