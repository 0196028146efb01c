"""What is found of a long video: scores over time, and the segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mote_fast.timeline.time_segments import Segment


@dataclass(frozen=True, eq=False)
class TimelineValues:
    """The values of ``Timeline``, which says what each is."""

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
