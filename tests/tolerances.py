"""The one table of tolerances, and the one error metric: relative Frobenius norm and worst element."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Tolerance(NamedTuple):
    """Largest allowed errors: of the norm, relative; and of any element, relative to the largest expected element."""

    norm: float
    worst: float


TOLERANCES = {
    # Another order of float32 sums.
    "float32": Tolerance(1e-5, 1e-4),
    # A few long float32 sums whose terms may cancel.
    "dot product": Tolerance(1e-4, 1e-4),
    # The same computation with the same sums, folded or reordered once.
    "equivalent": Tolerance(1e-6, 1e-5),
    # Ten optimiser steps amplify rounding.
    "trajectory": Tolerance(1e-4, 1e-4),
    # Triton kernels under the interpreter, against float64.
    "kernel float32": Tolerance(1e-5, 1e-5),
    "kernel float16": Tolerance(2e-3, 2e-3),
    # The same mathematics in float64.
    "float64": Tolerance(1e-12, 1e-12),
    # Reduced precision of parameters and activations.
    "float16": Tolerance(2e-3, 2e-2),
    "bfloat16": Tolerance(2e-2, 2e-1),
    # Golden pixels are stored in float16, and come from another bicubic implementation.
    "pixels": Tolerance(1e-2, 2e-2),
    # Nothing but copies.
    "exact": Tolerance(0.0, 0.0),
}

# Levels of 0 to 255 by which a decoded flat colour may differ from its definition: 8-bit samples are 1 level coarse,
# and FFmpeg's fast conversions of subsampled chroma round down at every step. A wrong matrix or range is 12 or more.
GREY_LEVELS = 3


def errors(actual: Tensor, expected: Tensor) -> Tolerance:
    """Return the relative Frobenius error and the worst element's error over the largest expected magnitude."""
    difference, reference = actual.detach().double() - expected.double(), expected.double()
    norm, largest = reference.norm(), reference.abs().amax() if reference.numel() else torch.tensor(0.0)
    if not difference.numel() or not difference.any():
        return Tolerance(0.0, 0.0)
    return Tolerance((difference.norm() / norm).item(), (difference.abs().amax() / largest).item())


def assert_close(actual: Tensor, expected: Tensor, kind: str = "float32") -> None:
    """Assert equal shapes and errors within the named tolerance; NaN never passes."""
    assert actual.shape == expected.shape
    found, allowed = errors(actual, expected), TOLERANCES[kind]
    assert found.norm <= allowed.norm, f"relative norm error {found.norm:.2e} > {allowed.norm:.0e} ({kind})"
    assert found.worst <= allowed.worst, f"worst element error {found.worst:.2e} > {allowed.worst:.0e} ({kind})"
