"""``make_loader`` and ``make_reader``: what reads videos, by the decoder that is asked for or chosen."""

from __future__ import annotations

import os
import threading

import torch

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.gpu.decoder_choice import choose_decoder, gpu_decoder
from mote_fast.data.loading.cpu_loader import CpuLoader
from mote_fast.data.loading.video_loader import LoaderOptions, VideoLoader
from mote_fast.data.loading.view_frames import CropReader
from mote_fast.data.reading_choices import LoaderBackend


def make_loader(dataset: VideoDataset, options: LoaderOptions, backend: LoaderBackend = "auto") -> VideoLoader:
    """Return a loader of the videos of ``dataset``.

    Args:
        dataset: the videos and the recipe of their clips.
        options: batches, workers, device.
        backend: "auto" (see ``choose_decoder``), "cpu", "dali", or "torchcodec-gpu".

    Raises:
        ConfigError: an argument is out of range, or there are too few videos for one batch.
        BackendError: the requested backend or device is not available.
    """
    name = choose_decoder(backend, options.device).name
    if name == "cpu":
        return CpuLoader(dataset, options)
    from mote_fast.data.gpu.gpu_loader import GpuLoader

    return GpuLoader(dataset, options, gpu_decoder(name))


def make_reader(backend: LoaderBackend, device: torch.device | str, workers: int, time_limit: float) -> CropReader:
    """Return what reads videos one by one, for several threads.

    Args:
        backend: as in ``make_loader``.
        device: the model's.
        workers: processes that decode, or look at videos that a GPU decodes.
        time_limit: seconds for one video.

    Raises:
        ConfigError, BackendError: as ``make_loader``.
    """
    name = choose_decoder(backend, device).name
    if name == "cpu":
        return CropReader(workers, time_limit)
    from mote_fast.data.gpu.gpu_reader import GpuReader

    place = torch.device(device)
    if place.type == "cuda" and place.index is None:
        place = torch.device("cuda", torch.cuda.current_device())
    return GpuReader(gpu_decoder(name), place, workers, time_limit)


def shared_reader(backend: LoaderBackend, device: torch.device | str, time_limit: float) -> CropReader:
    """Return the reader that this process keeps for single videos; it is made when it is first needed."""
    # A fork must not use its parent's processes.
    key = os.getpid(), backend, str(device), time_limit
    with _MAKING:
        if key not in _SHARED:
            _SHARED[key] = make_reader(backend, device, os.cpu_count() or 1, time_limit)
        return _SHARED[key]


def close_shared_readers() -> None:
    """End the processes of the readers that ``shared_reader`` keeps."""
    with _MAKING:
        for key in [key for key in _SHARED if key[0] == os.getpid()]:
            _SHARED.pop(key).close()


_SHARED: dict[tuple[int, LoaderBackend, str, float], CropReader] = {}
_MAKING = threading.Lock()
