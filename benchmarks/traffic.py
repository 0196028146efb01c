"""Count the bytes that kernels load and store, and compare with the bytes they cannot avoid.

    TRITON_INTERPRET=1 python benchmarks/traffic.py [--quick] [--write] [--filter TEXT]

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
pass and an input of the backward pass. The assumption of the limits is therefore: tiles that programs share, and
intermediates between the launches of one operator, are served by that L2. Merging needs no assumption.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, product, zip_longest
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from unittest.mock import patch

import numpy as np
import torch
from launches import VIT_B_16, VIT_L_14, Shape
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder, TensorHandle

from mote_fast.kernels.expert_ffn import expert_pair_backward, expert_pair_forward
from mote_fast.kernels.factored_adamw import adamw_factored
from mote_fast.kernels.merge import expand_expert_gradient, merge_experts_backward, merge_experts_forward
from mote_fast.kernels.reference import EXPANSION, expert_size
from mote_fast.kernels.routed_ffn import routed_backward, routed_forward
from mote_fast.kernels.tiles import GPU_SPECS

RESULTS = Path(__file__).parent / "results" / "traffic.csv"

LINE, ALIGNMENT = 128, 256
L2_BYTES = 25 * 1024 * 1024


class Access(NamedTuple):
    """Line numbers of one load or store; ``leaves_first`` is the kernel's evict_first hint."""

    lines: NDArray[np.uint64]
    written: bool
    leaves_first: bool = False


# Accesses of one program, in order.
Program: TypeAlias = list[Access]


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
                lines = [a.lines for program in programs for a in program if a.written is written]
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
                # Programs that run side by side make one access each, in turn.
                turns = zip_longest(*programs[first : first + processors])
                for lines, written, leaves_first in filter(None, chain.from_iterable(turns)):
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


@contextmanager
def counted() -> Iterator[Traffic]:
    """Record what the kernels launched inside load and store, and leave their arithmetic out."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        raise SystemExit("traffic is counted in Triton's interpreter: set TRITON_INTERPRET=1")
    traffic = Traffic()
    builder = InterpreterBuilder
    # Where the storages of the running launch begin, ascending.
    starts: list[int] = []
    load, store, set_grid_idx = builder.create_masked_load, builder.create_masked_store, builder.set_grid_idx
    arguments = GridExecutor._init_args_hst

    def note(pointers: TensorHandle, mask: TensorHandle, written: bool, eviction: object = None) -> None:
        # The interpreter keeps some masks as integers, with which NumPy would index instead.
        active = np.broadcast_to(mask.data.astype(bool), pointers.data.shape)
        addresses = pointers.data[active]
        moved = addresses.size * (pointers.get_element_ty().primitive_bitwidth // 8)
        traffic.stored += moved * written
        traffic.loaded += moved * (not written)
        if not addresses.size:
            return
        # One instruction addresses one tensor.
        start = starts[bisect_right(starts, int(addresses.flat[0])) - 1]
        lines = (addresses + np.uint64(-start % ALIGNMENT)) // LINE
        # Most neighbours share a line: drop those before the sort.
        lines = np.unique(lines[np.flatnonzero(np.diff(lines, prepend=lines[:1] + np.uint64(1)))])
        traffic.launches[-1][-1].append(Access(lines, written, "EVICT_FIRST" in str(eviction)))

    def counted_load(self: Any, pointers: TensorHandle, mask: TensorHandle, *rest: object) -> TensorHandle:
        note(pointers, mask, written=False)
        return load(self, pointers, mask, *rest)

    def counted_store(self: Any, pointers: TensorHandle, value: TensorHandle, mask: TensorHandle, *rest: Any) -> None:
        note(pointers, mask, written=True, eviction=rest[1])
        store(self, pointers, value, mask, *rest)

    def no_dot(self: Any, a: object, b: object, total: TensorHandle, *rest: object) -> TensorHandle:
        return total

    def next_program(self: Any, x: int, y: int, z: int) -> None:
        if (x, y, z) == (0, 0, 0):
            traffic.launches.append([])
        traffic.launches[-1].append([])
        set_grid_idx(self, x, y, z)

    def noted_arguments(self: Any, args: Any, kwargs: Any) -> Any:
        starts[:] = sorted({tensor.untyped_storage().data_ptr() for tensor in tensors_among(args)})
        return arguments(self, args, kwargs)

    replaced = {
        "create_masked_load": counted_load,
        "create_masked_store": counted_store,
        "create_dot": no_dot,
        "set_grid_idx": next_program,
    }
    with patch.multiple(builder, **replaced), patch.object(GridExecutor, "_init_args_hst", noted_arguments):
        yield traffic


def tensors_among(values: Iterable[object]) -> Iterator[Tensor]:
    """Yield the tensors among a launch's arguments, those in tuples too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple):
            yield from tensors_among(value)


