"""Puts the OpenAPI document together from one fragment for each service, and refuses fragments that clash.

A route tells three things through its `openapi_extra`: `x-service`, whose part it is; `security`, the exact list of
alternatives (empty for a public route); and `x-error-codes`, every code it can answer. Nothing of that is guessed, so
with a route that leaves one out there is no document, and `make check` and the tests say so.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.openapi.utils import get_openapi
from fastapi.routing import RouteContext
from starlette.routing import BaseRoute

from gateway.errors import REGISTRY
from gateway.fields import ETAG, JSON_VALUE

Json = dict[str, Any]

TITLE = "Aarokya"
DESCRIPTION = """\
Health benefits for gig workers and their families.

Every request but the public ones carries exactly one credential. Every answer that is not a success is an
`ErrorEnvelope`; switch on its `code`, whose meaning never changes. `GET /api_docs/errors` lists all codes with what to
do about them. Fields that are not known are refused, and absent optional values are `null` in answers, never missing.
"""

SECURITY_SCHEMES: Mapping[str, Json] = {
    "admin_api_key": {
        "type": "apiKey",
        "in": "header",
        "name": "admin-api-key",
        "description": "The secret of an operator.",
    },
    "api_key": {
        "type": "apiKey",
        "in": "header",
        "name": "api-key",
        "description": "The secret of a partner. It speaks for one platform.",
    },
    "user_token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The token of a user, from `POST /auth/token`.",
    },
    "partner_basic": {
        "type": "http",
        "scheme": "basic",
        "description": "The platform's id as the user name and the partner's secret as the password.",
    },
}

_REQUEST_ID = "k7Qm2Yx0"
_ID = "019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b11"
_TIME = "2026-11-20T09:30:00.123456Z"

_ERROR_ENVELOPE: Json = {
    "type": "object",
    "title": "ErrorEnvelope",
    "description": "What every answer that is not a success looks like.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "request_id", "details"],
            "properties": {
                "code": {
                    "type": "string",
                    "pattern": "^[A-Z]{2}-[0-9]{3}$",
                    "description": "What went wrong. A code has one meaning and one HTTP status for ever.",
                },
                "message": {"type": "string", "description": "The same in words, for people."},
                "request_id": {"type": "string", "description": "The value of the answer's X-Request-Id header."},
                "details": {
                    "type": "array",
                    "description": "The fields at fault, at most 20.",
                    "items": {
                        "type": "object",
                        "required": ["field", "message"],
                        "properties": {
                            "field": {"type": "string", "description": "The field, as a dotted path."},
                            "message": {"type": "string", "description": "What is wrong with it."},
                        },
                    },
                },
            },
        }
    },
}

_PARAMETERS: Mapping[str, Json] = {
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A request that is repeated with the same key within 24 hours has its effect only once.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    },
    "IfMatch": {
        "name": "If-Match",
        "in": "header",
        "description": "The ETag that the change rests on; the request is refused when the resource has moved on.",
        "schema": {"type": "string", "pattern": rf"^(\*|{ETAG})$"},
        "example": '"3"',
    },
}

_HEADERS: Mapping[str, Json] = {
    "RequestId": {
        "description": "The request's id, taken from the request or made.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
    },
    "ETag": {
        "description": "The resource's version, in quotes.",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[1-9][0-9]*"$'},
        "example": '"3"',
    },
    "Location": {
        "description": "The path of what was created.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "IdempotencyReplayed": {
        "description": "There, and true, when this is the answer to an earlier request with the same Idempotency-Key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "RetryAfter": {"description": "After how many seconds to try again.", "schema": {"type": "integer"}},
    "WWWAuthenticate": {
        "description": "Which credentials are accepted.",
        "required": True,
        "schema": {"type": "string"},
    },
}
_RETRIED_CODES = frozenset({"RQ-107", "RQ-109", "RQ-111"})


class OpenApiClash(ValueError):
    """Two routes say different things under one name, or a route doesn't say what it has to."""


@dataclass(frozen=True)
class Fragment:
    """One service's part of the document."""

    service: str
    tags: Sequence[Json]
    paths: Mapping[str, Json]
    schemas: Mapping[str, Json]


