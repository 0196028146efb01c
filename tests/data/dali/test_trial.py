"""Trials of single videos: what is timed, and what causes a refusal. DALI is not needed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mote_fast.data.dali import trial as dali_trial
from mote_fast.data.dali.pipeline import ClipInput
from mote_fast.data.dali.ready_clips import ReadyClip
from mote_fast.data.dali.routing import DecodeTiming, StreamKind
from mote_fast.data.dali.server import TRIAL_CLIPS, DaliServer
from mote_fast.data.dali.trial import Trial
from mote_fast.data.transforms import Box, Geometry
from mote_fast.runtime.workers import WorkerLostError

_ITEM = ClipInput(*(np.zeros(1, np.uint8) for _ in ClipInput._fields))
_SHAPE, _GEOMETRY = (8, 48, 64, 3), Geometry((48, 64), (Box(0, 0, 48, 48),))
_CLIP = ReadyClip(0, 0, "a.mp4", StreamKind("mov", "h264", 0), _ITEM, _SHAPE, _GEOMETRY, 0, ((0.0,) * 8, 0.01))


class _Bench:
    """A clock, a DALI that takes 3 s or refuses, and a reader that takes half a second."""

    def __init__(self) -> None:
        self.now = 0.0
        self.refusal = ""
        self.dies = False
        self.readable = True

    def ask(self, request: tuple) -> float | str:
        assert request[:2] == (DaliServer.attempt, _CLIP)
        if self.dies:
            raise WorkerLostError("its process died (SIGSEGV)", timed_out=False)
        return self.refusal or 3.0

    def read(self) -> bool:
        self.now += 0.5
        return self.readable


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> _Bench:
    bench = _Bench()
    monkeypatch.setattr(dali_trial.time, "perf_counter", lambda: bench.now)
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


def test_without_timing_dali_is_preferred(bench: _Bench) -> None:
    """On the CPU the caller chose DALI; only a refusal excludes it."""
    assert Trial(bench.ask, 1, timed=False).measure(_CLIP, bench.read) == DecodeTiming(0.0, math.inf)


def test_why_a_video_is_refused(bench: _Bench) -> None:
    """The reason is DALI's message, or the end of its process."""
    trial = Trial(bench.ask, 1, timed=True)
    assert trial.why_refused(_CLIP) is None
    bench.refusal = "not supported"
    assert trial.why_refused(_CLIP) == "not supported"
    bench.dies = True
    assert trial.why_refused(_CLIP) == "in DALI, its process died (SIGSEGV)"
