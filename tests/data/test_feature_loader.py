"""The loader of stored features: a video loader's order, stand-ins and failures, with rows of the files as batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.feature_files import INDEX_FILE, TENSOR, FeatureFile, FeatureIndex, StoredFeatures
from mote_fast.data.feature_loader import FeatureLoader
from mote_fast.data.items import VideoItem
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.order import evaluation_batches, replacement, training_batches
from mote_fast.data.loading.video_loader import LoaderOptions
from mote_fast.data.plan import ClipRecipe
from mote_fast.errors import ConfigError, ListError
from mote_fast.runtime.weights import save_tensors

VIDEOS, SHAPE, SEED = 7, (2, 3, 4), 5


def loader_of(
    folder: Path, *, training: bool, broken: Sequence[int] = (), lacking: Sequence[int] = ()
) -> tuple[FeatureLoader, Tensor]:
    """A loader of seven videos in batches of three, and their features [7, V, T, d], which two files hold."""
    features = torch.randn(VIDEOS, *SHAPE, generator=torch.Generator().manual_seed(0))
    files = []
    for name, videos in (("a.safetensors", range(4)), ("b.safetensors", range(4, VIDEOS))):
        kept = [video for video in videos if video not in (*broken, *lacking)]
        save_tensors({TENSOR: features[kept]}, folder / name)
        files.append(FeatureFile(name, tuple(kept)))
    failures = tuple(Failure(video, f"{video}.mp4", "VideoError", "is broken") for video in broken)
    (folder / INDEX_FILE).write_text(FeatureIndex({}, SHAPE, "float32", tuple(files), failures).document())
    dataset = VideoDataset([VideoItem(f"{at}.mp4", 10 * at) for at in range(VIDEOS)], ClipRecipe(frames=3), seed=SEED)
    return FeatureLoader(dataset, StoredFeatures(folder, {}), LoaderOptions(3, training=training)), features


@pytest.mark.parametrize("training", [True, False])
def test_batches_are_the_rows_of_the_order(tmp_path: Path, training: bool) -> None:
    """Rows of either file at their places in the batch, from any batch of the epoch on."""
    loader, features = loader_of(tmp_path, training=training)
    order = training_batches(VIDEOS, 3, seed=SEED, epoch=2) if training else evaluation_batches(VIDEOS, 3)
    for start in (0, 1):
        batches = list(loader.epoch(2, start))
        assert len(batches) == len(order) - start
        for batch, slots in zip(batches, order[start:], strict=True):
            assert torch.equal(batch.pixels, features[slots.indices].flatten(0, 1))
            assert batch.indices.tolist() == slots.indices
            assert batch.labels.tolist() == [10 * index for index in slots.indices]
            assert not batch.failures


def test_in_training_stand_ins_replace_videos_without_features(tmp_path: Path) -> None:
    """The stand-in is that of a video loader, and its features are in the slot."""
    loader, features = loader_of(tmp_path, training=True, broken=[2])
    (slots, batch), *_ = (
        pair
        for pair in zip(training_batches(VIDEOS, 3, seed=SEED, epoch=0), loader.epoch(0), strict=True)
        if 2 in pair[0].indices
    )
    row, attempt = slots.indices.index(2), 1
    while (stand_in := replacement(VIDEOS, seed=SEED, epoch=0, position=slots.positions[row], attempt=attempt)) == 2:
        attempt += 1
    assert batch.indices.tolist() == [stand_in if index == 2 else index for index in slots.indices]
    assert torch.equal(batch.pixels, features[batch.indices].flatten(0, 1))
    assert {failure.index for failure in batch.failures} == {2}


def test_in_evaluation_videos_without_features_are_left_out(tmp_path: Path) -> None:
    """Also where a batch has no other."""
    loader, features = loader_of(tmp_path, training=False, broken=[1, 6])
    batches = list(loader.epoch(0))
    assert [batch.indices.tolist() for batch in batches] == [[0, 2], [3, 4, 5], []]
    assert [[failure.index for failure in batch.failures] for batch in batches] == [[1], [], [6]]
    assert torch.equal(batches[0].pixels, features[[0, 2]].flatten(0, 1))
    assert batches[2].pixels.shape == (0, *SHAPE[1:])


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """An index that lacks a video of the list, and a closed loader."""
    loader, _ = loader_of(tmp_path, training=False, lacking=[5])
    with pytest.raises(ListError, match=r"features\.json: lacks video 5"):
        list(loader.epoch(0))
    loader.close()
    with pytest.raises(ConfigError, match="closed"):
        next(loader.epoch(0))
