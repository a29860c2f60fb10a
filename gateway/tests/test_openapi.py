"""The document is valid, says exactly what the routes declare, and fragments that clash are refused."""

import json
import re
from copy import deepcopy
from typing import Annotated, Any

import pytest
import schemathesis
from fastapi import APIRouter, Query
from pydantic import create_model
from starlette.responses import Response

from gateway.errors import REGISTRY
from gateway.fields import Answer
from gateway.openapi import OpenApiClash, build_openapi, fragment_of
from gateway.schemas import audit, catalogue, identity, records
from gateway.validation import read_body

ADMIN = [{"admin_api_key": []}]
PARTNER_OR_USER = [{"api_key": []}, {"user_token": []}]


def declared(service: str, security: list, *codes: str) -> dict[str, Any]:
    return {"x-service": service, "security": security, "x-error-codes": list(codes)}


def identity_router() -> APIRouter:
    router = APIRouter(tags=["platforms"])

    @router.post(
        "/platforms",
        status_code=201,
        operation_id="create_platform",
        summary="Add a platform",
        response_model=identity.Platform,
        openapi_extra=declared("identity", ADMIN, "RQ-100", "RQ-101", "RQ-107", "RQ-108", "AU-201", "AU-202", "PL-303"),
    )
    async def create_platform(body: identity.CreatePlatformBody): ...

    @router.get(
        "/users",
        operation_id="list_users",
        summary="List users",
        response_model=identity.UserList,
        openapi_extra=declared("identity", ADMIN, "RQ-101", "RQ-113", "AU-201"),
    )
    async def list_users(query: Annotated[identity.ListUsersQuery, Query()]): ...

    @router.patch(
        "/users/{user_id}",
        operation_id="update_user",
        summary="Change a user",
        response_model=identity.User,
        openapi_extra=declared("identity", [*ADMIN, {"user_token": []}], "RQ-101", "RQ-110", "US-401", "US-402"),
    )
    async def update_user(user_id: str, body: identity.UpdateUserBody): ...

    @router.delete(
        "/users/{user_id}",
        status_code=204,
        operation_id="deactivate_user",
        summary="Deactivate a user",
        openapi_extra=declared("identity", ADMIN, "US-401"),
    )
    async def deactivate_user(user_id: str): ...

    return router


def records_router() -> APIRouter:
    router = APIRouter(prefix="/mrns", tags=["mrns"])

    @router.post(
        "",
        status_code=201,
        operation_id="link_mrn",
        summary="Link an MRN",
        response_model=records.Mrn,
        openapi_extra=declared("records", PARTNER_OR_USER, "RQ-101", "RQ-108", "MR-903", "MR-904"),
    )
    async def link_mrn(body: records.CreateMrnBody): ...

    @router.get(
        "",
        operation_id="list_mrns",
        summary="List MRNs",
        response_model=records.MrnList,
        openapi_extra=declared("records", PARTNER_OR_USER, "RQ-101"),
    )
    async def list_mrns(query: Annotated[records.ListMrnsQuery, Query()]): ...

    return router


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    fragments = [
        fragment_of("identity", identity_router().routes, {"platforms": "The partners' platforms."}),
        fragment_of("records", records_router().routes, {"mrns": "Medical record numbers."}),
    ]
    return build_openapi(fragments, "1.2.3")


@pytest.fixture
def catalogue_document() -> dict[str, Any]:
    router = APIRouter()

    @router.post("/benefits", openapi_extra=declared("catalogue", ADMIN, "RQ-101"))
    async def create_benefit(body: catalogue.CreateBenefitBody): ...

    return build_openapi([fragment_of("catalogue", router.routes)], version="1")


def one_route(path: str = "/x", method: str = "GET", model: type | None = identity.Platform, **changes: Any) -> list:
    router = APIRouter()
    options: dict[str, Any] = {
        "operation_id": "get_x",
        "summary": "X",
        "openapi_extra": declared("identity", [], "RQ-100"),
        **changes,
    }

    @router.api_route(path, methods=[method], response_model=model, **options)
    async def endpoint(): ...

    return router.routes


