"""What a profile must look like."""

from datetime import date
from typing import Any

import pytest

from aarokya.identity.v1.user_pb2 import IdProof, IdProofType, User
from identity.users.profile import PROFILE_FIELDS, broken_rules, missing_fields, to_public

TODAY = date(2026, 2, 28)
AADHAAR = "234123412346"
PAN = IdProofType.ID_PROOF_TYPE_PAN
LICENSE = IdProofType.ID_PROOF_TYPE_DRIVING_LICENSE


def broken(**fields: Any) -> list[str]:
    """Return the fields that break a rule on a platform whose users are 18 or older."""
    details = broken_rules(User(**fields), PROFILE_FIELDS, today=TODAY, min_age=18)
    return [detail.field for detail in details]


class TestBrokenRules:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("date_of_birth", "2008-02-28"),
            ("date_of_birth", "1905-03-01"),
            ("pincode", "560001"),
            ("state_code", "KA"),
            ("email", "ravi.k+ride@mail.example.in"),
            ("preferred_language", "hi"),
            ("preferred_language", "ta-IN"),
            ("preferred_language", "mni-Beng-IN"),
            ("abha_number", "91123456789012"),
            ("abha_address", "ravi@abdm"),
            ("abha_address", "ravi.k_90@sbx"),
            ("id_proof", IdProof(proof_type=PAN, number="ABCDE1234F")),
            ("id_proof", IdProof(proof_type=LICENSE, number="KA0120190001234")),
            ("id_proof", IdProof(proof_type=LICENSE, number="KA-01 2019/0001234")),
            # Twelve digits that do not pass Verhoeff's check.
            ("id_proof", IdProof(proof_type=LICENSE, number="234123412345")),
        ],
    )
    def test_accepts(self, field: str, value: object) -> None:
        assert broken(**{field: value}) == []

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("date_of_birth", "2008-03-01"),
            ("date_of_birth", "1905-02-28"),
            ("date_of_birth", "2026-03-01"),
            ("date_of_birth", "0001-01-01"),
            ("pincode", "060001"),
            ("pincode", "56000"),
            ("pincode", "5600011"),
            ("pincode", "56000१"),
            ("pincode", "560001\n"),
            ("state_code", "ka"),
            ("state_code", "KAR"),
            ("email", "ravi"),
            ("email", "ravi@host"),
            ("email", "ra vi@mail.example"),
            ("preferred_language", "hindi language"),
            ("preferred_language", "h"),
            ("abha_number", "9112345678901"),
            ("abha_number", "91-1234-5678-9012"),
            ("abha_number", AADHAAR),
            ("abha_address", "ravi"),
            ("abha_address", "ravi@"),
            ("abha_address", f"{AADHAAR}@abdm"),
            ("abha_address", "2341.2341.2346@abdm"),
            ("id_proof", IdProof(proof_type=PAN, number="abcde1234f")),
            ("id_proof", IdProof(proof_type=PAN, number="ABCDE12345")),
            ("id_proof", IdProof(proof_type=PAN, number="ABCDE1234F\n")),
            ("id_proof", IdProof(proof_type=LICENSE, number=AADHAAR)),
            ("id_proof", IdProof(proof_type=LICENSE, number="2341 2341 2346")),
            ("id_proof", IdProof(proof_type=LICENSE, number="2341-2341-2346")),
            ("id_proof", IdProof(proof_type=LICENSE, number="2341/2341/2346")),
            ("id_proof", IdProof(proof_type=LICENSE, number="?")),
        ],
    )
    def test_refuses(self, field: str, value: object) -> None:
        assert broken(**{field: value}) == [field]

    def test_finds_nothing_in_an_empty_profile(self) -> None:
        assert broken() == []

    def test_counts_the_age_from_the_platforms_minimum(self) -> None:
        baby = User(date_of_birth="2026-02-27")
        assert broken_rules(baby, ["date_of_birth"], today=TODAY, min_age=0) == []

    def test_looks_at_the_named_fields_only(self) -> None:
        assert broken_rules(User(pincode="x", email="x"), ["email"], today=TODAY, min_age=18)[0].field == "email"


class TestMissingFields:
    def test_names_all_in_the_platforms_order(self) -> None:
        required = ["first_name", "gender", "id_proof_type", "id_proof", "city"]
        assert missing_fields(User(city="Bengaluru"), required) == required[:-1]

    def test_takes_the_document_for_its_kind(self) -> None:
        user = User(id_proof=IdProof(proof_type=PAN, number="ABCDE1234F"))
        assert missing_fields(user, ["id_proof_type", "id_proof"]) == []


class TestToPublic:
    def test_shows_a_documents_kind_and_end_only(self) -> None:
        public = to_public(User(id="x", id_proof=IdProof(proof_type=PAN, number="ABCDE1234F")))
        assert public == User(id="x", id_proof_type=PAN, id_proof_masked="••••234F")
