"""torchcodec in DALI's place, on a CPU: the CPU loader's pixels to the bit, in batches that both decode."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mote_fast.data.dali.ready_clips import ClipReader, ReadyClip
from mote_fast.data.dali.torchcodec_gpu import TorchcodecLoader, TorchcodecServer, why_unavailable
from mote_fast.data.dataset import VideoDataset
from mote_fast.data.items import VideoItem
from mote_fast.data.loaders import make_loader
from mote_fast.data.loading.cpu_loader import CpuLoader
from mote_fast.data.loading.video_loader import LoaderOptions
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import Preprocessing
from mote_fast.data.views import Views
from mote_fast.errors import BackendError
from tests.data.conftest import NumberedVideos

pytestmark = [pytest.mark.heavy, pytest.mark.torchcodec]

VP9: dict[str, Any] = {"codec": "libvpx-vp9", "g": 12, "deadline": "realtime", "cpu-used": 8}
RECIPE = ClipRecipe(preprocessing=Preprocessing(48), frames=4)


@pytest.fixture
def paths(numbered_videos: NumberedVideos) -> list[Path]:
    """The last is none that this loader hands on: the worker processes decode it."""
    if (why := why_unavailable("cpu")) is not None:
        pytest.skip(why)
    return [
        numbered_videos.write("dali.webm", **VP9),
        numbered_videos.write("dali.mp4", **VP9),
        numbered_videos.write("h264.mp4"),
    ]


def dataset_of(paths: list[Path], recipe: ClipRecipe = RECIPE) -> VideoDataset:
    items = [VideoItem(str(path), label) for label, path in enumerate(paths)]
    return VideoDataset(items, recipe, seed=3, decode_backend="torchcodec")


@pytest.mark.parametrize(
    "changes", [{"views": Views(2, 3)}, {"augmentation": "kinetics"}], ids=["evaluation", "training"]
)
def test_batches_are_the_cpu_loaders(paths: list[Path], changes: dict[str, Any]) -> None:
    """The same frames, crops, mirroring and grey, whoever decodes a video."""
    dataset = dataset_of(paths, replace(RECIPE, **changes))
    options = LoaderOptions(3, training=False)
    found, expected = TorchcodecLoader(dataset, options), CpuLoader(dataset, options)
    try:
        for epoch in range(3):
            (mine,), (theirs,) = found.epoch(epoch), expected.epoch(epoch)
            assert mine.labels.tolist() == theirs.labels.tolist()
            assert torch.equal(mine.pixels, theirs.pixels)
    finally:
        found.close()
        expected.close()


def test_other_frames_than_asked_for_are_refused(paths: list[Path]) -> None:
    """A file that was replaced meanwhile, or a decoder that returns a neighbor, costs the video its turn here."""
    reader = ClipReader(dataset_of(paths), "cpu")
    clip = reader((0, 0, ""), torch.empty(1, 4, 3, 48, 48, dtype=torch.uint8))
    assert isinstance(clip, ReadyClip)
    server = TorchcodecServer(RECIPE, "cpu", None, 1, 1)
    assert isinstance(server.attempt(clip, timed=True), float)
    (seconds, tick), others = clip.seconds, {}
    others["other frames"] = replace(clip, seconds=(tuple(each + 0.2 for each in seconds), tick))
    others["frames of"] = replace(clip, shape=(1, 2, 3, 3))
    others["changed"] = replace(clip, path=str(paths[1]))
    for why, other in others.items():
        assert why in str(server.attempt(other, timed=False))
    server.feed([others["other frames"]])
    assert "other frames" in str(server.take())


def test_it_needs_a_gpu(paths: list[Path]) -> None:
    """Forced on a machine without one, the error says what to do."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(BackendError, match="no CUDA device"):
        make_loader(dataset_of(paths), LoaderOptions(1, training=False, device="cuda"), "torchcodec-gpu")
