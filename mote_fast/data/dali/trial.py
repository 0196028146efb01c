"""Tries single videos in DALI, in another process than batches: one bad video makes a whole pipeline unusable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from mote_fast.data.dali.ready_clips import ReadyClip
from mote_fast.data.dali.routing import DecodeTiming
from mote_fast.data.dali.server import TRIAL_CLIPS, DaliServer
from mote_fast.runtime.workers import WorkerLostError


class Trial:
    """Tests and times single videos in DALI.

    Args:
        ask: sends a request to a ``DaliServer``.
        readers: processes that decode in parallel where DALI does not.
        timed: whether to measure. If not, DALI decodes every video that it accepts, because the caller requested DALI.
    """

    def __init__(self, ask: Callable[[tuple], float | str], readers: int, *, timed: bool) -> None:
        self._ask = ask
        self._readers = readers
        self._timed = timed

    def why_refused(self, clip: ReadyClip) -> str | None:
        """Why DALI refuses a video, or None if it decodes it to frames of the expected shape."""
        result = self._attempt(clip, timed=False)
        return result if isinstance(result, str) else None

    def measure(self, clip: ReadyClip, read: Callable[[], bool]) -> DecodeTiming | None:
        """Time ``TRIAL_CLIPS`` copies of a video, decoded by DALI and by ``read``.

        ``read`` returns whether the video can be read; if DALI fails too, nothing is known about its kind, and None is
        returned.
        """
        dali = self._attempt(clip, self._timed)
        if isinstance(dali, str):
            return DecodeTiming(None, math.inf) if read() else None
        if not self._timed:
            return DecodeTiming(0.0, math.inf)
        start = time.perf_counter()
        read()
        return DecodeTiming(dali, (time.perf_counter() - start) * TRIAL_CLIPS / min(self._readers, TRIAL_CLIPS))

    def _attempt(self, clip: ReadyClip, timed: bool) -> float | str:
        try:
            return self._ask((DaliServer.attempt, clip, timed))
        except WorkerLostError as lost:
            return f"in DALI, {lost}"
