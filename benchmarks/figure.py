"""The plots of a run's rows: bars of one metric, waterfalls, and lines over the sizes of a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

# A figure of its own instead of pyplot's: no display is asked for, and none is left open.
from matplotlib.figure import Figure
from rows import Row

# Bar name -> its length and what is written at its end.
Bars: TypeAlias = Mapping[str, tuple[float, str]]


def bars(rows: Sequence[Row], metric: str) -> Figure:
    """A bar for every case, size and arm with the metric; ratios start at one on a logarithmic axis."""
    found = {
        f"{row.case}{'' if row.x is None else f' {row.x:g}'}: {row.arm}": (row.median, f"{row.median:.3g} {row.unit}")
        for row in rows
        if row.metric == metric
    }
    return _draw_bars({metric: found}, ratios=metric == "ratio")


def waterfalls(rows: Sequence[Row]) -> Figure:
    """A panel for every case whose arms add up: its time, and the gain of each arm."""
    panels: dict[str, dict[str, tuple[float, str]]] = {}
    bought = {(row.case, row.arm): f"{row.median:.2f}x" for row in rows if row.metric == "bought"}
    for row in rows:
        if row.metric == "time" and any(case == row.case for case, _ in bought):
            text = bought.get((row.case, row.arm), "")
            panels.setdefault(f"{row.case}, {row.unit}", {})[row.arm] = (row.median, text)
    return _draw_bars(panels)


def _draw_bars(panels: Mapping[str, Bars], *, ratios: bool = False) -> Figure:
    longest = max(map(len, panels.values()), default=1)
    figure = Figure(figsize=(max(9.0, 5.2 * len(panels)), 1.2 + 0.24 * longest), layout="constrained")
    start = 1.0 if ratios else 0.0
    for at, (title, each) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), at, title=title, xscale="log" if ratios else "linear")
        drawn = axes.barh(range(len(each)), [length - start for length, _ in each.values()], left=start)
        axes.bar_label(drawn, [text for _, text in each.values()], fontsize=7, padding=2)
        axes.set_yticks(range(len(each)), list(each), fontsize=7)
        axes.margins(x=0.15, y=0.02)
        axes.invert_yaxis()
    return figure


def lines(rows: Sequence[Row], metrics: Sequence[str], *, logarithmic: bool = False) -> Figure:
    """A panel for every case and metric, a line an arm, from zero up; logarithmic to show a slope."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        # Nothing measurable has no place on a logarithmic axis.
        if row.metric in metrics and row.x is not None and (row.median > 0 or not logarithmic):
            panel = panels.setdefault(f"{row.case}\n{row.metric}, {row.unit}", {})
            panel.setdefault(row.arm, []).append((row.x, row.median))
    figure = Figure(figsize=(3.8 * max(len(panels), 1), 3.4), layout="constrained")
    for at, (title, arms) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), at, title=title)
        for arm, points in arms.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=arm)
        axes.set(xscale="log", yscale="log") if logarithmic else axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    return figure
