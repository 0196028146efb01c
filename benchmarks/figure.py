"""Line panels and grouped bars as PNG files, the two shapes that the benchmarks' plots take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

# A figure of its own instead of pyplot's: no display is asked for, and none is left open.
from matplotlib.figure import Figure

Series = Mapping[str, Sequence[tuple[float, float]]]


def save_panels(
    path: Path, title: str, x_label: str, panels: Mapping[str, Series], *, logarithmic: bool = False
) -> None:
    """Draw one panel per entry of ``panels``, each from zero up: panel title -> line name -> points (x, y).

    ``logarithmic`` makes both axes so, where what matters is a slope.
    """
    figure = Figure(figsize=(3.8 * len(panels), 3.4), layout="constrained")
    figure.suptitle(title)
    for axes, (name, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for label, points in series.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=label)
        axes.set_title(name)
        axes.set_xlabel(x_label)
        if logarithmic:
            axes.set_xscale("log")
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    _save(figure, path)


def save_bars(path: Path, title: str, y_label: str, groups: Mapping[str, Mapping[str, float]]) -> None:
    """Draw grouped bars with their values: group (on the x axis) -> bar name -> height."""
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    figure = Figure(figsize=(max(6.0, 0.9 + 0.42 * len(names) * len(groups)), 4.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(names)
    for row, name in enumerate(names):
        at = [
            group + (row - (len(names) - 1) / 2) * width for group, bars in enumerate(groups.values()) if name in bars
        ]
        bars = axes.bar(at, [bars[name] for bars in groups.values() if name in bars], width, label=name)
        axes.bar_label(bars, fmt="{:.3g}", fontsize=7)
    axes.set_xticks(range(len(groups)), list(groups), rotation=20, ha="right")
    axes.set_title(title)
    axes.set_ylabel(y_label)
    axes.legend()
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
