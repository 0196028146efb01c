"""A GPU's decoder, DALI on a CPU, against the CPU loader: labels, order, stand-ins, failures, and pixels."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mote_fast.data import sample_frames
from mote_fast.data.dali.server import DECODER, DaliServer
from mote_fast.data.dataset import VideoDataset
from mote_fast.data.decoding.video_info import VideoInfo
from mote_fast.data.gpu.decode_server import Abilities, GpuDecoder
from mote_fast.data.gpu.gpu_loader import GpuLoader
from mote_fast.data.gpu.routing import DecodeTiming
from mote_fast.data.gpu.trial import Trial
from mote_fast.data.items import VideoItem
from mote_fast.data.loading.batch import Batch
from mote_fast.data.loading.cpu_loader import CpuLoader
from mote_fast.data.loading.order import Replica
from mote_fast.data.loading.video_loader import LoaderOptions
from mote_fast.data.plan import ClipPlan, ClipRecipe
from mote_fast.data.transforms import Preprocessing, normalize
from mote_fast.data.views import Views
from mote_fast.errors import BackendError, ConfigError, ListError
from tests.data.charts import COLORS, FULL, KR_KB, LIMITED, SIZE, Coding, chart, read_patches
from tests.data.conftest import NumberedVideos
from tests.data.dali.deadly import DeadlyServer
from tests.tolerances import GREY_LEVELS

# Pipelines and worker processes.
pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("needs_dali")]

# Mean absolute difference in normalised units, one decoder against another.
SAME_PIXELS = 0.02

_VP9: dict[str, Any] = {"codec": "libvpx-vp9", "g": 12, "deadline": "realtime", "cpu-used": 8}
_MJPEG: dict[str, Any] = {"codec": "mjpeg", "pix_fmt": "yuvj420p", "qmax": 4}

_PLAIN = ClipRecipe(preprocessing=Preprocessing(48), frames=4)


@pytest.fixture(scope="module")
def paths(numbered_videos: NumberedVideos, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """DALI decodes the first four on a CPU, but not the last three: a codec, a rotation, a codec that conceals."""
    saturated = tmp_path_factory.mktemp("charts") / "saturated.webm"
    # Mild colours hide a wrong matrix and cut-off values. 4:4:4, because at edges DALI interpolates subsampled chroma.
    saturated.write_bytes(chart(Coding("yuv444p", 6), "libvpx-vp9", "webm", lossless=1))
    turned = numbered_videos.write("dali_turned.mp4", **_VP9)
    numbered_videos.set_rotation(turned, 90)
    return [
        numbered_videos.write("dali.webm", **_VP9),
        numbered_videos.write("dali.avi", **_MJPEG),
        saturated,
        numbered_videos.write("dali.mp4", **_VP9),
        numbered_videos.write("h264.mp4"),
        turned,
        numbered_videos.write("dali_vp8.webm", "libvpx", g=12, deadline="realtime", **{"cpu-used": 8}),
    ]


def _dataset(paths: Sequence[Path], recipe: ClipRecipe = _PLAIN) -> VideoDataset:
    return VideoDataset([VideoItem(str(path), 10 + index) for index, path in enumerate(paths)], recipe, seed=3)


def _loader(
    dataset: VideoDataset,
    batch_size: int = 3,
    *,
    training: bool = False,
    workers: int = 2,
    decoder: GpuDecoder = DECODER,
    **options: Any,
) -> GpuLoader:
    return GpuLoader(dataset, LoaderOptions(batch_size, training=training, workers=workers, **options), decoder)


# The abilities of DALI, by device.
_TAKEN: Any = DECODER.takes


def _with_h264() -> Abilities:
    """Those on a CPU, and H.264, which DALI refuses there."""
    taken = DECODER.takes["cpu"]
    return replace(taken, codecs=taken.codecs | {"h264"})


def _difference(one: Batch, two: Batch) -> float:
    return (one.pixels.float() - two.pixels.float()).abs().mean().item()


def _assert_same(batches: Sequence[Batch], expected: Sequence[Batch]) -> None:
    assert [batch.labels.tolist() for batch in batches] == [batch.labels.tolist() for batch in expected]
    assert [batch.indices.tolist() for batch in batches] == [batch.indices.tolist() for batch in expected]
    assert [batch.failures for batch in batches] == [batch.failures for batch in expected]
    for batch, other in zip(batches, expected, strict=True):
        assert batch.pixels.shape == other.pixels.shape
        assert not batch.indices.numel() or _difference(batch, other) <= SAME_PIXELS


@pytest.mark.parametrize(
    "recipe",
    [
        ClipRecipe(preprocessing=Preprocessing(32)),
        ClipRecipe(preprocessing=Preprocessing(32), views=Views(3, 1)),
        # Twelve views of sixteen frames share many of the forty.
        ClipRecipe(preprocessing=Preprocessing(32), views=Views(4, 3), frames=16),
        ClipRecipe(preprocessing=Preprocessing(32, resize_mode="squash", interpolation="bilinear"), views=Views(2, 1)),
        ClipRecipe(preprocessing=Preprocessing(32), augmentation="kinetics"),
        ClipRecipe(preprocessing=Preprocessing(32), augmentation="ssv2", flip_labels={10: 99}),
    ],
    ids=["1x1", "3x1", "4x3", "squashed", "kinetics", "ssv2"],
)
def test_same_clips_as_the_dataset(recipe: ClipRecipe, paths: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    """Each video alone, in both epochs; DALI must have decoded those that it supports."""
    dataset, training = _dataset(paths, recipe), recipe.augmentation != "none"
    # In this process: each of a loader's four would import DALI or PyTorch for a few clips.
    loader = _loader(dataset, len(paths), training=training, workers=0)
    assert loader.batches_per_epoch == 1
    for epoch in (0, 1):
        caplog.clear()
        with caplog.at_level(logging.DEBUG, "mote_fast"):
            (batch,) = loader.epoch(epoch)
        for number, path in enumerate(paths):
            assert (f"{path}: decoded on the CPU" in caplog.text) == (number >= 4)
        assert sorted(batch.indices.tolist()) == list(range(len(paths)))
        shape = (len(paths), recipe.views_per_video, recipe.frames, 3, 32, 32)
        for index, label, pixels in zip(batch.indices.tolist(), batch.labels, batch.pixels.view(shape), strict=True):
            clip = dataset.load(index, epoch)
            difference = (pixels - normalize(clip.pixels, recipe.preprocessing)).abs().mean()
            assert label == clip.label
            assert difference <= SAME_PIXELS, paths[index]
            # Two renderers on the same frames.
            assert index < 4 or difference <= SAME_PIXELS / 4, paths[index]
    loader.close()


@pytest.mark.parametrize(
    ("codec", "container", "pixel_format", "options"),
    [
        *[("libvpx-vp9", "webm", name, {"lossless": 1}) for name in ("yuv420p", "yuv422p", "yuv444p")],
        *[("mjpeg", "avi", name, {"qmax": 1, "qmin": 1}) for name in ("yuvj420p", "yuvj422p")],
        ("mjpeg", "avi", "yuv420p", {"qmax": 1, "qmin": 1, "strict": "unofficial"}),
        ("libx264", "mp4", "yuv420p", {"qp": 0}),
    ],
)
def test_saturated_colors_are_right(
    codec: str,
    container: str,
    pixel_format: str,
    options: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In every matrix and range, through both loaders; DALI itself cuts off colours of all but BT.601."""
    # A JPEG has no matrix.
    matrices = [5] if codec == "mjpeg" else list(KR_KB)
    ranges = [FULL] if pixel_format.startswith("yuvj") else [LIMITED, FULL]
    if codec == "libvpx-vp9":
        # VP9 cannot state this one.
        matrices.remove(4)
    paths, by_dali = [], []
    for matrix in matrices:
        for color_range in ranges:
            path = tmp_path / f"{matrix}_{color_range}.{container}"
            path.write_bytes(chart(Coding(pixel_format, matrix, color_range), codec, container, **options))
            paths.append(path)
            by_dali.append(codec != "libx264" and matrix in (2, 5, 6))
    recipe = ClipRecipe(2, Preprocessing(SIZE, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)))
    dataset, size = _dataset(paths, recipe), len(paths)
    loader, plain = _loader(dataset, size, workers=0), CpuLoader(dataset, LoaderOptions(size, training=False))
    with caplog.at_level(logging.DEBUG, "mote_fast"):
        batches = [next(iter(each.epoch(0))) for each in (loader, plain)]
    assert [f"{path}: decoded on the CPU" not in caplog.text for path in paths] == by_dali
    for batch in batches:
        for path, clip in zip(paths, batch.pixels, strict=True):
            shown = read_patches(clip.permute(0, 2, 3, 1))
            assert abs(shown - COLORS).max() <= GREY_LEVELS, path
    loader.close()
    plain.close()


