"""What is found of a long video: scores over time, and the segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mote_fast.timeline.time_segments import Segment


@dataclass(frozen=True, eq=False)
class TimelineValues:
    """The values of ``Timeline``. Times are seconds of presentation time, from 0 at the first frame.

    Attributes:
        video: its path; "<bytes>" or "<frames>" for what has none.
        duration: of the video.
        labels: C names, as given.
        segments: by their start.
        times: the middle of each of W windows.
        scores: float32 [W, C], the probability of each label in each window alone, not smoothed.
        cosines: float32 [W, C], of which the scores are the softmax times the model's scale.
        levels: float32 [W], what is compared with ``threshold``, smoothed: the cosine of the best label, less the mean
            cosine with the classes of fine-tuning, or less the largest one with what competes with the labels.
        threshold: windows of a smaller level have no label; None if every window has one.
        rejection: how the threshold was found, in words.
        fps: ticks of the clock each second, on which frames were taken.
        window: seconds that a window spans.
        hop: seconds from a window to the next.
        replaced_frames: frames that could not be decoded and were replaced by their nearest neighbors.
    """

    video: str
    duration: float
    labels: Sequence[str]
    segments: Sequence[Segment]
    times: Sequence[float]
    scores: Tensor
    cosines: Tensor
    levels: Tensor
    threshold: float | None
    rejection: str
    fps: float
    window: float
    hop: float
    replaced_frames: int = 0

    def to_dict(self, *, windows: bool = True) -> dict[str, Any]:
        """Return the values by their names, which JSON can hold; the windows' times and scores only if asked for."""
        found: dict[str, Any] = {
            "video": self.video,
            "duration": self.duration,
            "labels": list(self.labels),
            "segments": [each.to_dict() for each in self.segments],
            "threshold": self.threshold,
            "rejection": self.rejection,
            "fps": self.fps,
            "window": self.window,
            "hop": self.hop,
            "replaced_frames": self.replaced_frames,
        }
        if windows:
            found |= {"times": list(self.times), "scores": self.scores.tolist(), "levels": self.levels.tolist()}
        return found
