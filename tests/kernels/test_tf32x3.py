"""float32 products on tensor cores: the interpreter multiplies in float32, so tf32x3 is emulated here instead."""

from __future__ import annotations

import torch

from tests.tolerances import assert_close, errors


def tf32(x: torch.Tensor) -> torch.Tensor:
    """Round float32 to TF32's 10 bits of mantissa, to nearest, ties away from zero, as cvt.rna does."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def tf32x3(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Split operands into a TF32 part and a TF32 remainder; the smallest of the four products is left out."""
    a_large, b_large = tf32(a), tf32(b)
    a_small, b_small = tf32(a - a_large), tf32(b - b_large)
    return (a_small @ b_large + a_large @ b_small) + a_large @ b_large


def test_three_products_reach_float32() -> None:
    """At the longest reduction of the two models (4 * 768), within the tolerance that a single product misses."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(64, 3072, generator=generator)
    b = torch.randn(3072, 64, generator=generator)
    expected = a.double() @ b.double()
    assert_close(tf32x3(a, b), expected, "kernel float32")
    assert errors(tf32(a) @ tf32(b), expected).norm > 1e-4
