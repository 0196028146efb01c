"""The processes of a run: this process's rank and device, and the collective operations of all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from mote_fast.errors import ConfigError
from mote_fast.runtime.environment import best_device

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of the run, seen from this one.

    Attributes:
        rank: this process's rank, in [0, size).
        size: number of processes, over all machines.
        device: device of this process.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and the log."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set on any process; the result is the same on all."""
        if self.size == 1:
            return flag
        # gloo reduces CPU tensors, so the call does not wait for the accelerator.
        answer = torch.tensor(int(flag))
        dist.all_reduce(answer, op=dist.ReduceOp.MAX)
        return bool(answer)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of ``values`` over the processes, of the same shape."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.size

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes in rank order; any picklable value."""
        return gather(value)

    def share(self, tensors: list[Tensor]) -> None:
        """Overwrite ``tensors`` with the tensors of the first process."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Return once every process has called this."""
        self.any(False)


def is_first() -> bool:
    """Whether this is the first process of the run, or the only one."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def gather(value: T) -> list[T]:
    """Return the values of all processes in rank order; any picklable value. A single process gets a list of one."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


@contextmanager
def joined(device: str = "auto") -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started (its RANK, WORLD_SIZE and LOCAL_RANK), and leave them at the end.

    gloo carries CPU tensors and NCCL carries CUDA tensors. Without torchrun the run has one process.

    Args:
        device: "cpu", "cuda", or "auto": CUDA if PyTorch sees it.

    Raises:
        ConfigError: CUDA is absent, or there are more processes on a machine than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    own = _own_device(best_device() if device == "auto" else device, int(os.environ.get("LOCAL_RANK", "0")))
    if own.type == "cuda":
        torch.cuda.set_device(own)
    if size > 1:
        dist.init_process_group("cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo")
    try:
        yield ProcessGroup(rank, size, own)
    finally:
        if size > 1:
            dist.destroy_process_group()


def _own_device(kind: str, local_rank: int) -> torch.device:
    if kind == "cpu":
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"run.device=cuda: process {local_rank} of this machine needs a GPU of its own, and PyTorch sees "
            f"{torch.cuda.device_count()}; start fewer processes, or set run.device=cpu"
        )
    return torch.device("cuda", local_rank)
