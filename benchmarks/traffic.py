"""Count the bytes that kernels load and store, and compare with the bytes they cannot avoid.

    TRITON_INTERPRET=1 python benchmarks/traffic.py [--quick] [--write] [--json]

The kernels run at full training shapes in Triton's interpreter, whose loads and stores are recorded (arithmetic is left
out: no address depends on it, except through indices, which are loaded for real). Three counts per operator:

requested    every load and store of every program: no reuse beyond the program at all
per launch   every 128-byte line at most once per launch: unlimited reuse inside a launch, none between launches
dram         lines that miss an L2 of 25 MB, half of an H100's 50 MB because data may be held on both of its sides, kept
             by last use (lines that a kernel stores with evict_first leave first), with as many programs running side
             by side as the part has processors, taking turns; lines written stay until evicted, and all are written
             back at the end

Tensors are taken to begin at a multiple of 256 bytes, as CUDA's allocator places them; the CPU's does not, and lines
that straddle two programs' tiles would be counted twice.

Compulsory bytes: each input once and each output once, the saved pre-activations counting as an output of the forward
pass and an input of the backward pass. The stated assumption of the limits (LIMITS) is therefore: tiles that programs
share, and intermediates between the launches of one operator, are served by that L2. Merging needs no assumption.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import product, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder, TensorHandle

try:
    from benchmarks.launches import VIT_B_16, VIT_L_14, Shape
except ImportError:
    from launches import VIT_B_16, VIT_L_14, Shape

from mote_fast.kernels.expert_ffn import expert_pair_backward, expert_pair_forward
from mote_fast.kernels.factored_adamw import adamw_factored
from mote_fast.kernels.merge import expand_expert_gradient, merge_experts_backward, merge_experts_forward
from mote_fast.kernels.reference import EXPANSION, expert_size
from mote_fast.kernels.routed_ffn import routed_backward, routed_forward
from mote_fast.kernels.tiles import GPU_SPECS

RESULTS = Path(__file__).parent / "results" / "traffic.csv"

LINE = 128
ALIGNMENT = 256
L2_BYTES = 25 * 1024 * 1024

# Largest allowed ratio to the compulsory bytes, and which count it is taken of.
LIMITS = {
    "merge forward": ("requested", 1.02),
    "merge backward": ("requested", 1.02),
    "expand gradient": ("requested", 1.02),
    "pair forward": ("dram", 1.25),
    "pair backward": ("dram", 1.25),
    "adamw": ("requested", 1.02),
    "routed forward": ("dram", 1.25),
    "routed backward": ("dram", 1.25),
}


class Access(NamedTuple):
    """Line numbers of one load or store; ``leaves_first`` is the kernel's evict_first hint."""

    lines: np.ndarray
    written: bool
    leaves_first: bool = False


@dataclass
class Program:
    """Accesses of one program, in order."""

    accesses: list[Access] = field(default_factory=list)


@dataclass
class Traffic:
    """Launches recorded so far, each a list of programs, and the bytes that their instructions asked for."""

    launches: list[list[Program]] = field(default_factory=list)
    loaded: int = 0
    stored: int = 0

    @property
    def requested(self) -> int:
        """Bytes of every load and store of every program."""
        return self.loaded + self.stored

    def per_launch(self) -> int:
        """Bytes of the lines that each launch reads, and of those it writes, each once."""
        total = 0
        for programs in self.launches:
            for written in (False, True):
                lines = [a.lines for program in programs for a in program.accesses if a.written is written]
                total += LINE * len(np.unique(np.concatenate(lines))) if lines else 0
        return total

    def dram(self, l2_bytes: int = L2_BYTES, processors: int = GPU_SPECS["sm_90"].processors) -> int:
        """Bytes read from and written back to memory behind an L2 kept by last use."""
        capacity = l2_bytes // LINE
        # Line -> whether it was written since it came in.
        cache: OrderedDict[int, bool] = OrderedDict()
        moved = 0
        for programs in self.launches:
            for first in range(0, len(programs), processors):
                for lines, written, leaves_first in in_turns(programs[first : first + processors]):
                    for line in lines.tolist():
                        if line in cache:
                            cache[line] = cache.pop(line) or written
                        else:
                            moved += not written
                            if len(cache) >= capacity:
                                moved += cache.popitem(last=False)[1]
                            cache[line] = written
                        if leaves_first:
                            cache.move_to_end(line, last=False)
        return LINE * (moved + sum(cache.values()))


def in_turns(programs: list[Program]) -> Iterator[Access]:
    """Yield one access of each program after the other, as programs that run side by side make them."""
    for turn in zip_longest(*(program.accesses for program in programs)):
        yield from (access for access in turn if access is not None)