# What to run, and the bytes that it cannot avoid.
Operator: TypeAlias = tuple[Callable[[], object], int]


def bits(dtype: torch.dtype) -> str:
    return "16-bit" if dtype.itemsize == 2 else "float32"


def size_of(*tensors: Tensor) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def operators(shape: Shape, activation: torch.dtype, master: torch.dtype) -> dict[str, Operator]:
    """Every operator at one shape, on zeros (values move no addresses); 16-bit activations are float16 here."""
    width, tokens, size = shape.width, shape.tokens, expert_size(shape.width)
    x, y, dy, dx = x4 = [torch.zeros(tokens, width, dtype=activation) for _ in range(4)]
    experts = torch.zeros(shape.experts, size, dtype=master)
    merged, grads = torch.zeros(size, dtype=activation), torch.zeros(2, size, dtype=master)
    weights, index = torch.zeros(shape.experts), torch.tensor(shape.experts - 1)
    saved = torch.zeros(4, tokens, EXPANSION * width, dtype=activation)
    rows = torch.zeros(2, size, dtype=activation)
    clips = x.view(shape.clips, shape.frames, width)
    # Every expert is chosen as often as the method chooses it, in no order.
    chosen = torch.multinomial(
        torch.arange(1.0, shape.experts + 1).softmax(0), shape.clips, True, generator=torch.Generator().manual_seed(0)
    )
    used = len(chosen.unique())
    with counted():
        grouped = routed_forward(clips, experts, chosen)[1]
    row, stack, kept = size_of(rows[0]), size_of(experts), size_of(saved)
    # Backward needs no biases.
    biases = (EXPANSION + 1) * width * activation.itemsize
    merging = stack + size_of(weights, merged)
    # Forward writes both experts' rows and the activations that backward reads; it finds them in L2 itself.
    pair = stack + size_of(weights, index, rows, *x4) + kept
    # The pair's backward reads both inputs and both output gradients, and writes both input gradients.
    pair_back = size_of(rows, *x4, x, y, grads) + kept - 2 * biases
    # A cast of all experts precedes the routed products where they have another dtype: it is none of these launches.
    routed = used * row + size_of(clips, clips, chosen) + kept // 2
    routed_back = used * (row - biases) + stack + 3 * size_of(clips) + kept // 2
    moments = torch.zeros_like(experts), torch.zeros_like(experts)
    factor = (grads[1], grads[0], weights, index)
    return {
        "merge forward": (lambda: merge_experts_forward(experts, weights, activation), merging),
        "merge backward": (lambda: merge_experts_backward(merged, weights, out_dtype=master), merging),
        "expand gradient": (lambda: expand_expert_gradient(*factor), stack + size_of(grads, weights, index)),
        "pair forward": (lambda: expert_pair_forward(x, y, experts, weights, index), pair),
        "pair backward": (lambda: expert_pair_backward(x, y, dy, dx, experts, rows, index, saved), pair_back),
        "adamw": (lambda: adamw_factored(experts, *moments, [factor], 1, 1e-4), 6 * stack + size_of(grads)),
        "routed forward": (lambda: routed_forward(clips, experts, chosen), routed),
        "routed backward": (lambda: routed_backward(clips, clips, experts, chosen, grouped), routed_back),
    }


