"""The choice of videos for a GPU's decoder: none that it would decode differently from the CPU loader."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from mote_fast.data.decoding.colors import FULL, LIMITED, Colors
from mote_fast.data.decoding.video_info import Timeline, VideoInfo
from mote_fast.data.gpu.decode_server import MAX_BYTES, Abilities, StreamKind
from mote_fast.data.gpu.routing import (
    MAX_FRAME_BYTES,
    MAX_REFUSALS,
    Chooser,
    DecodeTiming,
    Header,
    kind_of,
    read_header,
    why_not_gpu,
)
from tests.data.charts import FRAMES, Coding, chart

_MATRICES = frozenset({2, 5, 6})
CPU = Abilities(frozenset({"vp9", "mjpeg"}), frozenset({"yuv420p", "yuv444p"}), _MATRICES, full_range=True)
GPU = Abilities(frozenset({"vp9", "h264"}), frozenset({"yuv420p"}), _MATRICES, full_range=False)

_PTS = tuple(range(0, 400, 40))
_TIMELINE = Timeline(0, Fraction(1, 1000), _PTS, True, _PTS, False)
_COLORS = Colors("yuv420p", 6, LIMITED)
_INFO = VideoInfo("a.webm", 10, 340, 256, 25.0, 0.4, "vp9", 0, (0,), _TIMELINE, _COLORS)
_HEADER = Header("matroska,webm", 0)


def test_a_plain_video_goes_to_the_decoder() -> None:
    """VP9 goes to both devices, H.264 to the GPU only; a correct count in the header is accepted."""
    assert why_not_gpu(_INFO, _HEADER, 1000, 1000, CPU) is None
    assert why_not_gpu(_INFO, Header("matroska,webm", 10), 1000, 1000, GPU) is None
    h264 = replace(_INFO, codec="h264")
    assert why_not_gpu(h264, _HEADER, 1000, 1000, GPU) is None
    assert why_not_gpu(h264, _HEADER, 1000, 1000, CPU) == "codec h264"


@pytest.mark.parametrize(
    ("info", "header", "reason"),
    [
        ({"codec": "mpeg2video"}, {}, "codec"),
        ({"rotation": 90}, {}, "rotation"),
        ({"width": 341}, {}, "odd size"),
        ({"height": 255}, {}, "odd size"),
        ({"timeline": replace(_TIMELINE, damaged=True)}, {}, "cut short"),
        ({"timeline": replace(_TIMELINE, by_pts=False)}, {}, "packets"),
        ({"timeline": replace(_TIMELINE, packet_pts=())}, {}, "packets"),
        ({"timeline": replace(_TIMELINE, packet_pts=(*_PTS, 400))}, {}, "packets"),
        ({"timeline": replace(_TIMELINE, pts=(-40, *_PTS[1:]), packet_pts=(-40, *_PTS[1:]))}, {}, "packets"),
        ({}, {"frames": 12}, "edit list"),
        ({"colors": _COLORS._replace(pixel_format="yuv420p10le")}, {}, "pixel format"),
        *[({"colors": _COLORS._replace(matrix=matrix)}, {}, "colour matrix") for matrix in (0, 1, 3, 4, 7, 8, 9, 10)],
    ],
)
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_what_would_be_decoded_otherwise_stays_away(
    info: dict[str, Any], header: dict[str, Any], reason: str, device: Any
) -> None:
    """Each case would give other frames, other colours, black, or an error that ends the pipeline."""
    assert reason in (
        why_not_gpu(replace(_INFO, **info), _HEADER._replace(**header), 1000, 1000, CPU if device == "cpu" else GPU)
        or ""
    )


def test_limits_of_one_device() -> None:
    """The GPU decoder's range and chroma are not verified; a huge file must not be read into memory."""
    full, dense = (
        replace(_INFO, colors=colors) for colors in (_COLORS._replace(range=FULL), Colors("yuv444p", 6, LIMITED))
    )
    assert why_not_gpu(full, _HEADER, 1000, 1000, CPU) is None
    assert why_not_gpu(full, _HEADER, 1000, 1000, GPU) == "full colour range"
    assert why_not_gpu(dense, _HEADER, 1000, 1000, GPU) == "pixel format yuv444p"
    assert "MiB" in (why_not_gpu(_INFO, _HEADER, MAX_BYTES + 1, 1000, CPU) or "")
    assert "frames of over" in (why_not_gpu(_INFO, _HEADER, 1000, MAX_FRAME_BYTES + 1, GPU) or "")


