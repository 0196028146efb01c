"""PyTorch's own checks of every registered operator, with the Triton kernels behind it."""

from __future__ import annotations

import torch
from device.section_opcheck import operator_arguments

from mote_fast.device_check.expert_cases import PRECISIONS, Shape
from mote_fast.ops.implementations import implemented_by

# One tile of every product: each check runs the kernels up to a dozen times, and tests/ops checks larger sizes.
SMALL = Shape("d=16 N=4", 16, 2, 2, 2)


def test_schema_gradients_fake_kernels_and_dynamic_compilation() -> None:
    """They hold together for what the launchers return, backward operators included."""
    with implemented_by("triton"):
        for name, arguments in operator_arguments(PRECISIONS[0], torch.device("cpu"), SMALL).items():
            torch.library.opcheck(getattr(torch.ops.mote_fast, name.split(",")[0]).default, arguments)
