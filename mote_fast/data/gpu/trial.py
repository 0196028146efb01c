"""Tries single videos in a GPU's decoder: one bad video may make a whole pipeline unusable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from mote_fast.data.gpu.decode_server import TRIAL_CLIPS, DecodeServer, ReadyClip
from mote_fast.data.gpu.routing import DecodeTiming
from mote_fast.runtime.workers import WorkerLostError


class Trial:
    """Tests and times single videos in a GPU's decoder.

    Args:
        ask: sends a request to a ``DecodeServer``.
        readers: processes that decode in parallel on the CPU.
        timed: whether to measure. If not, the decoder gets every video that it accepts: the caller asked for it.
    """

    def __init__(self, ask: Callable[[tuple], float | str], readers: int, *, timed: bool) -> None:
        self._ask = ask
        self._readers = readers
        self._timed = timed

    def why_refused(self, clip: ReadyClip) -> str | None:
        """Why the decoder refuses a video, or None if it decodes it to frames of the expected shape."""
        result = self._attempt(clip, timed=False)
        return result if isinstance(result, str) else None

    def measure(self, clip: ReadyClip, read: Callable[[], bool]) -> DecodeTiming | None:
        """Time ``TRIAL_CLIPS`` copies of a video, decoded by the GPU's decoder and by ``read``.

        ``read`` returns whether the video can be read; if the decoder fails too, nothing is known about its kind, and
        None is returned.
        """
        gpu = self._attempt(clip, self._timed)
        if isinstance(gpu, str):
            return DecodeTiming(None, math.inf) if read() else None
        if not self._timed:
            return DecodeTiming(0.0, math.inf)
        start = time.perf_counter()
        read()
        return DecodeTiming(gpu, (time.perf_counter() - start) * TRIAL_CLIPS / min(self._readers, TRIAL_CLIPS))

    def _attempt(self, clip: ReadyClip, timed: bool) -> float | str:
        try:
            return self._ask((DecodeServer.attempt, clip, timed))
        except WorkerLostError as lost:
            return f"in the decoder, {lost}"
