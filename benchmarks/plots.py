"""The plots of benchmarks/throughput.py: ratios by workload and arm, and the waterfalls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from stages.measure import Row
from stages.workload import RELEASED


def plot_ratios(rows: Sequence[Row], path: Path) -> None:
    """Ratios to the baseline arm, one bar an arm; logarithmic, for a cache is hundreds of times as fast."""
    bars = {
        f"{row['workload']}: {row['arm']}": row["ratio"]
        for row in rows
        if row["ratio"] is not None and row["arm"] != RELEASED
    }
    figure = Figure(figsize=(9, 1.2 + 0.24 * len(bars)), layout="constrained")
    axes = figure.subplots()
    drawn = axes.barh(range(len(bars)), [ratio - 1 for ratio in bars.values()], left=1)
    axes.bar_label(drawn, [f"{ratio:.2f}x" for ratio in bars.values()], fontsize=7, padding=2)
    axes.set_yticks(range(len(bars)), list(bars), fontsize=7)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_title("Times as fast as the released recipe")
    _save(figure, path)


def plot_waterfalls(falls: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Seconds after each optimisation, from the released recipe down, a panel a scenario; bars say what each buys."""
    figure = Figure(figsize=(5.2 * len(falls), 4), layout="constrained")
    for axes, (scenario, steps) in zip(figure.subplots(1, len(falls), squeeze=False)[0], falls.items(), strict=True):
        drawn = axes.barh(range(len(steps)), [step["seconds"] for step in steps])
        axes.bar_label(drawn, [f"{step['bought']:.2f}x" for step in steps], fontsize=7, padding=2)
        axes.set_yticks(range(len(steps)), [step["name"] for step in steps], fontsize=8)
        axes.margins(x=0.15)
        axes.invert_yaxis()
        axes.set_xlabel("seconds")
        axes.set_title(f"{scenario}: {steps[-1]['ratio']:.1f}x in all")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
