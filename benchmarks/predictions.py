"""Predict H100 times of the kernels and of the eager sequence they replace, from counted bytes, flops and launches.

    python benchmarks/predictions.py [--json]

Nothing here was measured on a GPU. A launch is predicted to take the longer of its bytes at 3.35 TB/s and its flops at
990 TFLOP/s (dense bfloat16; float32 products a twelfth of that, tf32x3 and TF32's half rate, for the kernels and for
the eager sequence alike), plus 2 microseconds. Bytes of the kernels are those of results/traffic.csv (behind the
L2 that it models). The eager sequence is run with fake tensors under autocast: every operation that makes memory
counts as a launch, reading its inputs and writing its outputs once, as if each product reached its compulsory traffic.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

try:
    from benchmarks.eager import EagerExperts
    from benchmarks.launches import VIT_B_16, VIT_L_14, Shape
except ImportError:
    from eager import EagerExperts
    from launches import VIT_B_16, VIT_L_14, Shape

from mote_fast.kernels.reference import EXPANSION, expert_size

TRAFFIC = Path(__file__).parent / "results" / "traffic.csv"

BYTES_PER_SECOND = 3.35e12
FLOPS_PER_SECOND = {2: 990e12, 4: 990e12 / 12}
LAUNCH_SECONDS = 2e-6


@dataclass
class Sequence:
    """A sequence of launches: how many, what they move, what they compute, and the predicted time."""

    launches: int = 0
    bytes: int = 0
    flops: int = 0
    seconds: float = 0.0

    def add(self, moved: int, flops: int, itemsize: int, launches: int = 1) -> None:
        """Append ``launches`` launches that move and compute this much together."""
        self.launches += launches
        self.bytes += moved
        self.flops += flops
        self.seconds += max(moved / BYTES_PER_SECOND, flops / FLOPS_PER_SECOND[itemsize]) + launches * LAUNCH_SECONDS


PRODUCTS = {"aten.mm.default": 0, "aten.addmm.default": 1}


class Counting(TorchDispatchMode):
    """Adds every operation that makes memory to a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.sequence = Sequence()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        aliases = [r.alias_info for r in func._schema.returns]
        view = any(a is not None and not a.is_write for a in aliases)
        outputs = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        if view or not outputs or func.namespace != "aten" or str(func) in ("aten.detach.default",):
            return out
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        moved = sum(
            t.untyped_storage().nbytes() if 0 in t.stride() else t.numel() * t.itemsize for t in inputs + outputs
        )
        flops = 0
        if str(func) in PRODUCTS:
            first = args[PRODUCTS[str(func)]]
            flops = 2 * first.shape[1] * prod(outputs[0].shape)
        self.sequence.add(moved, flops, min(outputs[0].itemsize, 4))
        return out


@contextmanager
def counting() -> Iterator[Sequence]:
    with Counting() as mode:
        yield mode.sequence


def eager(shape: Shape, mixed: bool) -> dict[str, Sequence]:
    """Count the eager experts of one layer: merge and both streams forward, then backward to all gradients."""
    found = {}
    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        experts = EagerExperts(shape.width, shape.experts)
        dtype = torch.bfloat16 if mixed else torch.float32
        x = [torch.empty(shape.tokens, shape.width, dtype=dtype, requires_grad=True) for _ in range(2)]
        weights = torch.empty(shape.experts)
        with counting() as found["forward"]:
            y = experts.routed(x[0], shape.experts - 1), experts.merged(x[1], weights)
        with counting() as found["backward"]:
            torch.autograd.backward(y, [torch.empty_like(t) for t in y])
    return found


def kernels(model: str, shape: Shape, mixed: bool) -> dict[str, Sequence]:
    """Put the counted operators of one layer's training step together; nothing where they were not counted."""
    with TRAFFIC.open(newline="") as file:
        rows = {
            row["operator"]: row
            for row in csv.DictReader(file)
            if row["model"] == model and (row["activation"] == "16-bit") is mixed
        }
    if not rows:
        return {}
    product = 2 * shape.tokens * 2 * EXPANSION * shape.width**2
    size, itemsize = expert_size(shape.width), 2 if mixed else 4
    flops = {
        "merge forward": 2 * shape.experts * size,
        "pair forward": 2 * product,
        "pair backward": 4 * product,
        "expand gradient": 2 * shape.experts * size,
    }
    found = {}
    for name, parts in (
        ("forward", ("merge forward", "pair forward")),
        ("backward", ("pair backward", "expand gradient")),
        ("backward, factored", ("pair backward",)),
    ):
        sequence = found[name] = Sequence()
        for part in parts:
            row = rows[part]
            sequence.add(int(row["dram"]), flops[part], itemsize, int(row["launches"]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    args = parser.parse_args()
    rows = []
    for model, shape in (("ViT-B/16", VIT_B_16), ("ViT-L/14", VIT_L_14)):
        for mixed in (True, False):
            ours = kernels(model, shape, mixed)
            if not ours:
                continue
            theirs = eager(shape, mixed)
            for name, sequence in ours.items():
                other = theirs[name.split(",")[0]]
                rows.append(
                    {
                        "model": model,
                        "precision": "mixed" if mixed else "float32",
                        "part": name,
                        "launches": sequence.launches,
                        "megabytes": round(sequence.bytes / 1e6, 1),
                        "gigaflops": round(sequence.flops / 1e9, 2),
                        "microseconds": round(sequence.seconds * 1e6, 1),
                        "eager_launches": other.launches,
                        "eager_megabytes": round(other.bytes / 1e6, 1),
                        "eager_gigaflops": round(other.flops / 1e9, 2),
                        "eager_microseconds": round(other.seconds * 1e6, 1),
                    }
                )
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")


if __name__ == "__main__":
    main()
