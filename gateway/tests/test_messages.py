"""Messages become JSON with every field there; bodies become messages and masks that keep null and absent apart."""

import json
from datetime import UTC, datetime

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from aarokya.audit.v1 import audit_log_pb2, audit_log_service_pb2
from aarokya.catalogue.v1 import benefit_pb2, benefit_provider_pb2, benefit_service_pb2
from aarokya.identity.v1 import api_key_pb2, auth_service_pb2, platform_pb2, user_pb2
from aarokya.records.v1 import account_pb2, dependant_pb2, dependant_service_pb2, mrn_pb2
from gateway.fields import Body
from gateway.messages import encode, encode_items, encode_page, mask_of, to_json, to_message
from gateway.schemas import audit, catalogue, identity, records

RESOURCES = [
    (platform_pb2.Platform, identity.Platform),
    (api_key_pb2.ApiKey, identity.ApiKey),
    (user_pb2.User, identity.User),
    (benefit_provider_pb2.BenefitProvider, catalogue.BenefitProvider),
    (benefit_pb2.Benefit, catalogue.Benefit),
    (dependant_pb2.Dependant, records.Dependant),
    (account_pb2.Account, records.Account),
    (mrn_pb2.Mrn, records.Mrn),
    (audit_log_pb2.AuditLog, audit.AuditLog),
    (audit_log_pb2.AuditLogVerification, audit.AuditLogVerification),
]
BODIES = [
    (identity.CreatePlatformBody, platform_pb2.Platform),
    (identity.UpdatePlatformBody, platform_pb2.Platform),
    (identity.CreateApiKeyBody, api_key_pb2.ApiKey),
    (identity.UpdateUserBody, user_pb2.User),
    (catalogue.CreateBenefitProviderBody, benefit_provider_pb2.BenefitProvider),
    (catalogue.UpdateBenefitProviderBody, benefit_provider_pb2.BenefitProvider),
    (catalogue.CreateBenefitBody, benefit_pb2.Benefit),
    (catalogue.UpdateBenefitBody, benefit_pb2.Benefit),
    (records.CreateDependantBody, dependant_pb2.Dependant),
    (records.UpdateDependantBody, dependant_pb2.Dependant),
    (records.CreateAccountBody, account_pb2.Account),
    (records.UpdateAccountBody, account_pb2.Account),
    (records.CreateMrnBody, mrn_pb2.Mrn),
]
resources = pytest.mark.parametrize(("message_type", "answer_type"), RESOURCES, ids=lambda type_: type_.__name__)
bodies = pytest.mark.parametrize(("body_type", "message_type"), BODIES, ids=lambda type_: type_.__name__)

UUID = "019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b11"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def values_of(field: FieldDescriptor) -> st.SearchStrategy:
    """Any value that a service could answer in one field."""
    if field.name in ("metadata", "changes"):
        return st.dictionaries(TEXTS, st.none() | st.integers() | TEXTS, max_size=3).map(json.dumps)
    if field.message_type is not None:
        return messages_of(field.message_type._concrete_class)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if field.type == FieldDescriptor.TYPE_STRING:
        return TEXTS
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    bits = 63 if field.type == FieldDescriptor.TYPE_INT64 else 31
    return st.integers(-(2**bits), 2**bits - 1)


@st.composite
def messages_of(draw: st.DrawFn, message_type: type[Message]) -> Message:
    message = message_type()
    if message.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
        message.FromDatetime(draw(st.datetimes(timezones=st.just(UTC))))
        return message
    chosen = draw(st.sets(st.sampled_from([field.name for field in message.DESCRIPTOR.fields])))
    for field in message.DESCRIPTOR.fields:
        if field.name not in chosen:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in draw(st.sets(TEXTS, max_size=3)):
                part = draw(messages_of(field.message_type.fields_by_name["value"].message_type._concrete_class))
                getattr(message, field.name)[key].CopyFrom(part)
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(values_of(field), max_size=3)))
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(draw(values_of(field)))
        else:
            setattr(message, field.name, draw(values_of(field)))
    return message


