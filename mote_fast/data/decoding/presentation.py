"""Presentation times: when each frame of a video is shown, and which frame is shown at the ticks of a clock."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction

from mote_fast.data.decoding.video_info import VideoInfo
from mote_fast.errors import UndecodableVideoError

# More ticks than any real video has: 36 hours at 8 a second. A header can state any time for its last frame.
MAX_TICKS = 2**20


def tick_rate(fps: float | Fraction) -> Fraction:
    """The ticks of a clock each second, of which 29.97 is 2997/100."""
    return Fraction(fps).limit_denominator(10**6)


def frames_at_ticks(info: VideoInfo, rate: Fraction) -> list[int]:
    """The index of the frame that is shown at each tick of a clock with ``rate`` ticks a second.

    Tick k stands for the time from k to k + 1 over the rate, in seconds since the first frame is shown, and takes the
    frame that is shown in the middle of it. The comparison is exact, whatever the file's time base is.

    Raises:
        UndecodableVideoError: the file does not say how long its frames are shown, or shows them for over ``MAX_TICKS``
            ticks.
    """
    starts, unit = _starts(info)
    ticks = max(1, math.ceil(Fraction(info.duration) * rate - Fraction(1, 2)))
    if ticks > MAX_TICKS:
        raise UndecodableVideoError(
            info.path, f"lasts {info.duration / 3600:.0f} hours, over {MAX_TICKS} ticks of a clock of {rate} a second"
        )
    # Of one tick, in units of the starts.
    length = 1 / (rate * unit)
    middle, step, denominator = length.numerator, 2 * length.numerator, 2 * length.denominator
    return [max(0, bisect_right(starts, (middle + tick * step) // denominator) - 1) for tick in range(ticks)]


def _starts(info: VideoInfo) -> tuple[Sequence[int], Fraction]:
    """The times at which the frames begin to be shown, from 0, and their unit in seconds."""
    pts = info.timeline.pts
    known = [stamp for stamp in pts if stamp is not None]
    if info.timeline.by_pts:
        return [stamp - known[0] for stamp in known], info.timeline.time_base
    if not info.fps and info.num_frames > 1:
        raise UndecodableVideoError(info.path, "does not say when its frames are shown; re-encode it as MP4")
    return range(info.num_frames), 1 / Fraction(info.fps) if info.fps else Fraction(1)