@contextmanager
def counted() -> Iterator[Traffic]:
    """Record what the kernels launched inside load and store, and leave their arithmetic out."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        raise SystemExit("traffic is counted in Triton's interpreter: set TRITON_INTERPRET=1")
    traffic = Traffic()
    builder = InterpreterBuilder
    # Where the storages of the running launch begin, ascending.
    starts: list[int] = []
    originals = (builder.create_masked_load, builder.create_masked_store, builder.create_dot, builder.set_grid_idx)
    load, store, _, set_grid_idx = originals

    def note(pointers: TensorHandle, mask: TensorHandle, written: bool, eviction: object = None) -> None:
        # The interpreter keeps some masks as integers, with which NumPy would index instead.
        active = np.broadcast_to(mask.data.astype(bool), pointers.data.shape)
        addresses = pointers.data[active]
        size = pointers.get_element_ty().primitive_bitwidth // 8
        if written:
            traffic.stored += addresses.size * size
        else:
            traffic.loaded += addresses.size * size
        if not addresses.size:
            return
        # One instruction addresses one tensor.
        start = starts[bisect_right(starts, int(addresses.flat[0])) - 1]
        lines = (addresses + np.uint64(-start % ALIGNMENT)) // LINE
        # Most neighbours share a line: drop those before the sort.
        lines = np.unique(lines[np.flatnonzero(np.diff(lines, prepend=lines[:1] + np.uint64(1)))])
        traffic.launches[-1][-1].accesses.append(Access(lines, written, "EVICT_FIRST" in str(eviction)))

    def counted_load(
        self: InterpreterBuilder, pointers: TensorHandle, mask: TensorHandle, *rest: object
    ) -> TensorHandle:
        note(pointers, mask, written=False)
        return load(self, pointers, mask, *rest)

    def counted_store(
        self: InterpreterBuilder, pointers: TensorHandle, value: TensorHandle, mask: TensorHandle, *rest: object
    ) -> None:
        note(pointers, mask, written=True, eviction=rest[1])
        store(self, pointers, value, mask, *rest)

    def no_dot(self: InterpreterBuilder, a: object, b: object, total: TensorHandle, *rest: object) -> TensorHandle:
        return total

    def next_program(self: InterpreterBuilder, x: int, y: int, z: int) -> None:
        if (x, y, z) == (0, 0, 0):
            traffic.launches.append([])
        traffic.launches[-1].append(Program())
        set_grid_idx(self, x, y, z)

    def noted_arguments(self: GridExecutor, args: Any, kwargs: Any) -> Any:
        starts[:] = sorted({tensor.untyped_storage().data_ptr() for tensor in tensors_among(args)})
        return arguments(self, args, kwargs)

    arguments = GridExecutor._init_args_hst
    replaced = (counted_load, counted_store, no_dot, next_program)
    names = ("create_masked_load", "create_masked_store", "create_dot", "set_grid_idx")
    try:
        for name, function in zip(names, replaced, strict=True):
            setattr(builder, name, function)
        GridExecutor._init_args_hst = noted_arguments
        yield traffic
    finally:
        GridExecutor._init_args_hst = arguments
        for name, function in zip(names, originals, strict=True):
            setattr(builder, name, function)


def tensors_among(values: Iterable[object]) -> Iterator[Tensor]:
    """Yield the tensors among a launch's arguments, those in tuples too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple):
            yield from tensors_among(value)


@dataclass(frozen=True)
class Operator:
    """One operator at one shape: what to run, and the bytes it cannot avoid."""

    name: str
    run: Callable[[], object]
    compulsory: int


def bits(dtype: torch.dtype) -> str:
    return "16-bit" if dtype.itemsize == 2 else "float32"