class TestEncode:
    @resources
    @given(data=st.data())
    def test_says_every_field_and_its_value(self, message_type, answer_type, data):
        message = data.draw(messages_of(message_type))
        answer = json.loads(encode(message))
        assert list(answer) == list(answer_type.model_fields)
        assert answer == to_json(message)
        for field in message.DESCRIPTOR.fields:
            if field.name not in answer:
                assert field.name in ("id_proof", "account_number")
            elif field.has_presence and not message.HasField(field.name):
                assert answer[field.name] is None
            elif field.name not in ("metadata", "changes") and not field.message_type and not field.enum_type:
                assert answer[field.name] == (
                    list(getattr(message, field.name)) if field.is_repeated else getattr(message, field.name)
                )

    @resources
    def test_says_null_for_what_is_unset(self, message_type, answer_type):
        answer = to_json(message_type())
        for field in message_type.DESCRIPTOR.fields:
            if field.name in answer and field.has_presence:
                assert answer[field.name] is None

    def test_writes_a_user(self):
        user = user_pb2.User(
            id=UUID,
            status=user_pb2.USER_STATUS_ACTIVE,
            first_name='Rävi "R" \\ क्‍ष </script> \u2028',
            gender=user_pb2.GENDER_FEMALE,
            id_proof_type=user_pb2.ID_PROOF_TYPE_DRIVING_LICENSE,
            metadata='{"a":[1,1.0,null]}',
            version=2**63 - 1,
        )
        user.created_at.FromDatetime(datetime(2026, 11, 20, 9, 30, 0, 1, tzinfo=UTC))
        user.id_proof.number = "secret"
        answer = to_json(user)
        assert answer["status"] == "active"
        assert answer["gender"] == "FEMALE"
        assert answer["id_proof_type"] == "DRIVING_LICENSE"
        assert answer["first_name"] == user.first_name
        assert answer["metadata"] == {"a": [1, 1.0, None]}
        assert b'"metadata":{"a":[1,1.0,null]}' in encode(user)
        assert b'"version":9223372036854775807,' in encode(user)
        assert answer["created_at"] == "2026-11-20T09:30:00.000001Z"
        assert answer["last_name"] is None
        assert b"secret" not in encode(user)

    @given(st.datetimes(timezones=st.just(UTC)))
    def test_writes_times_with_six_digits(self, time):
        message = mrn_pb2.Mrn()
        message.created_at.FromDatetime(time)
        written = to_json(message)["created_at"]
        assert len(written) == len("2026-11-20T09:30:00.000001Z")
        assert datetime.fromisoformat(written) == time

    def test_writes_parts_lists_and_maps(self):
        benefit = benefit_pb2.Benefit(
            eligible_relationships=[benefit_pb2.RELATIONSHIP_SON, benefit_pb2.RELATIONSHIP_FATHER_IN_LAW],
            platform_ids=[UUID],
            price_paise=0,
        )
        benefit.provider.display_name = "Apollo"
        benefit.provider.status = benefit_provider_pb2.BENEFIT_PROVIDER_STATUS_INACTIVE
        benefit.translations["ta"].name = "பரிசோதனை"
        benefit.translations["hi"].name = "जाँच"
        answer = to_json(benefit)
        assert answer["eligible_relationships"] == ["SON", "FATHER_IN_LAW"]
        assert answer["platform_ids"] == [UUID]
        assert answer["price_paise"] == 0
        assert answer["provider"]["status"] == "inactive"
        assert answer["provider"]["issues_mrn"] is False
        assert answer["provider"]["mrn_pattern"] is None
        assert list(answer["translations"].items()) == [
            ("hi", {"name": "जाँच", "short_description": None}),
            ("ta", {"name": "பரிசோதனை", "short_description": None}),
        ]

    def test_adds_members_to_a_message_and_to_items(self):
        response = auth_service_pb2.IssueTokenResponse(access_token="t", expires_in=3600, missing_fields=["gender"])
        assert json.loads(encode(response, token_type="Bearer")) == {**to_json(response), "token_type": "Bearer"}
        verification = audit_log_pb2.AuditLogVerification(service="identity", intact=True)
        assert json.loads(encode_items([verification])) == {"items": [to_json(verification)]}
        assert json.loads(encode_items([])) == {"items": []}

    def test_writes_pages(self):
        mrn = mrn_pb2.Mrn(id=UUID)
        assert json.loads(encode_page([mrn], "next")) == {"items": [to_json(mrn)], "next_page_token": "next"}
        assert json.loads(encode_page([], "")) == {"items": [], "next_page_token": None}

    def test_keeps_no_state_between_messages(self):
        full = benefit_pb2.Benefit(code="a", platform_ids=[UUID])
        empty = benefit_pb2.Benefit()
        before = encode(empty)
        encode(full)
        assert encode(empty) == before


