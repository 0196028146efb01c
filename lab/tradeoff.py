"""The trade-off laboratory: does MoTE reconcile generalisation with specialisation in the drawn world?

    python lab/tradeoff.py --clip runs/tiny_clip --folder runs/tradeoff      # make tradeoff
    python lab/tradeoff.py --quick --clip tiny                               # one seed, fewer epochs, shipped towers

Every arm trains a head on the same frozen tower and the same videos for the same number of steps. The same learning
rates are tried for each arm on a pilot seed, and the best one by close-set accuracy is used. A run is not repeated if
the folder has its result for the same towers. The report is results.md, results.csv, runs.json and the figures.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from arms import ARMS, LEARNING_RATES, Arm, judge, judge_mean, train_head
from features import features_of, tower_name
from tqdm import tqdm
from tradeoff_report import write_report
from world.splits import CLOSE_SET, ZERO_SHOT
from world.write import TRAIN
from write_world import write

from mote_fast import load
from mote_fast.runtime.files import write_bytes

PILOT_SEED = 100
LISTS = (CLOSE_SET, *ZERO_SHOT)


@dataclass(frozen=True)
class Job:
    """One training run."""

    arm: Arm
    lr: float
    epochs: int
    seed: int
    clip: Path
    towers: str
    world: Path
    folder: Path

    @property
    def result(self) -> Path:
        """The file of its result."""
        return self.folder / "runs" / self.towers / f"{self.arm.name}_lr{self.lr:g}_e{self.epochs}_s{self.seed}.json"


@cache
def _data(clip: Path, world: Path) -> tuple[dict[str, Any], float]:
    return features_of(clip, world, [TRAIN, *LISTS])


def run(job: Job) -> Path:
    """Train and evaluate one head, and write its result."""
    torch.set_num_threads(1)
    data, logit_scale = _data(job.clip, job.world)
    begun = time.perf_counter()
    head = train_head(job.arm, data[TRAIN], job.lr, job.epochs, job.seed, logit_scale)
    seconds = time.perf_counter() - begun
    result = {
        "kind": job.arm.kind,
        "layers": job.arm.layers,
        "lr": job.lr,
        "epochs": job.epochs,
        "seed": job.seed,
        "seconds": round(seconds, 2),
        **judge(head, {name: data[name] for name in LISTS}),
    }
    write_bytes(job.result, (json.dumps(result, indent=1) + "\n").encode())
    return job.result


def run_all(jobs: Sequence[Job], workers: int, what: str) -> list[dict[str, Any]]:
    """Run the jobs that have no result yet, several at a time; return all results in order."""
    missing = [job for job in jobs if not job.result.exists()]
    # Spawned processes, because a forked one would inherit the thread pools of this one.
    context = multiprocessing.get_context("spawn")
    if missing:
        with ProcessPoolExecutor(min(workers, len(missing)), mp_context=context) as pool:
            for _ in tqdm(pool.map(run, missing), total=len(missing), desc=what, unit="run", disable=None):
                pass
    return [json.loads(job.result.read_text(encoding="utf-8")) for job in jobs]


def chosen_rates(pilots: Iterable[dict[str, Any]]) -> dict[tuple[str, int], float]:
    """The learning rate of each arm: that of its pilot with the best close-set accuracy; ties take the lower rate."""
    best: dict[tuple[str, int], tuple[float, float]] = {}
    for pilot in pilots:
        arm, key = (pilot["kind"], pilot["layers"]), (pilot["plain"][CLOSE_SET], -pilot["lr"])
        best[arm] = max(best.get(arm, key), key)
    return {arm: -key[1] for arm, key in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--clip", type=Path, default=Path("runs/tiny_clip"), help="what lab/train_clip.py wrote, or tiny"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/tradeoff"), help="where everything goes")
    parser.add_argument("--world", type=Path, help="the videos; FOLDER/world by default")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--lr", type=float, help="one learning rate for every arm, without pilots")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--quick", action="store_true", help="one seed and a quarter of the epochs")
    options = parser.parse_args()
    seeds, epochs = (1, max(4, options.epochs // 4)) if options.quick else (options.seeds, options.epochs)
    world = options.world or options.folder / "world"
    write(world)
    data, logit_scale = _data(options.clip, world)
    towers = tower_name(load(options.clip).clip)

    def job(arm: Arm, lr: float, seed: int) -> Job:
        return Job(arm, lr, epochs, seed, options.clip, towers, world, options.folder)

    if options.lr is None:
        pilots = [job(arm, lr, PILOT_SEED) for arm in ARMS for lr in LEARNING_RATES]
        rates = chosen_rates(run_all(pilots, options.workers, "pilots"))
    else:
        rates = {(arm.kind, arm.layers): options.lr for arm in ARMS}
    jobs = [job(arm, rates[arm.kind, arm.layers], seed) for arm in ARMS for seed in range(seeds)]
    results = run_all(jobs, options.workers, "runs")
    lists = {name: data[name] for name in LISTS}
    example = jobs[[each.arm.name for each in jobs].index("mote-4")]
    head = train_head(example.arm, data[TRAIN], example.lr, epochs, example.seed, logit_scale)
    write_report(options.folder, results, judge_mean(head, lists), head, lists)


if __name__ == "__main__":
    main()
