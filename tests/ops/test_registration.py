"""PyTorch's own checks of every registered operator, by each implementation for CPU tensors."""

from __future__ import annotations

import pytest
import torch
from device.section_opcheck import operator_arguments

from mote_fast.device_check.expert_cases import PRECISIONS
from mote_fast.ops.implementations import Implementation, implemented_by

CPU = torch.device("cpu")
FLOAT32 = PRECISIONS[0]


@pytest.mark.heavy
@pytest.mark.parametrize("implementation", ["cpu", "torch"])
def test_schema_gradients_fake_kernels_and_dynamic_compilation(implementation: Implementation) -> None:
    """They hold together, backward operators included."""
    with implemented_by(implementation):
        for name, arguments in operator_arguments(FLOAT32, CPU).items():
            torch.library.opcheck(getattr(torch.ops.mote_fast, name.split(",")[0]).default, arguments)


def test_none_is_left_out() -> None:
    """Every operator of the experts and of the activation; that of products.py has its own tests."""
    checked = {f"mote_fast::{name.split(',')[0]}" for name in operator_arguments(FLOAT32, CPU)}
    names = torch._C._dispatch_get_all_op_names()
    assert checked == {name for name in names if name.startswith("mote_fast::")} - {"mote_fast::linear"}