def test_header_of_a_file(tmp_path: Path) -> None:
    """The count is there if the container has one."""
    for name, codec, expected in (
        ("a.webm", "libvpx-vp9", Header("matroska,webm", 0)),
        ("a.avi", "mjpeg", Header("avi", FRAMES)),
    ):
        (tmp_path / name).write_bytes(chart(Coding("yuv420p"), codec, name[2:], strict="unofficial"))
        assert read_header(str(tmp_path / name), name) == expected


def test_kinds_are_told_apart_by_codec_container_and_size() -> None:
    """Videos that decode at the same speed share a measurement."""
    assert kind_of(_INFO, _HEADER) == kind_of(replace(_INFO, width=640), _HEADER)
    assert kind_of(_INFO, _HEADER) == kind_of(replace(_INFO, width=256, height=340), _HEADER)
    others = [replace(_INFO, codec="h264"), replace(_INFO, width=1920, height=1080)]
    assert len({kind_of(info, _HEADER) for info in [_INFO, *others]}) == 3
    assert kind_of(_INFO, Header("mp4", 0)) != kind_of(_INFO, _HEADER)


_KIND = StreamKind("webm", "vp9", 0)


@pytest.mark.parametrize(
    ("timing", "expected"),
    [(DecodeTiming(1.0, 2.0), True), (DecodeTiming(2.0, 1.0), False), (DecodeTiming(0.0, math.inf), True)],
)
def test_the_faster_one_is_kept(timing: DecodeTiming, expected: bool) -> None:
    """There is one measurement per kind; later timings do not matter."""
    chooser, timings = Chooser(), iter([timing, DecodeTiming(timing.cpu, timing.gpu or 0.0)])
    answers = [chooser.prefers_gpu(_KIND, lambda: next(timings)) for _ in range(5)]
    assert answers == [expected] * 5
    assert chooser.prefers_gpu(_KIND._replace(codec="h264"), lambda: next(timings)) != expected


def test_a_refusal_may_be_the_videos_fault() -> None:
    """One odd video must not exclude a kind from DALI; an unsupported codec must not be tried forever."""
    chooser = Chooser()
    assert not chooser.prefers_gpu(_KIND, lambda: DecodeTiming(None, math.inf))
    assert chooser.prefers_gpu(_KIND, lambda: DecodeTiming(1.0, 2.0))
    chooser, tried = Chooser(), []
    for number in range(MAX_REFUSALS + 3):
        assert not chooser.prefers_gpu(
            _KIND, lambda number=number: tried.append(number) or DecodeTiming(None, math.inf)
        )
    assert tried == list(range(MAX_REFUSALS))


def test_an_unreadable_video_measures_nothing() -> None:
    """The next video of its kind is measured."""
    chooser = Chooser()
    assert not chooser.prefers_gpu(_KIND, lambda: None)
    assert chooser.prefers_gpu(_KIND, lambda: DecodeTiming(1.0, 2.0))


def test_threads_share_one_measurement() -> None:
    """A batch of one kind arrives at once; all must get the same answer."""
    chooser, calls, barrier, answers = Chooser(), [], threading.Barrier(4), []

    def ask() -> None:
        barrier.wait()
        answers.append(chooser.prefers_gpu(_KIND, lambda: calls.append(1) or DecodeTiming(1.0, 2.0)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(calls), answers) == (1, [True] * 4)
