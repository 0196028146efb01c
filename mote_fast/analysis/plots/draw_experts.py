"""Drawing of expert-wise accuracy (paper Figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mote_fast.analysis.expert_accuracy import ExpertAccuracy
from mote_fast.analysis.plots.canvas import colors_of, marker_of, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_experts(rows: Sequence[ExpertAccuracy], close_set: str, zero_shot: str) -> Figure:
    """Draw close-set against zero-shot accuracy as points, and both as bars.

    Args:
        rows: one for each variant.
        close_set: name of the close-set list.
        zero_shot: name of the zero-shot list.
    """
    colors = colors_of([row.variant for row in rows])
    figure = new_figure(11.0, 4.4)
    figure.suptitle("Each expert alone, the merged model, and CLIP without temporal layers")
    points, bars = figure.subplots(1, 2, width_ratios=(1.0, 1.25))
    for row in rows:
        points.scatter(
            row.close_set.top1,
            row.zero_shot.top1,
            s=80,
            color=colors[row.variant],
            marker=marker_of(row.variant),
            edgecolor="white",
            label=row.variant,
            zorder=3,
        )
    points.margins(0.15)
    points.set_xlabel(f"close-set top-1 on {close_set}, %")
    points.set_ylabel(f"zero-shot top-1 on {zero_shot}, %")
    points.grid(alpha=0.3)
    points.legend(fontsize="small")
    width = 0.85 / len(rows)
    for at, row in enumerate(rows):
        offset = (at - (len(rows) - 1) / 2) * width
        values = (row.close_set.top1, row.zero_shot.top1)
        drawn = bars.bar([offset, 1 + offset], values, width * 0.92, color=colors[row.variant], label=row.variant)
        bars.bar_label(drawn, fmt="{:.1f}", fontsize="x-small", padding=2)
    bars.set_xticks([0, 1], [f"close-set\n{close_set}", f"zero-shot\n{zero_shot}"])
    bars.set_ylabel("top-1, %")
    bars.margins(y=0.12)
    bars.grid(axis="y", alpha=0.3)
    bars.set_axisbelow(True)
    return figure
