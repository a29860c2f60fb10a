"""The OpenAPI document and the list of codes say what the contract says, completely."""

import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.e2e.conftest import World, assert_refused, made
from tests.e2e.contract import ACCESS, OPERATIONS, PUBLIC, SCHEMES, Document, Operation

GOLDEN = Path(__file__).parent / "golden" / "openapi.json"
SHOWN_LINES = 60
SERVICES = {
    "identity": ("/auth/", "/platforms", "/users"),
    "catalogue": ("/benefit_providers", "/benefits"),
    "records": ("/mrns",),
    "gateway": ("/audit_logs", "/livez", "/readyz", "/api_docs/"),
}
OF_RECORDS = ("/users/{user_id}/dependants", "/users/{user_id}/accounts")
VERSIONED = (
    "/platforms/{platform_id}",
    "/users/{user_id}",
    "/users/{user_id}/dependants/{dependant_id}",
    "/benefit_providers/{benefit_provider_id}",
    "/benefits/{benefit_id}",
)
# The contract's §4, and what was added since, each in the next free number of its block.
CODES = {
    code: status
    for status, codes in {
        400: "RQ-102 RQ-113 RQ-114 AU-205",
        401: "AU-201 AU-202 AU-203 AU-208",
        403: "AU-204 AU-206 AU-207 AU-209 US-406",
        404: "RQ-103 PL-301 PL-305 US-401 DE-501 BP-601 BE-701 AC-801 MR-901",
        405: "RQ-104",
        408: "RQ-116",
        409: (
            "RQ-109 PL-303 PL-304 PL-306 PL-307 US-403 US-404 DE-503 DE-504 DE-505 DE-506 BP-603 BP-604 "
            "BE-703 AC-803 MR-903 MR-904"
        ),
        412: "RQ-110",
        413: "RQ-106",
        415: "RQ-105",
        422: "RQ-101 RQ-108 PL-302 US-402 US-405 DE-502 BP-602 BP-605 BE-702 AC-802 MR-902 MR-905",
        429: "RQ-107",
        431: "RQ-115",
        500: "RQ-100",
        503: "RQ-111",
        504: "RQ-112",
    }.items()
    for code in codes.split()
}


@pytest.fixture(scope="module")
def whole(document: Document) -> dict[str, Any]:
    return document.document


