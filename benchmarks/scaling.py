"""Time and memory of a training step against the number of experts: backward and gradients stay flat.

    python benchmarks/scaling.py --json benchmarks/results/scaling.json --plot benchmarks/results/scaling.png

Heads of 1 to 16 experts take turns in one process, ours and the baseline of benchmarks/eager.py. Gradient memory is
what parameters' gradients and factors hold between backward and the update; buffers are the most that the operators
and the update took during a step, those factors included.

What a step must touch of every expert is its weights, once to merge them, and three arrays, each read and written, in
AdamW: seven times their bytes. A plain copy that takes turns with the steps tells how fast this machine moves bytes,
and so how much time an expert explains. The fit of a step's time against the bytes is printed beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from eager import EagerHead, loss_of
from figure import save_panels
from fits import line
from harness import environment, summarise
from head_workloads import CLASSES, FRAMES, LOGIT_SCALE, PRESETS, Preset
from torch import Tensor
from tqdm import tqdm

from mote_fast import Draws, TrainingMethod, VideoHead, head_optimizer
from mote_fast.head.head_config import HeadConfig
from mote_fast.kernels.reference import expert_size
from mote_fast.ops import cpu_memory

TEMPERATURES = TrainingMethod().temperatures()
PHASES = ("forward", "backward", "update")
# Times that a step must move the bytes of an expert's weights: merge reads them; AdamW reads and writes them and two
# moments.
MOVED = 7
COPIED_BYTES = 1 << 28


def make_step(
    head: VideoHead | EagerHead, optimizer: torch.optim.Optimizer, sizes: Preset, batch: int, experts: int
) -> Callable[[int], dict[str, float]]:
    """A step that returns the seconds of its phases and the bytes that it held; the round picks the routing."""
    torch.manual_seed(1)
    frames = torch.randn(batch, FRAMES, sizes.embed_dim).requires_grad_()
    classes, labels = torch.randn(CLASSES, sizes.embed_dim), torch.randint(CLASSES, (batch,))

    def step(turn: int) -> dict[str, float]:
        draws = Draws([turn % experts] * sizes.layers, [TEMPERATURES[turn % len(TEMPERATURES)]] * sizes.layers)
        frames.grad = None
        cpu_memory.reset_peak()
        before = cpu_memory.peak_bytes()
        clock = [time.perf_counter()]
        loss = loss_of(head, frames, classes, labels, LOGIT_SCALE, draws)
        clock.append(time.perf_counter())
        loss.backward()
        clock.append(time.perf_counter())
        held = sum(grad.nbytes for grad in gradients(optimizer))
        optimizer.step()
        clock.append(time.perf_counter())
        optimizer.zero_grad()
        seconds = dict(zip(PHASES, (b - a for a, b in itertools.pairwise(clock)), strict=True))
        return seconds | {"gradient_bytes": held, "buffer_bytes": cpu_memory.peak_bytes() - before}

    return step


def gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Every gradient that the optimiser will consume, factored ones included."""
    held = (param.grad for group in optimizer.param_groups for param in group["params"])
    return [grad for grad in held if grad is not None]


