from __future__ import annotations

import torch

from mote_fast.timeline.time_segments import edges_of, find_segments, smoothed


def spans(
    scores: list[list[float]], kept: list[bool] | None = None, **options: object
) -> list[tuple[float, float, int]]:
    """The segments of windows at 0.5, 1.5, ... seconds."""
    rows = torch.tensor(scores)
    edges = edges_of([at + 0.5 for at in range(len(scores))], len(scores))
    shown = torch.ones(len(scores), dtype=torch.bool) if kept is None else torch.tensor(kept)
    shown = shown[:, None] if options.get("several") else shown
    found = find_segments(rows, shown, edges, ["a", "b", "c"][: rows.shape[1]], **options)  # pyright: ignore[reportArgumentType]
    return [(each.start, each.end, each.index) for each in found]


A, B = [0.9, 0.1], [0.2, 0.8]


def test_one_label_at_a_time() -> None:
    """Segments meet halfway between windows, and reach the ends of the video."""
    assert spans([A, A, B, B, A]) == [(0, 2, 0), (2, 4, 1), (4, 5, 0)]


def test_rejected_windows_have_no_label() -> None:
    """A rejected window ends a segment."""
    assert spans([A, A, A, B], [True, False, True, True]) == [(0, 1, 0), (2, 3, 0), (3, 4, 1)]


def test_short_gaps_and_segments() -> None:
    """A gap below the least length is closed, whatever fills it; a segment below it is left out."""
    assert spans([A, A, B, A, A, B, B], min_seconds=1.5) == [(0, 5, 0), (5, 7, 1)]
    assert spans([A, A, B, A, A], [True, True, False, True, True], min_seconds=1.5) == [(0, 5, 0)]
    assert spans([A, B, B, B], min_seconds=1.5) == [(0, 4, 1)]
    assert spans([A, A, B], [True, False, False], min_seconds=1.5) == []


def test_labels_may_overlap() -> None:
    """With several labels each has its own segments, where it is not far below the best."""
    both = [0.6, 0.4]
    assert spans([A, both, both, B], several=True) == [(0, 4, 0), (1, 4, 1)]
    assert spans([A, both, both, B]) == [(0, 3, 0), (3, 4, 1)]


def test_smoothing() -> None:
    """Values are means over neighbors, of fewer at the ends, and do not move in time."""
    assert smoothed(torch.tensor([[0.0], [0.0], [3.0], [0.0]]), 3).flatten().tolist() == [0, 1, 1, 1.5]
    assert smoothed(torch.tensor([1.0, 2.0]), 5).tolist() == [1.5, 1.5]
    assert smoothed(torch.tensor([1.0, 2.0]), 1).tolist() == [1, 2]


def test_windows_at_the_ends_see_half() -> None:
    """A run has the label of the windows wholly inside it, and is divided where both sides last as long as a window."""
    rejected = [0.5, 0.5]
    run = [B, B, A, A, A, B, B]
    scores, kept = [rejected, *run, rejected], [False, *[True] * 7, False]
    assert spans(scores, kept, window=4) == [(1, 8, 0)]
    assert spans([A] * 5 + [B] * 5, window=4) == [(0, 5, 0), (5, 10, 1)]
    assert spans([A, A], window=9) == [(0, 2, 0)]