def described(whole: dict[str, Any], operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = whole["paths"][operation.path][operation.method.lower()]
    return found


def all_operations(whole: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in whole["paths"].items():
        for method, operation in operations.items():
            yield f"{method.upper()} {path}", operation


def resolved(whole: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = whole
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


class TestGolden:
    def test_is_what_the_system_answers(self, whole: dict[str, Any]) -> None:
        answered = json.dumps(whole, ensure_ascii=False, indent=2, sort_keys=True).splitlines()
        golden = GOLDEN.read_text(encoding="utf-8").splitlines()
        difference = list(difflib.unified_diff(golden, answered, "golden/openapi.json", "answered", lineterm="", n=2))
        assert not difference, "\n".join(
            [
                "The public contract has changed. If it was meant to, accept it with `make generate` and commit",
                "tests/e2e/golden/openapi.json; clients will see this:",
                *difference[:SHOWN_LINES],
            ]
        )


class TestDocument:
    def test_is_openapi_3_1(self, world: World, whole: dict[str, Any]) -> None:
        response = world.http.get("/api_docs/openapi.json")
        assert response.headers["content-type"] == "application/json"
        assert whole["openapi"].startswith("3.1.")
        assert whole["info"]["title"]
        assert whole["info"]["version"]

    def test_has_the_contracts_operations_and_no_others(self, whole: dict[str, Any]) -> None:
        found = {place for place, _ in all_operations(whole)}
        expected = {str(operation) for operation in OPERATIONS} | {f"GET {path}" for path in PUBLIC}
        # The files of the API browser are not for callers, but they are answered.
        assert found == expected | {"GET /api_docs/assets/{name}"}

    def test_names_each_operation_once(self, whole: dict[str, Any]) -> None:
        names = [operation["operationId"] for _, operation in all_operations(whole)]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) for name in names)

    def test_says_what_each_operation_does(self, whole: dict[str, Any]) -> None:
        for place, operation in all_operations(whole):
            assert re.fullmatch(r"[A-Z].*\.", operation["summary"]), place
            assert operation["tags"], place
        used = {tag for _, operation in all_operations(whole) for tag in operation["tags"]}
        assert used == {tag["name"] for tag in whole["tags"]}

    def test_refers_to_nothing_that_is_not_there(self, whole: dict[str, Any]) -> None:
        for reference in set(references(whole)):
            assert resolved(whole, {"$ref": reference})

    def test_describes_every_field_and_parameter(self, whole: dict[str, Any]) -> None:
        for name, schema in whole["components"]["schemas"].items():
            for field, described_as in schema.get("properties", {}).items():
                text = described_as.get("description") or resolved(whole, described_as).get("description")
                assert text or name == "ErrorEnvelope", f"{name}.{field}"
        for place, operation in all_operations(whole):
            for parameter in operation.get("parameters", []):
                found = resolved(whole, parameter)
                assert found.get("description") or found["name"] == "name", f"{place} {found['name']}"

    def test_holds_no_internal_name(self, whole: dict[str, Any]) -> None:
        text = json.dumps(whole).lower()
        for word in ("grpc", "postgres", "aarokya-call", "localhost", "127.0.0.1", "httpvalidationerror"):
            assert word not in text


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
class TestOperation:
    def test_says_its_exact_security(self, whole: dict[str, Any], operation: Operation) -> None:
        expected = sorted(SCHEMES[letter] for letter in operation.callers)
        alternatives = described(whole, operation)["security"]
        assert all(len(alternative) == 1 for alternative in alternatives)
        assert sorted(name for alternative in alternatives for name in alternative) == expected

    def test_belongs_to_its_service(self, whole: dict[str, Any], operation: Operation) -> None:
        service = described(whole, operation)["x-service"]
        expected = next(name for name, starts in SERVICES.items() if operation.path.startswith(starts))
        assert service == ("records" if operation.path.startswith(OF_RECORDS) else expected)

    def test_says_its_success_with_an_example(self, whole: dict[str, Any], operation: Operation) -> None:
        successes = {
            int(status): response
            for status, response in described(whole, operation)["responses"].items()
            if status.startswith("2")
        }
        if operation.method == "DELETE":
            assert successes.keys() == {204}
            assert "content" not in successes[204]
            return
        is_creation = operation.method == "POST" and operation.path.endswith(
            ("platforms", "api_keys", "dependants", "benefit_providers", "benefits", "accounts", "mrns")
        )
        assert successes.keys() == {201 if is_creation else 200}
        (success,) = successes.values()
        media = success["content"]["application/json"]
        self.assert_valid(whole, media["schema"], media["example"])
        headers = set(success["headers"])
        assert ("Location" in headers) == is_creation
        assert ("Idempotency-Replayed" in headers) == (operation.method == "POST" and operation.path != "/auth/token")
        assert ("ETag" in headers) == ("version" in media["example"] and operation.path not in ("/mrns", "/accounts"))
        assert "X-Request-Id" in headers

    def test_says_every_status_that_any_request_can_get(self, whole: dict[str, Any], operation: Operation) -> None:
        codes = set(described(whole, operation)["x-error-codes"])
        expected = {"RQ-100", "RQ-101", "RQ-107", "RQ-111", "RQ-112", "RQ-114", "RQ-115"}
        # A good credential of a kind that is not accepted is looked at before that is said.
        expected |= {"AU-201", "AU-202", "AU-203", "AU-204", "AU-205", "AU-208"}
        if operation.callers != "A":
            expected |= {"AU-209"}
        if "U" in operation.callers:
            expected |= {"AU-207"}
            if "{user_id}" in operation.path:
                expected |= {"AU-206"}
        if operation.method in ("POST", "PATCH"):
            expected |= {"RQ-102", "RQ-105", "RQ-106", "RQ-116"}
        if operation.method == "POST" and operation.path != "/auth/token":
            expected |= {"RQ-108", "RQ-109"}
        if operation.method in ("PATCH", "DELETE") and operation.path in VERSIONED:
            expected |= {"RQ-110"}
        if operation.method == "GET" and not operation.path.endswith(("}", "/verify")):
            expected |= {"RQ-113"}
        general = {code for code in codes if code.startswith(("RQ-", "AU-"))}
        also = {"/auth/token": {"AU-206"}, "/mrns": {"AU-206"} if operation.method == "GET" else set()}
        assert general == expected | also.get(operation.path, set())

    def test_says_each_code_under_its_status_with_an_example(self, whole: dict[str, Any], operation: Operation) -> None:
        found = described(whole, operation)
        listed = {}
        for status, response in found["responses"].items():
            if status.startswith("2"):
                continue
            media = response["content"]["application/json"]
            assert media["schema"] == {"$ref": "#/components/schemas/ErrorEnvelope"}
            assert "X-Request-Id" in response["headers"]
            assert ("WWW-Authenticate" in response["headers"]) == (status == "401")
            for code, example in media["examples"].items():
                value = resolved(whole, example)["value"]
                self.assert_valid(whole, media["schema"], value)
                assert value["error"]["code"] == code
                assert code in response["description"]
                listed[code] = int(status)
        assert listed == {code: CODES[code] for code in found["x-error-codes"]}

    def test_describes_parameters(self, whole: dict[str, Any], operation: Operation) -> None:
        parameters = [resolved(whole, parameter) for parameter in described(whole, operation).get("parameters", [])]
        names = {(parameter["in"], parameter["name"]) for parameter in parameters}
        in_path = {("path", name) for name in re.findall(r"\{([a-z_]+)\}", operation.path)}
        assert in_path == {(place, name) for place, name in names if place == "path"}
        is_list = operation.method == "GET" and not operation.path.endswith(("}", "/verify"))
        paging = {("query", "page_size"), ("query", "page_token")}
        assert names & paging == (paging if is_list else set())
        takes_key = operation.method == "POST" and operation.path != "/auth/token"
        assert (("header", "Idempotency-Key") in names) == takes_key
        takes_version = operation.method in ("PATCH", "DELETE") and operation.path in VERSIONED
        assert (("header", "If-Match") in names) == takes_version
        for parameter in parameters:
            assert parameter.get("required", False) == (parameter["in"] == "path")
            assert "anyOf" not in parameter["schema"]

    def test_describes_its_body_with_an_example(self, whole: dict[str, Any], operation: Operation) -> None:
        body = described(whole, operation).get("requestBody")
        assert (body is not None) == (operation.method in ("POST", "PATCH"))
        if body is not None:
            assert body["required"] is True
            media = body["content"]["application/json"]
            self.assert_valid(whole, media["schema"], media["example"])
            schema = resolved(whole, media["schema"])
            assert schema.get("additionalProperties") is (operation.path == "/auth/token")

    def assert_valid(self, whole: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
        validator = jsonschema_rs.Draft202012Validator(
            {**schema, "components": whole["components"]}, validate_formats=True
        )
        assert [error.message for error in validator.iter_errors(value)] == []


class TestParts:
    @pytest.mark.parametrize("service", SERVICES)
    def test_answers_one_services_part(self, world: World, whole: dict[str, Any], service: str) -> None:
        part = made(world.http.get("/api_docs/openapi.json", params={"service": service}), 200)
        expected = {place: operation for place, operation in all_operations(whole) if operation["x-service"] == service}
        assert dict(all_operations(part)) == expected
        assert expected
        for reference in set(references(part)):
            assert resolved(part, {"$ref": reference})

    def test_refuses_unknown_services(self, world: World) -> None:
        for service in ("billing", "", "Identity"):
            assert_refused(world.http.get("/api_docs/openapi.json", params={"service": service}), 422, "RQ-101")


class TestPublicOperations:
    @pytest.mark.parametrize("path", PUBLIC)
    def test_asks_for_no_credential(self, whole: dict[str, Any], path: str) -> None:
        operation = whole["paths"][path]["get"]
        assert operation["security"] == []
        codes = {"RQ-100", "RQ-101", "RQ-114", "RQ-115", *(["RQ-111"] if path != "/livez" else [])}
        assert set(operation["x-error-codes"]) == codes


class TestErrorCodes:
    def test_are_those_of_the_contract(self, world: World) -> None:
        listed = made(world.http.get("/api_docs/errors"), 200)["items"]
        assert {item["code"]: item["http_status"] for item in listed} == CODES
        assert [item["code"] for item in listed] == sorted(CODES)

    def test_say_what_they_mean_and_what_to_do(self, world: World) -> None:
        listed = made(world.http.get("/api_docs/errors"), 200)["items"]
        for item in listed:
            assert item.keys() == {"code", "http_status", "meaning", "action"}
            assert re.fullmatch(r"[A-Z].{10,}[.]", item["meaning"]), item
            assert re.fullmatch(r"[A-Z].{10,}[.]", item["action"]), item
        assert len({item["meaning"] for item in listed}) == len(listed)

    def test_are_all_some_operations(self, whole: dict[str, Any]) -> None:
        used = {code for _, operation in all_operations(whole) for code in operation["x-error-codes"]}
        # No operation answers these two: there is none at the path, or none for the method.
        assert used == CODES.keys() - {"RQ-104"}

    def test_are_in_blocks_by_domain(self, whole: dict[str, Any]) -> None:
        domains = {
            "PL": "/platforms",
            "US": "/users",
            "DE": "/users/{user_id}/dependants",
            "BP": "/benefit_providers",
            "BE": "/benefits",
            "AC": "/users/{user_id}/accounts",
            "MR": "/mrns",
        }
        for prefix, start in domains.items():
            codes = {code for code in CODES if code.startswith(prefix)}
            on_its_paths = {
                code
                for place, operation in all_operations(whole)
                if place.partition(" ")[2].startswith((start, "/auth"))
                for code in operation["x-error-codes"]
            }
            # Only a benefit's creation can name a provider that does not exist.
            assert codes - on_its_paths <= {"BP-602"}, prefix

    def test_every_path_has_a_row_in_the_table(self, whole: dict[str, Any]) -> None:
        assert {path for path in whole["paths"] if not path.startswith(("/api_docs", "/livez", "/readyz"))} == set(
            ACCESS
        )
