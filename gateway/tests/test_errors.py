"""The registry is complete, and every way of failing ends in the same envelope."""

import json
import re

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from starlette.responses import Response

from gateway.errors import REGISTRY, Detail, Refused, error_response, from_rpc_error, refused_response
from servicekit.errors import MOST_DETAILS

# Code and status as the table in the public contract has them.
CONTRACT = {
    "RQ-100": 500,
    "RQ-101": 422,
    "RQ-102": 400,
    "RQ-103": 404,
    "RQ-104": 405,
    "RQ-105": 415,
    "RQ-106": 413,
    "RQ-107": 429,
    "RQ-108": 422,
    "RQ-109": 409,
    "RQ-110": 412,
    "RQ-111": 503,
    "RQ-112": 504,
    "RQ-113": 400,
    "RQ-114": 400,
    "RQ-115": 431,
    "RQ-116": 408,
    "AU-201": 401,
    "AU-202": 401,
    "AU-203": 401,
    "AU-204": 403,
    "AU-205": 400,
    "AU-206": 403,
    "AU-207": 403,
    "AU-208": 401,
    "AU-209": 403,
    "PL-301": 404,
    "PL-302": 422,
    "PL-303": 409,
    "PL-304": 409,
    "PL-305": 404,
    "PL-306": 409,
    "US-401": 404,
    "US-402": 422,
    "US-403": 409,
    "US-404": 409,
    "US-405": 422,
    "US-406": 403,
    "DE-501": 404,
    "DE-502": 422,
    "DE-503": 409,
    "DE-504": 409,
    "DE-505": 409,
    "DE-506": 409,
    "BP-601": 404,
    "BP-602": 422,
    "BP-603": 409,
    "BP-604": 409,
    "BP-605": 422,
    "BE-701": 404,
    "BE-702": 422,
    "BE-703": 409,
    "AC-801": 404,
    "AC-802": 422,
    "AC-803": 409,
    "MR-901": 404,
    "MR-902": 422,
    "MR-903": 409,
    "MR-904": 409,
    "MR-905": 422,
}

# What was added since, each with the next free number of its block.
ADDED = {"PL-307": 409}


def error_of(response: Response) -> dict:
    envelope = json.loads(response.body)
    assert list(envelope) == ["error"]
    assert list(envelope["error"]) == ["code", "message", "request_id", "details"]
    return envelope["error"]


def rpc_error(
    status: grpc.StatusCode,
    *packed: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest,
    message: str = "",
    raw: bytes | None = None,
) -> grpc.aio.AioRpcError:
    details = []
    for message_proto in packed:
        detail = any_pb2.Any()
        detail.Pack(message_proto)
        details.append(detail)
    trailing = grpc.aio.Metadata()
    if packed or raw is not None:
        value = raw or status_pb2.Status(code=status.value[0], message=message, details=details).SerializeToString()
        trailing.add("grpc-status-details-bin", value)
    return grpc.aio.AioRpcError(status, grpc.aio.Metadata(), trailing, details=message)


class TestRegistry:
    def test_holds_the_codes_of_the_contract_and_those_added_since(self):
        assert {code: entry.http_status for code, entry in REGISTRY.items()} == CONTRACT | ADDED

    @pytest.mark.parametrize("entry", REGISTRY.values(), ids=lambda entry: entry.code)
    def test_says_meaning_and_action_in_whole_sentences(self, entry):
        for text in (entry.meaning, entry.action):
            assert re.fullmatch(r"[A-Z][^\n]{10,220}\.", text)