def fragment_of(
    service: str, routes: Sequence[BaseRoute | RouteContext], tags: Mapping[str, str] | None = None
) -> Fragment:
    """The part of one service, from its routers' routes and its tags' descriptions."""
    document = _tidy(get_openapi(title=service, version="1", routes=routes))
    schemas = document.get("components", {}).get("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name in schemas:
        # FastAPI spells out the module when two models of one name meet.
        if "__" in name:
            raise OpenApiClash(f"Two schemas in the part of {service} have the name of {name}.")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            place = f"{method.upper()} {path}"
            if operation.get("x-service") != service:
                raise OpenApiClash(f"{place} is in the part of {service} but doesn't say so.")
            _complete(operation, method, place, schemas)
    described = [{"name": name, "description": text, "x-service": service} for name, text in (tags or {}).items()]
    return Fragment(service, described, document["paths"], schemas)


def build_openapi(fragments: Iterable[Fragment], version: str, service: str | None = None) -> Json:
    """The whole document, or the part of one service."""
    paths: dict[str, Json] = {}
    schemas: Json = {"ErrorEnvelope": _ERROR_ENVELOPE, "JsonValue": dict(JSON_VALUE)}
    tags: dict[str, Json] = {}
    operation_ids: dict[str, str] = {}
    for fragment in fragments:
        if service not in (None, fragment.service):
            continue
        for path, operations in fragment.paths.items():
            for method, operation in operations.items():
                place = f"{method.upper()} {path}"
                if method in paths.setdefault(path, {}):
                    raise OpenApiClash(f"{place} is there twice.")
                other = operation_ids.setdefault(operation["operationId"], place)
                if other != place:
                    raise OpenApiClash(f"{other} and {place} have the operationId {operation['operationId']}.")
                paths[path][method] = operation
        for name, schema in fragment.schemas.items():
            if _shape_of(schemas.setdefault(name, schema)) != _shape_of(schema):
                raise OpenApiClash(f"The schema {name} of {fragment.service} differs from another one of that name.")
        for tag in fragment.tags:
            if tags.setdefault(tag["name"], tag) != tag:
                raise OpenApiClash(
                    f"The tag {tag['name']} of {fragment.service} differs from another one of that name."
                )
    codes = sorted(
        {code for path in paths.values() for operation in path.values() for code in operation["x-error-codes"]}
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": version, "description": DESCRIPTION},
        "servers": [{"url": "/"}],
        "tags": list(tags.values()),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": dict(_PARAMETERS),
            "headers": dict(_HEADERS),
            "examples": {code: _error_example(code) for code in codes},
            "securitySchemes": dict(SECURITY_SCHEMES),
        },
    }


def _tidy(node: Any) -> Any:
    """Say what FastAPI says in the way that tools understand.

    It reads bounds as floats, but `"minimum": 1.0` makes tools send 1.0, which is no whole number to us. It writes a
    pattern for keys as `patternProperties`, which lets all other keys through; our keys are languages. And it can't say
    that the members of `metadata` are of JSON that may hold JSON of the same kind.
    """
    match node:
        case {"patternProperties": {**patterns}} if len(patterns) == 1:
            ((pattern, values),) = patterns.items()
            rest = {key: value for key, value in node.items() if key != "patternProperties"}
            names = {"type": "string", "pattern": pattern, "examples": ["hi"]}
            return _tidy({**rest, "propertyNames": names, "additionalProperties": values})
        case {"propertyNames": _, "additionalProperties": True}:
            return {**node, "additionalProperties": {"$ref": "#/components/schemas/JsonValue"}}
        case dict():
            return {
                key: int(value) if key in ("minimum", "maximum") and isinstance(value, float) else _tidy(value)
                for key, value in node.items()
            }
        case list():
            return [_tidy(item) for item in node]
        case _:
            return node


def _shape_of(schema: Any) -> Any:
    """The schema without its texts: services may describe the same thing in their own words."""
    match schema:
        case dict():
            return {
                key: _shape_of(value)
                for key, value in schema.items()
                if not (key in ("description", "title") and isinstance(value, str))
            }
        case list():
            return [_shape_of(item) for item in schema]
        case _:
            return schema


def _complete(operation: Json, method: str, place: str, schemas: Mapping[str, Json]) -> None:
    codes, security = operation.get("x-error-codes"), operation.get("security")
    if codes is None or security is None:
        raise OpenApiClash(f"{place} doesn't say its security or its error codes.")
    if unknown := {code for code in codes if code not in REGISTRY}:
        raise OpenApiClash(f"{place} names error codes that are not in the registry: {sorted(unknown)}.")
    if unknown := {name for alternative in security for name in alternative if name not in SECURITY_SCHEMES}:
        raise OpenApiClash(f"{place} names unknown kinds of credentials: {sorted(unknown)}.")
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    _complete_parameters(operation, codes)
    for media in operation.get("requestBody", {}).get("content", {}).values():
        if "example" not in media and "examples" not in media:
            media["example"] = _example(media.get("schema", {}), schemas, brief=True)
    for status, response in responses.items():
        _complete_success(status, response, codes, schemas)
    for status, alike in _by_status(codes).items():
        responses[status] = _error_response(alike)


