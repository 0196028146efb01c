"""When the image tower runs through torch.compile: if asked to, or by itself once there is much work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mote_fast.ops.products import serving
from mote_fast.runtime.compiling import Compile, Compiled, check_compile, compiler_problem

log = logging.getLogger(__name__)

TOWER = "the image tower"

# Frames of work on many videos after which "auto" compiles. A prediction, until a report of benchmarks/device_check.py
# says after how many frames it is won back: compiling takes most of a minute, which a fifth less time wins back after
# some hundred thousand frames of ViT-B/16 on a small GPU, and after more than a million on a large one. So a run that
# ends before this number lost little by not compiling, and one that goes on loses little by this late start.
WORTH_COMPILING = 100_000


class TowerCompiler:
    """Runs the image tower, as it is or compiled, for any number of frames by one graph.

    Args:
        eager: maps the towers and pixels [N, 3, S, S] to features [N, d].

    Attributes:
        choice: True compiles at the first call; "auto" on a GPU, without gradients, after ``WORTH_COMPILING`` frames of
            work on many videos, and goes on without where the compiler is missing or fails, after one warning.
    """

    def __init__(self, eager: Callable[[Any, Tensor], Tensor]) -> None:
        self._eager = eager
        self._compiled: Compiled | None = None
        self._frames = 0
        self._problem: str | None = None
        self.choice: Compile = False

    @property
    def state(self) -> str:
        """What runs the tower: "compiled", "eager", or "eager: " and why it could not be compiled."""
        problem = self._problem or (self._compiled.problem if self._compiled is not None else None)
        if problem is not None:
            return f"eager: {problem}"
        return "eager" if self._compiled is None else "compiled"

    def choose(self, choice: Compile) -> None:
        """Start anew with a choice.

        Raises:
            ConfigError: it is none.
        """
        check_compile(choice)
        self.choice, self._compiled, self._frames, self._problem = choice, None, 0, None

    def compile(self, **options: Any) -> None:
        """Compile at the next call, with these arguments of ``torch.compile``, whatever was chosen."""
        self._start(required=True, **options)

    def start(self, device: torch.device) -> bool:
        """Compile at the next call if the choice allows it: "auto" on a GPU; return whether it will be compiled."""
        if self._compiled is None and (self.choice is True or (self.choice == "auto" and self._can_compile(device))):
            self._start(required=self.choice is True)
        return self._compiled is not None

    def encode(self, towers: Any, pixels: Tensor, many: bool) -> Tensor:
        """Return the features [N, d] of ``pixels [N, 3, S, S]``; ``many`` counts them as work on many videos.

        Raises:
            BackendError: the compiler fails, and was asked for by name.
        """
        # Within a graph of the caller's there is none of ours.
        if torch.compiler.is_compiling():
            return self._eager(towers, pixels)
        if self._compiled is None and self._is_due(pixels, many):
            self.start(pixels.device)
        count = len(pixels)
        if self._compiled is None or count == 0:
            return self._eager(towers, pixels)
        # The compiler would make another graph for one frame, and without the mark one for each further number.
        padded = torch.cat((pixels, pixels)) if count == 1 else pixels
        torch._dynamo.maybe_mark_dynamic(padded, 0)
        features = self._compiled(towers, padded)
        return features[:1] if count == 1 else features

    def _is_due(self, pixels: Tensor, many: bool) -> bool:
        if self.choice == "auto":
            if not many or pixels.device.type != "cuda" or torch.is_grad_enabled():
                return False
            self._frames += len(pixels)
            return self._frames >= WORTH_COMPILING
        return self.choice

    def _can_compile(self, device: torch.device) -> bool:
        if device.type != "cuda":
            return False
        if self._problem is None:
            self._problem = compiler_problem(device)
            if self._problem is not None:
                log.warning("%s runs without torch.compile: %s", TOWER, self._problem)
        return self._problem is None

    def _start(self, *, required: bool, **options: Any) -> None:
        # A graph takes what is decided when it is made.
        serving()
        self._compiled = Compiled(self._eager, TOWER, required=required, **options)