class TestErrorResponse:
    @pytest.mark.parametrize("code", REGISTRY)
    def test_answers_every_code_with_its_status_and_meaning(self, code):
        response = error_response(code, "req-1")
        assert response.status_code == REGISTRY[code].http_status
        assert response.headers["content-type"] == "application/json"
        assert response.headers["x-request-id"] == "req-1"
        assert response.headers["cache-control"] == "no-store"
        assert error_of(response) == {
            "code": code,
            "message": REGISTRY[code].meaning,
            "request_id": "req-1",
            "details": [],
        }

    @pytest.mark.parametrize("code", [code for code, entry in REGISTRY.items() if entry.http_status == 401])
    def test_challenges_on_401(self, code):
        assert error_response(code, "r").headers["www-authenticate"].startswith('Bearer realm="aarokya"')

    @pytest.mark.parametrize("code", ["RQ-107", "RQ-109", "RQ-111"])
    def test_says_when_to_come_back(self, code):
        assert error_response(code, "r").headers["retry-after"] == "1"
        assert error_response(code, "r", headers={"Retry-After": "7"}).headers.getlist("retry-after") == ["7"]

    @pytest.mark.parametrize("code", ["RQ-114", "RQ-115", "RQ-116"])
    def test_announces_that_the_connection_closes(self, code):
        assert error_response(code, "r").headers["connection"] == "close"

    def test_carries_message_and_details(self):
        response = error_response("US-402", "r", "The phone is odd.", [Detail("phone_number", "must be a mobile")])
        assert error_of(response)["message"] == "The phone is odd."
        assert error_of(response)["details"] == [{"field": "phone_number", "message": "must be a mobile"}]

    def test_limits_the_details(self):
        response = error_response("RQ-101", "r", details=(Detail(f"field_{n}", "is wrong") for n in range(500)))
        assert len(error_of(response)["details"]) == MOST_DETAILS == 20

    def test_survives_text_that_is_not_encodable(self):
        response = error_response("RQ-101", "r", details=[Detail("\ud800", "is not known")])
        assert error_of(response)["details"][0]["message"] == "is not known"

    def test_answers_an_unknown_code_as_unexpected_and_tells_nothing(self):
        response = error_response("XX-999", "r", "secret", [Detail("secret", "secret")], {"X-Secret": "secret"})
        assert response.status_code == 500
        assert error_of(response)["code"] == "RQ-100"
        assert b"secret" not in response.body
        assert "x-secret" not in response.headers

    def test_builds_a_refusal(self):
        response = refused_response(Refused("RQ-104", headers={"Allow": "GET, POST"}), "r")
        assert response.status_code == 405
        assert response.headers["allow"] == "GET, POST"


class TestFromRpcError:
    def test_keeps_the_code_message_and_details_of_a_typed_refusal(self):
        refused = from_rpc_error(
            rpc_error(
                grpc.StatusCode.ALREADY_EXISTS,
                error_details_pb2.ErrorInfo(reason="MR_903", domain="aarokya"),
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(field="mrn", description="is already linked")
                    ]
                ),
                message="The pair is taken.",
            )
        )
        assert refused.code == "MR-903"
        assert refused.message == "The pair is taken."
        assert refused.details == [Detail("mrn", "is already linked")]
        assert refused.headers == {}

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (grpc.StatusCode.UNAVAILABLE, "RQ-111"),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "RQ-111"),
            (grpc.StatusCode.CANCELLED, "RQ-111"),
            (grpc.StatusCode.DEADLINE_EXCEEDED, "RQ-112"),
            *(
                (status, "RQ-100")
                for status in grpc.StatusCode
                if status.name not in ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED", "DEADLINE_EXCEEDED")
            ),
        ],
    )
    def test_translates_failures_of_the_transport(self, status, code):
        refused = from_rpc_error(rpc_error(status, message="host db-7 said no"))
        assert (refused.code, refused.message, refused.details) == (code, None, [])

    @pytest.mark.parametrize(
        "info",
        [
            error_details_pb2.ErrorInfo(reason="XX_999", domain="aarokya"),
            error_details_pb2.ErrorInfo(reason="RQ_100", domain="aarokya"),
            error_details_pb2.ErrorInfo(reason="MR_903", domain="googleapis.com"),
        ],
    )
    def test_tells_nothing_of_a_reason_it_does_not_know(self, info):
        refused = from_rpc_error(rpc_error(grpc.StatusCode.INTERNAL, info, message="secret"))
        assert (refused.code, refused.message, refused.details) == ("RQ-100", None, [])

    def test_survives_unreadable_details(self):
        assert from_rpc_error(rpc_error(grpc.StatusCode.UNAVAILABLE, raw=b"\xff\xff\xff")).code == "RQ-111"
