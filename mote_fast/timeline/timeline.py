"""The result of a long video, which is shown and written to files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from mote_fast.runtime.files import write_bytes
from mote_fast.timeline.timeline_files import content_of, form_of
from mote_fast.timeline.timeline_values import TimelineValues

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of a file of a timeline.
Form: TypeAlias = Literal["json", "csv", "srt", "vtt", "png", "activitynet"]


class Timeline(TimelineValues):
    """When which label fits a video. Times are seconds of presentation time, from 0 at the first frame.

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

    def save(self, path: str | Path, form: Form | None = None) -> None:
        """Write the timeline to a file, atomically.

        Args:
            path: the file.
            form: "json", of everything; "csv", "srt" or "vtt", of the segments; "png", see ``plot``; "activitynet", the
                JSON that evaluations of ActivityNet and THUMOS read. None takes that of the suffix.

        Raises:
            ConfigError: there is no such form, or the file cannot be written.
            BackendError: matplotlib is missing, which pictures need.
        """
        write_bytes(Path(path), content_of([self], form_of(path, form)))

    def plot(self) -> Figure:
        """Return a figure of matplotlib: the segments as bars, and the level of every window.

        Raises:
            BackendError: matplotlib is missing.
        """
        from mote_fast.timeline.timeline_plot import draw_timeline

        return draw_timeline(self)
