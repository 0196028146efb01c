"""Few-shot lists."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.data.items import VideoItem
from mote_fast.errors import ConfigError, ListError
from mote_fast.prepare.fewshot import few_shot, repeat_to

ITEMS = [VideoItem(f"class {label}/{at}.mp4", label) for label in (0, 2, 5) for at in range(20)]


@given(st.permutations(ITEMS), st.sampled_from((2, 4, 8, 16)), st.integers(0, 2**40))
def test_k_of_each_class(items: list[VideoItem], shots: int, seed: int) -> None:
    """K different videos of each class, for any order of the list; those for fewer shots come first."""
    drawn = few_shot(items, shots, seed)
    assert Counter(item.label for item in drawn) == {0: shots, 2: shots, 5: shots}
    assert len(set(drawn)) == len(drawn)
    assert drawn == few_shot(ITEMS, shots, seed)
    assert drawn[: 3 * (shots // 2)] == few_shot(items, shots // 2, seed)


def test_seeds_differ_and_classes_do_not_share_a_draw() -> None:
    """Another seed draws other videos, and classes have different draws."""
    drawn = [item.path for item in few_shot(ITEMS, 8, 0)]
    assert drawn != [item.path for item in few_shot(ITEMS, 8, 1)]
    numbers = [{path.split("/")[1] for path in drawn if path.startswith(f"class {label}")} for label in (0, 2, 5)]
    assert len({frozenset(each) for each in numbers}) == 3


@given(st.integers(1, 16), st.integers(0, 500))
def test_repeated_to_a_length(shots: int, more: int) -> None:
    """The list has the requested length, counts of videos differ by at most one, and classes alternate."""
    drawn = few_shot(ITEMS, shots)
    repeated = repeat_to(drawn, len(drawn) + more)
    assert len(repeated) == len(drawn) + more
    counts = Counter(repeated)
    assert set(counts) == set(drawn)
    assert max(counts.values()) - min(counts.values()) <= 1
    by_class = Counter(item.label for item in repeated)
    assert max(by_class.values()) - min(by_class.values()) <= 1


def test_a_list_that_is_repeated_already() -> None:
    """A video that is listed twice counts as one video."""
    assert few_shot([*ITEMS, *ITEMS], 8) == few_shot(ITEMS, 8)


def test_what_cannot_be_drawn() -> None:
    """Errors name too few videos, no shots, and a length that would lose videos."""
    with pytest.raises(ListError, match="class 7 has 1 videos"):
        few_shot([*ITEMS, VideoItem("x.mp4", 7)], 2)
    with pytest.raises(ConfigError, match="--shots"):
        few_shot(ITEMS, 0)
    with pytest.raises(ConfigError, match="--length 5"):
        repeat_to(few_shot(ITEMS, 2), 5)
