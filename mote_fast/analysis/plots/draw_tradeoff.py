"""Drawing of the trade-off between close-set and zero-shot accuracy (paper Figure 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mote_fast.analysis.plots.canvas import new_figure
from mote_fast.analysis.tradeoff_points import TradeOffPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "oDs^vP*X"

# The lines of equal trade-off score are this many points apart, in percent.
_CONTOUR_STEP = 1.0


def draw_trade_off(points: Sequence[TradeOffPoint]) -> Figure:
    """Draw HM_ZS against close-set accuracy, and each of them against the number of temporal layers.

    Grey lines in the first plot are lines of equal trade-off score.
    """
    names = list(dict.fromkeys(point.series for point in points))
    series = {
        name: sorted((each for each in points if each.series == name), key=lambda each: each.layers) for name in names
    }
    data_set = points[0].data_set
    figure = new_figure(13.0, 4.2)
    scatter, zero_shot, close_set = figure.subplots(1, 3)
    for marker, (name, line) in zip(_cycled(_MARKERS, len(series)), series.items(), strict=True):
        layers = [each.layers for each in line]
        style = {"marker": marker, "label": name, "markersize": 7, "linewidth": 1.5}
        scatter.plot([each.close_set for each in line], [each.hm_zs for each in line], **style)
        for each in line:
            at = (each.close_set, each.hm_zs)
            scatter.annotate(f"{each.layers}", at, xytext=(6, 5), textcoords="offset points", fontsize="small")
        zero_shot.plot(layers, [each.hm_zs for each in line], **style)
        close_set.plot(layers, [each.close_set for each in line], **style)
    scatter.margins(0.18)
    draw_contours(scatter)
    scatter.set_title("trade-off (numbers: temporal layers)", fontsize="medium")
    scatter.set_xlabel(f"{data_set} close-set top-1, %")
    scatter.set_ylabel("HM_ZS, %")
    scatter.legend(fontsize="small")
    for axes, title in ((zero_shot, "HM_ZS"), (close_set, f"{data_set}, close-set top-1")):
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("temporal layers")
        axes.set_ylabel("%")
        axes.set_xticks(sorted({point.layers for point in points}))
        axes.grid(alpha=0.3)
        axes.margins(0.12)
    return figure


def draw_contours(axes: Axes) -> None:
    """Draw lines of equal harmonic mean over the range of the axes."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x, y = np.meshgrid(np.linspace(max(left, 0.1), right, 80), np.linspace(max(bottom, 0.1), top, 80))
    score = 2 * x * y / (x + y)
    step = _CONTOUR_STEP * max(1.0, np.ceil((score.max() - score.min()) / 8))
    levels = np.arange(np.floor(score.min() / step) * step, score.max() + step, step)
    lines = axes.contour(x, y, score, levels=levels, colors="0.75", linewidths=0.8, zorder=0)
    axes.clabel(lines, fmt="%g", fontsize="x-small")


def _cycled(values: Sequence[str], count: int) -> list[str]:
    return [values[at % len(values)] for at in range(count)]
