"""How benchmarks/throughput.py shows its rows: tables as text, and CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from stages.end2end import STEADY
from stages.head import head_name
from stages.measure import FIELDS, Row
from stages.setting import COMPILED, INT8
from stages.tower import tower_name
from stages.workload import RELEASED
from waterfall import CACHED, OURS, SCENARIOS, Parts, shares

# Parts of the path by the workloads that measure them at its sizes.
_PATH = ("decode", "transform", "clip", "head", "text")

_COLUMNS = (
    ("median_ms", "median ms", "{:.4g}"),
    ("p20_ms", "p20", "{:.4g}"),
    ("p80_ms", "p80", "{:.4g}"),
    ("clips_per_s", "clips/s", "{:.4g}"),
    ("ratio", "ratio", "{:.2f}x"),
    ("peak_mib", "peak MiB", "{:.1f}"),
    ("difference", "difference", "{:.0e}"),
    ("cosine", "cosine", "{:.5f}"),
    ("tflops", "TFLOP/s", "{:.3g}"),
    ("of_peak", "of peak", "{:.0%}"),
    ("gb_per_s", "GB/s", "{:.3g}"),
    ("of_bandwidth", "of peak", "{:.0%}"),
)


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Align columns: the first to the left, figures to the right."""
    cells = [list(head), *(list(line) for line in lines)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    text = []
    for line in cells:
        first, *rest = (
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        text.append("  ".join((first, *rest)).rstrip())
    return "\n".join(text)


def describe_rows(rows: Sequence[Row], notes: Mapping[str, str]) -> str:
    """One table a workload, with its note."""
    blocks = []
    for name, group in groupby(rows, key=lambda row: row["workload"]):
        arms = list(group)
        columns = [column for column in _COLUMNS if any(row[column[0]] is not None for row in arms)]
        lines = [[row["arm"], *(_cell(row[key], form) for key, _, form in columns)] for row in arms]
        blocks.append(table([name, *(title for _, title, _ in columns)], lines))
        if notes.get(name):
            blocks[-1] += f"\n  {notes[name]}"
    return "\n\n".join(blocks)


def _cell(value: Any, form: str) -> str:
    return "" if value is None else form.format(value)


def path_seconds(rows: Iterable[Row], frames: int, views: int) -> Parts | None:
    """Seconds of every arm of every part of the path, or None where some part was not measured at its size."""
    wanted = {"clip": tower_name(views * frames), "head": head_name(views)}
    parts: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["stage"] in _PATH and row["workload"] == wanted.get(row["stage"], row["workload"]):
            parts.setdefault(row["stage"], {})[row["arm"]] = row["median_ms"] / 1e3
    return parts if parts.keys() >= set(_PATH) else None


def describe_waterfalls(falls: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """One table a scenario."""
    blocks = []
    for scenario, steps in falls.items():
        lines = [
            [
                step["name"],
                f"{step['seconds']:.3f}",
                f"{step['bought']:.2f}x",
                f"{step['ratio']:.2f}x",
                _cell(step["off_alone"], "{:.3f}"),
            ]
            for step in steps
        ]
        blocks.append(table([f"{scenario}, adding", "seconds", "bought", "in all", "off alone, s"], lines))
    return "\n\n".join(blocks)


def breakdown(parts: Parts, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Where a video's time goes: the parts' shares in both arms, and their sum over what the whole took."""
    whole = {row["arm"]: row["median_ms"] / 1e3 for row in rows if row["workload"] == STEADY}
    found = []
    for arm in (RELEASED, OURS):
        chosen = dict.fromkeys(SCENARIOS["steady state"], arm)
        summed = sum(parts[part][arm] for part in chosen)
        found.append(
            {
                "arm": arm,
                "seconds": {part: parts[part][arm] for part in chosen},
                "shares": shares(parts, chosen),
                "whole_seconds": whole[arm],
                "parts_over_whole": summed / whole[arm],
            }
        )
    return found


def describe_breakdown(found: Sequence[Mapping[str, Any]]) -> str:
    """One line an arm."""
    parts = list(found[0]["shares"])
    lines = [
        [
            each["arm"],
            *(f"{1e3 * each['seconds'][part]:.1f} ms, {each['shares'][part]:.0%}" for part in parts),
            f"{1e3 * each['whole_seconds']:.1f} ms",
            f"{each['parts_over_whole']:.2f}",
        ]
        for each in found
    ]
    return table(["where a video's time goes", *parts, "whole", "parts/whole"], lines)


def starts(parts: Parts, rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """Seconds from a ready model to the first video's scores, its label set included, and the ratio to the baseline."""
    whole = {row["arm"]: row["median_ms"] / 1e3 for row in rows if row["workload"] == STEADY}
    base = parts["text"][RELEASED] + whole[RELEASED]
    ours = {"cold start": parts["text"][OURS] + whole[OURS], "warm start": parts["text"][CACHED] + whole[OURS]}
    return {name: {RELEASED: base, OURS: seconds, "ratio": base / seconds} for name, seconds in ours.items()}


def break_even(rows: Iterable[Row]) -> dict[str, float | None]:
    """Videos after which an arm that prepares for long has won back what it cost; None where it never does."""
    steady = {row["arm"]: row for row in rows if row["workload"] == STEADY}
    found: dict[str, float | None] = {}
    for arm in (each for each in (COMPILED, INT8) if each in steady):
        won = steady[OURS]["median_ms"] - steady[arm]["median_ms"]
        found[arm] = steady[arm]["preparation_ms"] / won if won > 0 else None
    return found


def describe_int8(found: Mapping[str, Any]) -> str:
    """What int8 changes, in two lines."""
    return (
        f"int8 against float32: features' cosine {found['mean_cosine']:.5f} on average, "
        f"{found['lowest_cosine']:.5f} at the lowest\n{found['rankings']} rankings of {found['labels']} labels: "
        f"same best label in {found['same_top1']:.0%}, {found['top5_overlap']:.0%} of the top five shared "
        "(random weights and labels)"
    )


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as they are in the JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
