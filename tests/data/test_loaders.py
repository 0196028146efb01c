"""``make_loader``: the choice of backend, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.items import VideoItem
from mote_fast.data.loaders import make_loader
from mote_fast.data.loading.cpu_loader import CpuLoader
from mote_fast.data.loading.order import Replica
from mote_fast.data.loading.video_loader import LoaderOptions
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import Preprocessing
from mote_fast.errors import BackendError, ConfigError
from tests.data.gpu.stand_in import StandIn, decoder_of, missing

if TYPE_CHECKING:
    from tests.data.conftest import NumberedVideos


@pytest.fixture
def dataset(numbered_videos: NumberedVideos, tmp_path: Path) -> VideoDataset:
    paths = [str(numbered_videos.write("make_loader.mp4")), str(tmp_path / "gone.mp4")]
    return VideoDataset([VideoItem(path, 3) for path in paths], ClipRecipe(frames=2, preprocessing=Preprocessing(16)))


@pytest.mark.parametrize("backend", ["auto", "cpu"])
def test_cpu_without_cuda(dataset: VideoDataset, backend: Any) -> None:
    """A device without CUDA gets the CPU loader, with every argument."""
    loader = make_loader(
        dataset, LoaderOptions(1, training=False, replica=Replica(0, 2), dtype=torch.float16), backend=backend
    )
    assert isinstance(loader, CpuLoader)
    (batch,) = loader.epoch(0)
    assert batch.pixels.dtype == torch.float16
    assert batch.labels.tolist() == [3]


def test_faults_are_written(dataset: VideoDataset, tmp_path: Path) -> None:
    """Failures are written to the given file, a string or a path."""
    loader = make_loader(dataset, LoaderOptions(2, training=False, fault_file=str(tmp_path / "faults.jsonl")))
    assert [len(batch.failures) for batch in loader.epoch(0)] == [1]
    assert "gone.mp4" in (tmp_path / "faults.jsonl").read_text()


def test_a_forced_backend_that_cannot_serve(dataset: VideoDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """It raises with the reason, and does not fall back to another backend."""
    decoder = replace(decoder_of(StandIn), why_unavailable=missing)
    monkeypatch.setattr("mote_fast.data.gpu.decoder_choice.gpu_decoder", lambda name: decoder)
    with pytest.raises(BackendError, match="backend 'dali' cannot serve: no cpu; install it"):
        make_loader(dataset, LoaderOptions(1, training=False), backend="dali")


@pytest.mark.usefixtures("needs_dali")
def test_forced_dali_serves_on_the_cpu_too(dataset: VideoDataset) -> None:
    """The graph is the same on both devices; the CPU decoder gets the videos that it refuses."""
    loader = make_loader(dataset, LoaderOptions(2, training=False), backend="dali")
    assert type(loader).__name__ == "GpuLoader"
    assert [batch.indices.tolist() for batch in loader.epoch(0)] == [[0]]
    loader.close()


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_a_device_that_is_not_there(dataset: VideoDataset) -> None:
    """The constructor raises, not the first batch."""
    with pytest.raises(BackendError, match="no CUDA device"):
        make_loader(dataset, LoaderOptions(2, training=False, device="cuda"))


def test_unknown_backend_is_refused(dataset: VideoDataset) -> None:
    """The error lists the known names."""
    backend: Any = "decord"
    with pytest.raises(ConfigError, match=r"'auto', 'cpu', 'dali' or 'torchcodec-gpu'"):
        make_loader(dataset, LoaderOptions(1, training=False), backend=backend)
