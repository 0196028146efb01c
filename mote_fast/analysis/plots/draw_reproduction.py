"""Drawing of the paper's figures beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mote_fast.analysis.plots.canvas import new_figure
from mote_fast.evaluation.reproduction import Compared

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_reproduction(compared: Sequence[Compared]) -> Figure:
    """Draw each figure of the paper as a ring and ours as a dot, with the difference beside it, one line each."""
    figure = new_figure(8.0, 1.4 + 0.3 * len(compared))
    axes = figure.subplots()
    places = range(len(compared))
    axes.scatter(
        [each.paper for each in compared], places, s=70, facecolor="none", edgecolor="0.3", label="paper", zorder=2
    )
    measured = [(at, each.paper, each.ours) for at, each in enumerate(compared) if each.ours is not None]
    axes.scatter([ours for *_, ours in measured], [at for at, *_ in measured], s=25, label="here", zorder=3)
    for at, paper, ours in measured:
        place = (max(paper, ours), at)
        text = f"{ours - paper:+.2f}"
        axes.annotate(text, place, xytext=(8, 0), textcoords="offset points", va="center", fontsize="small")
    axes.set_yticks(places, [f"Table {each.table}: {each.row}, {each.data_set}" for each in compared], fontsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("top-1, %")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize="small")
    return figure
