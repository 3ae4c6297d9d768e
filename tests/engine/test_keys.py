import hashlib
import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccat_ops_db.grouping.keys import DimensionValue, SubGroupName, name_sub_group

VALUES = st.none() | st.text(max_size=80)
DIMENSIONS = st.lists(
    st.tuples(st.sampled_from(["source", "observing_night", "obs_unit"]), st.builds(DimensionValue, VALUES, VALUES)),
    unique_by=lambda one: one[0],
)


def of(**values: str | None) -> SubGroupName:
    return name_sub_group([(dimension, DimensionValue(value, value)) for dimension, value in values.items()])


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def test_no_dimension_makes_one_sub_group_called_all() -> None:
    assert of() == SubGroupName("all", f"all-{digest('all')}", {})


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"source": "7"}, "source=7"),
        ({"source": "7", "observing_night": "2026-04-05"}, "source=7,observing_night=2026-04-05"),
        ({"observing_night": "2026-04-05", "source": "7"}, "observing_night=2026-04-05,source=7"),
        ({"source": None}, "source=~"),
        ({"source": "~"}, "source=%7E"),
        ({"source": ""}, "source="),
        ({"source": "a=b,c/d %"}, "source=a%3Db%2Cc%2Fd%20%25"),
        ({"source": "Öδ☄"}, "source=%C3%96%CE%B4%E2%98%84"),
    ],
)
def test_the_key_is_percent_encoded_in_the_order_of_group_by(values: dict[str, str | None], key: str) -> None:
    assert of(**values).key == key


@pytest.mark.parametrize(
    ("label", "slug"),
    [
        ("M 17", "M-17"),
        ("Orion KL / BN", "Orion-KL-BN"),
        ("../../etc", "etc"),
        ("☄", "x"),
        ("", "none"),
        (None, "none"),
        ("2026-04-05 01:00:00+00", "2026-04-05-01-00-00+00"),
        ("a" * 200, "a" * 60),
    ],
)
def test_the_path_is_a_slug_of_the_labels_and_eight_digits_of_the_keys_digest(label: str | None, slug: str) -> None:
    assert name_sub_group([("source", DimensionValue("7", label))]).path == f"{slug}-{digest('source=7')}"


@given(DIMENSIONS)
def test_a_key_says_exactly_which_values_it_stands_for(dimensions: list[tuple[str, DimensionValue]]) -> None:
    key = name_sub_group(dimensions).key
    parts = [part.partition("=") for part in key.split(",")] if dimensions else []
    read = [(dimension, None if value == "~" else unquote(value)) for dimension, _, value in parts]
    assert read == [(dimension, one.value) for dimension, one in dimensions]


@given(DIMENSIONS)
def test_a_path_is_one_safe_directory_name(dimensions: list[tuple[str, DimensionValue]]) -> None:
    path = name_sub_group(dimensions).path
    assert re.fullmatch(r"[A-Za-z0-9+_][A-Za-z0-9._+-]{0,59}-[0-9a-f]{8}", path)


@given(st.text(), st.text(), st.text())
def test_renaming_changes_no_key_and_no_digits(value: str, before: str, after: str) -> None:
    old, new = (name_sub_group([("source", DimensionValue(value, label))]) for label in (before, after))
    assert old.key == new.key
    assert old.path[-8:] == new.path[-8:]
