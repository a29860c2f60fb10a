"""What every service needs and no domain knows about: one capability a file.

A call and its answer
    caller, deadline, trace_context: what travels with every call. errors: how a refusal travels back.
    server: takes calls. channel, tls: make them, and know who is at the other end.
    page_tokens: where a list goes on.
Asking other services
    leased_cache, remote_clock: states that are remembered as long as their owner is heard.
    questions: probes who does not answer only now and then. data_loader: questions go out together.
A database
    database, compiled_statement, advisory_locks, paging: transactions, statements, locks, pages.
    migrations, provisioning, table_protection: how it comes to be, and who may do what in it.
What is stored sealed
    rows: fields as columns or sealed. crypto, data_keys: by which keys. erasures: whose are destroyed.
What has to hold across crashes
    idempotency: once for each key. outbox: events, at least once and in order.
    audit, audit_chain, audit_heads, audit_rpc: what was done, and that nobody changed it since.
    line_file: a file outside the database.
Values and messages
    messages, enum_text: proto messages, compared and spelt.
    calendar_days, id_numbers, mail_addresses, phone_numbers: texts that mean something.
A process
    process, foundation, settings: the command line, the parts, what they read.
    background, logs, metrics, gc_tuning: what goes on beside the calls.
"""
