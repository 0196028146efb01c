"""Seeds from names and integers, on which a resumed run relies."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.runtime.seeding import generator_of, seed_of

Parts = st.lists(st.integers() | st.text(max_size=8), max_size=4)


@given(first=Parts, second=Parts)
def test_other_parts_give_other_seeds(first: list[int | str], second: list[int | str]) -> None:
    """Parts that differ only in type, order or grouping give other seeds too."""
    if "\x1f" not in "".join(str(part) for part in first + second):
        assert (seed_of(*first) == seed_of(*second)) == (first == second)


@given(parts=Parts)
def test_seeds_are_those_that_pytorch_takes(parts: list[int | str]) -> None:
    """Seeds have 63 bits and no sign."""
    assert 0 <= seed_of(*parts) < 2**63


def test_seeds_are_the_same_on_every_machine() -> None:
    """A checkpoint may be resumed under another version of Python: the values are part of the format."""
    assert seed_of() == 8238016292129134938
    assert seed_of(0, "clip", 1, 2) == 1262460323878710411
    assert seed_of("0", "clip", 1, 2) != seed_of(0, "clip", 1, 2)


def test_generator_is_fresh_each_time() -> None:
    """Earlier draws must not matter."""
    first = torch.rand(3, generator=generator_of(7, "x"))
    assert torch.equal(first, torch.rand(3, generator=generator_of(7, "x")))
    assert not torch.equal(first, torch.rand(3, generator=generator_of(7, "y")))
