"""Tile sizes per architecture family, as data. All of them are compiled and checked ahead of time (``make aot``).

Cost model. A matrix tile of R rows and C columns does 2 R C flops per step of the reduced dimension and loads R + C
values for it: 2 R C / (b (R + C)) flops per byte of L2 traffic, b bytes per value. A multiprocessor of an H100 does
4096 dense 16-bit flops per clock and receives at most 64 bytes per clock from L2, so its tensor cores need 64 flops per
byte, which 128 x 128 reaches in 16 bits (64 x 64: 32, half of the peak). A launch takes, in units of a full-speed
flop of one multiprocessor,
    ceil(programs / processors) * R C K * max(1, balance / intensity)
and at this model's sizes (384 to 1024 tokens, d = 512 or 768, two streams) the first factor dominates: for the
down-projection of ViT-B/16, 128 x 128 makes 32 programs for 132 processors, 64 x 64 makes 128. ``matrix_tile`` returns
the tile of least cost in the table of its family.

A product over the hidden width may be split: P programs take a tile's reduced dimension in parts, and the last of them
to end adds the parts up (split_products.py). That costs the bytes of the parts through L2 and a fixed handover; a split
is taken where it makes a launch a tenth cheaper. It does for ViT-L/14, whose down-projection has 72 tiles of 64 x 128
for 132 processors, and for small batches.

Programs of one multiprocessor share its tensor cores and its way to L2, so that how many fit at once is not in the
model: it hides latency. At 16 bits two 128 x 128 tiles fit on an H100, and four 64 x 64.

The reduction step and the stages are bounded by shared memory, about stages * reduce * (R + C) b bytes. Tiles of sm_80
stay below the 101,376 bytes of the consumer GPUs that share the table (sm_86, sm_89, sm_120). An accumulator takes
R C / (32 warps) registers per thread: 64 or fewer here. float32 goes through tf32x3, which keeps two halves of both
operands in registers, hence the smaller tiles.

Vector kernels (merge, expansion, AdamW) are bound by memory: 8 values per thread, two 128-bit accesses in float32 and
one in 16 bits, with the rows of all experts in flight at once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Family = Literal["sm_80", "sm_90", "sm_100"]
Product = Literal["linear", "gradient"]


class MatrixTile(NamedTuple):
    """One program's share of a matrix product, and how it is pipelined."""

    rows: int
    columns: int
    reduce: int
    warps: int
    stages: int
    # Programs that share the reduced dimension, in launches that can split it (split_products).
    parts: int = 1

    @property
    def block(self) -> tuple[int, int, int]:
        """(R, C, K), as kernels take it."""
        return self.rows, self.columns, self.reduce


class VectorTile(NamedTuple):
    """One program's share of a row of expert parameters."""

    block: int
    warps: int


class GpuSpec(NamedTuple):
    """The GPU that a family is tuned for; a device at hand is asked for its own number of processors."""

    processors: int
    # 16-bit flops per byte from L2 that keep the tensor cores of one multiprocessor busy.
    balance: float


# A100, H100 SXM and B200: 2048, 4096 and 8192 dense 16-bit flops per clock against 64 bytes.
GPU_SPECS: dict[Family, GpuSpec] = {
    "sm_80": GpuSpec(108, 32.0),
    "sm_90": GpuSpec(132, 64.0),
    "sm_100": GpuSpec(148, 128.0),
}

# TF32 runs at half the 16-bit rate, and tf32x3 takes three products.
FLOAT32_SLOWDOWN = 6

# Splitting the reduced dimension: at most so many parts by the bytes of an activation (each is memory traffic, which a
# third of float32 would bring over the limit of traffic.csv), of so many tiles, if it costs so much less by the model.
MAX_PARTS, MAX_SPLIT_TILES, SPLIT_BELOW = {2: 3, 4: 2}, 1024, 0.9
# A store that is seen by all, a counter and the first load after it take about 2000 clocks, of 64 bytes from L2 each.
HANDOVER_BYTES = 128_000

