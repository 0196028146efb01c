"""The reader of a GPU's decoder against the CPU's reader: the same frames, and a reason for what the CPU reads."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mote_fast.data.gpu.gpu_reader import CpuReason, GpuReader, _Waiting, recipe_of
from mote_fast.data.loading.addresses import Address
from mote_fast.data.loading.view_frames import CropReader, ViewRequest
from mote_fast.data.transforms import Preprocessing
from mote_fast.data.views import Views
from mote_fast.errors import BackendError, MissingVideoError, UndecodableVideoError
from mote_fast.runtime.workers import WorkerLostError
from tests.data.conftest import NumberedVideos
from tests.data.gpu.stand_in import SECONDS, Slow, StandIn, decoder_of

CPU = torch.device("cpu")
REQUEST = ViewRequest(4, Views(2, 3), Preprocessing(48), 8)
VP9: dict[str, Any] = {"codec": "libvpx-vp9", "g": 12, "deadline": "realtime", "cpu-used": 8}
MJPEG: dict[str, Any] = {"codec": "mjpeg", "pix_fmt": "yuvj420p", "qmax": 4}

# Worker processes.
pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def cpu() -> Iterator[CropReader]:
    reader = CropReader(1, 120.0)
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[GpuReader]:
    """Its processes serve all tests of this file; the decoder is in this process."""
    reader = GpuReader(decoder_of(StandIn), CPU, 1, 120.0, isolated=False)
    yield reader
    reader.close()


@pytest.fixture
def reader(shared: GpuReader) -> GpuReader:
    """The reader as new."""
    shared.on_cpu.clear()
    shared.decoded = 0
    shared._engine = None
    shared._chooser = type(shared._chooser)()
    shared._decoder, shared._timed = decoder_of(StandIn), False
    return shared


@pytest.fixture(scope="module")
def video(numbered_videos: NumberedVideos) -> Path:
    return numbered_videos.write("gpu_reader.webm", **VP9)


@pytest.mark.parametrize(
    "request_",
    [
        REQUEST,
        # The twelve views of sixteen frames share many of the forty.
        replace(REQUEST, frames=16, views=Views(4, 3)),
        replace(REQUEST, views=Views(1, 1), preprocessing=Preprocessing(32, resize_mode="squash")),
    ],
    ids=["2x3", "4x3", "squashed"],
)
@pytest.mark.parametrize("form", ["path", "relative", "bytes", "address"])
def test_frames_are_the_cpu_readers(
    form: str, request_: ViewRequest, reader: GpuReader, cpu: CropReader, video: Path
) -> None:
    """To the bit, whatever the video is given as."""
    if form == "address":
        pytest.importorskip("fsspec")
    forms: dict[str, Any] = {"path": str(video), "relative": video.name, "bytes": video.read_bytes()}
    source = forms.get(form, Address(video.as_uri()))
    folder = str(video.parent) if form == "relative" else None
    mine, theirs = reader.read(source, request_, folder), cpu.read(source, request_, folder)
    assert torch.equal(mine.frames, theirs.frames)
    assert torch.equal(mine.plan.positions, theirs.plan.positions)
    assert mine[2:] == (theirs.num_frames, theirs.displayed, video.as_uri() if form == "address" else theirs.path, {})
    assert (reader.decoded, sum(reader.on_cpu.values())) == (1, 0)


def test_the_cpu_reads_what_the_decoder_does_not_take(
    reader: GpuReader, cpu: CropReader, video: Path, numbered_videos: NumberedVideos, caplog: pytest.LogCaptureFixture
) -> None:
    """Each reason has a kind, is counted for every video, and logged once."""
    others = [numbered_videos.write(f"gpu_reader_{number}.avi", **MJPEG) for number in range(2)]
    refused = video.with_name("refused.webm")
    shutil.copy(video, refused)
    with caplog.at_level(logging.INFO, "mote_fast"):
        for path in (*others, refused, refused):
            mine, theirs = (each.read(str(path), REQUEST, None) for each in (reader, cpu))
            assert torch.equal(mine.frames, theirs.frames)
    kind = "vp9 in matroska,webm"
    assert reader.on_cpu == {
        CpuReason("unsuited", "codec mjpeg"): 2,
        CpuReason("refused", f"{kind}: the decoder fails"): 2,
    }
    assert caplog.text.count("decoded on the CPU: codec mjpeg") == 1
    assert caplog.text.count("because the decoder fails: it is refused") == 1
    # A refusal may be the video's own fault: the next one of its kind is tried.
    reader.read(str(video), REQUEST, None)
    assert reader.decoded == 1


def test_frames_of_another_size_are_not_taken(reader: GpuReader, cpu: CropReader, video: Path) -> None:
    """Not even where the trial did not show it."""
    small = video.with_name("small.webm")
    shutil.copy(video, small)
    mine, theirs = (each.read(str(small), REQUEST, None) for each in (reader, cpu))
    assert torch.equal(mine.frames, theirs.frames)
    assert [reason.kind for reason in reader.on_cpu] == ["refused"]


def test_the_faster_one_reads(reader: GpuReader, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the first video of a kind is timed."""
    reader._timed = True
    now = iter(range(100))
    # The CPU takes one second a video, and the eight of the trial need eight.
    monkeypatch.setattr("mote_fast.data.gpu.trial.time.perf_counter", lambda: float(next(now)))
    reader.read(str(video), REQUEST, None)
    assert (reader.decoded, len(reader.on_cpu)) == (1, 0)
    reader._chooser = type(reader._chooser)()
    monkeypatch.setattr("tests.data.gpu.stand_in.SECONDS", 8 * SECONDS)
    reader._decoder, reader._engine = decoder_of(Slow), None
    monkeypatch.setattr("mote_fast.data.gpu.trial.time.perf_counter", lambda: 0.5 * float(next(now)))
    reader.read(str(video), REQUEST, None)
    assert [reason.kind for reason in reader.on_cpu] == ["slower"]