class TestToMessage:
    @bodies
    def test_absent_and_null_stay_unset_and_the_mask_tells_them_apart(self, body_type, message_type):
        properties = body_type.model_json_schema()["properties"]
        nullable = [name for name, schema in properties.items() if {"type": "null"} in schema.get("anyOf", ())]
        body = body_type.model_construct(_fields_set=set(nullable), **dict.fromkeys(body_type.model_fields))
        assert to_message(body, message_type) == message_type()
        assert list(mask_of(body).paths) == nullable

    @bodies
    def test_every_field_of_a_body_is_one_of_the_message(self, body_type, message_type):
        assert set(body_type.model_fields) <= set(message_type.DESCRIPTOR.fields_by_name)

    def test_reads_a_patch(self):
        body = identity.UpdateUserBody.model_validate(
            {
                "first_name": " Ravi ",
                "last_name": None,
                "gender": "OTHER",
                "id_proof": {"proof_type": "PAN", "number": "ABCDE1234F"},
                "metadata": {"b": 1, "a": ["अ"]},
            }
        )
        assert to_message(body, user_pb2.User) == user_pb2.User(
            first_name="Ravi",
            gender=user_pb2.GENDER_OTHER,
            id_proof=user_pb2.IdProof(proof_type=user_pb2.ID_PROOF_TYPE_PAN, number="ABCDE1234F"),
            metadata='{"b":1,"a":["अ"]}',
        )
        assert list(mask_of(body).paths) == ["first_name", "last_name", "gender", "id_proof", "metadata"]

    def test_an_empty_patch_names_nothing(self):
        body = identity.UpdateUserBody.model_validate({})
        assert to_message(body, user_pb2.User) == user_pb2.User()
        assert list(mask_of(body).paths) == []

    def test_emptied_lists_and_maps_are_named(self):
        body = catalogue.UpdateBenefitBody.model_validate({"platform_ids": [], "translations": {}, "price_paise": 0})
        assert to_message(body, benefit_pb2.Benefit) == benefit_pb2.Benefit()
        assert list(mask_of(body).paths) == ["price_paise", "platform_ids", "translations"]

    def test_false_and_zero_are_values(self):
        body = records.UpdateAccountBody.model_validate({"is_primary": False})
        assert to_message(body, account_pb2.Account).HasField("is_primary")
        body = catalogue.UpdateBenefitBody.model_validate({"min_age": 0, "max_age": None})
        message = to_message(body, benefit_pb2.Benefit)
        assert (message.HasField("min_age"), message.HasField("max_age")) == (True, False)

    def test_reads_lists_maps_and_times(self):
        body = catalogue.CreateBenefitBody.model_validate(
            {
                "benefit_provider_id": UUID.upper(),
                "code": "checkup",
                "name": "Check-up",
                "type": "DIAGNOSTICS",
                "status": "active",
                "price_paise": 2**53 - 1,
                "eligible_relationships": ["SELF", "WARD"],
                "translations": {"hi": {"name": "जाँच"}, "ta": {"name": "பரிசோதனை", "short_description": None}},
            }
        )
        message = to_message(body, benefit_pb2.Benefit)
        assert message.benefit_provider_id == UUID
        assert message.status == benefit_pb2.BENEFIT_STATUS_ACTIVE
        assert list(message.eligible_relationships) == [benefit_pb2.RELATIONSHIP_SELF, benefit_pb2.RELATIONSHIP_WARD]
        assert {key: value.name for key, value in message.translations.items()} == {"hi": "जाँच", "ta": "பரிசோதனை"}
        key = identity.CreateApiKeyBody.model_validate({"name": "main", "expires_at": "2030-01-01T05:30:00+05:30"})
        assert to_json(to_message(key, api_key_pb2.ApiKey))["expires_at"] == "2030-01-01T00:00:00.000000Z"

    def test_reads_queries_with_their_defaults(self):
        query = records.ListDependantsQuery.model_validate({"include_removed": "true", "as_of": "2026-01-01T00:00:00Z"})
        request = to_message(query, dependant_service_pb2.ListDependantsRequest)
        assert (request.include_removed, request.page_size, request.page_token) == (True, 50, "")
        assert request.as_of.ToDatetime() == datetime(2026, 1, 1)  # noqa: DTZ001 (the proto's own reading of UTC)
        filters = catalogue.ListBenefitsQuery.model_validate({"type": "PHARMACY", "q": "100%", "page_size": "999"})
        request = to_message(filters, benefit_service_pb2.ListBenefitsRequest)
        assert request == benefit_service_pb2.ListBenefitsRequest(
            type=benefit_pb2.BENEFIT_TYPE_PHARMACY, q="100%", page_size=200
        )

    def test_reads_names_that_python_keeps_for_itself_and_leaves_paging_to_the_gateway(self):
        query = audit.ListAuditLogsQuery.model_validate({"from": "2026-01-01T00:00:00Z", "page_token": "x"})
        request = to_message(query, audit_log_service_pb2.ListAuditLogsRequest)
        assert [field.name for field, _ in request.ListFields()] == ["from"]

    @bodies
    @given(data=st.data())
    def test_what_is_sent_is_what_is_answered(self, body_type, message_type, data):
        sent = data.draw(bodies_of(body_type))
        body = body_type.model_validate(sent)
        answer = to_json(to_message(body, message_type))
        assert set(mask_of(body).paths) == set(sent)
        for name in sent.keys() & answer.keys():
            assert answer[name] == sent[name]


