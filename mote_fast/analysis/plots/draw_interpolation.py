"""Drawing of close-set against zero-shot accuracy over the share of the fine-tuned image tower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mote_fast.analysis.interpolation import SharePoint
from mote_fast.analysis.plots.canvas import new_figure
from mote_fast.analysis.plots.draw_tradeoff import draw_contours

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_interpolation(points: Sequence[SharePoint], close_set: str, zero_shot: str) -> Figure:
    """Draw zero-shot against close-set accuracy, and both and the trade-off score against the share.

    Grey lines in the first plot are lines of equal trade-off score.

    Args:
        points: the shares, ascending.
        close_set: name of the list of classes of fine-tuning.
        zero_shot: name of the list of other classes.
    """
    figure = new_figure(9.6, 4.2)
    scatter, curves = figure.subplots(1, 2)
    x, y = [each.close_set.top1 for each in points], [each.zero_shot.top1 for each in points]
    scatter.plot(x, y, marker="o", markersize=5, linewidth=1.2)
    for each in points:
        at = (each.close_set.top1, each.zero_shot.top1)
        scatter.annotate(f"{each.share:g}", at, xytext=(5, 4), textcoords="offset points", fontsize="small")
    scatter.margins(0.15)
    if all(value == value for value in (*x, *y)):
        draw_contours(scatter)
    scatter.set_title("trade-off (numbers: share of the tuned tower)", fontsize="medium")
    scatter.set_xlabel(f"{close_set}, close-set top-1, %")
    scatter.set_ylabel(f"{zero_shot}, zero-shot top-1, %")
    shares = [each.share for each in points]
    curves.plot(shares, x, marker="o", label=f"{close_set}, close-set")
    curves.plot(shares, y, marker="s", label=f"{zero_shot}, zero-shot")
    curves.plot(shares, [each.score for each in points], marker="^", color="0.5", label="trade-off")
    curves.set_title("top-1 over the share", fontsize="medium")
    curves.set_xlabel("share of the tuned image tower")
    curves.set_ylabel("%")
    curves.grid(alpha=0.3)
    curves.legend(fontsize="small")
    return figure
