"""torchcodec as a decoder of a GPU, on a CPU, and a stand-in for it: the CPU's pixels to the bit."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.decoding.decode import probe, read_frames
from mote_fast.data.gpu.decode_server import ReadyClip
from mote_fast.data.gpu.gpu_loader import GpuLoader
from mote_fast.data.gpu.ready_clips import ClipReader
from mote_fast.data.gpu.torchcodec_gpu import DECODER, TorchcodecServer, why_unavailable
from mote_fast.data.items import VideoItem
from mote_fast.data.loaders import make_loader
from mote_fast.data.loading.cpu_loader import CpuLoader
from mote_fast.data.loading.video_loader import LoaderOptions
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import Preprocessing
from mote_fast.data.views import Views
from mote_fast.errors import BackendError
from tests.data.conftest import NumberedVideos

pytestmark = pytest.mark.heavy

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


@pytest.mark.torchcodec
@pytest.mark.parametrize(
    "changes", [{"views": Views(2, 3)}, {"augmentation": "kinetics"}], ids=["evaluation", "training"]
)
def test_batches_are_the_cpu_loaders(paths: list[Path], changes: dict[str, Any]) -> None:
    """The same frames, crops, mirroring and grey, whoever decodes a video."""
    dataset = dataset_of(paths, replace(RECIPE, **changes))
    options = LoaderOptions(3, training=False)
    found, expected = GpuLoader(dataset, options, DECODER), CpuLoader(dataset, options)
    try:
        for epoch in range(3):
            (mine,), (theirs,) = found.epoch(epoch), expected.epoch(epoch)
            assert mine.labels.tolist() == theirs.labels.tolist()
            assert torch.equal(mine.pixels, theirs.pixels)
    finally:
        found.close()
        expected.close()


@pytest.mark.torchcodec
def test_other_frames_than_asked_for_are_refused(paths: list[Path]) -> None:
    """A file that was replaced meanwhile, or a decoder that returns a neighbor, costs the video its turn here."""
    reader = ClipReader(dataset_of(paths), DECODER.takes["cpu"])
    clip = reader((0, 0, ""), torch.empty(1, 4, 3, 48, 48, dtype=torch.uint8))
    assert isinstance(clip, ReadyClip)
    server = TorchcodecServer(RECIPE, "cpu", None, 1, 1)
    assert isinstance(server.attempt(clip, timed=True), float)
    (seconds, tick), others = clip.seconds, {}
    others["other frames"] = replace(clip, seconds=(tuple(each + 0.2 for each in seconds), tick))
    others["frames of"] = replace(clip, shape=(1, 2, 3, 3))
    others["changed"] = replace(clip, source=str(paths[1]))
    for why, other in others.items():
        assert why in str(server.attempt(other, timed=False))
    server.feed([others["other frames"]])
    assert "other frames" in str(server.take())


def test_it_needs_a_gpu(numbered_videos: NumberedVideos) -> None:
    """Forced on a machine without one, the error says what to do."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    video = numbered_videos.write("h264.mp4")
    with pytest.raises(BackendError, match="no CUDA device"):
        make_loader(dataset_of([video]), LoaderOptions(1, training=False, device="cuda"), "torchcodec-gpu")


class _Decoder:
    """torchcodec's interface over PyAV, which is told where to decode."""

    # Added to each number; and what happens instead of decoding.
    shift = 0
    problem: Exception | None = None
    asked: list[dict[str, Any]]

    def __init__(self, source: Any, **options: Any) -> None:
        self.asked.append(options)
        self._video = source.read() if hasattr(source, "read") else source.removeprefix("file:")

    def get_frames_at(self, indices: list[int]) -> Any:
        if self.problem is not None:
            raise self.problem
        wanted = [max(0, index + self.shift) for index in indices]
        info = probe(self._video)
        stamps = (info.timeline.pts[index] for index in wanted)
        seconds = [float(stamp * info.timeline.time_base) for stamp in stamps if stamp is not None]
        frames = read_frames(self._video, wanted)
        return SimpleNamespace(data=frames, pts_seconds=torch.tensor(seconds, dtype=torch.float64))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[_Decoder]:
    decoder = type("Decoder", (_Decoder,), {"asked": []})
    module = ModuleType("torchcodec.decoders")
    module.VideoDecoder = decoder  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "torchcodec", ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
    return decoder


@pytest.mark.parametrize("in_memory", [False, True])
def test_the_server_renders_as_the_cpu_does(
    in_memory: bool, fake: type[_Decoder], numbered_videos: NumberedVideos
) -> None:
    """Of files and of their content, in batches, with the options that a GPU needs."""
    path = numbered_videos.write("dali.webm", **VP9)
    dataset = VideoDataset([VideoItem(str(path), 0)], replace(RECIPE, views=Views(2, 3)), decode_backend="pyav")
    clip = ClipReader(dataset, DECODER.takes["cpu"])((0, 0, ""), torch.empty(0))
    assert isinstance(clip, ReadyClip)
    if in_memory:
        clip = replace(clip, source=path.read_bytes())
    server = TorchcodecServer(dataset.recipe, "cpu", None, 2, 2)
    assert isinstance(server.attempt(clip, timed=True), float)
    assert server.feed([clip, clip]) is None
    answer = server.take()
    assert not isinstance(answer, str)
    assert answer.value == [clip.shape] * 2
    for pixels in answer.tensor:
        assert torch.equal(pixels.view(dataset.recipe.clip_shape), dataset.load(0).pixels)
    options = {"stream_index": 0, "dimension_order": "NHWC", "device": "cpu"}
    assert fake.asked == [options] * len(fake.asked)


def test_the_server_says_what_is_wrong(fake: type[_Decoder], numbered_videos: NumberedVideos) -> None:
    """A neighbor of a frame, an error of the decoder, and a file that changed are texts, after which it goes on."""
    path = numbered_videos.write("dali.webm", **VP9)
    clip = ClipReader(dataset_of([path]), DECODER.takes["cpu"])((0, 0, ""), torch.empty(0))
    assert isinstance(clip, ReadyClip)
    server = TorchcodecServer(RECIPE, "cpu", None, 1, 1)
    fake.shift = -1
    fake.asked.clear()
    server.feed([clip])
    assert "other frames" in str(server.take())
    assert "other frames" in str(server.attempt(clip, timed=False))
    fake.shift, fake.problem = 0, RuntimeError("NVDEC does not decode this")
    assert "NVDEC does not decode this" in str(server.attempt(clip, timed=False))
    fake.problem = None
    assert "changed" in str(server.attempt(replace(clip, source=b"none"), timed=False))
    assert server.attempt(clip, timed=False) == 0.0
