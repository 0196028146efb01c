"""What a part can do at most: published figures of GPUs, and a matrix product timed on the CPU at hand."""

from __future__ import annotations

from typing import NamedTuple

import torch

from stages.workload import Arm

GEMM = "GEMM peak"


class Peak(NamedTuple):
    """Published peaks of a part: memory in GB/s, and dense TFLOP/s by dtype (float32 without TensorFloat-32)."""

    gbs: float
    float32: float
    sixteen_bit: float


# By a piece of the name that PyTorch gives; the first that fits counts, so longer names stand first.
PEAKS = {
    "A100-SXM4-80GB": Peak(2039, 19.5, 312),
    "A100 80GB PCIe": Peak(1935, 19.5, 312),
    "A100": Peak(1555, 19.5, 312),
    "H100 PCIe": Peak(2000, 51.2, 756),
    "H100 NVL": Peak(3938, 60, 835),
    "H100": Peak(3350, 66.9, 989),
    "H200": Peak(4800, 66.9, 989),
    "RTX 4090": Peak(1008, 82.6, 165.2),
    "L40S": Peak(864, 91.6, 362),
    "L4": Peak(300, 30.3, 121),
}


def peak_of(name: str) -> Peak | None:
    """The peaks of the part that PyTorch calls ``name``; None for one that the table lacks."""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def tflops_peak(peak: Peak, dtype: torch.dtype) -> float:
    """The dense TFLOP/s of a part in ``dtype``."""
    return peak.float32 if dtype == torch.float32 else peak.sixteen_bit


def gemm(rows: int, width: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Arm:
    """A plain product of the shape of a tower's first MLP layer: ``[rows, width] x [width, 4 width]``."""
    left = torch.randn(rows, width, device=device, dtype=dtype)
    right = torch.randn(width, 4 * width, device=device, dtype=dtype)
    out = torch.empty(rows, 4 * width, device=device, dtype=dtype)

    def call() -> None:
        torch.mm(left, right, out=out)

    return Arm(GEMM, call, flops=8.0 * rows * width * width, tolerance=None, yardstick=True)
