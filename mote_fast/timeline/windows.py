"""Windows of frames over a clock: which ticks each sees, and a buffer of features that they share."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from mote_fast.data.decoding.presentation import tick_rate
from mote_fast.errors import ConfigError

# Seconds that a window spans where nobody says how many: an action of people takes about that long.
DEFAULT_WINDOW = 2.0

# Windows that begin within the span of one, where nobody says how many.
_WINDOWS_PER_SPAN = 4

# Ticks that a window spans at most; the buffer has a feature for each.
MAX_SPAN = 2**14


@dataclass(frozen=True)
class WindowPlan:
    """Windows of T frames of a clock.

    Attributes:
        rate: ticks of the clock each second.
        frames: T, frames of a window.
        stride: ticks from a window's frame to its next; a window spans ``frames * stride`` ticks.
        hop: ticks from a window to the next.
    """

    rate: Fraction
    frames: int
    stride: int
    hop: int

    @property
    def fps(self) -> float:
        """Ticks of the clock each second."""
        return float(self.rate)

    @property
    def span(self) -> int:
        """Ticks that a window spans."""
        return self.frames * self.stride

    @property
    def seconds(self) -> float:
        """Seconds that a window spans."""
        return float(self.span / self.rate)

    @property
    def hop_seconds(self) -> float:
        """Seconds from a window to the next."""
        return float(self.hop / self.rate)

    def around(self, middle: float) -> tuple[float, float]:
        """The seconds where a window begins and ends whose first and last frames have this middle."""
        start = middle - float(((self.frames - 1) * self.stride + 1) / (2 * self.rate))
        return start, start + self.seconds


def plan_windows(
    frames: int, fps: float | None = None, window: float | None = None, hop: float | None = None
) -> WindowPlan:
    """Plan the windows of a model that takes T ``frames``.

    Args:
        frames: T.
        fps: ticks of the clock each second; None takes T for each window.
        window: seconds that a window spans, rounded so that its T frames lie a whole number of ticks apart; None takes
            T ticks if ``fps`` is given, and ``DEFAULT_WINDOW`` otherwise.
        hop: seconds from a window to the next, rounded to ticks, at least one; None takes a quarter of a window.

    Raises:
        ConfigError: a number is not above 0, a window holds fewer than T ticks or more than ``MAX_SPAN``, or windows
            would leave gaps.
    """
    for name, value in (("fps", fps), ("window", window), ("hop", hop)):
        if value is not None and not (isinstance(value, int | float) and 0 < value < float("inf")):
            raise ConfigError(f"{name} must be a number above 0, got {value!r}")
    if fps is None:
        fps = frames / (window or DEFAULT_WINDOW)
    rate = tick_rate(fps)
    if not rate:
        raise ConfigError(f"fps must be above 0, got {fps}")
    wanted = frames if window is None else window * rate
    stride = max(1, round(wanted / frames))
    if wanted < frames - 0.5:
        raise ConfigError(
            f"a window of {window:g} s holds {float(wanted):.3g} frames at {fps:g} a second, and the model takes "
            f"{frames}: give fps of at least {frames / float(window or 1):g}, or a longer window"
        )
    if stride * frames > MAX_SPAN:
        raise ConfigError(f"a window spans {stride * frames} frames of the clock, over {MAX_SPAN}; give a smaller fps")
    step = max(1, round(stride * frames / _WINDOWS_PER_SPAN if hop is None else hop * rate))
    if step > stride * frames:
        raise ConfigError(f"hop of {hop:g} s is longer than a window; give at most {float(stride * frames / rate):g}")
    return WindowPlan(rate, frames, stride, step)


class WindowBatch(NamedTuple):
    """Windows that became complete.

    Attributes:
        features: [B, T, d], the frame features of each.
        times: the middle of each, in seconds: the mean of its first and last frames' times.
    """

    features: Tensor
    times: list[float]


class FeatureWindows:
    """A buffer of the features of the last frames; each is kept until no window sees it.

    The first window begins at the first frame, and the others follow by hops. ``finish`` adds a window that ends at the
    last frame, if none does, or stretches the frames of a video that is shorter than a window.
    """

    def __init__(self, plan: WindowPlan) -> None:
        self.plan = plan
        self._features: deque[Tensor] = deque(maxlen=plan.span)
        self._times: deque[float] = deque(maxlen=plan.span)
        self._seen = 0
        # Frames that must have been seen for the next window.
        self._due = plan.span

    def push(self, features: Tensor, times: Sequence[float]) -> WindowBatch | None:
        """Take the features [N, d] of the next ticks, and their times in seconds; return the windows that they end."""
        ended: list[tuple[Tensor, float]] = []
        for feature, time in zip(features, times, strict=True):
            self._features.append(feature)
            self._times.append(time)
            self._seen += 1
            if self._seen == self._due:
                ended.append(self._window())
                self._due += self.plan.hop
        return _stacked(ended)

    def finish(self) -> WindowBatch | None:
        """Return the window at the end, if the last one does not end there."""
        if not self._seen or (self._seen >= self.plan.span and self._seen == self._due - self.plan.hop):
            return None
        if self._seen >= self.plan.span:
            return _stacked([self._window()])
        frames = self.plan.frames
        places = [(2 * at + 1) * self._seen // (2 * frames) for at in range(frames)]
        features = torch.stack([self._features[place] for place in places])
        return _stacked([(features, (self._times[0] + self._times[-1]) / 2)])

    def _window(self) -> tuple[Tensor, float]:
        # Evenly spaced from the first tick; what lies behind the last one is as long for every window.
        chosen = range(0, self.plan.span, self.plan.stride)
        first, last = self._times[chosen[0]], self._times[chosen[-1]]
        return torch.stack([self._features[at] for at in chosen]), (first + last) / 2


def _stacked(windows: Sequence[tuple[Tensor, float]]) -> WindowBatch | None:
    if not windows:
        return None
    return WindowBatch(torch.stack([features for features, _ in windows]), [time for _, time in windows])