def test_a_bad_video_fails_as_on_the_cpu(reader: GpuReader, cpu: CropReader, tmp_path: Path, video: Path) -> None:
    """The same errors with the same texts, and the next video is read."""
    (tmp_path / "noise.webm").write_bytes(video.read_bytes()[::-1])
    short = replace(REQUEST, longest=0.5)
    cases: list[tuple[Path, ViewRequest, Any]] = [
        (tmp_path / "gone.webm", REQUEST, MissingVideoError),
        (tmp_path / "noise.webm", REQUEST, UndecodableVideoError),
        (video, short, UndecodableVideoError),
    ]
    for path, request, kind in cases:
        texts = []
        for each in (reader, cpu):
            with pytest.raises(kind) as caught:
                each.read(str(path), request, None)
            texts.append(str(caught.value))
        assert texts[0] == texts[1]
    assert len(reader.read(str(video), REQUEST, None).frames) == 8


def _clip(reader: GpuReader, path: Path) -> Any:
    """The clip that a process plans for a file."""
    planned = reader._ask((str(path), REQUEST, None, None), str(path))
    return planned.clip


def test_those_that_wait_are_decoded_together(reader: GpuReader, video: Path) -> None:
    """Up to eight at a time, the oldest first; one that is refused costs itself, and another request waits."""
    refused = video.with_name("refused.webm")
    shutil.copy(video, refused)
    clip, bad = _clip(reader, video), _clip(reader, refused)
    waiting = [_Waiting(bad if number == 2 else clip, REQUEST) for number in range(11)]
    waiting[3] = _Waiting(clip, replace(REQUEST, longest=100.0))
    reader._waiting.extend(waiting)
    assert isinstance(reader._decode(clip, REQUEST), torch.Tensor)
    answers = [each.result.result(0) for each in waiting]
    assert answers[2] == "it is refused"
    pixels = [answer for answer in answers if isinstance(answer, torch.Tensor)]
    assert len(pixels) == 10
    assert all(torch.equal(each, pixels[0]) for each in pixels)
    assert not reader._waiting


def test_threads_get_their_own_videos(reader: GpuReader, cpu: CropReader, numbered_videos: NumberedVideos) -> None:
    """Whoever decodes for whom: each thread gets the frames of its video."""
    paths = [numbered_videos.write("gpu_reader.webm", **VP9), numbered_videos.write("gpu_reader.mp4", "libx264")]
    expected = [cpu.read(str(path), REQUEST, None).frames for path in paths]
    found: list[Any] = [None] * 6
    start = threading.Barrier(6)

    def read(number: int) -> None:
        start.wait()
        found[number] = reader.read(str(paths[number % 2]), REQUEST, None).frames

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(frames, expected[number % 2]) for number, frames in enumerate(found))


class _Dying(StandIn):
    """Loses its process with each batch."""

    def take(self) -> Any:
        raise WorkerLostError("its process died (SIGSEGV)", timed_out=False)


def test_a_decoder_that_dies_costs_nothing(
    reader: GpuReader, cpu: CropReader, video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The CPU reads the video."""
    reader._decoder = decoder_of(_Dying)
    assert torch.equal(reader.read(str(video), REQUEST, None).frames, cpu.read(str(video), REQUEST, None).frames)
    assert [reason.kind for reason in reader.on_cpu] == ["refused"]
    assert "its process died (SIGSEGV)" in caplog.text


def test_a_closed_reader_says_so(video: Path) -> None:
    """It does not start processes again."""
    reader = GpuReader(decoder_of(StandIn), CPU, 1, 120.0, isolated=False)
    reader.close()
    with pytest.raises(BackendError, match="closed"):
        reader.read(str(video), REQUEST, None)


def test_the_recipe_is_the_requests() -> None:
    """Nothing of a request that decides pixels is lost."""
    request = replace(REQUEST, pixel_aspect="apply", crops_along="long_side")
    recipe = recipe_of(request)
    for name in ("frames", "views", "preprocessing", "pixel_aspect", "crops_along"):
        assert getattr(recipe, name) == getattr(request, name)
    assert recipe.augmentation == "none"
    assert not recipe.dense
