"""Generated from protos/ by gateway/generate_schemas.py: never edit, run `make generate`."""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from gateway import fields


class ListAuditLogsQuery(fields.PageQuery):
    """Which rows to answer."""

    entity_type: fields.EntityType | None = Field(default=None, description="Only rows about this kind of thing.")
    entity_id: fields.Uuid | None = Field(default=None, description="Only rows about this thing.")
    user_id: fields.Uuid | None = Field(default=None, description="Only rows about this user's data.")
    actor_id: fields.ActorId | None = Field(default=None, description="Only rows of this actor.")
    platform_id: fields.Uuid | None = Field(default=None, description="Only rows about this platform's data.")
    action: fields.Action | None = Field(default=None, description="Only rows of this action.")
    from_: fields.Rfc3339 | None = Field(default=None, alias="from", description="Only rows from this moment on.")
    to: fields.Rfc3339 | None = Field(default=None, description="Only rows before this moment.")


ActorType = TypeAliasType("ActorType", Annotated[Literal["ADMIN", "PARTNER", "USER", "SYSTEM"], Field(description="What kind of caller acted.\n\n- `ADMIN`: An operator.\n- `PARTNER`: A partner's key.\n- `USER`: A user.\n- `SYSTEM`: Aarokya itself.")])


class Actor(fields.Answer):
    """Who acted."""

    type: ActorType = Field(description="What kind of caller it was.")
    id: fields.ActorId = Field(description="The operator's name, the key's id, the user's id or the service's name.")


class AuditLog(fields.Answer):
    """One change, one reading of a person by an operator, or one kind of refusal in one minute."""

    id: fields.Uuid = Field(description="The row's id.")
    service: fields.ServiceName = Field(description="The service that wrote the row.")
    sequence: int | None = Field(description="The row's place in the service's chain; null for the moment until it is sealed.")
    occurred_at: fields.Rfc3339 = Field(description="When it happened.")
    actor: Actor = Field(description="Who acted.")
    action: fields.Action = Field(description="What was done, such as user.deactivate.")
    entity_type: fields.EntityType = Field(description="What kind of thing it was done to.")
    entity_id: fields.Uuid | None = Field(description="The thing's id.")
    user_id: fields.Uuid | None = Field(description="The user whose data it is.")
    platform_id: fields.Uuid | None = Field(description="The platform whose data it is.")
    changes: fields.JsonObject = Field(description="Old and new value by field; null in place of the pair for personal and secret fields.")
    reason: fields.Reason | None = Field(description="Why it was done, as far as the caller said; null once the person's data was erased.")
    request_id: fields.RequestId | None = Field(description="The request in which it was done.")
    source_address: fields.SourceAddress | None = Field(description="Where the request came from.")
    user_agent: fields.UserAgent | None = Field(description="What the caller's program calls itself.")
    count: int = Field(description="How often it happened: 1, but for refusals; or how many persons a list told of.")


class AuditLogList(fields.Answer):
    """Rows of the log."""

    items: list[AuditLog] = Field(description="The rows, newest first.")
    next_page_token: fields.NextPageToken


class VerifyAuditLogsQuery(fields.Query):
    """Where to begin."""

    from_sequence: fields.QuerySequence | None = Field(default=None, description="The first place to recompute; the chain begins at 1.")


class AuditLogVerification(fields.Answer):
    """What recomputing a part of one service's chain showed."""

    service: fields.ServiceName = Field(description="The service whose chain it is.")
    rows: int = Field(description="How many rows were recomputed.")
    head_hash: fields.Hash | None = Field(description="The hash of the last row recomputed, in hexadecimal; null when there was none.")
    intact: bool = Field(description="True when nothing was changed, taken out or cut off.")
    first_broken_sequence: int | None = Field(description="The first place in the chain that does not hold.")
    next_from_sequence: int | None = Field(description="Where to go on when more rows are left; null at the end.")
