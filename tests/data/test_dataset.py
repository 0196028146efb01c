"""Clips of a list: the planned frames, crops and labels, for every backend."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.decoding.decode import read_frames
from mote_fast.data.items import VideoItem
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import Preprocessing, evaluation_pixels, normalize
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError, MissingVideoError, UndecodableVideoError
from tests.tolerances import assert_close

if TYPE_CHECKING:
    from tests.data.conftest import NumberedVideos


@pytest.fixture(scope="module")
def video(numbered_videos: NumberedVideos) -> Path:
    return numbered_videos.write("dataset.mp4")


def test_evaluation_clips_are_those_of_classify(video: Path) -> None:
    """The pixels are those of ``evaluation_pixels``, arranged as views: clips x crops."""
    recipe = ClipRecipe(frames=4, preprocessing=Preprocessing(32), views=Views(2, 3))
    dataset = VideoDataset([VideoItem(str(video), 7)], recipe)
    clip = dataset.load(0)
    assert clip.label == 7
    assert clip.pixels.shape == (6, 4, 3, 32, 32)
    assert clip.pixels.dtype == torch.uint8
    _, plan = dataset.plan(0)
    features = evaluation_pixels(read_frames(video, plan.views.frame_indices), Preprocessing(32), 3)
    assert_close(normalize(clip.pixels), plan.views.gather(features), "equivalent")


def test_training_clips_show_the_planned_frames(video: Path, numbered_videos: NumberedVideos) -> None:
    """The numbers in the frames are the plan's, in its order; an unaugmented size keeps them legible."""
    height, width = 48, 64
    dataset = VideoDataset(
        [VideoItem(str(video), 0)], ClipRecipe(frames=6, preprocessing=Preprocessing(48), dense=True)
    )
    info, plan = dataset.plan(0)
    assert (info.num_frames, info.height, info.width) == (40, height, width)
    frames = read_frames(video, plan.views.frame_indices[plan.views.positions[0]])
    left = plan.geometry.boxes[0].left
    assert left == (width - height) // 2
    shown = frames[:, :, left : left + 48].permute(0, 3, 1, 2)
    assert torch.equal(dataset.load(0).pixels[0], shown)
    assert numbered_videos.read(frames) == plan.views.frame_indices[plan.views.positions[0]].tolist()


def test_clips_follow_seed_epoch_and_index(video: Path, decode_backend: str) -> None:
    """Clips are bit-identical in another process's copy and after other draws; another epoch changes them."""
    items = [VideoItem(str(video), 0)] * 3
    recipe = ClipRecipe(frames=4, preprocessing=Preprocessing(32), augmentation="kinetics")
    dataset = VideoDataset(items, recipe, seed=5, decode_backend=decode_backend)
    first = dataset.load(1, 2).pixels
    torch.rand(9)
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy.load(1, 2).pixels, first)
    for index, epoch, seed in ((1, 3, 5), (2, 2, 5), (1, 2, 6)):
        other = VideoDataset(items, recipe, seed=seed, decode_backend=decode_backend)
        assert not torch.equal(other.load(index, epoch).pixels, first)


@pytest.mark.torchcodec
def test_backends_give_the_same_clips(video: Path) -> None:
    """Both decoders are exact, and share the transforms."""
    recipe = ClipRecipe(frames=4, preprocessing=Preprocessing(32), augmentation="ssv2")
    clips = [
        VideoDataset([VideoItem(str(video), 0)], recipe, decode_backend=name).load(0, 1)
        for name in ("torchcodec", "pyav")
    ]
    assert torch.equal(clips[0].pixels, clips[1].pixels)


def test_empty_list_is_refused() -> None:
    """The constructor raises."""
    with pytest.raises(ConfigError, match="at least one video"):
        VideoDataset([], ClipRecipe())


def test_missing_file(tmp_path: Path) -> None:
    """The error is typed and names the file."""
    dataset = VideoDataset([VideoItem(str(tmp_path / "gone.mp4"), 0)], ClipRecipe())
    assert len(dataset) == 1
    with pytest.raises(MissingVideoError, match=r"gone\.mp4"):
        dataset.load(0)


def test_a_strip_is_not_scaled_to_fill_the_memory(tmp_path: Path) -> None:
    """Two rows of 30,000 pixels are a small frame; scaled to 224 rows, eight frames would take 18 GB."""
    folder = tmp_path / "strip"
    folder.mkdir()
    for number in range(1, 9):
        Image.new("RGB", (30_000, 2)).save(folder / f"img_{number:05d}.jpg")
    dataset = VideoDataset([VideoItem(str(folder), 0, 8)], ClipRecipe())
    with pytest.raises(UndecodableVideoError, match=r"8 frames of 3360000x224 after scaling take .* over the limit"):
        dataset.load(0)
