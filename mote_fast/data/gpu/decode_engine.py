"""Where a GPU's decoder runs: a process of its own, or this one."""

from __future__ import annotations

import functools
import math
import threading
from typing import Any

import torch

from mote_fast.data.decoding.video_info import MAX_MEMORY
from mote_fast.data.gpu.decode_server import Device, GpuDecoder
from mote_fast.data.plan import ClipRecipe
from mote_fast.errors import ConfigError
from mote_fast.runtime.workers import WorkerPool

# Bytes that the process may take on a CPU for each video of a batch, beside MAX_MEMORY: its file, frames, and scaled
# frames.
MAX_CLIP_MEMORY = 2**31


def kind_of_device(device: torch.device | str) -> Device:
    """What a decoder calls a device.

    Raises:
        ConfigError: no decoder works there.
    """
    name = torch.device(device).type
    if name not in ("cpu", "cuda"):
        raise ConfigError(f"device must be 'cpu' or 'cuda' for a decoder of a GPU, got {str(device)!r}")
    return "gpu" if name == "cuda" else "cpu"


class DecodeEngine:
    """Sends requests to a ``DecodeServer``, one at a time; its process starts with the first one.

    Args:
        decoder: the decoder.
        recipe: how videos become clips.
        device: where to decode; a CUDA device has its index.
        batch_size: the largest batch.
        threads: the decoder's, of the CPU.
        time_limit: seconds for each video of a thread; only another process can be stopped.
        isolated: whether another process decodes.
    """

    def __init__(
        self,
        decoder: GpuDecoder,
        recipe: ClipRecipe,
        device: torch.device,
        *,
        batch_size: int,
        threads: int,
        time_limit: float,
        isolated: bool = True,
    ) -> None:
        kind = kind_of_device(device)
        self._server = decoder.server(recipe, kind, device.index if kind == "gpu" else None, batch_size, threads)
        self._turn = threading.Lock()
        self._pool = None
        if isolated:
            self._pool = WorkerPool(
                self._server,
                1,
                time_limit * math.ceil(batch_size / threads),
                start=functools.partial(decoder.why_unavailable, "cpu"),
                # A driver reserves memory by the gigabyte.
                memory_limit=MAX_MEMORY + batch_size * MAX_CLIP_MEMORY if kind == "cpu" else None,
            )

    def ask(self, request: tuple[Any, ...]) -> Any:
        """Return the answer to a request; callable from several threads.

        Raises:
            WorkerLostError: the process died, or was stopped after its time limit.
            BackendError: a process cannot be started here, or the engine was closed.
        """
        if self._pool is not None:
            return self._pool.run(request)
        with self._turn:
            return self._server(request)

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            self._pool.close()
