"""What may be said of a person by itself."""

from datetime import date

import pytest

from aarokya.records.v1.dependant_pb2 import Dependant, Relationship
from records.dependants.person import broken_rules, is_same, with_e164

TODAY = date(2026, 3, 1)


class TestBrokenRules:
    @pytest.mark.parametrize("born", ["2026-03-01", "1906-03-01", "1905-03-02"])
    def test_takes_everyone_alive(self, born: str) -> None:
        assert broken_rules(Dependant(date_of_birth=born), ["date_of_birth"], TODAY) == []

    @pytest.mark.parametrize("born", ["2026-03-02", "1905-03-01", "0001-01-01"])
    def test_refuses_impossible_birth_date(self, born: str) -> None:
        (detail,) = broken_rules(Dependant(date_of_birth=born), ["date_of_birth"], TODAY)

        assert detail.field == "date_of_birth"
        assert born not in detail.message

    def test_looks_at_named_fields_only(self) -> None:
        assert broken_rules(Dependant(abha_number="1", phone_number="1"), ["first_name", "blood_group"], TODAY) == []

    def test_takes_abha(self) -> None:
        person = Dependant(abha_number="91234567890123", abha_address="meena.k@abdm")

        assert broken_rules(person, ["abha_number", "abha_address"], TODAY) == []


class TestWithE164:
    def test_writes_number_in_one_way(self) -> None:
        for written in ("9876543210", "098765 43210", "+91 98765-43210"):
            assert with_e164(Dependant(phone_number=written)).phone_number == "+919876543210"

    def test_leaves_other_texts_alone(self) -> None:
        assert with_e164(Dependant(phone_number="12")).phone_number == "12"
        assert not with_e164(Dependant()).HasField("phone_number")


class TestIsSame:
    def test_compares_names_as_people_do(self) -> None:
        one = Dependant(relationship=Relationship.RELATIONSHIP_SON, first_name="STRASSE", date_of_birth="2010-01-01")
        other = Dependant(relationship=Relationship.RELATIONSHIP_SON, first_name="Straße", date_of_birth="2010-01-01")

        assert is_same(one, other)

    def test_tells_apart_by_each_part_of_the_name(self) -> None:
        person = Dependant(first_name="Meena", middle_name="K", last_name="Rao")

        for field in ("first_name", "middle_name", "last_name"):
            other = Dependant()
            other.CopyFrom(person)
            setattr(other, field, "X")
            assert not is_same(person, other)