def _complete_parameters(operation: Json, codes: Collection[str]) -> None:
    parameters: list[Json] = operation.get("parameters", [])
    for parameter in parameters:
        # A query parameter can be left out, but it can't be null.
        schema = parameter["schema"]
        given = [part for part in schema.get("anyOf", ()) if part != {"type": "null"}]
        if len(given) == 1:
            del schema["anyOf"]
            parameter["schema"] = {**given[0], **schema}
        if parameter["in"] == "path" and parameter["name"].endswith("_id"):
            schema["format"] = "uuid"
            parameter.setdefault("description", f"The {parameter['name'].removesuffix('_id').replace('_', ' ')}'s id.")
    declared = {parameter["name"].lower() for parameter in parameters}
    wanted = {"IdempotencyKey": "RQ-108" in codes, "IfMatch": "RQ-110" in codes}
    for name, is_wanted in wanted.items():
        if is_wanted and _PARAMETERS[name]["name"].lower() not in declared:
            parameters.append({"$ref": f"#/components/parameters/{name}"})
    if parameters:
        operation["parameters"] = parameters


def _complete_success(status: str, response: Json, codes: Collection[str], schemas: Mapping[str, Json]) -> None:
    headers = ["X-Request-Id"]
    if status == "204":
        response["description"] = "It is done, and there is nothing to say."
    for media_type, media in response.get("content", {}).items():
        schema = media.get("schema", {})
        resolved = _resolve(schema, schemas)
        if response["description"] == "Successful Response":
            response["description"] = resolved.get("description", "The answer.")
        if "version" in resolved.get("properties", {}):
            headers.append("ETag")
        if media_type == "application/json" and "example" not in media and "examples" not in media:
            media["example"] = _example(schema, schemas)
    if status == "201":
        headers.append("Location")
    if "RQ-108" in codes:
        headers.append("Idempotency-Replayed")
    response["headers"] = {**_header_references(headers), **response.get("headers", {})}


def _by_status(codes: Iterable[str]) -> dict[str, list[str]]:
    by_status: dict[str, list[str]] = {}
    for code in sorted(set(codes)):
        by_status.setdefault(str(REGISTRY[code].http_status), []).append(code)
    return dict(sorted(by_status.items()))


def _error_response(codes: Sequence[str]) -> Json:
    headers = ["X-Request-Id"]
    if any(REGISTRY[code].http_status == 401 for code in codes):
        headers.append("WWW-Authenticate")
    if _RETRIED_CODES.intersection(codes):
        headers.append("Retry-After")
    return {
        "description": "\n".join(f"- `{code}`: {REGISTRY[code].meaning}" for code in codes),
        "headers": _header_references(headers),
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/ErrorEnvelope"},
                "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in codes},
            }
        },
    }


def _header_references(names: Iterable[str]) -> Json:
    components = {
        "X-Request-Id": "RequestId",
        "Idempotency-Replayed": "IdempotencyReplayed",
        "Retry-After": "RetryAfter",
        "WWW-Authenticate": "WWWAuthenticate",
    }
    return {name: {"$ref": f"#/components/headers/{components.get(name, name)}"} for name in names}


def _error_example(code: str) -> Json:
    entry = REGISTRY[code]
    details = [{"field": "first_name", "message": "Is required."}] if code in ("RQ-101", "US-405") else []
    error = {"code": code, "message": entry.meaning, "request_id": _REQUEST_ID, "details": details}
    return {"summary": entry.meaning, "value": {"error": error}}


def _resolve(schema: Json, schemas: Mapping[str, Json]) -> Json:
    if "$ref" in schema:
        return _resolve(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    return schema


def _example(schema: Json, schemas: Mapping[str, Json], brief: bool = False) -> Any:
    """A value of the schema. A brief one has only what must be there, or else the first two members."""
    schema = _resolve(schema, schemas)
    if schema.get("examples"):
        return schema["examples"][0]
    if schema.get("enum"):
        return schema["enum"][0]
    if "anyOf" in schema:
        value = _resolve(schema["anyOf"][0], schemas)
        # Most times that can be null are of things that rarely happen, and an example where all of them did misleads.
        return None if value.get("format") == "date-time" else _example(value, schemas, brief)
    match schema.get("type"):
        case "object" if "properties" in schema:
            names = schema["properties"] if not brief else schema.get("required") or list(schema["properties"])[:2]
            return {name: _example(schema["properties"][name], schemas, brief) for name in names}
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            key = _example(schema.get("propertyNames", {}), schemas)
            return {key: _example(schema["additionalProperties"], schemas, brief)}
        case "array":
            return [_example(schema["items"], schemas, brief)]
        case "integer":
            return max(schema.get("minimum", 1), 1)
        case "boolean":
            return True
        case "object":
            return {}
    return {"uuid": _ID, "date-time": _TIME}.get(schema.get("format", ""), "text")