class TestBuildOpenapi:
    def test_is_valid(self, document):
        schemathesis.openapi.from_dict(deepcopy(document)).validate()

    def test_merges_the_fragments(self, document):
        assert document["openapi"] == "3.1.0"
        assert document["info"]["version"] == "1.2.3"
        assert set(document["paths"]) == {"/platforms", "/users", "/users/{user_id}", "/mrns"}
        assert [(tag["name"], tag["x-service"]) for tag in document["tags"]] == [
            ("platforms", "identity"),
            ("mrns", "records"),
        ]

    def test_answers_one_part_alone(self):
        fragments = [
            fragment_of("identity", identity_router().routes),
            fragment_of("records", records_router().routes),
        ]
        part = build_openapi(fragments, "1", service="records")
        schemathesis.openapi.from_dict(deepcopy(part)).validate()
        assert set(part["paths"]) == {"/mrns"}
        assert "User" not in part["components"]["schemas"]
        assert {"Mrn", "MrnSource", "ErrorEnvelope"} <= set(part["components"]["schemas"])

    def test_has_no_trace_of_fastapis_own_errors(self, document):
        assert "ValidationError" not in json.dumps(document)

    def test_says_the_exact_security(self, document):
        assert document["paths"]["/platforms"]["post"]["security"] == ADMIN
        assert document["paths"]["/mrns"]["get"]["security"] == PARTNER_OR_USER
        assert document["components"]["securitySchemes"].keys() == {
            "admin_api_key", "api_key", "user_token", "partner_basic",
        }  # fmt: skip

    def test_says_every_error_with_its_example(self, document):
        responses = document["paths"]["/platforms"]["post"]["responses"]
        assert list(responses) == ["201", "401", "409", "422", "429", "500"]
        assert responses["401"]["content"]["application/json"]["examples"].keys() == {"AU-201", "AU-202"}
        assert responses["401"]["headers"].keys() == {"X-Request-Id", "WWW-Authenticate"}
        assert responses["429"]["headers"].keys() == {"X-Request-Id", "Retry-After"}
        assert "PL-303" in responses["409"]["description"]
        example = document["components"]["examples"]["PL-303"]["value"]["error"]
        assert example["message"] == REGISTRY["PL-303"].meaning
        assert example.keys() == {"code", "message", "request_id", "details"}

    def test_says_the_headers(self, document):
        created = document["paths"]["/platforms"]["post"]["responses"]["201"]["headers"]
        assert created.keys() == {"X-Request-Id", "ETag", "Location", "Idempotency-Replayed"}
        assert document["paths"]["/mrns"]["post"]["responses"]["201"]["headers"].keys() == {
            "X-Request-Id", "Location", "Idempotency-Replayed",
        }  # fmt: skip
        assert document["paths"]["/users"]["get"]["responses"]["200"]["headers"].keys() == {"X-Request-Id"}
        key, match = {"$ref": "#/components/parameters/IdempotencyKey"}, {"$ref": "#/components/parameters/IfMatch"}
        assert document["paths"]["/platforms"]["post"]["parameters"] == [key]
        assert match in document["paths"]["/users/{user_id}"]["patch"]["parameters"]
        assert match not in document["paths"]["/users/{user_id}"]["delete"]["parameters"]

    def test_bounds_of_whole_numbers_are_whole(self, document):
        ttl = document["components"]["schemas"]["CreatePlatformBody"]["properties"]["token_ttl_seconds"]
        assert [(type(ttl[bound]), ttl[bound]) for bound in ("minimum", "maximum")] == [(int, 300), (int, 86_400)]

    def test_metadata_holds_json_without_control_characters(self, document):
        schemas = document["components"]["schemas"]
        (metadata, _) = schemas["CreatePlatformBody"]["properties"]["metadata"]["anyOf"]
        assert metadata["additionalProperties"] == {"$ref": "#/components/schemas/JsonValue"}
        assert re.search(metadata["propertyNames"]["pattern"], "a\nb") is None
        assert re.search(schemas["JsonValue"]["pattern"], "a\nb") is None

    def test_keys_that_break_their_pattern_are_not_let_through(self, catalogue_document):
        translations = catalogue_document["components"]["schemas"]["CreateBenefitBody"]["properties"]["translations"]
        assert "patternProperties" not in translations
        assert re.search(translations["propertyNames"]["pattern"], "hi-IN")
        assert re.search(translations["propertyNames"]["pattern"], "Hindi, mostly") is None

    def test_query_parameters_are_never_null(self, document):
        parameters = {item["name"]: item for item in document["paths"]["/users"]["get"]["parameters"]}
        assert parameters.keys() == {"platform_id", "status", "phone_number", "page_size", "page_token"}
        assert "null" not in json.dumps(list(parameters.values()))
        assert parameters["page_size"]["schema"]["default"] == 50
        assert parameters["status"]["schema"]["$ref"] == "#/components/schemas/UserStatus"
        assert not any(item["required"] for item in parameters.values())

    def test_ids_in_paths_are_described(self, document):
        parameter = document["paths"]["/users/{user_id}"]["patch"]["parameters"][0]
        assert parameter["description"] == "The user's id."
        assert parameter["schema"]["format"] == "uuid"

    def test_examples_are_right(self, document):
        for operations in document["paths"].values():
            for operation in operations.values():
                for media in operation.get("requestBody", {}).get("content", {}).values():
                    module = identity if operation["x-service"] == "identity" else records
                    name = media["schema"]["$ref"].rpartition("/")[2]
                    read_body(getattr(module, name), media["example"])
        example = document["paths"]["/users"]["get"]["responses"]["200"]["content"]["application/json"]["example"]
        user = example["items"][0]
        assert user.keys() == identity.User.model_fields.keys()
        assert (user["first_name"], user["status"], user["gender"]) == ("Ravi", "onboarding", "MALE")

    def test_shapes_of_the_same_name_merge_when_only_their_words_differ(self):
        fragments = [
            fragment_of("catalogue", one_route(model=catalogue.Benefit, openapi_extra=declared("catalogue", []))),
            fragment_of(
                "records",
                one_route("/y", model=records.Dependant, operation_id="y", openapi_extra=declared("records", [])),
            ),
            fragment_of(
                "audit", one_route("/z", model=audit.AuditLog, operation_id="z", openapi_extra=declared("audit", []))
            ),
        ]
        document = build_openapi(fragments, "1")
        schemathesis.openapi.from_dict(deepcopy(document)).validate()
        assert {"Relationship", "Actor", "ActorType"} <= set(document["components"]["schemas"])

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({}, "GET /x is there twice"),
            ({"path": "/y"}, "have the operationId get_x"),
            (
                {"path": "/y", "operation_id": "y", "model": create_model("Platform", __base__=Answer, colour=int)},
                "The schema Platform of",
            ),
        ],
    )
    def test_refuses_clashes(self, changes, reason):
        fragments = [fragment_of("identity", one_route()), fragment_of("identity", one_route(**changes))]
        with pytest.raises(OpenApiClash, match=reason):
            build_openapi(fragments, "1")

    def test_refuses_tags_that_differ(self):
        fragments = [
            fragment_of("identity", one_route(), {"x": "One thing."}),
            fragment_of("identity", one_route("/y", operation_id="y"), {"x": "Another thing."}),
        ]
        with pytest.raises(OpenApiClash, match="The tag x"):
            build_openapi(fragments, "1")


