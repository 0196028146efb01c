"""The one way to a loader, whatever decodes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.loading.batch import VideoLoader
from mote_fast.data.loading.cpu_loader import CpuLoader
from mote_fast.data.loading.order import ALONE, Shard
from mote_fast.errors import ConfigError

if TYPE_CHECKING:
    from mote_fast.data.dali.dali_loader import DaliLoader

logger = logging.getLogger(__name__)

LoaderBackend = Literal["auto", "cpu", "dali"]


def make_loader(
    dataset: VideoDataset,
    batch_size: int,
    *,
    training: bool,
    shard: Shard = ALONE,
    workers: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    backend: LoaderBackend = "auto",
    time_limit: float = 60.0,
    fault_file: str | Path | None = None,
) -> VideoLoader:
    """Return a loader of the videos of ``dataset``.

    Args:
        dataset: the videos and the recipe of their clips.
        batch_size: B, videos in a batch of this process.
        training: full batches in an order shuffled by epoch, unreadable videos replaced; otherwise every video once, in
            the order of the list, unreadable ones named in ``Batch.failures``.
        shard: this process among those that share the epoch.
        workers: processes that decode; 0 decodes in this one, where a crash of the decoder ends the run.
        device: of the pixels and labels.
        dtype: of the pixels.
        backend: "auto" (DALI on CUDA devices where it can serve, or else the CPU), "cpu" or "dali".
        time_limit: seconds that one video may take, with workers.
        fault_file: JSON lines to which the videos that cannot be read are appended.

    Raises:
        ConfigError: an argument is out of range, or there are too few videos for one batch.
        BackendError: the backend or the device asked for cannot serve here.
    """
    if backend not in ("auto", "cpu", "dali"):
        raise ConfigError(f"backend must be 'auto', 'cpu' or 'dali', got {backend!r}")
    build = _dali_loader(device, forced=backend == "dali") if backend != "cpu" else None
    return (build or CpuLoader)(
        dataset,
        batch_size,
        training=training,
        shard=shard,
        workers=workers,
        device=device,
        dtype=dtype,
        time_limit=time_limit,
        fault_file=Path(fault_file) if fault_file is not None else None,
    )


def _dali_loader(device: torch.device | str, forced: bool) -> type[DaliLoader] | None:
    """The class, where DALI is asked for or is the faster; it raises where it cannot serve."""
    if not forced and torch.device(device).type != "cuda":
        return None
    # DALI takes a second to load, which a run on the CPU need not wait for.
    from mote_fast.data.dali.dali_loader import DaliLoader
    from mote_fast.data.dali.pipeline import why_unavailable

    if not forced and (reason := why_unavailable("gpu")) is not None:
        logger.info("backend auto: decoding on the CPU, as DALI cannot serve: %s", reason)
        return None
    return DaliLoader
