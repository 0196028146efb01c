"""The loader of a GPU's decoder with a stand-in: the CPU loader's batches to the bit, whoever decodes a video."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.gpu.gpu_loader import GpuLoader
from mote_fast.data.items import VideoItem
from mote_fast.data.loading.cpu_loader import CpuLoader
from mote_fast.data.loading.video_loader import LoaderOptions
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import Preprocessing
from mote_fast.data.views import Views
from tests.data.conftest import NumberedVideos
from tests.data.gpu.stand_in import StandIn, decoder_of

VP9: dict[str, Any] = {"codec": "libvpx-vp9", "g": 12, "deadline": "realtime", "cpu-used": 8}
RECIPE = ClipRecipe(preprocessing=Preprocessing(48), frames=4)


@pytest.mark.parametrize(
    "changes", [{"views": Views(2, 3)}, {"augmentation": "kinetics"}], ids=["evaluation", "training"]
)
def test_batches_are_the_cpu_loaders(
    changes: dict[str, Any], numbered_videos: NumberedVideos, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Videos that the decoder takes, refuses, gives in another size, and does not get, in the same batches."""
    taken = numbered_videos.write("gpu_loader.webm", **VP9)
    for name in ("refused.webm", "small.webm"):
        shutil.copy(taken, tmp_path / name)
    mjpeg = numbered_videos.write("gpu_loader.avi", "mjpeg", pix_fmt="yuvj420p", qmax=4)
    paths = [taken, mjpeg, taken, tmp_path / "refused.webm", tmp_path / "small.webm", tmp_path / "gone.webm", taken]
    dataset = VideoDataset(
        [VideoItem(str(path), label) for label, path in enumerate(paths)], replace(RECIPE, **changes)
    )
    options = LoaderOptions(3, training=False)
    mine, theirs = GpuLoader(dataset, options, decoder_of(StandIn)), CpuLoader(dataset, options)
    with caplog.at_level(logging.INFO, "mote_fast"):
        for epoch in (0, 1):
            for found, expected in zip(mine.epoch(epoch), theirs.epoch(epoch), strict=True):
                assert torch.equal(found.pixels, expected.pixels)
                assert found.labels.tolist() == expected.labels.tolist()
                assert found.failures == expected.failures
    assert "refused.webm: decoded on the CPU from now on: it is refused" in caplog.text
    assert "small.webm: decoded on the CPU from now on: it gives frames of (1, 2, 3, 3)" in caplog.text
    assert "1 (codec mjpeg)" in caplog.text
    mine.close()
    theirs.close()
