"""Reads a live source by a process, and opens it again after an interruption."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator
from typing import NamedTuple

from torch import Tensor

from mote_fast.data.decoding.video_info import MAX_MEMORY
from mote_fast.data.live.live_reader import LiveFrames, LiveRequest, LiveServer
from mote_fast.errors import ConfigError, MoteError, UndecodableVideoError, VideoError
from mote_fast.runtime.workers import WithTensor, WorkerLostError, WorkerPool

# Seconds until a source must have been opened, and between two frames of it; a process that takes longer is killed.
OPEN_SECONDS = 15.0
SILENT_SECONDS = 10.0

# Seconds before the source is opened again: the first time, and at most; each time twice as many.
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0


class LiveBatch(NamedTuple):
    """Frames of a live source.

    Attributes:
        crops: uint8 [N, 3, S, S], N at least 1.
        ticks: of each frame, ascending: ticks of the clock since the first frame of the source.
        arrived: when the last of them came, by ``time.monotonic``.
        dropped: frames dropped so far, because the model was slower.
    """

    crops: Tensor
    ticks: list[int]
    arrived: float
    dropped: int


class Interruption(NamedTuple):
    """A live source was interrupted, and is opened again.

    Attributes:
        time: seconds since the first frame, when it was noticed.
        reason: why.
    """

    time: float
    reason: str


def read_live(request: LiveRequest, retry_seconds: float = math.inf) -> Generator[LiveBatch | Interruption]:
    """Yield the frames of a live source as they come, and each interruption once.

    An interruption is an end of the stream, an error, a crash of the decoder, or ``SILENT_SECONDS`` without a frame.
    The source is then opened again, after waits that double. A source that has an end, as a file at an address, is over
    when that is reached.

    Args:
        request: what to read.
        retry_seconds: seconds without a frame after which it is not opened again; 0 opens it once.

    Raises:
        VideoError: the source cannot be opened at first, or not again within ``retry_seconds``.
        BackendError: a process cannot be started here.
        ConfigError: ``retry_seconds`` is below 0.
    """
    if not retry_seconds >= 0:
        raise ConfigError(f"retry_seconds must be at least 0, got {retry_seconds}")
    return _read(request, retry_seconds)


def _read(request: LiveRequest, retry_seconds: float) -> Generator[LiveBatch | Interruption]:
    began, base, last_tick, dropped = 0.0, 0, -1, 0
    lost_at = math.inf
    wait = _FIRST_WAIT
    while True:
        reason, lost_here = "", 0
        try:
            with contextlib.closing(_Connection(request)) as connection:
                is_first = True
                for found in connection.batches():
                    if is_first:
                        # The clock goes on through interruptions.
                        here = found.ticks[-1]
                        began = began or found.arrived - float(here / request.rate)
                        base = round((found.arrived - began) * request.rate) - here
                        base = max(base, last_tick + 1 - found.ticks[0])
                        is_first = False
                    lost_at, wait = math.inf, _FIRST_WAIT
                    lost_here = found.dropped
                    ticks = [base + tick for tick in found.ticks]
                    last_tick = ticks[-1]
                    yield LiveBatch(found.crops, ticks, found.arrived, dropped + lost_here)
            return
        except VideoError as error:
            if not began:
                raise
            reason, failure = error.reason, error
        dropped += lost_here
        now = time.monotonic()
        if lost_at == math.inf:
            lost_at = now
            yield Interruption(now - began, reason)
        left = lost_at + retry_seconds - time.monotonic()
        if left <= 0:
            raise failure
        time.sleep(min(wait, left))
        wait = min(2 * wait, _LONGEST_WAIT)


class _Connection:
    """A process that reads the source from one opening to its end."""

    def __init__(self, request: LiveRequest) -> None:
        self._label = request.address.label
        self._pool = WorkerPool(LiveServer(), 1, OPEN_SECONDS, memory_limit=MAX_MEMORY)
        try:
            self._run(request, f"it cannot be opened within {OPEN_SECONDS:g} s")
        except BaseException:
            self.close()
            raise

    def batches(self) -> Generator[LiveFrames]:
        """Yield what comes, and end with the source; raise ``UndecodableVideoError`` where it is interrupted."""
        silent = f"no frame for {SILENT_SECONDS:g} s"
        heard = time.monotonic()
        while True:
            answer = self._run(None, silent)
            assert answer is not None
            found: LiveFrames = answer.value._replace(crops=answer.tensor)
            if found.ticks:
                yield found
                heard = time.monotonic()
            elif found.complete:
                return
            elif found.ended is not None or time.monotonic() - heard > SILENT_SECONDS:
                raise UndecodableVideoError(self._label, found.ended or silent)

    def close(self) -> None:
        self._pool.close()

    def _run(self, task: LiveRequest | None, late: str) -> WithTensor | None:
        try:
            return self._pool.run(task)
        except WorkerLostError as lost:
            raise UndecodableVideoError(self._label, late if lost.timed_out else f"reading it {lost}") from None
        except MoteError:
            raise
        except RuntimeError as error:
            # An error that no one foresaw.
            last = str(error).strip().rpartition("\n")[2]
            raise UndecodableVideoError(self._label, f"reading it failed: {last[:240]}") from None
