"""Peaks of parts: the name decides, and an unknown name gives no figure."""

from __future__ import annotations

import pytest
import torch
from stages.peaks import PEAKS, peak_of, tflops_peak


@pytest.mark.parametrize(
    ("name", "gbs"),
    [
        ("NVIDIA A100-SXM4-40GB", 1555),
        ("NVIDIA A100-SXM4-80GB", 2039),
        ("NVIDIA H200", 4800),
        ("NVIDIA L4", 300),
        ("NVIDIA L40S", 864),
    ],
)
def test_parts_are_told_apart(name: str, gbs: float) -> None:
    """A longer name that holds a shorter one is found first."""
    peak = peak_of(name)
    assert peak is not None
    assert peak.gbs == gbs


def test_an_unknown_part_has_no_peak() -> None:
    """No fraction is better than a wrong one."""
    assert peak_of("Some Accelerator 9000") is None


def test_dtype_picks_the_peak() -> None:
    """Float32 does not run on tensor cores unless asked to."""
    peak = PEAKS["H200"]
    assert tflops_peak(peak, torch.float32) == peak.float32 < tflops_peak(peak, torch.bfloat16)
