"""Which library computes a run's float32 products on the CPU: one in all its processes, and after it is resumed.

The two differ in the last digits, and each process would measure for itself (``mote_fast.ops.products``).
"""

from __future__ import annotations

import logging
from typing import Literal, get_args

import torch

from mote_fast.ops.products import Serving, onednn_problem, serve, serving
from mote_fast.runtime.distributed import ProcessGroup

log = logging.getLogger(__name__)

# As checkpoints record it; None on other devices, and in checkpoints from before it was recorded.
Library = Literal["oneDNN", "PyTorch"] | None
LIBRARIES = get_args(Literal["oneDNN", "PyTorch"])


def library_in_use(device: torch.device) -> Library:
    """Return the library that serves a run on ``device``."""
    if device.type != "cpu":
        return None
    return "oneDNN" if serving().by_onednn else "PyTorch"


def agree(world: ProcessGroup, recorded: Library = None) -> None:
    """Make every process take the library that a checkpoint recorded, or else the first process's; all must call it.

    Where a process cannot compute exactly through oneDNN, none does; a run that did before goes on with a warning.
    """
    if world.device.type != "cpu":
        return
    wanted = recorded or world.gather(library_in_use(world.device) if world.leads else None)[0]
    problem = next(filter(None, world.gather(onednn_problem() if wanted == "oneDNN" else "")), "")
    if problem and recorded and world.leads:
        log.warning(
            "resumed without oneDNN, which computed the run's float32 products: the rest is not bit for bit that of "
            "the uninterrupted run (%s)",
            problem,
        )
    serve(Serving(wanted == "oneDNN" and not problem, problem or "chosen by the training run"))
