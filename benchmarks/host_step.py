"""What an eager step of the head costs the host: this library against its commit d172f2d, the kernels doing nothing.

In one process, in turns, on the CPU, with sizes so small that Python, the dispatcher and autograd are what takes time.
Both packages are called ``mote_fast``, so one is loaded after the other, and the operators of the first under another
name. Prints processor time.

    git worktree add --detach ../before d172f2d
    python benchmarks/host_step.py ../before
"""

from __future__ import annotations

import argparse
import gc
import importlib
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

WIDTH, HEADS, LAYERS, EXPERTS, CLIPS, FRAMES, CLASSES = 16, 2, 4, 4, 2, 8, 5
STEPS = 20


class Nothing:
    """What the launchers of the kernels return, with no values in it."""

    # The commit before merged the experts by a launch of its own.
    separate_merge = False

    @classmethod
    def expert_pair_forward(cls, routed: Tensor, merged: Tensor, experts: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        """Both outputs, the activations, and here the merged expert."""
        saved = routed.new_empty((2, routed.shape[0], 4 * routed.shape[1]))
        kept = () if cls.separate_merge else (experts.new_empty((1, experts.shape[1])),)
        return torch.empty_like(routed), torch.empty_like(merged), saved, *kept

    @staticmethod
    def expert_pair_backward(
        of_routed: Tensor, of_merged: Tensor, routed: Tensor, merged: Tensor, experts: Tensor, *_: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of both inputs and of both rows."""
        return torch.empty_like(routed), torch.empty_like(merged), experts.new_empty((2, experts.shape[1]))

    @staticmethod
    def merge_experts_forward(experts: Tensor, weights: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
        """The merged expert."""
        return experts.new_empty(experts.shape[1], dtype=out_dtype or experts.dtype)

    @staticmethod
    def adamw_factored(*_: Any, **options: Any) -> None:
        """No update."""


class NothingBefore(Nothing):
    """The same for the commit before."""

    separate_merge = True


def loaded(root: Path) -> None:
    """Make ``mote_fast`` that of a checkout for the imports that follow; what has been imported stays as it is."""
    for name in [name for name in sys.modules if name.split(".")[0] == "mote_fast"]:
        del sys.modules[name]
    sys.path.insert(0, str(root))
    found = Path(str(importlib.import_module("mote_fast").__file__)).parents[1]
    if found != root.resolve():
        sys.exit(f"mote_fast was imported from {found}, not from {root}")


def step_before(root: Path) -> Callable[[], None]:
    """A step of the commit before."""
    registered = torch.library.custom_op
    torch.library.custom_op = lambda name, *args, **options: registered(
        name.replace("mote_fast::", "mote_before::"), *args, **options
    )  # type: ignore[assignment]
    loaded(root)
    part: Callable[[str], Any] = importlib.import_module
    part("mote_fast.ops").launchers = lambda name, device: NothingBefore
    head = part("mote_fast.temporal").VideoHead(WIDTH, HEADS, LAYERS, EXPERTS)
    losses, method, optim = part("mote_fast.losses"), part("mote_fast.method"), part("mote_fast.optim")
    torch.library.custom_op = registered
    return step(head, losses.training_loss, method.TrainingMethod(), optim.head_optimizer)


def step_now() -> Callable[[], None]:
    """A step of this checkout."""
    loaded(Path(__file__).parents[1])
    part: Callable[[str], Any] = importlib.import_module
    part("mote_fast.ops.implementations").launchers = lambda name, implementation: Nothing
    head = part("mote_fast").VideoHead(part("mote_fast.head.head_config").HeadConfig(WIDTH, HEADS, LAYERS, EXPERTS))
    losses, method, optim = (part(f"mote_fast.training.{name}") for name in ("losses", "method", "optim"))
    return step(head, losses.training_loss, method.TrainingMethod(), optim.head_optimizer)


def step(head: Any, training_loss: Callable[..., Any], method: Any, head_optimizer: Any) -> Callable[[], None]:
    """Forward, loss, backward and update over stored features, with draws made beforehand."""
    optimizer = head_optimizer(head, 1e-4)
    frames, classes = torch.ones(CLIPS, FRAMES, WIDTH), torch.eye(CLASSES, WIDTH)
    labels = torch.zeros(CLIPS, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    draws = itertools.cycle([method.draw(LAYERS, EXPERTS, generator) for _ in range(16)])

    def run() -> None:
        training_loss(head, frames, classes, labels, 100.0, method, next(draws)).total.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def main() -> None:
    """Measure in turns and print both medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a checkout of commit d172f2d")
    parser.add_argument("--turns", type=int, default=40, help="turns of 20 steps of each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = step_before(options.before.resolve()), step_now()
    times: tuple[list[float], list[float]] = [], []
    gc.disable()
    for turn in range(options.turns + 1):
        for run, found in list(zip(runs, times, strict=True))[:: 1 if turn % 2 else -1]:
            start = time.process_time()
            for _ in range(STEPS):
                run()
            # The first turn makes what is made once.
            if turn:
                found.append((time.process_time() - start) / STEPS)
    before, now = (median(found) * 1e3 for found in times)
    ratio = median(mine / other for other, mine in zip(*times, strict=True))
    print(f"host ms a step: before {before:.2f}, now {now:.2f}; median ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
