"""torch.compile where it can serve: what it lacks on a device, and functions that go on without it."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch

from mote_fast.errors import one_line

log = logging.getLogger(__name__)

# Triton promises no GPU below, and PyTorch's compiler makes Triton kernels.
LEAST_CAPABILITY = (7, 0)


def compiler_problem(device: torch.device) -> str | None:
    """Return why torch.compile cannot serve a GPU here, None if it can as far as can be told without compiling."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    # As Triton looks for it.
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")):
        return "there is no C compiler (gcc or clang), which Triton builds its launchers with"
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        return "the GPU has compute capability {}.{}, and the compiler needs {}.{}".format(
            *capability, *LEAST_CAPABILITY
        )
    return None


def compiled_or_eager(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    """Return ``function`` compiled; where the compiler fails, it runs as it is from then on, after one warning.

    Args:
        function: what to compile.
        what: its name for the warning.
    """
    # A second that only those who compile spend.
    from torch._dynamo.exc import TorchDynamoException

    compiled = torch.compile(function)
    failed = False

    def run(*args: Any) -> Any:
        nonlocal failed
        if not failed:
            try:
                return compiled(*args)
            # The compiler's own failures: nothing was computed yet, so the call can be made again.
            except TorchDynamoException as error:
                failed = True
                log.warning("%s runs without torch.compile, which fails: %s", what, one_line(error))
        return function(*args)

    return run
