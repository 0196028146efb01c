"""JSON that every reader takes, and the one place that makes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mote_fast
from mote_fast.runtime.json_text import from_json, to_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=9,
)


def strict(text: str) -> object:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def without_nan(value: object) -> object:
    if isinstance(value, list):
        return [without_nan(each) for each in value]
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and value - value != 0 else value


@given(VALUES)
def test_any_document_is_json(value: object) -> None:
    """NaN and infinity become null; every other value, lone surrogates too, comes back, through any encoding."""
    text = to_json(value)
    assert text.isascii()
    assert strict(text) == from_json(text) == without_nan(value)


def test_tuples_are_lists() -> None:
    """Named tuples too, with their NaN replaced."""
    assert to_json({"a": (1, float("nan"))}) == '{"a": [1, null]}'


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', "NaN", "[-Infinity]", "", "[" * 99_999])
def test_what_is_no_json_is_refused(text: str) -> None:
    """Also where Python's reader would take it."""
    with pytest.raises(ValueError, match=r"given twice|JSON has no|Expecting|nested too deep"):
        from_json(text)


def test_the_library_writes_json_in_one_place() -> None:
    """A second writer could write NaN."""
    library = Path(mote_fast.__file__).parent
    writers = [path.name for path in library.rglob("*.py") if "json.dump" in path.read_text(encoding="utf-8")]
    assert writers == ["json_text.py"]
