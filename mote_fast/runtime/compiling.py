"""torch.compile where it can serve: what it lacks on a device, and functions that go on without it."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch

from mote_fast.errors import BackendError, ConfigError, one_line

log = logging.getLogger(__name__)

# Always, never, or where it pays and the compiler works.
Compile: TypeAlias = bool | Literal["auto"]

# Triton promises no GPU below, and PyTorch's compiler makes Triton kernels.
LEAST_CAPABILITY = (7, 0)


def check_compile(choice: object) -> None:
    """Raise ConfigError unless ``choice`` is True, False or "auto"."""
    if not isinstance(choice, bool) and choice != "auto":
        raise ConfigError(f"compile must be True, False or 'auto', got {choice!r}")


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


class Compiled:
    """A function that torch.compile takes at its first call. Copies share the function, pickled ones compile again.

    Args:
        function: what to compile.
        what: its name for messages.
        required: a failing compiler raises. Otherwise the function runs as it is from then on, after one warning.
        options: keyword arguments of ``torch.compile``.

    Attributes:
        problem: why the function runs as it is; None while it is compiled.
    """

    def __init__(self, function: Callable[..., Any], what: str, *, required: bool, **options: Any) -> None:
        self._function = function
        self._what = what
        self._required = required
        self._options = options
        self._compiled: Callable[..., Any] | None = None
        self.problem: str | None = None

    def __call__(self, *args: Any) -> Any:
        """Call the function.

        Raises:
            BackendError: the compiler fails, and is required.
        """
        if self.problem is not None:
            return self._function(*args)
        # A second that only those who compile spend.
        from torch._dynamo.exc import TorchDynamoException

        if self._compiled is None:
            self._compiled = torch.compile(self._function, **self._options)
        try:
            return self._compiled(*args)
        # The compiler's own failures: nothing was computed yet, so the call can be made again.
        except TorchDynamoException as error:
            reason = one_line(error)
            if self._required:
                raise BackendError(f"torch.compile of {self._what} fails, leave it out: {reason}") from error
            self.problem = f"torch.compile fails: {reason}"
            log.warning("%s runs without torch.compile, which fails: %s", self._what, reason)
        return self._function(*args)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_compiled": None}
