"""int8 on the shipped model's evaluation sets: the accuracy of float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from world.write import write_world

import mote_fast
from mote_fast.data.items import read_labels, read_list

# Test videos of each class; the model card has 6.
VIDEOS = 3


@pytest.mark.slow
@torch.no_grad()
def test_int8_classifies_as_float32_does(tmp_path: Path) -> None:
    """Top-1 of all label sets together is within half a point, and no set differs by more than two videos."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    splits = write_world(tmp_path, train_videos=0, test_videos=VIDEOS)
    exact, quantized = mote_fast.load("tiny").fold(), mote_fast.load("tiny", dtype="int8").fold()
    right: list[tuple[int, int]] = []
    videos = 0
    for name in splits:
        labels = read_labels(tmp_path / f"{name}.csv")
        classes = exact.class_features(labels)
        items = read_list(tmp_path / f"{name}.txt", str(tmp_path))
        found = [
            [int(model.scores(item.path, classes).argmax()) == item.label for item in items]
            for model in (exact, quantized)
        ]
        right.append((sum(found[0]), sum(found[1])))
        videos += len(items)
        assert abs(sum(found[0]) - sum(found[1])) <= max(2, 0.005 * len(items)), name
    before, after = (sum(column) for column in zip(*right, strict=True))
    assert abs(before - after) <= 0.005 * videos
