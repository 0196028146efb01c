"""From a workload to rows: times by turns, memory, outputs against the baseline's, shares of the peak."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from harness import Timing, compare
from torch import Tensor
from torch.nn import functional as F

from stages.gauge import measured
from stages.peaks import GEMM, Peak, peak_of, tflops_peak
from stages.workload import Arm, Workload

# Largest relative difference that is rounding where both arms compute in 16 bits.
SIXTEEN_BIT_TOLERANCE = 0.02
# One arm of one workload, ready for JSON; FIELDS are its keys.
Row: TypeAlias = dict[str, Any]
FIELDS: tuple[str, ...] = (
    "stage",
    "workload",
    "arm",
    "median_ms",
    "p20_ms",
    "p80_ms",
    "clips_per_s",
    "ratio",
    "peak_mib",
    "difference",
    "cosine",
    "tolerance",
    "tflops",
    "of_peak",
    "gb_per_s",
    "of_bandwidth",
    "scale",
    "rounds",
    "preparation_ms",
)


def measure(workload: Workload, device: torch.device, dtype: torch.dtype = torch.float32) -> list[Row]:
    """Measure every arm of a workload.

    The arms take turns; then each runs once more, warm, for its output and its memory.
    """
    timings = compare({arm.name: arm.call for arm in workload.arms}, workload.rounds, workload.warmup)
    outputs, peaks = {}, {}
    for arm in workload.arms:
        outputs[arm.name], peaks[arm.name] = measured(arm.call, device)
    timings = {arm.name: Timing(*(arm.scale * value for value in timings[arm.name])) for arm in workload.arms}
    base = workload.baseline.name
    gemm = next((arm.flops / timings[arm.name].median for arm in workload.arms if arm.name == GEMM and arm.flops), None)
    part = peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    ceiling = 1e12 * tflops_peak(part, dtype) if part is not None else gemm
    rows = []
    for arm in workload.arms:
        timing = timings[arm.name]
        row = dict.fromkeys(FIELDS) | {
            "stage": workload.stage,
            "workload": workload.name,
            "arm": arm.name,
            "median_ms": _digits(1e3 * timing.median),
            "p20_ms": _digits(1e3 * timing.p20),
            "p80_ms": _digits(1e3 * timing.p80),
            "clips_per_s": _digits(arm.clips * arm.scale / timing.median) if arm.clips else None,
            "ratio": None if arm.yardstick else _digits(timings[base].median / timing.median),
            "peak_mib": None if arm.yardstick or peaks[arm.name] is None else round(peaks[arm.name], 1),
            "scale": arm.scale,
            "rounds": workload.rounds,
            "preparation_ms": _digits(1e3 * arm.preparation),
        }
        row |= _agreement(arm, outputs[arm.name], outputs[base], dtype)
        row |= _rates(arm, timing.median / arm.scale, ceiling, part)
        rows.append(row)
    return rows


def _agreement(arm: Arm, output: object, reference: object, dtype: torch.dtype) -> Row:
    """Relative difference and mean cosine of rows; of the rows that both have, where one measured a part."""
    if arm.tolerance is None or not isinstance(output, Tensor) or not isinstance(reference, Tensor):
        return {}
    rows = min(len(output), len(reference))
    mine, other = output[:rows].detach().double().flatten(1), reference[:rows].detach().double().flatten(1)
    cosine = F.cosine_similarity(mine, other, dim=-1).mean().item()
    return {
        "difference": _digits(((mine - other).norm() / other.norm()).item()),
        "cosine": round(cosine, 6),
        "tolerance": arm.tolerance if dtype == torch.float32 else max(arm.tolerance, SIXTEEN_BIT_TOLERANCE),
    }


def _rates(arm: Arm, seconds: float, ceiling: float | None, part: Peak | None) -> Row:
    row: Row = {}
    if arm.flops is not None:
        row["tflops"] = _digits(arm.flops / seconds / 1e12)
        row["of_peak"] = None if ceiling is None else round(arm.flops / seconds / ceiling, 3)
    if arm.nbytes is not None:
        row["gb_per_s"] = _digits(arm.nbytes / seconds / 1e9)
        row["of_bandwidth"] = None if part is None else round(arm.nbytes / seconds / 1e9 / part.gbs, 3)
    return row


def _digits(value: float) -> float:
    """Four significant digits: more than any of the figures is good for."""
    return float(f"{value:.4g}")
