"""The generated shapes follow from the protos, and the shapes keep the table of docs/design.md."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway import fields
from gateway.schemas import audit, catalogue, identity, records

GENERATOR = Path(__file__).parents[1] / "generate_schemas.py"


def accepted(body_type: type[fields.Body]) -> dict[str, str]:
    """How each field of a body may come: required, nullable (and optional), or optional."""
    schema = body_type.model_json_schema()
    return {
        name: "required"
        if name in schema.get("required", ())
        else "nullable"
        if {"type": "null"} in member.get("anyOf", ())
        else "optional"
        for name, member in schema["properties"].items()
    }


def test_generated_shapes_are_up_to_date(tmp_path):
    result = subprocess.run([sys.executable, GENERATOR, "--check"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


class TestBodies:
    def test_creating_a_platform(self):
        assert accepted(identity.CreatePlatformBody) == {
            "id": "optional",
            "name": "required",
            "default_phone_country_code": "optional",
            "token_ttl_seconds": "optional",
            "min_user_age": "optional",
            "required_profile_fields": "optional",
            "max_dependants": "optional",
            "contact_email": "nullable",
            "metadata": "nullable",
        }

    def test_changing_a_platform(self):
        created = accepted(identity.CreatePlatformBody)
        del created["id"]
        assert accepted(identity.UpdatePlatformBody) == {**created, "name": "optional"}

    def test_changing_a_user(self):
        changes = accepted(identity.UpdateUserBody)
        assert {name for name, how in changes.items() if how != "nullable"} == {"phone_number"}
        assert changes["phone_number"] == "optional"
        assert changes.keys() == {
            "phone_number", "first_name", "middle_name", "last_name", "gender", "date_of_birth", "email",
            "preferred_language", "address_line", "city", "state_code", "pincode", "id_proof", "abha_number",
            "abha_address", "metadata",
        }  # fmt: skip

    def test_an_id_proof_is_given_whole(self):
        assert accepted(identity.IdProofBody) == {"proof_type": "required", "number": "required"}

    def test_a_dependant_needs_four_fields_and_changes_without(self):
        four = {"relationship", "first_name", "gender", "date_of_birth"}
        created, changed = accepted(records.CreateDependantBody), accepted(records.UpdateDependantBody)
        assert {name for name, how in created.items() if how == "required"} == four
        assert {name for name, how in changed.items() if how == "optional"} == {*four, "status"}
        assert created.keys() == changed.keys()

    def test_immutable_fields_are_given_once(self):
        assert accepted(records.CreateAccountBody)["type"] == "required"
        assert "type" not in accepted(records.UpdateAccountBody)
        assert accepted(records.CreateAccountBody)["account_number"] == "required"
        assert accepted(records.UpdateAccountBody)["account_number"] == "optional"
        assert accepted(catalogue.CreateBenefitBody)["benefit_provider_id"] == "required"
        assert "benefit_provider_id" not in accepted(catalogue.UpdateBenefitBody)

    def test_plain_fields_are_never_null(self):
        benefit = accepted(catalogue.UpdateBenefitBody)
        assert {benefit[name] for name in ("eligible_relationships", "platform_ids", "translations")} == {"optional"}
        assert accepted(catalogue.CreateBenefitProviderBody)["issues_mrn"] == "optional"

    @pytest.mark.parametrize(
        "body_type",
        [
            identity.SuspendPlatformBody,
            identity.ActivatePlatformBody,
            identity.ReactivateUserBody,
            identity.ReleasePhoneBody,
            identity.EraseUserBody,
        ],
    )
    def test_actions_need_a_reason(self, body_type):
        assert accepted(body_type) == {"reason": "required"}

    def test_rotating_a_key_needs_its_overlap(self):
        assert accepted(identity.RotateApiKeyBody) == {"overlap_seconds": "required"}

    def test_an_mrn_is_linked_and_never_changed(self):
        assert set(accepted(records.CreateMrnBody).values()) == {"required"}
        assert not hasattr(records, "UpdateMrnBody")


class TestAnswers:
    def test_every_field_is_there(self):
        for module in (identity, catalogue, records, audit):
            for shape in vars(module).values():
                if isinstance(shape, type) and issubclass(shape, fields.Answer):
                    schema = shape.model_json_schema()
                    assert set(schema["required"]) == set(schema["properties"]), shape

    def test_input_is_not_answered(self):
        assert "id_proof" not in identity.User.model_fields
        assert "account_number" not in records.Account.model_fields

    def test_what_can_be_null_says_so(self):
        def nullable(answer_type: type[fields.Answer]) -> set[str]:
            return {name for name, how in _members(answer_type) if how}

        assert nullable(records.Mrn) == {"mrn"}
        assert nullable(identity.ApiKey) == {"secret", "expires_at", "last_used_at"}
        assert nullable(identity.Platform) == {"contact_email", "metadata", "status_reason"}
        assert {"first_name", "gender", "date_of_birth"} <= nullable(records.Dependant)


def _members(answer_type: type[fields.Answer]) -> list[tuple[str, bool]]:
    properties = answer_type.model_json_schema()["properties"]
    return [(name, {"type": "null"} in member.get("anyOf", ())) for name, member in properties.items()]


class TestQueries:
    @pytest.mark.parametrize(
        ("query_type", "names"),
        [
            (identity.ListPlatformsQuery, set()),
            (identity.ListApiKeysQuery, set()),
            (identity.ListUsersQuery, {"platform_id", "status", "phone_number"}),
            (catalogue.ListBenefitProvidersQuery, set()),
            (catalogue.ListBenefitsQuery, {"type", "benefit_provider_id", "q"}),
            (records.ListDependantsQuery, {"as_of", "include_removed"}),
            (records.ListDependantVersionsQuery, set()),
            (records.ListAccountsQuery, set()),
            (records.ListMrnsQuery, {"user_id", "dependant_id", "benefit_provider_id", "mrn"}),
            (
                audit.ListAuditLogsQuery,
                {"entity_type", "entity_id", "user_id", "actor_id", "platform_id", "action", "from", "to"},
            ),
        ],
    )
    def test_lists_take_their_filters_and_paging(self, query_type, names):
        assert query_type.model_json_schema()["properties"].keys() == {*names, "page_size", "page_token"}

    def test_other_queries(self):
        assert records.UnlinkMrnQuery.model_fields.keys() == {"reason"}
        assert audit.VerifyAuditLogsQuery.model_fields.keys() == {"from_sequence"}


class TestEnums:
    @pytest.mark.parametrize(
        ("name", "module", "choices"),
        [
            ("UserStatus", identity, ["onboarding", "active", "deactivated"]),
            ("AccountVerificationStatus", records, ["unverified", "verified", "failed"]),
            ("IdProofType", identity, ["DRIVING_LICENSE", "PAN", "VOTER_ID", "PASSPORT"]),
            ("MrnSource", records, ["USER", "PARTNER"]),
        ],
    )
    def test_states_are_lower_case_and_kinds_upper_case(self, name, module, choices):
        assert list(getattr(module, name).__value__.__origin__.__args__) == choices
