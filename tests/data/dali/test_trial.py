"""Trials of single videos: what is timed, and what causes a refusal. DALI is not needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mote_fast.data.dali import trial as dali_trial
from mote_fast.data.dali.pipeline import ClipInput
from mote_fast.data.dali.routing import DecodeTiming
from mote_fast.data.dali.trial import TRIAL_CLIPS, Trial
from mote_fast.errors import UndecodableVideoError

_FILE = ClipInput(*(np.zeros(1, np.uint8) for _ in ClipInput._fields))
_FRAMES = _FILE._replace(is_encoded=np.array(False))
_FILE = _FILE._replace(is_encoded=np.array(True))


class _Bench:
    """A clock, and pipelines that move it: a file takes 3 s and frames 1 s in each run, the first run 50 s more."""

    def __init__(self) -> None:
        self.now = 0.0
        self.refuses = False

    def build(self, source: Callable[[], Any]) -> Any:
        return _Pipeline(self, source)

    def read(self) -> ClipInput:
        self.now += 0.5
        return _FRAMES


class _Pipeline:
    def __init__(self, bench: _Bench, source: Callable[[], Any]) -> None:
        self._bench = bench
        self._source = source
        self._startup = 50.0

    def run(self) -> tuple[Any, Any]:
        is_encoded = self._source()[0]
        if self._bench.refuses and is_encoded[0]:
            raise RuntimeError("Codec configuration not supported on this GPU")
        self._bench.now += (3.0 if is_encoded[0] else 1.0) + self._startup
        self._startup = 0.0
        return None, _Shapes()


class _Shapes:
    def as_tensor(self) -> torch.Tensor:
        return torch.tensor([[8, 48, 64, 3]], dtype=torch.int32)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> _Bench:
    bench = _Bench()
    monkeypatch.setattr(dali_trial.time, "perf_counter", lambda: bench.now)
    return bench


@pytest.mark.parametrize("readers", [1, 2, 100])
def test_both_ways_are_timed_warm(readers: int, bench: _Bench) -> None:
    """The CPU's time is that of its threads together, and rendering counts for both."""
    timing = Trial(bench.build, readers, timed=True).measure(_FILE, bench.read)
    assert timing == DecodeTiming(3.0, 0.5 * TRIAL_CLIPS / min(readers, TRIAL_CLIPS) + 1.0)


def test_a_refusal_counts_only_for_sound_videos(bench: _Bench) -> None:
    """A video that the CPU cannot read either does not count against the decoder."""
    bench.refuses = True

    def fail() -> ClipInput:
        raise UndecodableVideoError("a.mp4", "damaged")

    for timed in (False, True):
        trial = Trial(bench.build, 1, timed=timed)
        assert trial.measure(_FILE, bench.read) == DecodeTiming(None, math.inf)
        with pytest.raises(UndecodableVideoError):
            trial.measure(_FILE, fail)


def test_without_timing_dali_is_preferred(bench: _Bench) -> None:
    """On the CPU the caller chose DALI; only a refusal excludes it."""
    assert Trial(bench.build, 1, timed=False).measure(_FILE, bench.read) == DecodeTiming(0.0, math.inf)


def test_why_a_video_is_refused(bench: _Bench) -> None:
    """The reason is DALI's message, or the frames that it returned instead of those requested."""
    trial = Trial(bench.build, 1, timed=True)
    assert trial.why_refused(_FILE, (8, 48, 64, 3)) is None
    assert "(8, 48, 64, 3) instead of (9, 48, 64, 3)" in (trial.why_refused(_FILE, (9, 48, 64, 3)) or "")
    bench.refuses = True
    assert "not supported" in (trial.why_refused(_FILE, (8, 48, 64, 3)) or "")