def test_frames_carry_their_numbers(paths: list[Path], numbered_videos: NumberedVideos) -> None:
    """The frames are those that sampling chose, not only close to the other decoder's."""
    grey_levels = Preprocessing(48, mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255))
    recipe = replace(_PLAIN, preprocessing=grey_levels, views=Views(3, 3))
    loader = _loader(_dataset(paths[:2], recipe))
    (batch,) = loader.epoch(0)
    views = batch.pixels.view(2, 3, 3, 4, 3, 48, 48)
    # The first crop has the left three columns of squares, the second the right three.
    whole = torch.cat((views[:, :, 0, ..., :32], views[:, :, 1, ..., 16:]), dim=-1)
    wanted = sample_frames(40, 4, "test", clips=3)
    for video in whole:
        for clip, indices in zip(video, wanted, strict=True):
            assert numbered_videos.read(clip.permute(0, 2, 3, 1)) == indices.tolist()
    loader.close()


@pytest.mark.parametrize("training", [False, True])
def test_batches_are_the_cpu_loaders(training: bool, paths: list[Path]) -> None:
    """In order, in another epoch, from mid-epoch, after an abandoned epoch, and when all batches are kept."""
    dataset = _dataset(paths, replace(_PLAIN, augmentation="kinetics" if training else "none"))
    loader, plain = _loader(dataset, 2, training=training), CpuLoader(dataset, LoaderOptions(2, training=training))
    whole = list(loader.epoch(1))
    copies = [batch.pixels.clone() for batch in whole]
    _assert_same(whole, list(plain.epoch(1)))
    assert len(whole) == loader.batches_per_epoch == plain.batches_per_epoch == (3 if training else 4)
    next(iter(loader.epoch(0)))
    rest = list(loader.epoch(1, start=2))
    _assert_same(rest, whole[2:])
    assert all(torch.equal(one.pixels, two.pixels) for one, two in zip(rest, whole[2:], strict=True))
    assert all(torch.equal(batch.pixels, copy) for batch, copy in zip(whole, copies, strict=True))
    assert not list(loader.epoch(0, start=loader.batches_per_epoch))
    loader.close()
    plain.close()