# Keyed by the product (the linear maps and input gradients, or the weight gradients) and by the bytes of an activation:
# 2 for bfloat16 and float16, 4 for float32. sm_100 stays below 128 x 128, where its compiler spills a few registers.
MATRIX_TILES: dict[Family, dict[Product, dict[int, tuple[MatrixTile, ...]]]] = {
    "sm_80": {
        "linear": {
            2: (MatrixTile(64, 128, 32, 4, 3), MatrixTile(64, 64, 32, 4, 4), MatrixTile(16, 64, 64, 4, 3)),
            4: (MatrixTile(64, 64, 32, 8, 3), MatrixTile(16, 128, 32, 4, 3)),
        },
        "gradient": {
            2: (MatrixTile(128, 128, 32, 8, 3), MatrixTile(64, 64, 32, 4, 4)),
            4: (MatrixTile(64, 64, 32, 8, 3),),
        },
    },
    "sm_90": {
        "linear": {
            2: (MatrixTile(128, 128, 64, 8, 3), MatrixTile(64, 128, 64, 4, 3), MatrixTile(64, 64, 64, 4, 3)),
            4: (MatrixTile(64, 64, 32, 4, 3),),
        },
        "gradient": {
            2: (MatrixTile(128, 128, 64, 8, 3), MatrixTile(64, 64, 64, 4, 3)),
            4: (MatrixTile(64, 64, 32, 4, 3),),
        },
    },
    "sm_100": {
        "linear": {
            2: (MatrixTile(128, 64, 64, 8, 3), MatrixTile(64, 64, 64, 8, 3)),
            4: (MatrixTile(64, 64, 32, 4, 3),),
        },
        "gradient": {
            2: (MatrixTile(128, 64, 64, 4, 3), MatrixTile(64, 64, 64, 8, 3)),
            4: (MatrixTile(64, 64, 32, 4, 3),),
        },
    },
}

VECTOR_TILE = VectorTile(1024, 4)
SMALL_VECTOR_TILE = VectorTile(512, 4)


def family_of(capability: tuple[int, int]) -> Family:
    """Return the family of a CUDA compute capability; consumer GPUs share sm_80's smaller tiles."""
    if capability[0] == 9:
        return "sm_90"
    return "sm_100" if capability[0] in (10, 11) else "sm_80"


@lru_cache(maxsize=64)
def _family_on(device: torch.device) -> Family:
    return family_of(torch.cuda.get_device_capability(device))


def device_family(device: torch.device) -> Family:
    """Return the family of a device; sm_90 for the CPU, where only Triton's interpreter runs these kernels."""
    return _family_on(device) if device.type == "cuda" else "sm_90"


@lru_cache(maxsize=64)
def _processors_of(device: torch.device) -> int:
    """Return the multiprocessors of a device, which differ within a family, and with MIG on one card."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    return GPU_SPECS[device_family(device)].processors


def readable_wide(*tensors: Tensor) -> bool:
    """Whether 128-bit accesses can read every tensor along its last dimension, judged from Triton's arguments."""
    return all(
        t.data_ptr() % 16 == 0 and t.stride(-1) == 1 and all(stride % 16 == 0 for stride in t.stride()[:-1])
        for t in tensors
    )


def matrix_tile(
    product: Product, activations: Tensor, rows: int, columns: int, groups: int = 1, inner: int = 0
) -> MatrixTile:
    """Return the tile of least cost, by the model in this file's docstring.

    Args:
        product: "linear" or "gradient" (of weights).
        activations: an operand, which gives device and dtype.
        rows: rows of the product.
        columns: columns of the product.
        groups: products that the launch computes in parallel.
        inner: length of the reduced dimension where it may be split, else 0.
    """
    device = activations.device
    processors, itemsize = _processors_of(device), activations.element_size()
    return cheapest(product, device_family(device), processors, itemsize, rows, columns, groups, inner)


@lru_cache(maxsize=1024)
def cheapest(
    product: Product,
    family: Family,
    processors: int,
    itemsize: int,
    rows: int,
    columns: int,
    groups: int,
    inner: int = 0,
) -> MatrixTile:
    """Return the tile of least cost on a GPU of a family with so many multiprocessors."""
    balance = GPU_SPECS[family].balance / (1 if itemsize == 2 else FLOAT32_SLOWDOWN)

    def tiles(tile: MatrixTile) -> int:
        return groups * -(-rows // tile.rows) * -(-columns // tile.columns)

    def cost(tile: MatrixTile) -> tuple[float, int]:
        rounds = -(-tiles(tile) * tile.parts // processors)
        area = tile.rows * tile.columns
        intensity = 2 * area / (itemsize * (tile.rows + tile.columns))
        depth, moved = inner or 1, 0
        if tile.parts > 1:
            depth = -(-inner // (tile.reduce * tile.parts)) * tile.reduce
            # Every part is written, and one program reads all parts of its tile, in float32.
            moved = 4 * area * (rounds + tile.parts) + HANDOVER_BYTES
        # Ties go to the smaller tile: several of its programs on one processor hide each other's latency.
        return rounds * area * depth * max(1.0, balance / intensity) + moved * balance / 2, area

    table = MATRIX_TILES[family][product][itemsize]
    whole = min(table, key=cost)
    split = [
        tile._replace(parts=parts)
        for tile in table
        for parts in range(2, MAX_PARTS[itemsize] + 1)
        if inner and tiles(tile) <= MAX_SPLIT_TILES
    ]
    best = min(split, key=cost, default=whole)
    return best if cost(best)[0] < SPLIT_BELOW * cost(whole)[0] else whole
