"""Drawing of per-class accuracy (paper Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mote_fast.analysis.class_accuracy import ClassAccuracy
from mote_fast.analysis.plots.canvas import colors_of, marker_of, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Length of a class name beside its line, characters.
_NAME_LENGTH = 36


def draw_classes(rows: Sequence[ClassAccuracy], title: str) -> Figure:
    """Draw one line for each class, from its worst variant to its best, with a point for every variant.

    Args:
        rows: the classes, from the top down; at least one.
        title: title of the plot.
    """
    variants = list(rows[0].top1)
    colors = colors_of(variants)
    figure = new_figure(8.0, 1.5 + 0.3 * len(rows))
    axes = figure.subplots()
    axes.set_title(title, fontsize="medium")
    places = range(len(rows))
    for place in places[::2]:
        axes.axhspan(place - 0.5, place + 0.5, color="0.96", zorder=0)
    axes.hlines(
        places,
        [min(row.top1.values()) for row in rows],
        [max(row.top1.values()) for row in rows],
        color="0.8",
        linewidth=5,
        zorder=1,
    )
    # Each expert has its own height within the line, so that equal experts do not hide each other.
    for at, variant in enumerate(variants):
        offset = 0.5 * (at / max(1, len(variants) - 1) - 0.5)
        axes.scatter(
            [row.top1[variant] for row in rows],
            [place + offset for place in places],
            s=34,
            color=colors[variant],
            marker=marker_of(variant),
            edgecolor="white",
            linewidth=0.6,
            label=variant,
            zorder=3,
        )
    axes.set_yticks(list(places), [f"{_shortened(row.name)} ({row.videos})" for row in rows], fontsize="small")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-3, 103)
    axes.set_xlabel("top-1, % (in brackets: videos of the class)")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=min(6, len(variants)), fontsize="small", frameon=False)
    return figure


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"
