"""Trials of single videos: what is timed, and what causes a refusal. No decoder is needed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mote_fast.data.decoding.colors import LIMITED, SMPTE170M, Colors
from mote_fast.data.gpu import trial as gpu_trial
from mote_fast.data.gpu.decode_server import TRIAL_CLIPS, DecodeServer, ReadyClip, StreamKind
from mote_fast.data.gpu.routing import DecodeTiming
from mote_fast.data.gpu.trial import Trial
from mote_fast.data.transforms import Box, Geometry
from mote_fast.runtime.workers import WorkerLostError

_NUMBERS, _COLORS = np.zeros(1, np.int32), Colors("yuv420p", SMPTE170M, LIMITED)
_SHAPE, _GEOMETRY = (8, 48, 64, 3), Geometry((48, 64), (Box(0, 0, 48, 48),))
_CLIP = ReadyClip(
    *(0, 0, "a.mp4", StreamKind("mov", "h264", 0), _NUMBERS, _NUMBERS, _COLORS, _SHAPE, _GEOMETRY, 0),
    seconds=((0.0,) * 8, 0.01),
)


class _Bench:
    """A clock, a decoder that takes 3 s or refuses, and a reader that takes half a second."""

    def __init__(self) -> None:
        self.now = 0.0
        self.refusal = ""
        self.dies = False
        self.readable = True

    def ask(self, request: tuple) -> float | str:
        assert request[:2] == (DecodeServer.attempt, _CLIP)
        if self.dies:
            raise WorkerLostError("its process died (SIGSEGV)", timed_out=False)
        return self.refusal or 3.0

    def read(self) -> bool:
        self.now += 0.5
        return self.readable


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> _Bench:
    bench = _Bench()
    monkeypatch.setattr(gpu_trial.time, "perf_counter", lambda: bench.now)
    return bench


@pytest.mark.parametrize("readers", [1, 2, 100])
def test_both_ways_are_timed(readers: int, bench: _Bench) -> None:
    """The CPU's time is that of its processes together."""
    timing = Trial(bench.ask, readers, timed=True).measure(_CLIP, bench.read)
    assert timing == DecodeTiming(3.0, 0.5 * TRIAL_CLIPS / min(readers, TRIAL_CLIPS))


@pytest.mark.parametrize("timed", [False, True])
def test_a_refusal_counts_only_for_sound_videos(bench: _Bench, timed: bool) -> None:
    """A video that the CPU cannot read either does not count against the decoder."""
    trial = Trial(bench.ask, 1, timed=timed)
    for bench.refusal, bench.dies in (("Codec configuration not supported", False), ("", True)):
        bench.readable = True
        assert trial.measure(_CLIP, bench.read) == DecodeTiming(None, math.inf)
        bench.readable = False
        assert trial.measure(_CLIP, bench.read) is None


def test_without_timing_the_decoder_is_preferred(bench: _Bench) -> None:
    """On the CPU the caller asked for the decoder; only a refusal excludes it."""
    assert Trial(bench.ask, 1, timed=False).measure(_CLIP, bench.read) == DecodeTiming(0.0, math.inf)


def test_why_a_video_is_refused(bench: _Bench) -> None:
    """The reason is the decoder's message, or the end of its process."""
    trial = Trial(bench.ask, 1, timed=True)
    assert trial.why_refused(_CLIP) is None
    bench.refusal = "not supported"
    assert trial.why_refused(_CLIP) == "not supported"
    bench.dies = True
    assert trial.why_refused(_CLIP) == "in the decoder, its process died (SIGSEGV)"
