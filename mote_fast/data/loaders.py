"""``make_loader``: builds the loader for a backend."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.loading.cpu_loader import CpuLoader
from mote_fast.data.loading.video_loader import LoaderOptions, VideoLoader
from mote_fast.data.reading_choices import LoaderBackend
from mote_fast.runtime.checks import check_choice

if TYPE_CHECKING:
    from mote_fast.data.dali.dali_loader import DaliLoader

logger = logging.getLogger(__name__)


def make_loader(dataset: VideoDataset, options: LoaderOptions, backend: LoaderBackend = "auto") -> VideoLoader:
    """Return a loader of the videos of ``dataset``.

    Args:
        dataset: the videos and the recipe of their clips.
        options: batches, workers, device.
        backend: "auto" (DALI on CUDA devices if available, otherwise the CPU), "cpu", "dali", or "torchcodec-gpu".

    Raises:
        ConfigError: an argument is out of range, or there are too few videos for one batch.
        BackendError: the requested backend or device is not available.
    """
    check_choice("backend", backend, LoaderBackend)
    if backend == "torchcodec-gpu":
        from mote_fast.data.dali.torchcodec_gpu import TorchcodecLoader

        return TorchcodecLoader(dataset, options)
    build = _dali_loader(options.device, forced=backend == "dali") if backend != "cpu" else None
    return (build or CpuLoader)(dataset, options)


def _dali_loader(device: torch.device | str, forced: bool) -> type[DaliLoader] | None:
    """``DaliLoader`` if DALI is requested or faster, otherwise None. Its constructor raises if DALI is unavailable."""
    if not forced and torch.device(device).type != "cuda":
        return None
    # DALI takes a second to import; a run on the CPU does not need it.
    from mote_fast.data.dali.dali_loader import DaliLoader
    from mote_fast.data.dali.pipeline import why_unavailable

    if not forced and (reason := why_unavailable("gpu")) is not None:
        logger.info("backend auto: decoding on the CPU, as DALI cannot serve: %s", reason)
        return None
    return DaliLoader
