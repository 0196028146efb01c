"""What the messages of errors show of values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.errors import quoted


@given(st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text("ab'\"\n", max_size=20))
def test_short_values_are_written_out(value: object) -> None:
    """A message shows what the file says."""
    assert quoted(value) == repr(value)


def nested(levels: int, width: int) -> list[object]:
    value: list[object] = []
    for _ in range(levels):
        value = [value] * width
    return value


@pytest.mark.parametrize(
    "value",
    [nested(40, 9), {"a": nested(40, 9)}, "x" * 10**6, [10**5000] * 99, 1 << 10**6, b"x" * 10**6, {"k" * 10**6: 1}],
    ids=["lists", "mapping", "text", "integers", "integer", "bytes", "key"],
)
def test_long_values_are_cut_short(value: object) -> None:
    """A few lines of a file can stand for 9^40 items, and Python refuses to write large integers."""
    assert 1 < len(quoted(value)) <= 160
