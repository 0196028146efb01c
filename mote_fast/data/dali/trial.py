"""Tries single videos in a separate pipeline, because one bad video makes a whole pipeline unusable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from mote_fast.data.dali.pipeline import DALI_ERRORS, ClipInput, Columns, columns
from mote_fast.data.dali.routing import DecodeTiming
from mote_fast.errors import one_line

if TYPE_CHECKING:
    from nvidia.dali.pipeline import Pipeline

# Clips decoded at once in a measurement: enough to keep a GPU's decoders busy.
TRIAL_CLIPS = 8


class Trial:
    """Tests and times single videos in DALI.

    Args:
        build: makes a pipeline for batches of up to ``TRIAL_CLIPS``, given its source.
        readers: threads that decode in parallel where DALI does not.
        timed: whether to measure. If not, DALI decodes every video that it accepts, because the caller requested DALI.
    """

    def __init__(self, build: Callable[[Callable[[], Columns]], Pipeline], readers: int, *, timed: bool) -> None:
        self._build = build
        self._readers = readers
        self._timed = timed

    def why_refused(self, item: ClipInput, shape: tuple[int, ...]) -> str | None:
        """Why DALI refuses a video, or None if it decodes it to frames of ``shape``, [U, H, W, 3]."""
        try:
            _, shapes = self._build(_Repeat([item])).run()
        except DALI_ERRORS as error:
            return one_line(error)
        found = tuple(torch.from_dlpack(shapes.as_tensor())[0].tolist())
        return None if found == shape else f"it gives frames of {found} instead of {shape}"

    def measure(self, item: ClipInput, read: Callable[[], ClipInput]) -> DecodeTiming:
        """Time ``TRIAL_CLIPS`` copies of a video, decoded by DALI and by ``read``.

        Raises:
            VideoError: ``read`` raised it.
        """
        try:
            if not self._timed:
                self._build(_Repeat([item])).run()
                return DecodeTiming(0.0, math.inf)
            dali = self._seconds(item)
        except DALI_ERRORS:
            # Raises if the video itself is at fault; its kind is then not judged.
            read()
            return DecodeTiming(None, math.inf)
        start = time.perf_counter()
        decoded = read()
        reading = (time.perf_counter() - start) * TRIAL_CLIPS / min(self._readers, TRIAL_CLIPS)
        return DecodeTiming(dali, reading + self._seconds(decoded))

    def _seconds(self, item: ClipInput) -> float:
        pipeline = self._build(_Repeat([item] * TRIAL_CLIPS))
        # The first run sets decoders up and fills memory pools.
        pipeline.run()
        start = time.perf_counter()
        # No stream is given, so the outputs are complete on return.
        pipeline.run()
        return time.perf_counter() - start


class _Repeat:
    """Yields the same batch forever."""

    def __init__(self, items: list[ClipInput]) -> None:
        self._columns = columns(items)

    def __call__(self) -> Columns:
        return self._columns
