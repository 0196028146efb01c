"""The int8 report: differences between int8 and float32 for the same weights, on a real video."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mote_fast import VideoClassifier
from mote_fast.cli.int8_effect import int8_effect
from mote_fast.clip import ClipTowers
from mote_fast.data.loading.view_frames import ViewFrames, ViewRequest, read_view_frames
from mote_fast.errors import ConfigError

LABELS = ["archery", "juggling balls", "playing the cello"]


class Shifted:
    """Replaces an int8 tower: float features plus a known shift."""

    def __init__(self, towers: ClipTowers, shift: float) -> None:
        self.towers = towers
        self.shift = shift

    def __call__(self, pixels: Tensor) -> Tensor:
        return self.towers.run_vision_tower(pixels) + self.shift


def test_no_difference_is_none(tiny: VideoClassifier, moving_video: Path) -> None:
    """Equal features give cosine 1, equal scores and the same label."""
    tiny.int8 = Shifted(tiny.clip, 0.0)  # type: ignore[assignment]
    effect = int8_effect(tiny, moving_video, tiny.class_features(LABELS))
    assert effect.cosine == pytest.approx(1.0, abs=1e-6)
    assert effect.score == 0.0
    assert effect.same_top


def test_differences_are_the_classifiers_own(tiny: VideoClassifier, moving_video: Path) -> None:
    """The score difference equals that of two calls of scores(), and the model stays int8."""
    classes = tiny.class_features(LABELS)
    exact = tiny.scores(moving_video, classes, "1x1")
    tiny.int8 = Shifted(tiny.clip, 0.5)  # type: ignore[assignment]
    shifted = tiny.scores(moving_video, classes, "1x1")
    effect = int8_effect(tiny, moving_video, classes)
    assert effect.score == pytest.approx((shifted - exact).abs().max().item())
    assert effect.same_top == bool(shifted.argmax() == exact.argmax())
    assert effect.cosine < 0.999
    assert tiny.int8 is not None


def test_both_decode_where_the_model_does(
    tiny: VideoClassifier, moving_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command's watched process reads the video for the float32 twin too."""
    limits: list[float | None] = []

    def recording(source: str, request: ViewRequest, limit: float | None) -> ViewFrames:
        limits.append(limit)
        return read_view_frames(source, request)

    monkeypatch.setattr("mote_fast.model.video_input.read_view_frames", recording)
    tiny.int8 = Shifted(tiny.clip, 0.0)  # type: ignore[assignment]
    tiny.decode_time_limit = 30.0
    int8_effect(tiny, moving_video, tiny.class_features(LABELS))
    assert limits == [30.0, 30.0]


def test_float_models_are_refused(tiny: VideoClassifier, moving_video: Path) -> None:
    """A float model has nothing to compare."""
    with pytest.raises(ConfigError, match="int8"):
        int8_effect(tiny, moving_video, torch.ones(1, tiny.clip.embed_dim))
