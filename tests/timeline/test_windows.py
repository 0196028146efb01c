from __future__ import annotations

import pytest
import torch

from mote_fast.errors import ConfigError
from mote_fast.timeline.windows import FeatureWindows, WindowPlan, plan_windows


def run(plan: WindowPlan, count: int, chunk: int) -> tuple[list[list[int]], list[float]]:
    """The frames of every window of a video, and the windows' times; its feature is a frame's number."""
    windows, found, times = FeatureWindows(plan), [], []
    batches = []
    for at in range(0, count, chunk):
        numbers = torch.arange(at, min(count, at + chunk))
        batches.append(windows.push(numbers[:, None].float(), [(2 * each + 1) / 2 for each in numbers.tolist()]))
    for batch in [*batches, windows.finish()]:
        if batch is not None:
            found += batch.features[..., 0].int().tolist()
            times += batch.times
    return found, times


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_windows_see_their_frames(chunk: int) -> None:
    """Windows follow by hops however the frames come; the last one ends with the video."""
    found, times = run(plan_windows(4, fps=1, hop=2), 9, chunk)
    assert found == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [5, 6, 7, 8]]
    assert times == [2, 4, 6, 7]


def test_a_window_spans_more_ticks_than_it_has_frames() -> None:
    """A faster clock gives finer hops to windows of the same frames and span."""
    plan = plan_windows(4, fps=2, window=4, hop=1)
    assert (plan.stride, plan.hop, plan.seconds) == (2, 2, 4)
    found, _ = run(plan, 11, 4)
    assert found == [[0, 2, 4, 6], [2, 4, 6, 8], [3, 5, 7, 9]]


def test_a_short_video_is_one_window() -> None:
    """Its frames are repeated evenly, as views of short clips are."""
    assert run(plan_windows(8, fps=4), 3, 1) == ([[0, 0, 0, 1, 1, 2, 2, 2]], [1.5])
    assert run(plan_windows(8, fps=4), 8, 8)[0] == [list(range(8))]


def test_defaults() -> None:
    """A window spans two seconds, and a quarter of it is the hop; a rate alone gives T frames at this rate."""
    plan = plan_windows(8)
    assert (plan.fps, plan.seconds, plan.hop_seconds) == (4, 2, 0.5)
    assert plan_windows(8, fps=16).seconds == 0.5
    assert plan_windows(8, window=4).fps == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"fps": 0}, "fps must be"),
        ({"window": float("nan")}, "window must be"),
        ({"hop": -1}, "hop must be"),
        ({"fps": 1, "window": 2}, "fps of at least 4"),
        ({"hop": 3}, "at most 2"),
        ({"fps": 1e6, "window": 3600}, "smaller fps"),
        ({"fps": 1e-9}, "above 0"),
    ],
)
def test_impossible_windows(given: dict[str, float], words: str) -> None:
    """Numbers that make no windows are refused, and the message says what fits."""
    with pytest.raises(ConfigError, match=words):
        plan_windows(8, **given)
