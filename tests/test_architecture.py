"""What docs/architecture.md says of the rooms that a call goes through."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import mote_fast
from mote_fast.data import write_video

LIBRARY = Path(mote_fast.__file__).parent
# What computes and keeps files for the others.
BELOW = {"ops", "runtime", "errors"}


def test_a_video_through_classify_visits_four_rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From file to labels: the rooms whose functions run, in the order in which they are first entered."""
    monkeypatch.setattr("mote_fast.clip.feature_cache.default_cache_folder", lambda: tmp_path / "cache")
    video = write_video(tmp_path / "video.mp4", torch.zeros(12, 64, 64, 3, dtype=torch.uint8))
    model = mote_fast.create_model("ViT-test")
    labels = ["archery", "juggling balls"]
    class_features = model.class_features(labels)
    rooms: list[str] = []

    def follow(frame: Any, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and LIBRARY in path.parents:
            rooms.append(path.relative_to(LIBRARY).parts[0])

    sys.setprofile(follow)
    try:
        model.classify(video, labels, class_features=class_features)
    finally:
        sys.setprofile(None)
    assert [room for room in dict.fromkeys(rooms) if room not in BELOW] == ["model", "clip", "data", "head"]