def measure(
    preset: str, batch: int, counts: list[int], rounds: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a row for every arm and number of experts, and the fit of each arm."""
    sizes = PRESETS[preset]
    steps = {}
    for experts in counts:
        torch.manual_seed(0)
        head = VideoHead(HeadConfig(sizes.embed_dim, sizes.heads, sizes.layers, experts))
        eager = EagerHead(head)
        released = torch.optim.AdamW(eager.parameters(), 5e-5, weight_decay=0.2)
        steps["mote_fast", experts] = make_step(head, head_optimizer(head, 5e-5), sizes, batch, experts)
        steps["eager", experts] = make_step(eager, released, sizes, batch, experts)
    taken: dict[tuple[str, int], list[dict[str, float]]] = {key: [] for key in steps}
    half = torch.ones(COPIED_BYTES // 8)
    target = torch.empty_like(half)
    copies = []
    for turn in tqdm(range(rounds + 2), unit="round", disable=None):
        for key, step in steps.items():
            figures = step(turn)
            # Two rounds warm up: optimiser states and buffers are made.
            if turn >= 2:
                taken[key].append(figures)
        begun = time.perf_counter()
        target.copy_(half)
        copies.append(time.perf_counter() - begun)
    # The first copy touches the target's pages for the first time.
    copy_bytes_per_second = COPIED_BYTES / statistics.median(copies[1:])
    rows = []
    for (arm, experts), figures in taken.items():
        row: dict[str, Any] = {"arm": arm, "preset": preset, "batch": batch, "experts": experts, "rounds": rounds}
        for phase in PHASES:
            timing = summarise([each[phase] for each in figures])
            row |= {
                f"{phase}_ms": round(1e3 * timing.median, 3),
                f"{phase}_p20_p80_ms": [round(1e3 * timing.p20, 3), round(1e3 * timing.p80, 3)],
            }
        row["gradient_mib"] = round(max(each["gradient_bytes"] for each in figures) / 2**20, 1)
        if arm == "mote_fast":
            row["buffers_mib"] = round(max(each["buffer_bytes"] for each in figures) / 2**20, 1)
        row["step_ms"] = round(1e3 * summarise([sum(each[phase] for phase in PHASES) for each in figures]).median, 3)
        row["expert_bytes"] = 4 * sizes.layers * experts * expert_size(sizes.embed_dim)
        rows.append(row)
    return rows, [fit(rows, arm, copy_bytes_per_second) for arm in ("mote_fast", "eager")]


def fit(rows: Sequence[Mapping[str, Any]], arm: str, copy_bytes_per_second: float) -> dict[str, Any]:
    """Fit an arm's step time to the bytes of its experts: ``fixed_ms + ms_per_mib x MiB``.

    ``of_explained`` is the fitted slope over that of moving the bytes ``MOVED`` times at the speed of a copy: at most
    1 where the weights' bytes explain all growth.
    """
    found = line([(row["expert_bytes"] / 2**20, row["step_ms"]) for row in rows if row["arm"] == arm])
    explained = MOVED * 2**20 / copy_bytes_per_second * 1e3
    return {
        "arm": arm,
        "fixed_ms": round(found.intercept, 3),
        "ms_per_mib": round(found.slope, 4),
        "r2": round(found.r2, 4),
        "copy_gb_per_s": round(copy_bytes_per_second / 1e9, 2),
        "explained_ms_per_mib": round(explained, 4),
        "of_explained": round(found.slope / explained, 3),
    }


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    panels = {
        "forward, ms": "forward_ms",
        "backward, ms": "backward_ms",
        "AdamW, ms": "update_ms",
        "step, ms": "step_ms",
        "gradients held, MiB": "gradient_mib",
    }
    title = f"One training step of the head, {rows[0]['preset']}, batch {rows[0]['batch']}, CPU"
    series = {
        name: {arm: [(row["experts"], row[key]) for row in rows if row["arm"] == arm] for arm in ("mote_fast", "eager")}
        for name, key in panels.items()
    }
    save_panels(path, title, "experts", series)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="ViT-B-16")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--experts", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="the tiny preset, two rounds")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="PNG")
    parser.add_argument("--threads", type=int, help="CPU threads; PyTorch's own choice by default")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.quick:
        options.preset, options.rounds = "tiny", 2
    rows, fits = measure(options.preset, options.batch, options.experts, options.rounds)
    for row in rows:
        print(row)
    for found in fits:
        print(
            "{arm}: {fixed_ms} ms + {ms_per_mib} ms a MiB of experts (r2 {r2}); at a copy's {copy_gb_per_s} GB/s their "
            "bytes explain {explained_ms_per_mib}, of which the slope is {of_explained}".format(**found)
        )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"environment": environment(), "rows": rows, "fits": fits}, indent=1) + "\n")
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
