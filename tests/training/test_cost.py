"""What a run costs on a CPU, and where it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mote_fast.evaluation import cpu_cost
from mote_fast.evaluation.cpu_cost import FrameCost
from mote_fast.training import cost
from mote_fast.training.loop import train
from tests.training.conftest import VideoFolder


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("changes", "frames"),
    [
        # 24 videos of 4 frames, 3 epochs; 12 videos are validated after each.
        ({"model__train_clip": False}, 3 * 24 * 4 + 3 * 12 * 4),
        ({}, 3 * 3 * 24 * 4 + 3 * 12 * 4),
        ({"optim__grad_checkpointing": True, "run__eval_every": 2}, 3 * 4 * 24 * 4 + 2 * 12 * 4),
        ({"model__train_clip": False, "data__views": "2x3"}, 3 * 24 * 4 + 3 * 12 * 24),
        ({"run__max_steps": 1}, 3 * 6 * 4),
    ],
)
def test_frames_are_counted(
    videos: VideoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], frames: int
) -> None:
    """Each pass through the tower, of which a trained one takes three, or four with recomputation."""
    asked: list[int] = []

    def ends(_: object, frames: int, *__: object) -> None:
        asked.append(frames)
        raise KeyboardInterrupt

    monkeypatch.setattr(cost, "frame_cost", ends)
    with pytest.raises(KeyboardInterrupt):
        train(videos.config(tmp_path / "run", **{"optim__epochs": 3, "run__eval_every": 1, **changes}))
    assert asked == [frames]


@pytest.mark.heavy
def test_a_long_run_says_it_and_points_at_features(
    videos: VideoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, before the first step; a short run says nothing."""
    config = videos.config(tmp_path / "run", run__max_steps=1)
    train(config)
    assert "prepare features" not in caplog.text
    monkeypatch.setattr(cost, "frame_cost", lambda _, frames, *__: FrameCost(10.0, frames))
    train(videos.config(tmp_path / "long", run__max_steps=1, run__eval_every=1))
    assert "this run will take about 12 min on this CPU for 72 frames" in caplog.text
    # 24 + 12 videos of 4 frames.
    assert "`mote-fast prepare features` encodes each video once, about 24 min" in caplog.text
    assert cpu_cost.WORTH_SAYING >= 60