def size_of(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def operators(shape: Shape, activation: torch.dtype, master: torch.dtype) -> list[Operator]:
    """Every operator at one shape, on zeros (values move no addresses); 16-bit activations are float16 here."""
    width, tokens, size = shape.width, shape.tokens, expert_size(shape.width)
    x = [torch.zeros(tokens, width, dtype=activation) for _ in range(4)]
    experts = torch.zeros(shape.experts, size, dtype=master)
    merged, row_grads = torch.zeros(size, dtype=activation), torch.zeros(2, size, dtype=master)
    weights, index = torch.zeros(shape.experts), torch.tensor(shape.experts - 1)
    saved = torch.zeros(2, tokens, EXPANSION * width, dtype=activation)
    clips = x[0].view(shape.clips, shape.frames, width)
    # Every expert is chosen as often as the method chooses it, in no order.
    chosen = torch.multinomial(
        torch.arange(1.0, shape.experts + 1).softmax(0), shape.clips, True, generator=torch.Generator().manual_seed(0)
    )
    used = len(chosen.unique())
    with counted():
        with_grouping = routed_forward(clips, experts, chosen)[1]
    row, stack = size_of(experts[0]), size_of(experts)
    hidden = size_of(saved)
    biases = (EXPANSION + 1) * width
    moments = torch.zeros_like(experts), torch.zeros_like(experts)
    factor = (row_grads[1], row_grads[0], weights, index)
    return [
        Operator(
            "merge forward",
            lambda: merge_experts_forward(experts, weights, activation),
            stack + size_of(weights, merged),
        ),
        Operator(
            "merge backward",
            lambda: merge_experts_backward(merged, weights, out_dtype=master),
            stack + size_of(weights, merged),
        ),
        Operator(
            "expand gradient",
            lambda: expand_expert_gradient(row_grads[1], row_grads[0], weights, index),
            stack + size_of(row_grads, weights, index),
        ),
        Operator(
            "pair forward",
            lambda: expert_pair_forward(x[0], x[1], experts, merged, index),
            row + size_of(merged, index, *x) + hidden,
        ),
        Operator(
            "pair backward",
            lambda: expert_pair_backward(x[0], x[1], x[2], x[3], experts, merged, index, saved),
            # Backward needs no biases; it reads both inputs and both output gradients, and writes both input gradients.
            row
            + size_of(merged, index)
            - biases * (master.itemsize + activation.itemsize)
            + hidden
            + size_of(*x, *x[:2], row_grads),
        ),
        Operator("adamw", lambda: adamw_factored(experts, *moments, [factor], 1, 1e-4), 6 * stack + size_of(row_grads)),
        Operator(
            "routed forward",
            lambda: routed_forward(clips, experts, chosen),
            used * row + size_of(clips, clips, chosen) + hidden // 2,
        ),
        Operator(
            "routed backward",
            lambda: routed_backward(clips, clips, experts, chosen, with_grouping),
            used * (row - biases * master.itemsize) + stack + 3 * size_of(clips) + hidden // 2,
        ),
    ]


@dataclass(frozen=True)
class Row:
    """Bytes of one operator at one shape."""

    model: str
    activation: str
    master: str
    operator: str
    launches: int
    compulsory: int
    requested: int
    per_launch: int
    dram: int
    ratio: float
    limit: float
    limited: str


MODELS = {"ViT-B/16": VIT_B_16, "ViT-L/14": VIT_L_14}
# A quarter of ViT-B/16 in every matrix, for the quick form; the L2 is scaled with it.
QUARTER = Shape(256, 32, 8, 4)
DTYPES = ((torch.float16, torch.float32), (torch.float32, torch.float32))


def measure(
    model: str, activation: torch.dtype, master: torch.dtype, operator: Operator, l2_bytes: int = L2_BYTES
) -> Row:
    """Run one operator and count."""
    with counted() as traffic:
        operator.run()
    count, limit = LIMITS[operator.name]
    counts = {"requested": traffic.requested, "per_launch": traffic.per_launch(), "dram": traffic.dram(l2_bytes)}
    return Row(
        model,
        bits(activation),
        str(master).removeprefix("torch."),
        operator.name,
        len(traffic.launches),
        operator.compulsory,
        **counts,
        ratio=round(counts[count] / operator.compulsory, 4),
        limit=limit,
        limited=count,
    )


def describe(row: Row) -> str:
    """Return a row as one line of text."""
    ratios = [getattr(row, name) / row.compulsory for name in ("requested", "per_launch", "dram")]
    return (
        f"{row.model} {row.activation:7} {row.operator:16} {row.launches} launches {row.compulsory / 1e6:6.1f} MB x "
        f"{ratios[0]:5.3f} requested {ratios[1]:5.3f} per launch {ratios[2]:5.3f} dram; "
        f"{row.limited} {'over the limit of' if row.ratio > row.limit else 'within'} {row.limit}"
    )


def write(rows: list[Row], keep: bool) -> None:
    """Write the results; ``keep`` those of other rows."""
    table = {}
    if keep and RESULTS.exists():
        with RESULTS.open(newline="") as file:
            table = {(r["model"], r["activation"], r["operator"]): r for r in csv.DictReader(file)}
    table |= {(row.model, row.activation, row.operator): asdict(row) for row in rows}
    order = [(model, bits(dtypes[0]), name) for model in MODELS for dtypes in DTYPES for name in LIMITS]
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table[key] for key in order if key in table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="mixed precision at a quarter of ViT-B/16")
    parser.add_argument("--filter", default="", help="only rows that start so, such as 'ViT-L/14 16-bit pair'")
    parser.add_argument("--write", action="store_true", help="replace the committed results")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    args = parser.parse_args()
    models = {"quarter of ViT-B/16": QUARTER} if args.quick else MODELS
    rows = []
    bar = tqdm(unit="operator", disable=None)
    for (model, shape), dtypes in product(models.items(), DTYPES[: 1 if args.quick else None]):
        if not f"{model} {bits(dtypes[0])}".startswith(args.filter[: len(f"{model} {bits(dtypes[0])}")]):
            continue
        for operator in operators(shape, *dtypes):
            name = f"{model} {bits(dtypes[0])} {operator.name}"
            # No activations enter AdamW: float32 would be the same again.
            if not name.startswith(args.filter) or (operator.name == "adamw" and dtypes != DTYPES[0]):
                continue
            rows.append(measure(model, *dtypes, operator, L2_BYTES // 4 if args.quick else L2_BYTES))
            tqdm.write(describe(rows[-1]), file=sys.stderr)
            bar.update()
    bar.close()
    if args.write:
        write(rows, keep=bool(args.filter))
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    return any(row.ratio > row.limit for row in rows)


if __name__ == "__main__":
    sys.exit(main())
