"""What the benchmark says of int8's rankings."""

from __future__ import annotations

import pytest
import report
import torch
from stages.ranked_labels import agreement


def test_equal_tables_agree() -> None:
    """The same scores rank alike."""
    scores = torch.randn(7, 20, generator=torch.Generator().manual_seed(0))
    assert agreement(scores, scores) == {"same_top1": 1.0, "top5_overlap": 1.0, "largest_cosine_change": 0.0}


def test_swapped_labels_count() -> None:
    """Another best label is a miss; a top five with one stranger shares four fifths."""
    expected = torch.tensor([[9.0, 8, 7, 6, 5, 4, 3]])
    best_swapped = torch.tensor([[8.0, 9, 7, 6, 5, 4, 3]])
    fifth_swapped = torch.tensor([[9.0, 8, 7, 6, 4, 5, 3]])
    assert agreement(best_swapped, expected)["same_top1"] == 0.0
    assert agreement(best_swapped, expected)["top5_overlap"] == 1.0
    assert agreement(fifth_swapped, expected)["top5_overlap"] == pytest.approx(0.8)
    assert agreement(fifth_swapped, expected)["largest_cosine_change"] == 1.0


def test_the_report_names_both() -> None:
    """Features and ranked labels are both printed."""
    found = {"rankings": 100, "labels": 400, "mean_cosine": 0.9998, "lowest_cosine": 0.9991}
    text = report.describe_int8(found | {"same_top1": 0.97, "top5_overlap": 0.95})
    assert "0.99910" in text
    assert "same best label in 97%, 95% of the top five" in text
