"""Which code serves the operators: a CPU's own, the Triton kernels, or plain PyTorch where Triton cannot serve."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from mote_fast.errors import BackendError
from mote_fast.runtime.checks import check_choice

Implementation = Literal["cpu", "triton", "torch"]
Part = Literal["merge", "expert_ffn", "routed_ffn", "factored_adamw", "quick_gelu"]

KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Triton promises NVIDIA GPUs from Ampere on.
LEAST_CAPABILITY = (8, 0)


class Kept(NamedTuple):
    """How much the expert operators keep for backward, in a form that only the same implementation reads.

    Attributes:
        activations: values for each pre-activation: a CPU computes QuickGELU's derivative again, a GPU keeps it beside
            QuickGELU.
        rows: experts of the pair, in the dtype of the activations: the merged one, or the routed one too.
    """

    activations: int
    rows: int


_MODULES = {
    "cpu": {
        "factored_adamw": "mote_fast.ops.cpu_adamw",
        "quick_gelu": "mote_fast.ops.plain_quick_gelu",
        "": "mote_fast.ops.cpu_experts",
    },
    "torch": {
        "factored_adamw": "mote_fast.ops.torch_adamw",
        "quick_gelu": "mote_fast.ops.plain_quick_gelu",
        "": "mote_fast.ops.torch_experts",
    },
}

_asked: Implementation | None = None


@contextmanager
def implemented_by(implementation: Implementation) -> Iterator[None]:
    """Run the operators and the experts' optimiser by one implementation, for tests and benchmarks.

    Args:
        implementation: "triton" also takes CPU tensors, under Triton's interpreter; "torch" takes any device; "cpu"
            takes CPU tensors. The choice holds for all threads: backward passes run in PyTorch's own.

    Raises:
        ConfigError: there is no such implementation.
    """
    global _asked
    check_choice("implementation", implementation, Implementation)
    before, _asked = _asked, implementation
    try:
        yield
    finally:
        _asked = before


def implementation_for(device: torch.device, *dtypes: torch.dtype) -> Implementation:
    """Return what serves tensors of these dtypes on a device.

    Raises:
        BackendError: "triton" was asked for, and its kernels do not take such tensors or cannot serve such a GPU.
    """
    if _asked == "triton":
        for dtype in dtypes:
            if dtype not in KERNEL_DTYPES:
                raise BackendError(
                    f"the Triton kernels take float32, bfloat16 and float16, got {dtype}: use implementation 'torch'"
                )
        if device.type == "cuda" and (problem := triton_problem(device)) is not None:
            raise BackendError(f"the Triton kernels cannot serve {device}: {problem}; use implementation 'torch'")
    if _asked is not None:
        return _asked
    if device.type == "cpu":
        return "cpu"
    if triton_problem(device) is None and all(dtype in KERNEL_DTYPES for dtype in dtypes):
        return "triton"
    return "torch"


def kept_by(device: torch.device) -> Kept:
    """Return what the implementation for a device keeps for backward: a CPU's own keeps less than the two for GPUs."""
    return Kept(1, 1) if (_asked or device.type) == "cpu" else Kept(2, 2)


@lru_cache(maxsize=64)
def triton_problem(device: torch.device) -> str | None:
    """Return why the Triton kernels cannot serve a GPU, or None if they can."""
    if torch.version.hip is not None:
        return "its kernels are for NVIDIA GPUs, and this PyTorch is built for AMD's, where plain PyTorch serves"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        return "the GPU has compute capability {}.{}, and Triton needs {}.{}".format(*capability, *LEAST_CAPABILITY)
    return None


@lru_cache(maxsize=64)
def launchers(part: Part, implementation: Implementation) -> ModuleType:
    """Return the module with the functions of one part, imported when first needed.

    All implementations of a part have the same functions and arguments: those of ``mote_fast.kernels.<part>``.
    """
    assert part in get_args(Part)
    if implementation == "triton":
        return importlib.import_module(f"mote_fast.kernels.{part}")
    modules = _MODULES[implementation]
    return importlib.import_module(modules.get(part) or modules[""])


def launchers_for(part: Part, *tensors: Tensor) -> ModuleType:
    """Return the module with the functions of one part that serves these tensors."""
    return launchers(part, implementation_for(tensors[0].device, *[tensor.dtype for tensor in tensors]))