class Row(NamedTuple):
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

    @property
    def name(self) -> str:
        """What ``--filter`` sees, and what identifies the row."""
        return f"{self.model} {self.activation} {self.operator}"


MODELS = {"ViT-B/16": VIT_B_16, "ViT-L/14": VIT_L_14}
# A quarter of ViT-B/16 in every matrix, for the quick form; the L2 is scaled with it.
QUARTER = Shape(256, 32, 8, 4)
DTYPES = ((torch.float16, torch.float32), (torch.float32, torch.float32))


def measure(name: str, operator: Operator, l2_bytes: int = L2_BYTES) -> dict[str, Any]:
    """Run one operator and count: the fields of a row after its name."""
    run, compulsory = operator
    with counted() as traffic:
        run()
    # Largest allowed ratio to the compulsory bytes, and which count it is taken of.
    limited, limit = ("dram", 1.25) if name.startswith(("pair", "routed")) else ("requested", 1.02)
    counts = {"requested": traffic.requested, "per_launch": traffic.per_launch(), "dram": traffic.dram(l2_bytes)}
    ratio = round(counts[limited] / compulsory, 4)
    found = {"launches": len(traffic.launches), "compulsory": compulsory, **counts}
    return found | {"ratio": ratio, "limit": limit, "limited": limited}


def describe(row: Row) -> str:
    """Return a row as one line of text."""
    counts = {"requested": row.requested, "per launch": row.per_launch, "dram": row.dram}
    ratios = " ".join(f"{count / row.compulsory:5.3f} {name}" for name, count in counts.items())
    verdict = "over the limit of" if row.ratio > row.limit else "within"
    return (
        f"{row.name:32} {row.launches} launches {row.compulsory / 1e6:6.1f} MB x {ratios}; "
        f"{row.limited} {verdict} {row.limit}"
    )


def write(rows: list[Row], keep: bool) -> None:
    """Write the results; ``keep`` those of other rows."""
    table: dict[str, Sequence[object]] = {}
    if keep and RESULTS.exists():
        with RESULTS.open(newline="") as file:
            table = {f"{line[0]} {line[1]} {line[3]}": line for line in list(csv.reader(file))[1:]}
    table |= {row.name: row for row in rows}
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(table.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="mixed precision at a quarter of ViT-B/16")
    parser.add_argument("--filter", default="", help="only rows that start so, such as 'ViT-L/14 16-bit pair'")
    parser.add_argument("--write", action="store_true", help="replace the committed results")
    args = parser.parse_args()
    models = {"quarter of ViT-B/16": QUARTER} if args.quick else MODELS
    rows = []
    for (model, shape), (activation, master) in product(models.items(), DTYPES[: 1 if args.quick else None]):
        if not f"{model} {bits(activation)}".startswith(args.filter[: len(f"{model} {bits(activation)}")]):
            continue
        found = operators(shape, activation, master)
        for name, operator in tqdm(found.items(), unit="operator", disable=None, leave=False):
            # No activations enter AdamW: float32 would be the same again.
            repeated = name == "adamw" and activation == master
            if repeated or not f"{model} {bits(activation)} {name}".startswith(args.filter):
                continue
            case = (model, bits(activation), str(master).removeprefix("torch."), name)
            rows.append(Row(*case, **measure(name, operator, L2_BYTES // 4 if args.quick else L2_BYTES)))
            tqdm.write(describe(rows[-1]), file=sys.stderr)
    if args.write:
        write(rows, keep=bool(args.filter))
    return any(row.ratio > row.limit for row in rows)


if __name__ == "__main__":
    sys.exit(main())