def test_ranks_share_an_epoch_without_padding(paths: list[Path]) -> None:
    """Seven videos over three processes: every video once, the last batches short."""
    seen = []
    for rank in range(3):
        loader = _loader(_dataset(paths), 2, workers=0, replica=Replica(rank, 3))
        batches = list(loader.epoch(0))
        assert len(batches) == loader.batches_per_epoch
        assert all(len(batch.pixels) == len(batch.indices) for batch in batches)
        seen.append([batch.indices.tolist() for batch in batches])
        loader.close()
    assert seen == [[[0, 3], [6]], [[1, 4]], [[2, 5]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtypes(dtype: torch.dtype, paths: list[Path]) -> None:
    """DALI writes float16 itself; it does not support bfloat16."""
    options = LoaderOptions(2, training=False, dtype=dtype)
    loader = GpuLoader(_dataset(paths[:2]), options, DECODER)
    plain = CpuLoader(_dataset(paths[:2]), options)
    (batch,), (expected,) = loader.epoch(0), plain.epoch(0)
    assert batch.pixels.dtype == dtype
    assert _difference(batch, expected) <= SAME_PIXELS
    loader.close()


@pytest.fixture(scope="module")
def damaged(paths: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Intact and damaged videos mixed; the second batch of three has no readable video."""
    folder = tmp_path_factory.mktemp("damaged")
    data = paths[0].read_bytes()
    broken = bytearray(data)
    # Within the frame data, after the header and the index.
    for at in range(len(data) // 3, len(data), 97):
        broken[at] ^= 0x55
    contents = {"flipped.webm": bytes(broken), "half.webm": data[: len(data) // 2], "noise.webm": data[::-1]}
    for name, content in (contents | {"empty.webm": b""}).items():
        (folder / name).write_bytes(content)
    names = ["half.webm", "flipped.webm", None, "noise.webm", "missing.webm", "empty.webm", None, None]
    return [paths[1] if name is None else folder / name for name in names]


@pytest.mark.parametrize("training", [False, True])
def test_damage_is_handled_as_by_the_cpu_loader(training: bool, damaged: list[Path], tmp_path: Path) -> None:
    """Evaluation names damaged videos, training replaces them by the same stand-ins; each is reported once."""
    dataset = _dataset(damaged, replace(_PLAIN, augmentation="kinetics" if training else "none"))
    loader = _loader(dataset, training=training, fault_file=tmp_path / "faults.jsonl")
    plain = CpuLoader(dataset, LoaderOptions(3, training=training))
    for epoch in (0, 1):
        _assert_same(list(loader.epoch(epoch)), list(plain.epoch(epoch)))
    assert loader.faults.failures == plain.faults.failures
    assert {Path(failure.path).name for failure in loader.faults.failures} >= {"noise.webm", "missing.webm"}
    assert len((tmp_path / "faults.jsonl").read_text().splitlines()) == len(plain.faults.failures)
    loader.close()


def test_nothing_to_train_on(tmp_path: Path) -> None:
    """An error raised in DALI's source reaches the caller unchanged."""
    loader = _loader(_dataset([tmp_path / "a.mp4", tmp_path / "b.mp4"]), 2, training=True)
    with pytest.raises(ListError, match=r"a\.mp4|b\.mp4"):
        list(loader.epoch(0))
    loader.close()


@pytest.fixture
def believes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """DALI is given H.264 on the CPU, which it refuses, and no video is tried out first; in this process alone."""
    monkeypatch.setitem(_TAKEN, "cpu", _with_h264())
    monkeypatch.setattr(Trial, "measure", lambda *_: DecodeTiming(0.0, 1.0))


@pytest.mark.usefixtures("believes_all")
def test_a_video_that_breaks_the_pipeline_is_found(paths: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    """One bad sample ends a DALI pipeline. The other samples are kept, and it happens only once."""
    dataset = _dataset([paths[0], paths[1], paths[4], paths[2], paths[0]])
    loader, expected = (
        _loader(dataset, 1, workers=0),
        list(CpuLoader(dataset, LoaderOptions(1, training=False)).epoch(0)),
    )
    _assert_same(list(loader.epoch(0)), expected)
    found = [record.message for record in caplog.records if "from now on" in record.message]
    assert len(found) == 1
    assert found[0].startswith(str(paths[4]))
    caplog.clear()
    _assert_same(list(loader.epoch(0)), expected)
    assert "from now on" not in caplog.text
    assert not loader.faults.failures
    loader.close()


def test_a_refused_kind_is_decoded_by_the_cpu(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A GPU may lack a decoder that the table lists; the trial detects it before a pipeline breaks."""
    monkeypatch.setitem(_TAKEN, "cpu", _with_h264())
    dataset = _dataset([paths[4], paths[0]])
    loader = _loader(dataset, workers=0)
    with caplog.at_level(logging.DEBUG, "mote_fast"):
        _assert_same(list(loader.epoch(0)), list(CpuLoader(dataset, LoaderOptions(3, training=False)).epoch(0)))
    assert "h264 in mov,mp4,m4a,3gp,3g2,mj2: refused, or slower" in caplog.text
    assert "from now on" not in caplog.text
    loader.close()


class _Misread(VideoDataset):
    """Reports too large a height for the second video."""

    def plan(self, index: int, epoch: int = 0) -> tuple[VideoInfo, ClipPlan]:
        info, plan = super().plan(index, epoch)
        return (replace(info, height=50) if index == 1 else info), plan


def test_frames_of_another_size_are_not_delivered(paths: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    """DALI's frames must have the planned number and size."""
    dataset = _dataset([paths[0], paths[2], paths[1]])
    # One worker: which video is tried first decides what becomes of its kind.
    loader = _loader(_Misread(dataset.items, _PLAIN), 1, workers=1)
    _assert_same(list(loader.epoch(0)), list(CpuLoader(dataset, LoaderOptions(1, training=False)).epoch(0)))
    assert f"{paths[2]}: decoded on the CPU from now on: it gives frames of (4, {SIZE}, {SIZE}, 3)" in caplog.text
    loader.close()


def test_an_error_of_dalis_own_is_raised(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Running out of memory is not a video's fault."""

    def take(_: DaliServer) -> str:
        return "out of memory"

    monkeypatch.setattr(DaliServer, "take", take)
    loader = _loader(_dataset(paths), workers=0)
    with pytest.raises(BackendError, match="out of memory"):
        list(loader.epoch(0))
    loader.close()


class _Stalling(VideoDataset):
    """Never finishes with one video."""

    def plan(self, index: int, epoch: int = 0) -> tuple[VideoInfo, ClipPlan]:
        if index == 1:
            threading.Event().wait()
        return super().plan(index, epoch)


@pytest.mark.parametrize("training", [False, True])
def test_a_video_that_stalls_is_given_up(training: bool, paths: list[Path]) -> None:
    """The video costs the time limit, twice and only once; its process is started again."""
    recipe = replace(_PLAIN, augmentation="kinetics" if training else "none")
    dataset = _Stalling(_dataset(paths[:4]).items, recipe, seed=3)
    # Enough for DALI's first batch on a busy machine.
    loader = _loader(dataset, 2, training=training, workers=1, time_limit=10.0)
    for epoch in (0, 1):
        batches = list(loader.epoch(epoch))
        failures = [failure for batch in batches for failure in batch.failures]
        assert {(failure.index, failure.kind) for failure in failures} == {(1, "DecoderTimeout")}
        indices = [index for batch in batches for index in batch.indices.tolist()]
        assert 1 not in indices
        assert len(indices) == (4 if training else 3)
    assert len(loader.faults.failures) == 1
    loader.close()


# Some files end or stop it.
_DEADLY = replace(DECODER, server=DeadlyServer)


@pytest.mark.parametrize("training", [False, True])
def test_a_file_that_ends_dali_costs_nothing(
    training: bool, paths: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The CPU loader's batches, in both epochs: workers decode what ends DALI's process, and what was in it."""
    names = ["crash.webm", "late.webm", "crash.avi"]
    for name in names:
        (tmp_path / name).write_bytes(paths[name.endswith("avi")].read_bytes())
    # The first videos of each kind are tried alone.
    listed = [*paths[:2], *(each for name in names for each in (tmp_path / name, paths[2])), *paths[:5]]
    dataset = _dataset(listed, replace(_PLAIN, augmentation="kinetics" if training else "none"))
    loader = _loader(dataset, 2, training=training, decoder=_DEADLY)
    plain = CpuLoader(dataset, LoaderOptions(2, training=training))
    for epoch in (0, 1):
        _assert_same(list(loader.epoch(epoch)), list(plain.epoch(epoch)))
    assert not loader.faults.failures
    assert "its process died (SIGSEGV)" in caplog.text
    loader.close()


def test_a_file_that_stops_dali_costs_the_time_limit(
    paths: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once; a worker decodes it."""
    (tmp_path / "hang.webm").write_bytes(paths[0].read_bytes())
    dataset = _dataset([paths[0], tmp_path / "hang.webm", paths[2]])
    loader = _loader(dataset, 1, workers=1, time_limit=8.0, decoder=_DEADLY)
    plain = CpuLoader(dataset, LoaderOptions(1, training=False))
    for _ in range(2):
        _assert_same(list(loader.epoch(0)), list(plain.epoch(0)))
    assert caplog.text.count("took over") >= 1
    assert not loader.faults.failures
    loader.close()


def test_the_processes_may_be_killed(paths: list[Path]) -> None:
    """Whoever kills them, in the middle of an epoch: the rest is delivered, in order."""
    dataset = _dataset(paths * 2)
    loader, expected = _loader(dataset, 2), list(CpuLoader(dataset, LoaderOptions(2, training=False)).epoch(0))
    batches = []
    for batch in loader.epoch(0):
        batches.append(batch)
        if len(batches) in (2, 5):
            for process in _processes():
                os.kill(process, signal.SIGKILL)
    _assert_same(batches, expected)
    assert not loader.faults.failures
    loader.close()


def _processes() -> set[int]:
    return {process.pid for process in multiprocessing.active_children() if process.pid is not None}


def test_a_closed_loader_says_so(paths: list[Path]) -> None:
    """It also raises in the middle of an epoch; closing twice is harmless, and no process is left."""
    before = _processes()
    loader = _loader(_dataset(paths * 3), 1)
    batches = loader.epoch(0)
    next(batches)
    assert _processes() > before
    loader.close()
    loader.close()
    assert _processes() <= before
    with pytest.raises(ConfigError, match="closed"):
        list(batches)
    with pytest.raises(ConfigError, match="closed"):
        next(iter(loader.epoch(0)))


def test_bad_arguments(paths: list[Path]) -> None:
    """The constructor raises."""

    def make(batch_size: int = 2, **options: Any) -> GpuLoader:
        return GpuLoader(_dataset(paths), LoaderOptions(batch_size, training=True, **options), DECODER)

    refused: list[dict[str, Any]] = [{"workers": -1}, {"time_limit": 0}, {"device": "meta"}]
    for options in refused:
        with pytest.raises(ConfigError, match=next(iter(options))):
            make(**options)
    with pytest.raises(ConfigError, match="one step takes"):
        make(replica=Replica(0, 4))
