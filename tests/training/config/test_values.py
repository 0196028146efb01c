"""Values from YAML against the annotations of the sections."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.errors import ConfigError
from mote_fast.training.config.train_config import OPTIONS
from mote_fast.training.config.values import coerce, describe

Schedule = Literal["cosine", "multistep"]


@pytest.mark.parametrize(
    ("written", "annotation", "expected"),
    [
        ("5.e-5", float, 5e-5),
        ("5e-5", float, 5e-5),
        ("1E+3", float, 1000.0),
        ("3", float, 3.0),
        ("3", int, 3),
        ("true", bool, True),
        ("cosine", Schedule, "cosine"),
        ("null", str | None, None),
        ("~", int | None, None),
        ("7", int | None, 7),
        ("[10, 20]", tuple[int, ...], (10, 20)),
        ("[]", tuple[int, ...], ()),
        ("[0.9, 1e-1]", tuple[float, float], (0.9, 0.1)),
        ("1x1", str, "1x1"),
        ("'2024'", str, "2024"),
    ],
)
def test_what_is_accepted(written: str, annotation: Any, expected: object) -> None:
    """Each type takes its YAML forms, and floats also those that YAML 1.1 reads as text."""
    value = coerce(yaml.safe_load(written), annotation)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("written", "annotation", "message"),
    [
        ("abc", float, "must be a number, got 'abc'"),
        ("true", float, "must be a number, got true"),
        (".nan", float, "must be a number, got nan"),
        ("inf", float, "must be a number, got 'inf'"),
        ("8.0", int, "must be an integer, got 8.0"),
        ("'8'", int, "must be an integer, got '8'"),
        ("true", int, "must be an integer, got true"),
        ("", int, "must be an integer, got null"),
        ("1", bool, "must be true or false, got 1"),
        ("1e3", int | None, "must be an integer or null, got '1e3'"),
        ("2024", str, "must be text, got 2024; put it in quotes"),
        ("linear", Schedule, "must be 'cosine' or 'multistep', got 'linear'"),
        ("10", tuple[int, ...], "must be a list of integers, got 10"),
        ("[10, a]", tuple[int, ...], "must be a list of integers, got [10, 'a']"),
        ("[0.9]", tuple[float, float], "must be a list of 2 numbers, got [0.9]"),
        (hex(2**300), int, "must be an integer, got <an integer of 301 bits>"),
        ("{a: 1}", str | None, "must be text or null, got {'a': 1}"),
    ],
)
def test_what_is_refused(written: str, annotation: Any, message: str) -> None:
    """The message for a wrong type gives the expected type and the value, in the terms of YAML."""
    with pytest.raises(ConfigError) as error:
        coerce(yaml.safe_load(written), annotation)
    assert str(error.value) == message


ANY_YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@given(value=ANY_YAML, key=st.sampled_from(sorted(OPTIONS)))
def test_anything_is_taken_or_refused(value: object, key: str) -> None:
    """No value raises another error, and an accepted value is accepted again unchanged."""
    annotation = OPTIONS[key]
    refusal, taken = "", None
    try:
        taken = coerce(value, annotation)
    except ConfigError as error:
        refusal = str(error)
    if refusal:
        assert refusal.startswith(f"must be {describe(annotation)}, got ")
    else:
        assert coerce(taken, annotation) == taken
