"""A picture of a timeline: the segments as bars, and the level of every window."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from mote_fast.runtime.extras import required
from mote_fast.runtime.text import visible
from mote_fast.timeline.timeline_values import TimelineValues

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_DOTS_PER_INCH = 150
# Rows of labels; of more, those with the longest segments are shown.
_MOST_ROWS = 20
_LONGEST_NAME = 40


def draw_timeline(timeline: TimelineValues) -> Figure:
    """Draw the segments of each label over time, and below them the levels with their threshold.

    Raises:
        BackendError: matplotlib is missing.
    """
    figures = required("matplotlib.figure", "a plot", "train")
    seconds: dict[int, float] = {}
    for each in timeline.segments:
        seconds[each.index] = seconds.get(each.index, 0.0) + each.end - each.start
    shown = sorted(sorted(seconds, key=lambda index: -seconds[index])[:_MOST_ROWS])
    rows = {index: row for row, index in enumerate(shown)}
    # A plain figure instead of pyplot's: it needs no display and leaves no figure open.
    figure = figures.Figure(figsize=(9, 1.8 + 0.3 * max(1, len(rows))), layout="constrained")
    bars, line = figure.subplots(2, 1, sharex=True, height_ratios=(max(1, len(rows)), 3))
    for each in timeline.segments:
        if each.index in rows:
            bars.barh(
                rows[each.index], each.end - each.start, left=each.start, color="C0", alpha=0.3 + 0.7 * each.score
            )
    bars.set_yticks(list(rows.values()), [visible(timeline.labels[index])[:_LONGEST_NAME] for index in rows])
    bars.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    if not rows:
        bars.text(0.5, 0.5, "none of these", transform=bars.transAxes, ha="center", va="center")
    line.plot(timeline.times, timeline.levels.tolist(), color="C7", linewidth=1)
    if timeline.threshold is not None:
        line.axhline(timeline.threshold, color="C3", linestyle="--", linewidth=1)
    line.set_ylabel("level")
    line.set_xlabel("seconds")
    line.set_xlim(0, timeline.duration or 1)
    for text in figure.findobj(lambda artist: hasattr(artist, "set_parse_math")):
        # A dollar sign in a name is a dollar sign, not a formula.
        text.set_parse_math(False)
    return figure


def png_of(timeline: TimelineValues) -> bytes:
    """Return the picture as the content of a PNG file."""
    buffer = io.BytesIO()
    draw_timeline(timeline).savefig(buffer, format="png", dpi=_DOTS_PER_INCH)
    return buffer.getvalue()
