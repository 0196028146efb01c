"""Time and memory of a training step against the number of experts: backward and gradients stay flat.

Gradient memory is what parameters' gradients and factors hold between backward and the update; buffers are the most
that the operators and the update took during a step, those factors included.

What a step must touch of every expert is its weights, once to merge them, and three arrays, each read and written, in
AdamW: seven times their bytes. A plain copy that takes turns with the steps tells how fast this machine moves bytes,
and so how much time an expert explains. The fit of a step's time against the bytes stands beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from experts import TrainingStep
from harness import OFFICIAL, OURS, compare, summarise
from rows import Row
from setting import Setting

from mote_fast.kernels.reference import expert_size
from mote_fast.ops import cpu_memory

# From 2 on: a head with one expert has nothing to merge, and trains without the second stream.
EXPERTS, BATCH, TURNS = (2, 4, 8, 16), 8, 9
PHASES = ("forward", "backward", "update")
# Times that a step must move the bytes of an expert's weights: merge reads them; AdamW reads and writes them and two
# moments.
MOVED = 7
COPIED_BYTES = 1 << 28
FIT = "growth of a training step"


def scaling(setting: Setting) -> Iterator[Row]:
    """Every number of experts and both arms in turn, phase by phase."""
    config = setting.heads[setting.preset]
    batch = setting.batches[0] if setting.batches else BATCH
    steps = {
        (arm, experts): TrainingStep(arm, replace(config, experts=experts), batch, setting.device)
        for experts in EXPERTS
        for arm in (OFFICIAL, OURS)
    }
    half = torch.ones(COPIED_BYTES // 8)
    calls: dict[tuple[str, int, str], Callable[[], object]] = {
        (*key, phase): getattr(step, phase) for key, step in steps.items() for phase in PHASES
    }
    calls["copy", 0, ""] = partial(torch.empty_like(half).copy_, half)
    turns = setting.turns(TURNS)
    taken = compare(calls, turns, warmup=2)
    rows = []
    for (arm, experts), step in steps.items():
        row = partial(Row, "scaling", f"training step, {setting.preset}, batch {batch}, experts", arm, x=experts)
        phases = {phase: taken[arm, experts, phase] for phase in PHASES}
        phases["step"] = [sum(each) for each in zip(*phases.values(), strict=True)]
        rows += [
            row(phase, "ms", *(1e3 * each for each in summarise(seconds)), turns) for phase, seconds in phases.items()
        ]
        held, buffers = bytes_of(step)
        rows.append(row("gradients held", "MiB", held / 2**20))
        if arm == OURS:
            rows.append(row("buffers", "MiB", buffers / 2**20))
        rows.append(row("experts", "MiB", 4 * config.layers * experts * expert_size(config.embed_dim) / 2**20))
    yield from rows
    for arm in (OFFICIAL, OURS):
        yield from fit(rows, arm, COPIED_BYTES / statistics.median(taken["copy", 0, ""]))


def bytes_of(step: TrainingStep) -> tuple[int, int]:
    """Bytes of the gradients that one more step holds, and of its buffers at their most."""
    cpu_memory.reset_peak()
    before = cpu_memory.peak_bytes()
    step.forward()
    step.backward()
    held = step.gradient_bytes()
    step.update()
    return held, cpu_memory.peak_bytes() - before


def fit(rows: Sequence[Row], arm: str, copy_bytes_per_second: float) -> Iterator[Row]:
    """Fit an arm's step time to the bytes of its experts: ``fixed + slope x MiB``.

    "of explained" is the fitted slope over that of moving the bytes ``MOVED`` times at the speed of a copy: at most 1
    where the weights' bytes explain all growth.
    """
    sizes, times = (
        [row.median for row in rows if (row.arm, row.metric) == (arm, metric)] for metric in ("experts", "step")
    )
    slope, intercept = statistics.linear_regression(sizes, times)
    explained = MOVED * 2**20 / copy_bytes_per_second * 1e3
    row = partial(Row, "scaling", FIT, arm)
    yield row("fixed", "ms", intercept)
    yield row("slope", "ms/MiB", slope)
    yield row("r2", "", statistics.correlation(sizes, times) ** 2)
    yield row("copy", "GB/s", copy_bytes_per_second / 1e9)
    yield row("explained", "ms/MiB", explained)
    yield row("of explained", "", slope / explained)
