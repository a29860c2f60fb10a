"""Patching and comparing messages."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from aarokya.catalogue.v1.benefit_pb2 import Benefit, BenefitTranslation
from aarokya.identity.v1.platform_pb2 import Platform
from servicekit.messages import apply_mask, changed_fields

CURRENT = Benefit(
    name="Eye test",
    min_age=18,
    platform_ids=["a", "b"],
    translations={"hi": BenefitTranslation(name="x", short_description="y")},
    created_at=Timestamp(seconds=7),
)


class TestApplyMask:
    def test_takes_what_is_set_and_clears_what_is_not(self):
        patched = apply_mask(CURRENT, Benefit(name="Lens", max_age=60), ["name", "min_age"])
        assert patched.name == "Lens"
        assert not patched.HasField("min_age")
        assert not patched.HasField("max_age")

    def test_keeps_a_set_zero(self):
        assert apply_mask(CURRENT, Benefit(min_age=0), ["min_age"]).HasField("min_age")

    def test_replaces_lists_maps_and_messages_whole(self):
        patch = Benefit(platform_ids=["c"], translations={"ta": BenefitTranslation(name="z")})
        patched = apply_mask(CURRENT, patch, ["platform_ids", "translations", "created_at"])
        assert list(patched.platform_ids) == ["c"]
        assert dict(patched.translations) == {"ta": BenefitTranslation(name="z")}
        assert not patched.HasField("created_at")

    def test_leaves_the_current_message_alone(self):
        before = Benefit.FromString(CURRENT.SerializeToString())
        apply_mask(CURRENT, Benefit(name="Lens"), ["name", "platform_ids"])
        assert before == CURRENT

    @pytest.mark.parametrize("path", ["nothing", "translations.hi", ""])
    def test_rejects_other_paths(self, path):
        with pytest.raises(ValueError):
            apply_mask(CURRENT, Benefit(), [path])


class TestChangedFields:
    def test_names_what_differs_in_value_or_presence(self):
        after = apply_mask(CURRENT, Benefit(name="Lens", max_age=0), ["name", "max_age", "translations"])
        assert changed_fields(CURRENT, after) == ["name", "max_age", "translations"]

    @pytest.mark.parametrize(
        ("one", "other", "differ"),
        [
            ('{"a":1,"b":[1,2]}', '{"b": [1, 2], "a": 1}', False),
            ('{"a":1}', '{"a":1.0}', True),
            ('{"a":1}', '{"a":true}', True),
            ('{"a":[1,2]}', '{"a":[2,1]}', True),
        ],
    )
    def test_compares_json_by_its_value(self, one: str, other: str, differ: bool):
        assert bool(changed_fields(Platform(metadata=one), Platform(metadata=other))) == differ

    def test_names_nothing_between_equals(self):
        assert changed_fields(CURRENT, apply_mask(CURRENT, CURRENT, ["name", "translations"])) == []