def bodies_of(body_type: type[Body]) -> st.SearchStrategy:
    """Bodies of a shape, as far as its examples and choices go."""
    whole = body_type.model_json_schema()

    def read(schema: dict) -> st.SearchStrategy:
        if "$ref" in schema:
            schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
        if "anyOf" in schema:
            return st.one_of([read(option) for option in schema["anyOf"]])
        if "enum" in schema or "examples" in schema:
            return st.sampled_from(schema.get("enum") or schema["examples"])
        if schema.get("format") == "uuid":
            return st.uuids().map(str)
        if schema["type"] == "array":
            return st.lists(read(schema["items"]), max_size=3)
        if schema["type"] == "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        if "patternProperties" in schema:
            (values,) = schema["patternProperties"].values()
            return st.dictionaries(st.sampled_from(["hi", "ta"]), read(values))
        if schema["type"] == "object":
            members = {name: read(member) for name, member in schema["properties"].items()}
            # What is left out of a part is answered as null, so parts are sent whole.
            optional = members.keys() - schema.get("required", ()) if schema is whole else ()
            return st.fixed_dictionaries(
                {name: member for name, member in members.items() if name not in optional},
                optional={name: members[name] for name in optional},
            )
        return {"boolean": st.booleans(), "null": st.none()}[schema["type"]]

    return read(whole)
