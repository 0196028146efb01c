"""Time the expert operators and the head's training step against the eager per-expert implementation.

    python benchmarks/kernels.py --json benchmarks/results/kernels.json --csv benchmarks/results/kernels.csv

Arms take turns in one process (``harness.compare``), on the same weights, inputs and draws; the baseline is
benchmarks/eager.py. A ratio is the eager median over the arm's own.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
from pathlib import Path
from typing import Any

import torch
from harness import compare, environment
from head_workloads import PRESETS, WORKLOADS, Setting

from mote_fast.runtime.environment import best_device

# Interleaved rounds per workload: many for the short ones.
ROUNDS = {"merge": 40, "experts": 20, "step": 12}


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    report = {"environment": environment(), "rows": rows}
    for name in options.only:
        # Merging does not see the batch.
        for preset, batch in itertools.product(options.presets, options.batches if name != "merge" else [0]):
            setting = Setting(preset, batch, torch.device(options.device))
            for row in measure(name, setting, options.rounds or ROUNDS[name]):
                rows.append(row)
                print(
                    f"{name:8} {preset:9} batch {batch:3}  {row['arm']:26} {row['median_ms']:9.2f} ms "
                    f"(p20 {row['p20_ms']:.2f}, p80 {row['p80_ms']:.2f})  {row['ratio_to_eager']:.2f}x",
                    flush=True,
                )
            # After every workload, so that an interrupted run leaves what it measured.
            write(options, report)


def measure(name: str, setting: Setting, rounds: int) -> list[dict[str, Any]]:
    """Time the arms of one workload in turn."""
    timings = compare(WORKLOADS[name](setting), rounds)
    return [
        {
            "workload": name,
            "preset": setting.preset,
            "batch": setting.batch,
            "arm": arm,
            "median_ms": round(1e3 * timing.median, 3),
            "p20_ms": round(1e3 * timing.p20, 3),
            "p80_ms": round(1e3 * timing.p80, 3),
            "ratio_to_eager": round(timings["eager"].median / timing.median, 3),
            "rounds": rounds,
        }
        for arm, timing in timings.items()
    ]


def write(options: argparse.Namespace, report: dict[str, Any]) -> None:
    for path in filter(None, (options.json, options.csv)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(report["rows"][0]))
            writer.writeheader()
            writer.writerows(report["rows"])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), help="workloads to run")
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=["ViT-B-16", "ViT-L-14"])
    parser.add_argument("--batches", nargs="+", type=int, default=[2, 8, 64], help="videos per step")
    parser.add_argument("--rounds", type=int, help=f"turns of each arm; by workload: {ROUNDS}")
    parser.add_argument("--threads", type=int, help="CPU threads; PyTorch's own choice by default")
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--quick", action="store_true", help="the tiny preset, two rounds: does everything run?")
    parser.add_argument("--json", type=Path, help="write rows and environment here")
    parser.add_argument("--csv", type=Path, help="write rows here")
    options = parser.parse_args()
    if options.quick:
        options.presets, options.batches, options.rounds = ["tiny"], [2], 2
    return options


if __name__ == "__main__":
    main()
