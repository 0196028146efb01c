"""What the benchmark says of int8's rankings."""

from __future__ import annotations

import pytest
import torch
from end2end import agreement


def test_equal_tables_agree() -> None:
    """The same scores rank alike."""
    scores = torch.randn(7, 20, generator=torch.Generator().manual_seed(0))
    assert list(agreement(scores, scores).values()) == [1.0, 1.0, 0.0]


def test_swapped_labels_count() -> None:
    """Another best label is a miss; a top five with one stranger shares four fifths."""
    expected = torch.tensor([[9.0, 8, 7, 6, 5, 4, 3]])
    best_swapped = torch.tensor([[8.0, 9, 7, 6, 5, 4, 3]])
    fifth_swapped = torch.tensor([[9.0, 8, 7, 6, 4, 5, 3]])
    assert list(agreement(best_swapped, expected).values()) == [0.0, 1.0, 1.0]
    assert list(agreement(fifth_swapped, expected).values()) == pytest.approx([1.0, 0.8, 1.0])
