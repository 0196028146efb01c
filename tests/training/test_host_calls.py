"""What the host does in an eager step of the head: on a GPU it, and not the kernels, decides how long the step takes.

Calls are counted, which are the same on every machine, and not timed.
"""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mote_fast import Draws, VideoHead, head_optimizer, training_loss
from mote_fast.head.head_config import HeadConfig
from mote_fast.training.optim import HeadAdamW


class Calls:
    """Counts the library's functions that run in a step, and their calls into C, without the experts' own work.

    The first step, which makes the moments, is not counted.
    """

    def __init__(self, layers: int) -> None:
        torch.manual_seed(0)
        self.head = VideoHead(HeadConfig(16, 2, layers, 4))
        self.optimizer: HeadAdamW = head_optimizer(self.head, 1e-3)
        self.draws = Draws([layer % 4 for layer in range(layers)], [1.2] * layers)
        self.counts: Counter[str] = Counter()
        self.step()

    def step(self) -> None:
        """One step, as ``train_step`` takes it."""
        frames, classes, labels = torch.ones(2, 8, 16), torch.eye(5, 16), torch.tensor([0, 3])
        training_loss(self.head, frames, classes, labels, 100.0, draws=self.draws).total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def counted(self) -> int:
        """The calls of one more step."""

        def note(frame: FrameType, event: str, argument: object) -> None:
            del argument
            _, inside, file = frame.f_code.co_filename.rpartition("/mote_fast/")
            # On a GPU these are the launches of the kernels.
            if inside and event in ("call", "c_call") and not file.startswith("ops/cpu_"):
                self.counts[f"{file} {frame.f_code.co_name}"] += 1

        sys.setprofile(note)
        try:
            self.step()
        finally:
            sys.setprofile(None)
        return self.counts.total()


def test_calls_of_a_layer() -> None:
    """A further layer costs the host no more than it did when this bound was set; it was 392 before."""
    assert (Calls(4).counted() - Calls(2).counted()) / 2 <= 230


class Operators(TorchDispatchMode):
    """Counts PyTorch's operators of a step, forward, backward and update, without the experts' own work."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[Any] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # On a GPU these are the launches of the kernels.
        if not any("/mote_fast/ops/cpu_" in frame.f_code.co_filename for frame, _ in traceback.walk_stack(None)):
            self.counts[func] += 1
        return func(*args, **(kwargs or {}))


def operators(layers: int) -> Counter[Any]:
    """The operators of one step."""
    calls = Calls(layers)
    with Operators() as seen:
        calls.step()
    return seen.counts


def test_operators_of_a_layer() -> None:
    """Views included: each is a call forward, and a node and calls backward. There were 89 before this bound."""
    assert (operators(4).total() - operators(2).total()) / 2 <= 82


def test_merge_weights_of_all_layers_take_one_softmax() -> None:
    """Not one for each layer."""
    assert operators(3)[torch.ops.aten._softmax.default] == 1
