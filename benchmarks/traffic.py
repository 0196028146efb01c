"""Compare the bytes that kernels load and store with the bytes they cannot avoid.

    TRITON_INTERPRET=1 python benchmarks/traffic.py [--quick] [--write] [--filter TEXT]

The kernels run at full training shapes in Triton's interpreter, and traffic_count.py records what they access: there,
the three counts are explained. QuickGELU runs on the frames that training recomputes at once, in one layer of the
image tower: a launch's bytes are proportional to its frames.

Compulsory bytes: each input once and each output once, the saved activations counting as an output of the forward pass
and an input of the backward pass. The assumption of the limits is therefore: tiles that programs share, and
intermediates between the launches of one operator, are served by that L2, where they are not larger. Operators without
products need no assumption.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from launches import VIT_B_16, VIT_L_14, Shape
from torch import Tensor
from tqdm import tqdm
from traffic_count import L2_BYTES, counted

from mote_fast.kernels.expert_ffn import expert_pair_backward, expert_pair_forward
from mote_fast.kernels.factored_adamw import adamw_factored
from mote_fast.kernels.merge import expand_expert_gradient, merge_experts_backward, merge_experts_forward
from mote_fast.kernels.quick_gelu import quick_gelu_backward, quick_gelu_forward
from mote_fast.kernels.reference import EXPANSION, expert_size
from mote_fast.kernels.routed_ffn import Grouping, Saved, routed_backward, routed_forward

RESULTS = Path(__file__).parent / "results" / "traffic.csv"

# Of one launch in the image tower: those that training recomputes at once.
FRAMES = 32

# What to run, and the bytes that it cannot avoid.
Operator: TypeAlias = tuple[Callable[[], object], int]


class Model(NamedTuple):
    """One layer's experts in training, and the image tower's width and tokens of a frame."""

    experts: Shape
    width: int
    tokens: int


MODELS = {"ViT-B/16": Model(VIT_B_16, 768, 197), "ViT-L/14": Model(VIT_L_14, 1024, 257)}
# A quarter of ViT-B/16 in every matrix, for the quick form; the L2 is scaled with it.
QUARTER = {"quarter of ViT-B/16": Model(Shape(256, 32, 8, 4), 192, 50)}
DTYPES = ((torch.float16, torch.float32), (torch.float32, torch.float32))


def bits(dtype: torch.dtype) -> str:
    return "16-bit" if dtype.itemsize == 2 else "float32"


def size_of(*tensors: Tensor) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def operators(model: Model, activation: torch.dtype, master: torch.dtype) -> dict[str, Operator]:
    """Every operator at one shape, on zeros (values move no addresses); 16-bit activations are float16 here."""
    shape = model.experts
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
    starts = torch.nn.functional.pad(chosen.bincount(minlength=shape.experts).cumsum(0), (1, 0))
    grouped = Saved(saved[:2], Grouping(chosen.argsort(stable=True).int(), starts.int()))
    row, stack, kept = size_of(rows[0]), size_of(experts), size_of(saved)
    # Backward needs no biases.
    biases = (EXPANSION + 1) * width * activation.itemsize
    merging = stack + size_of(weights, merged)
    # Forward writes both experts' rows and the activations that backward reads; it finds them in L2 itself.
    pair = stack + size_of(weights, index, rows, *x4) + kept
    if size_of(rows) > L2_BYTES:
        # The products find them in memory: both rows of ViT-L/14 in float32.
        pair += size_of(rows)
    # The pair's backward reads both inputs and both output gradients, and writes both input gradients.
    pair_back = size_of(rows, *x4, x, y, grads) + kept - 2 * biases
    # A cast of all experts precedes the routed products where they have another dtype: it is none of these launches.
    routed = used * row + size_of(clips, clips, chosen) + kept // 2
    routed_back = used * (row - biases) + stack + 3 * size_of(clips) + kept // 2
    moments = torch.zeros_like(experts), torch.zeros_like(experts)
    factor = (grads[1], grads[0], weights, index)
    hidden = torch.zeros(FRAMES * model.tokens, EXPANSION * model.width, dtype=activation)
    found: dict[str, Operator] = {
        "merge forward": (lambda: merge_experts_forward(experts, weights, activation), merging),
        "merge backward": (lambda: merge_experts_backward(merged, weights, out_dtype=master), merging),
        "expand gradient": (lambda: expand_expert_gradient(*factor), stack + size_of(grads, weights, index)),
        "pair forward": (lambda: expert_pair_forward(x, y, experts, weights, index), pair),
        "pair backward": (lambda: expert_pair_backward(x, y, dy, dx, experts, rows, index, saved), pair_back),
        "adamw": (lambda: adamw_factored(experts, *moments, [factor], 1, 1e-4), 6 * stack + size_of(grads)),
        "routed forward": (lambda: routed_forward(clips, experts, chosen), routed),
        "routed backward": (lambda: routed_backward(clips, clips, experts, chosen, grouped), routed_back),
        "quick_gelu forward": (lambda: quick_gelu_forward(hidden), 2 * size_of(hidden)),
        "quick_gelu backward": (lambda: quick_gelu_backward(torch.zeros_like(hidden), hidden), 3 * size_of(hidden)),
    }
    if activation == master:
        # No activations enter AdamW: it would be the row of mixed precision again.
        del found["adamw"]
    return found


class Case(NamedTuple):
    """What identifies a row."""

    model: str
    activation: str
    master: str
    operator: str

    @property
    def name(self) -> str:
        """What ``--filter`` sees."""
        return f"{self.model} {self.activation} {self.operator}"


def cases(models: Mapping[str, Model]) -> Iterator[tuple[Case, Operator]]:
    """Every operator of every model in mixed and in single precision."""
    for (name, model), (activation, master) in product(models.items(), DTYPES):
        for operator, run in operators(model, activation, master).items():
            yield Case(name, bits(activation), str(master).removeprefix("torch."), operator), run


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
    def case(self) -> Case:
        return Case(*self[:4])


def measure(case: Case, operator: Operator, l2_bytes: int = L2_BYTES) -> Row:
    """Run one operator and count."""
    run, compulsory = operator
    with counted() as traffic:
        run()
    # Largest allowed ratio to the compulsory bytes, and which count it is taken of.
    limited, limit = ("dram", 1.25) if case.operator.startswith(("pair", "routed")) else ("requested", 1.02)
    counts = {"requested": traffic.requested, "per_launch": traffic.per_launch(), "dram": traffic.dram(l2_bytes)}
    ratio = round(counts[limited] / compulsory, 4)
    return Row(*case, len(traffic.launches), compulsory, **counts, ratio=ratio, limit=limit, limited=limited)


def describe(row: Row) -> str:
    """Return a row as one line of text."""
    counts = {"requested": row.requested, "per launch": row.per_launch, "dram": row.dram}
    ratios = " ".join(f"{count / row.compulsory:5.3f} {name}" for name, count in counts.items())
    verdict = "over the limit of" if row.ratio > row.limit else "within"
    return (
        f"{row.case.name:32} {row.launches} launches {row.compulsory / 1e6:6.1f} MB x {ratios}; "
        f"{row.limited} {verdict} {row.limit}"
    )


def read_results(path: Path = RESULTS) -> dict[Case, Sequence[str]]:
    """Return the lines of the committed results by their cases."""
    with path.open(newline="") as file:
        header, *lines = csv.reader(file)
    assert tuple(header) == Row._fields, f"{path}: write it again with --write"
    return {Case(*line[:4]): line for line in lines}


def write(rows: Sequence[Row], keep: bool) -> None:
    """Write the results in the order of the cases; ``keep`` those that were not counted again."""
    order = [case for case, _ in cases(MODELS)]
    # Just before the file is written: another process may count other rows.
    table: dict[Case, Sequence[Any]] = {**(read_results() if keep and RESULTS.exists() else {})}
    table |= {row.case: row for row in rows}
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(table[case] for case in order if case in table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="mixed precision at a quarter of ViT-B/16")
    parser.add_argument("--filter", default="", help="only rows that start so, such as 'ViT-L/14 16-bit pair'")
    parser.add_argument("--write", action="store_true", help="replace the committed results")
    args = parser.parse_args()
    if args.quick and args.write:
        parser.error("--quick counts other shapes than the committed ones: leave --write out")
    chosen = [
        (case, operator)
        for case, operator in cases(QUARTER if args.quick else MODELS)
        if case.name.startswith(args.filter) and (case.activation == "16-bit" or not args.quick)
    ]
    rows = []
    for case, operator in tqdm(chosen, unit="operator", disable=None, leave=False):
        rows.append(measure(case, operator, L2_BYTES // 4 if args.quick else L2_BYTES))
        tqdm.write(describe(rows[-1]), file=sys.stderr)
    if args.write:
        write(rows, keep=bool(args.filter))
    return any(row.ratio > row.limit for row in rows)


if __name__ == "__main__":
    sys.exit(main())
