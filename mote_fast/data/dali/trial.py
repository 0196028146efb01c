"""Single videos tried out in a pipeline of their own, as one bad video makes a whole pipeline useless."""

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

# Clips that a measurement decodes at once: enough to keep a GPU's decoders busy.
TRIAL_CLIPS = 8


class Trial:
    """Tries videos out.

    Args:
        build: makes a pipeline for batches of up to ``TRIAL_CLIPS``, given its source.
        readers: threads that decode at a time where DALI does not.
        timed: whether to measure. Otherwise DALI is preferred wherever it takes the video, as the caller asked for it.
    """

    def __init__(self, build: Callable[[Callable[[], Columns]], Pipeline], readers: int, *, timed: bool) -> None:
        self._build = build
        self._readers = readers
        self._timed = timed

    def why_refused(self, item: ClipInput, shape: tuple[int, ...]) -> str | None:
        """What DALI says against a video, or None if it takes it and decodes frames of ``shape``, [U, H, W, 3]."""
        try:
            _, shapes = self._build(_Repeat([item])).run()
        except DALI_ERRORS as error:
            return one_line(error)
        found = tuple(torch.from_dlpack(shapes.as_tensor())[0].tolist())
        return None if found == shape else f"it gives frames of {found} instead of {shape}"

    def measure(self, item: ClipInput, read: Callable[[], ClipInput]) -> DecodeTiming:
        """Time ``TRIAL_CLIPS`` copies of a video, as DALI decodes it and as ``read`` does.

        Raises:
            VideoError: what ``read`` raises.
        """
        try:
            if not self._timed:
                self._build(_Repeat([item])).run()
                return DecodeTiming(0.0, math.inf)
            dali = self._seconds(item)
        except DALI_ERRORS:
            # Raises where the video is at fault, and says nothing of its kind.
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
        # Without a stream to go by, the outputs are complete when they come.
        pipeline.run()
        return time.perf_counter() - start


class _Repeat:
    """A source of the same batch for ever."""

    def __init__(self, items: list[ClipInput]) -> None:
        self._columns = columns(items)

    def __call__(self) -> Columns:
        return self._columns
