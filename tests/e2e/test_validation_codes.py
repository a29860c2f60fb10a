"""Which of the 422 codes a mistake gets: RQ-101 for its shape, the domain's own for every other rule."""

from typing import Any

import pytest

from tests.e2e.conftest import World, assert_refused
from tests.e2e.contract import WRITES, Operation
from tests.e2e.samples import Samples, make_samples

AADHAAR = "234123412346"
SHAPES: list[tuple[str, dict[str, Any]]] = [
    # JSON type, missing or unknown field, null where none may be.
    ("POST /platforms", {}),
    ("POST /platforms", {"name": None}),
    ("POST /platforms", {"name": "Rides", "nickname": "R"}),
    ("POST /platforms", {"name": "Rides", "id": "not-an-id"}),
    ("POST /platforms", {"name": "Rides", "status": "active"}),
    ("PATCH /platforms/{platform_id}", {"name": None}),
    ("PATCH /platforms/{platform_id}", {"id": "019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b11"}),
    ("PATCH /platforms/{platform_id}", {"version": 1}),
    ("PATCH /platforms/{platform_id}", {"token_ttl_seconds": "600"}),
    ("PATCH /platforms/{platform_id}", {"token_ttl_seconds": 600.0}),
    ("PATCH /platforms/{platform_id}", {"token_ttl_seconds": True}),
    ("PATCH /platforms/{platform_id}", {"token_ttl_seconds": None}),
    ("PATCH /platforms/{platform_id}", {"required_profile_fields": "email"}),
    ("PATCH /platforms/{platform_id}", {"required_profile_fields": [1]}),
    ("PATCH /platforms/{platform_id}", {"metadata": []}),
    # Length and number range.
    ("POST /platforms", {"name": "R"}),
    ("POST /platforms", {"name": "R" * 121}),
    ("PATCH /platforms/{platform_id}", {"name": " R "}),
    ("PATCH /platforms/{platform_id}", {"token_ttl_seconds": 299}),
    ("PATCH /platforms/{platform_id}", {"token_ttl_seconds": 86_401}),
    ("PATCH /platforms/{platform_id}", {"max_dependants": -1}),
    ("PATCH /platforms/{platform_id}", {"max_dependants": 21}),
    ("PATCH /platforms/{platform_id}", {"min_user_age": -1}),
    ("PATCH /platforms/{platform_id}", {"metadata": {"a": "b" * 8_200}}),
    ("POST /platforms/{platform_id}/suspend", {}),
    ("POST /platforms/{platform_id}/suspend", {"reason": ""}),
    ("POST /platforms/{platform_id}/suspend", {"reason": None}),
    ("POST /platforms/{platform_id}/api_keys", {"name": "a", "secret": "s" * 31}),
    ("POST /platforms/{platform_id}/api_keys", {"name": "a", "secret": "s" * 257}),
    ("POST /platforms/{platform_id}/api_keys", {"name": "a", "expires_at": "tomorrow"}),
    ("POST /platforms/{platform_id}/api_keys", {"name": "a", "expires_at": "2126-11-20T09:30:00"}),
    ("POST /platforms/{platform_id}/api_keys/{key_id}/rotate", {}),
    ("POST /platforms/{platform_id}/api_keys/{key_id}/rotate", {"overlap_seconds": -1}),
    # Enum values, dates and ids; states and kinds have one letter case each.
    ("PATCH /users/{user_id}", {"gender": "male"}),
    ("PATCH /users/{user_id}", {"gender": "UNKNOWN"}),
    ("PATCH /users/{user_id}", {"date_of_birth": "17-05-1990"}),
    ("PATCH /users/{user_id}", {"date_of_birth": "1990-02-30"}),
    ("PATCH /users/{user_id}", {"date_of_birth": "1990-05-17T00:00:00Z"}),
    ("PATCH /users/{user_id}", {"date_of_birth": 19900517}),
    ("PATCH /users/{user_id}", {"id_proof": {"proof_type": "AADHAAR", "number": "1"}}),
    ("PATCH /users/{user_id}", {"id_proof": {"proof_type": "PAN"}}),
    ("PATCH /users/{user_id}", {"id_proof": "ABCDE1234F"}),
    ("PATCH /users/{user_id}", {"status": "active"}),
    ("PATCH /users/{user_id}", {"platform_id": "019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b11"}),
    ("POST /users/{user_id}/dependants", {"relationship": "SON"}),
    ("POST /users/{user_id}/dependants", {"relationship": "son"}),
    ("PATCH /users/{user_id}/dependants/{dependant_id}", {"status": "Active"}),
    ("PATCH /users/{user_id}/dependants/{dependant_id}", {"first_name": None}),
    ("POST /benefit_providers", {"code": "apollo", "legal_name": "A", "display_name": "A"}),
    ("PATCH /benefit_providers/{benefit_provider_id}", {"status": "removed"}),
    ("PATCH /benefit_providers/{benefit_provider_id}", {"issues_mrn": "true"}),
    ("PATCH /benefits/{benefit_id}", {"price_paise": -1}),
    ("PATCH /benefits/{benefit_id}", {"price_paise": 1.5}),
    ("PATCH /benefits/{benefit_id}", {"valid_from": "2026-13-01"}),
    ("PATCH /benefits/{benefit_id}", {"eligible_relationships": ["COUSIN"]}),
    ("PATCH /benefits/{benefit_id}", {"platform_ids": ["rides"]}),
    ("PATCH /benefits/{benefit_id}", {"translations": {"hi": {"title": "a"}}}),
    ("POST /users/{user_id}/accounts", {"type": "CASH", "account_number": "1"}),
    ("POST /users/{user_id}/accounts", {"type": "WALLET"}),
    ("PATCH /users/{user_id}/accounts/{account_id}", {"is_primary": "yes"}),
    ("POST /mrns", {"dependant_id": "1", "benefit_provider_id": "2", "mrn": "3"}),
    ("POST /auth/token", {"phone_number": 9876543210}),
    ("POST /auth/token", {"phone_number": None}),
    ("POST /auth/token", {"phone_number": "9876543210", "platform_id": 7}),
]
RULES: list[tuple[str, dict[str, Any], str]] = [
    ("PATCH /platforms/{platform_id}", {"default_phone_country_code": "India"}, "PL-302"),
    ("PATCH /platforms/{platform_id}", {"required_profile_fields": ["shoe_size"]}, "PL-302"),
    ("PATCH /platforms/{platform_id}", {"contact_email": "nobody"}, "PL-302"),
    ("POST /auth/token", {"phone_number": "12345"}, "US-402"),
    ("POST /auth/token", {"phone_number": "080 2345 6789"}, "US-402"),
    ("POST /auth/token", {"phone_number": "9876543210", "phone_country_code": "+999"}, "US-402"),
    ("PATCH /users/{user_id}", {"pincode": "012345"}, "US-402"),
    ("PATCH /users/{user_id}", {"email": "nobody"}, "US-402"),
    ("PATCH /users/{user_id}", {"date_of_birth": "1890-01-01"}, "US-402"),
    ("PATCH /users/{user_id}", {"date_of_birth": "2999-01-01"}, "US-402"),
    ("PATCH /users/{user_id}", {"first_name": None}, "US-402"),
    ("PATCH /users/{user_id}", {"abha_number": "123"}, "US-402"),
    ("PATCH /users/{user_id}", {"id_proof": {"proof_type": "PAN", "number": "ABC"}}, "US-402"),
    ("PATCH /users/{user_id}", {"id_proof": {"proof_type": "VOTER_ID", "number": AADHAAR}}, "US-402"),
    ("PATCH /users/{user_id}/dependants/{dependant_id}", {"status": "removed"}, "DE-502"),
    ("PATCH /users/{user_id}/dependants/{dependant_id}", {"date_of_birth": "2999-01-01"}, "DE-502"),
    ("PATCH /users/{user_id}/dependants/{dependant_id}", {"phone_number": "12"}, "DE-502"),
    ("PATCH /benefit_providers/{benefit_provider_id}", {"code": "Apollo!"}, "BP-605"),
    ("PATCH /benefit_providers/{benefit_provider_id}", {"mrn_pattern": "("}, "BP-605"),
    ("PATCH /benefit_providers/{benefit_provider_id}", {"mrn_pattern": "a" * 201}, "BP-605"),
    ("PATCH /benefit_providers/{benefit_provider_id}", {"support_email": "nobody"}, "BP-605"),
    ("PATCH /benefits/{benefit_id}", {"valid_from": "2026-01-02", "valid_to": "2026-01-01"}, "BE-702"),
    ("PATCH /benefits/{benefit_id}", {"code": "Not A Code"}, "BE-702"),
    ("PATCH /benefits/{benefit_id}", {"min_age": 60, "max_age": 18}, "BE-702"),
    ("POST /users/{user_id}/accounts", {"type": "BANK", "account_number": "123456789"}, "AC-802"),
    (
        "POST /users/{user_id}/accounts",
        {"type": "BANK", "account_number": "12345678", "ifsc": "HDFC0001234"},
        "AC-802",
    ),
    ("POST /users/{user_id}/accounts", {"type": "UPI", "account_number": "nobody"}, "AC-802"),
    ("PATCH /users/{user_id}/accounts/{account_id}", {"ifsc": "hdfc0001234"}, "AC-802"),
]


