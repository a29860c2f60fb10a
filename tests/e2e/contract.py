"""The contract's table of who may call what, as data, and the schemas of what each operation may answer."""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import jsonschema_rs

SCHEMES = {"A": "admin_api_key", "P": "api_key", "U": "user_token", "B": "partner_basic"}

# A admin, P partner, B partner as Basic, U user.
ACCESS: dict[str, dict[str, str]] = {
    "/auth/token": {"POST": "PB"},
    "/platforms": {"POST": "A", "GET": "A"},
    "/platforms/{platform_id}": {"GET": "A", "PATCH": "A", "DELETE": "A"},
    "/platforms/{platform_id}/suspend": {"POST": "A"},
    "/platforms/{platform_id}/activate": {"POST": "A"},
    "/platforms/{platform_id}/api_keys": {"POST": "A", "GET": "A"},
    "/platforms/{platform_id}/api_keys/{key_id}/rotate": {"POST": "A"},
    "/platforms/{platform_id}/api_keys/{key_id}": {"DELETE": "A"},
    "/users": {"GET": "A"},
    "/users/{user_id}": {"GET": "AU", "PATCH": "AU", "DELETE": "AU"},
    "/users/{user_id}/complete_onboarding": {"POST": "AU"},
    "/users/{user_id}/reactivate": {"POST": "A"},
    "/users/{user_id}/release_phone": {"POST": "A"},
    "/users/{user_id}/erase": {"POST": "A"},
    "/users/{user_id}/dependants": {"GET": "AU", "POST": "AU"},
    "/users/{user_id}/dependants/{dependant_id}": {"GET": "AU", "PATCH": "AU", "DELETE": "AU"},
    "/users/{user_id}/dependants/{dependant_id}/versions": {"GET": "AU"},
    "/benefit_providers": {"POST": "A", "GET": "A"},
    "/benefit_providers/{benefit_provider_id}": {"GET": "A", "PATCH": "A", "DELETE": "A"},
    "/benefits": {"POST": "A", "GET": "AU"},
    "/benefits/{benefit_id}": {"GET": "AU", "PATCH": "A", "DELETE": "A"},
    "/users/{user_id}/accounts": {"GET": "PU", "POST": "PU"},
    "/users/{user_id}/accounts/{account_id}": {"GET": "PU", "PATCH": "PU", "DELETE": "PU"},
    "/mrns": {"POST": "PU", "GET": "PU"},
    "/mrns/{mrn_id}": {"GET": "PU", "DELETE": "A"},
    "/audit_logs": {"GET": "A"},
    "/audit_logs/verify": {"GET": "A"},
}
PUBLIC = ("/livez", "/readyz", "/api_docs/ui", "/api_docs/openapi.json", "/api_docs/errors")


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of the table."""

    method: str
    path: str
    callers: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


OPERATIONS = tuple(
    Operation(method, path, callers) for path, methods in ACCESS.items() for method, callers in methods.items()
)
WRITES = tuple(operation for operation in OPERATIONS if operation.method in ("POST", "PATCH"))


class Document:
    """The OpenAPI document as a caller got it, to hold answers against."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._closed = _close(copy.deepcopy(document))
        # A path without parameters wins over one with.
        templates = sorted(document["paths"], key=lambda template: template.count("{"))
        self._templates = [(re.compile(re.sub(r"\{[a-z_]+\}", "[^/]+", template)), template) for template in templates]
        self._validators: dict[str, jsonschema_rs.Draft202012Validator] = {}

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield method, path and description of each operation."""
        for path, operations in self.document["paths"].items():
            for method, operation in operations.items():
                yield method.upper(), path, operation

    def check(self, response: httpx.Response) -> None:
        """Assert that an answer is one that the document promises; reads the answer.

        A hook of the client that tests use: whatever a test asks, what it gets has to be documented.
        """
        response.read()
        request = response.request
        path = request.url.path
        template = next((template for pattern, template in self._templates if pattern.fullmatch(path)), None)
        place = f"{request.method} {template or path} answered {response.status_code} {response.text[:300]}"
        operation = self._closed["paths"].get(template, {}).get(request.method.lower())
        code = None
        if request.method == "HEAD":
            # No operation takes it, and the answer to it has no body that could say so.
            assert (response.status_code, response.content) == (405 if template else 404, b""), place
            return
        if not response.is_success:
            self._validate({"$ref": "#/components/schemas/ErrorEnvelope"}, response.json(), place)
            code = response.json()["error"]["code"]
        # Malformed HTTP is refused before anybody looks at the path.
        if code in ("RQ-114", "RQ-115", "RQ-116"):
            return
        if operation is None:
            assert code == ("RQ-103" if template is None else "RQ-104"), place
            return
        assert code is None or code in operation["x-error-codes"], f"{place}, which its codes do not list"
        documented = operation["responses"].get(str(response.status_code))
        assert documented is not None, f"{place}, which its responses do not list"
        content = documented.get("content", {})
        if code is not None:
            assert code in content["application/json"]["examples"], f"{place}, which has no example"
        elif content:
            self._validate(content["application/json"]["schema"], response.json(), place)

    def _validate(self, schema: dict[str, Any], value: Any, place: str) -> None:
        name = str(schema)
        if name not in self._validators:
            whole = {**schema, "components": self._closed["components"]}
            self._validators[name] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        errors = [
            f"{'.'.join(map(str, error.instance_path))}: {error.message}"
            for error in self._validators[name].iter_errors(value)
        ]
        assert not errors, f"{place}, which is not of its schema: {errors[:3]}"


def _close(node: Any) -> Any:
    """Let no object have other members than those that its schema names."""
    if isinstance(node, dict):
        for child in node.values():
            _close(child)
        if node.get("type") == "object" and isinstance(node.get("properties"), dict):
            node.setdefault("additionalProperties", False)
    elif isinstance(node, list):
        for child in node:
            _close(child)
    return node