class TestFragmentOf:
    @pytest.mark.parametrize(
        ("extra", "reason"),
        [
            ({}, "doesn't say so"),
            (declared("records", []), "doesn't say so"),
            ({"x-service": "identity", "security": []}, "doesn't say its security or its error codes"),
            ({"x-service": "identity", "x-error-codes": []}, "doesn't say its security or its error codes"),
            (declared("identity", [], "RQ-999"), "not in the registry"),
            (declared("identity", [{"password": []}]), "unknown kinds of credentials"),
        ],
    )
    def test_refuses_routes_that_do_not_say_what_they_have_to(self, extra, reason):
        with pytest.raises(OpenApiClash, match=reason):
            fragment_of("identity", one_route(openapi_extra=extra))

    def test_refuses_two_shapes_of_one_name(self):
        router = APIRouter()
        router.routes.extend(one_route(model=records.Actor))
        router.routes.extend(one_route("/y", model=audit.Actor, operation_id="y"))
        with pytest.raises(OpenApiClash, match="Two schemas"):
            fragment_of("identity", router.routes)

    def test_describes_a_route_that_writes_its_answer_itself(self):
        routes = one_route(model=None, response_class=Response, responses={200: {"model": identity.User}})
        fragment = fragment_of("identity", routes)
        response = fragment.paths["/x"]["get"]["responses"]["200"]
        assert response["description"] == "A worker of a platform."
        assert response["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/User"}
        assert response["content"]["application/json"]["example"]["first_name"] == "Ravi"
        assert "ETag" in response["headers"]

    def test_keeps_what_a_route_says_itself(self):
        routes = one_route(responses={200: {"content": {"application/json": {"example": {"id": "mine"}}}}})
        operation = fragment_of("identity", routes).paths["/x"]["get"]
        assert operation["responses"]["200"]["content"]["application/json"]["example"] == {"id": "mine"}
