"""int8 on the shipped model's evaluation sets: the accuracy of float32."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from world.write import write_world

import mote_fast
from mote_fast import VideoClassifier
from mote_fast.clip.int8 import BACKENDS
from mote_fast.data.items import VideoItem, read_labels, read_list
from mote_fast.model.dtypes import Int8

# Test videos of each class: those of the model card, 1056 in all.
VIDEOS = 6
# Half a point is 5 videos of all sets together, and 1 of a single set.
ALLOWED = 0.005

pytestmark = pytest.mark.slow


class EvaluationSet(NamedTuple):
    """One label set of the model card; ``right`` is how many videos float32 classifies rightly."""

    name: str
    items: list[VideoItem]
    classes: Tensor
    right: int


@torch.no_grad()
def right_of(model: VideoClassifier, items: list[VideoItem], classes: Tensor) -> int:
    return sum(int(model.scores(item.path, classes).argmax()) == item.label for item in items)


@pytest.fixture(scope="module")
def evaluation_sets(tmp_path_factory: pytest.TempPathFactory) -> list[EvaluationSet]:
    folder = tmp_path_factory.mktemp("world")
    exact, found = mote_fast.load("tiny").fold(), []
    for name in write_world(folder, train_videos=0, test_videos=VIDEOS):
        items = read_list(folder / f"{name}.txt", str(folder))
        classes = exact.class_features(read_labels(folder / f"{name}.csv"))
        found.append(EvaluationSet(name, items, classes, right_of(exact, items, classes)))
    return found


@pytest.mark.parametrize("dtype", BACKENDS)
def test_int8_classifies_as_float32_does(dtype: Int8, evaluation_sets: list[EvaluationSet]) -> None:
    """Top-1 of all label sets together is within half a point, and no set differs by more than two videos."""
    for package in ("onnxruntime", "onnxscript", BACKENDS[dtype]):
        pytest.importorskip(package, reason=f"serves dtype={dtype!r}")
    quantized = mote_fast.load("tiny", dtype=dtype).fold()
    right = [right_of(quantized, each.items, each.classes) for each in evaluation_sets]
    for each, found in zip(evaluation_sets, right, strict=True):
        assert abs(found - each.right) <= max(2, ALLOWED * len(each.items)), each.name
    videos, before = sum(len(each.items) for each in evaluation_sets), sum(each.right for each in evaluation_sets)
    assert abs(sum(right) - before) <= ALLOWED * videos