@pytest.fixture(scope="module")
def samples(world: World) -> Samples:
    return make_samples(world)


def operation_of(place: str) -> Operation:
    return next(operation for operation in WRITES if str(operation) == place)


@pytest.mark.parametrize(("place", "body"), SHAPES)
def test_refuses_a_wrong_shape_with_the_general_code(samples: Samples, place: str, body: dict[str, Any]) -> None:
    operation = operation_of(place)
    response = samples.callers[operation.callers[0]].request(operation.method, samples.path(operation), json=body)
    assert_refused(response, 422, "RQ-101")
    assert response.json()["error"]["details"]


@pytest.mark.parametrize(("place", "body", "code"), RULES)
class TestRules:
    def test_refuses_a_broken_rule_with_the_domains_code(
        self, samples: Samples, place: str, body: dict[str, Any], code: str
    ) -> None:
        operation = operation_of(place)
        caller = samples.callers[operation.callers[0]]
        body = {**({"platform_id": samples.ids["platform_id"]} if operation.path == "/auth/token" else {}), **body}
        response = caller.request(operation.method, samples.path(operation), json=body)
        assert_refused(response, 422, code)
        assert {detail["field"].split(".")[0] for detail in response.json()["error"]["details"]} <= {*body, "ifsc"}

    def test_refuses_a_wrong_shape_first(self, samples: Samples, place: str, body: dict[str, Any], code: str) -> None:
        operation = operation_of(place)
        caller = samples.callers[operation.callers[0]]
        wrong = {"platform_id": 1} if operation.path == "/auth/token" else {"unknown": 1}
        response = caller.request(operation.method, samples.path(operation), json={**body, **wrong})
        assert_refused(response, 422, "RQ-101")
