"""The results of the trade-off runs: a Markdown table, a CSV, and figures in the style of the paper's."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from arms import Data, predictions_of
from world.splits import CLOSE_SET, COMBINATIONS, ZERO_SHOT, splits

from mote_fast.analysis.class_accuracy import class_accuracies, most_divided
from mote_fast.analysis.expert_accuracy import expert_accuracies, expert_accuracy_csv
from mote_fast.analysis.plots.canvas import to_png
from mote_fast.analysis.plots.draw_classes import draw_classes
from mote_fast.analysis.plots.draw_experts import draw_experts
from mote_fast.analysis.plots.draw_similarity import draw_similarity
from mote_fast.analysis.plots.draw_tradeoff import draw_trade_off
from mote_fast.analysis.similarity import Similarity, affinity, video_features
from mote_fast.analysis.tables import to_csv
from mote_fast.analysis.tradeoff_points import TradeOffPoint
from mote_fast.analysis.variants import CLIP_MEAN, expert_variants, tower_alone
from mote_fast.evaluation.combine import harmonic_mean, trade_off
from mote_fast.head.modulation import GAMMA
from mote_fast.head.video_head import VideoHead
from mote_fast.runtime.files import write_bytes

# Kind of run -> its name in the report.
NAMES = {"plain": "plain", "experts": "+ experts", "wmr": "+ WMR", "mote": "MoTE (+ MSE)"}
MODULATED = "MoTE, modulated"
PAPERS_GAMMA = str(GAMMA)
# Layers of the arm in the table of other gammas.
GAMMAS_LAYERS = 4
SHOWN_CLASSES = 16


def rows_of(results: Sequence[Mapping[str, Any]], mean: Mapping[str, float]) -> list[dict[str, Any]]:
    """One row per arm, means and deviations over its seeds; first CLIP-Mean, which is not trained."""
    rows = [_row("CLIP-Mean", 0, None, [mean])]
    arms = dict.fromkeys((run["kind"], run["layers"]) for run in results)
    for kind, layers in arms:
        runs = [run for run in results if (run["kind"], run["layers"]) == (kind, layers)]
        rows.append(_row(NAMES[kind], layers, runs[0]["lr"], [run["plain"] for run in runs]))
        if kind == "mote":
            rows.append(_row(MODULATED, layers, runs[0]["lr"], [run["modulated"][PAPERS_GAMMA] for run in runs]))
    return rows


def gamma_rows(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each gamma of the modulation, for MoTE with ``GAMMAS_LAYERS`` layers."""
    runs = [run for run in results if (run["kind"], run["layers"]) == ("mote", GAMMAS_LAYERS)]
    return [
        _row(f"{MODULATED}, gamma {gamma}", GAMMAS_LAYERS, runs[0]["lr"], [run["modulated"][gamma] for run in runs])
        for gamma in runs[0]["modulated"]
        if gamma != PAPERS_GAMMA
    ]


def _row(name: str, layers: int, lr: float | None, runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    values = {each: [run[each] for run in runs] for each in (CLOSE_SET, *ZERO_SHOT)}
    values["HM_ZS"] = [harmonic_mean([run[each] for each in ZERO_SHOT]) for run in runs]
    values["trade-off"] = [trade_off(run[CLOSE_SET], [run[each] for each in ZERO_SHOT]) for run in runs]
    row: dict[str, Any] = {"model": name, "layers": layers, "lr": lr, "seeds": len(runs)}
    for column, each in values.items():
        row[column] = statistics.mean(each)
        row[f"{column} deviation"] = statistics.stdev(each) if len(each) > 1 else 0.0
    return row


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table: mean and deviation over seeds, percent top-1."""
    columns = [CLOSE_SET, *ZERO_SHOT, "HM_ZS", "trade-off"]
    chance = {name: 100 / len(split.classes) for name, split in splits().items()}
    lines = [
        "| model | layers | lr | seeds | " + " | ".join(columns) + " |",
        "|---" * (4 + len(columns)) + "|",
        "| chance | | | | " + " | ".join(f"{chance[each]:.1f}" if each in chance else "" for each in columns) + " |",
    ]
    for row in rows:
        figures = " | ".join(f"{row[each]:.1f} ± {row[f'{each} deviation']:.1f}" for each in columns)
        rate = "" if row["lr"] is None else f"{row['lr']:g}"
        lines.append(f"| {row['model']} | {row['layers']} | {rate} | {row['seeds']} | {figures} |")
    return "\n".join(lines) + "\n"


def write_report(
    folder: Path,
    results: Sequence[Mapping[str, Any]],
    mean: Mapping[str, float],
    head: VideoHead,
    lists: Mapping[str, Data],
) -> None:
    """Write the tables, the CSVs, every run's result and the figures.

    ``head`` is one MoTE of the runs, for experts.csv and the figures of experts.
    """
    rows = rows_of(results, mean)
    table = [*rows, *gamma_rows(results)]
    points = [
        TradeOffPoint(
            row["model"],
            row["layers"],
            "world",
            row[CLOSE_SET],
            row["HM_ZS"],
            row["trade-off"],
            {each: row[each] for each in ZERO_SHOT},
        )
        for row in rows
        if row["model"] in ("plain", NAMES["mote"], MODULATED)
    ]
    variants = expert_variants(head)
    # The tower is frozen, so CLIP-Mean is the tower alone.
    with_mean = [*variants, tower_alone(head)._replace(name=CLIP_MEAN)]
    close = {each.name: predictions_of(each, lists[CLOSE_SET]) for each in with_mean}
    new = {each.name: predictions_of(each, lists[COMBINATIONS]) for each in with_mean}
    names = splits()[COMBINATIONS].labels
    divided = most_divided(class_accuracies({each.name: new[each.name] for each in variants}, names), SHOWN_CLASSES)
    frames = lists[COMBINATIONS].frames.flatten(0, 1)
    views = lists[COMBINATIONS].frames.shape[1]
    with torch.no_grad():
        features = torch.stack([each.features(frames, None) for each in variants])
    output, temporal = (affinity(video_features(each, views)) for each in (features, features - frames))
    similarity = Similarity([each.name for each in variants], output, temporal, len(lists[COMBINATIONS].labels), ())
    experts = expert_accuracies(close, new)
    figures = {
        "figure1b_tradeoff": draw_trade_off(points),
        "figure3_experts": draw_experts(experts, CLOSE_SET, COMBINATIONS),
        "figure4_classes": draw_classes(divided, "unseen combinations on which the experts differ most"),
        "figure7_similarity": draw_similarity(similarity),
    }
    for name, figure in figures.items():
        write_bytes(folder / f"{name}.png", to_png(figure))
    write_bytes(folder / "experts.csv", expert_accuracy_csv(experts).encode())
    write_bytes(folder / "runs.json", (json.dumps(list(results), indent=1) + "\n").encode())
    write_bytes(folder / "results.md", markdown(table).encode())
    write_bytes(folder / "results.csv", to_csv(list(rows[0]), (list(row.values()) for row in table)).encode())
