"""The process that an object was made in: threads of PyTorch and ONNX Runtime do not live on in a fork of it."""

from __future__ import annotations

import os

import torch

from mote_fast.errors import BackendError


class HomeProcess:
    """The process that made this object; a copy, pickled or not, belongs to the process that makes the copy."""

    def __init__(self) -> None:
        self._id = os.getpid()

    def __reduce__(self) -> tuple[type[HomeProcess], tuple[()]]:
        return HomeProcess, ()

    @property
    def is_left(self) -> bool:
        """Whether this process was forked from the one that made this object."""
        return os.getpid() != self._id

    def check_threads(self) -> None:
        """Check that PyTorch can compute here: in a fork, with several threads, it would wait for threads for ever.

        Raises:
            BackendError: this process is a fork, and PyTorch would use several threads.
        """
        # The tracer of torch.compile knows no processes.
        if torch.compiler.is_compiling():
            return
        if self.is_left and torch.get_num_threads() > 1:
            raise BackendError(
                "this process was forked from the one that loaded the model, and PyTorch's threads do not live on in a "
                'fork; start processes with the method "spawn" or "forkserver", or call torch.set_num_threads(1) first'
            )
