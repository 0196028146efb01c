"""The loader that reads frame features from disk in place of videos."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.feature_files import StoredFeatures
from mote_fast.data.loading.cpu_loader import CpuLoader
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.video_loader import LoaderOptions


class FeatureLoader(CpuLoader):
    """Yields batches whose ``pixels`` are features [B * V, T, d]; order, stand-ins and failures are a video loader's.

    Args:
        dataset: the list, whose videos are not opened.
        stored: its features.
        options: see ``LoaderOptions``; no workers are started.
    """

    def __init__(self, dataset: VideoDataset, stored: StoredFeatures, options: LoaderOptions) -> None:
        self._stored = stored
        super().__init__(dataset, replace(options, workers=0, isolate=False))

    def _load(self, index: int, epoch: int, row: Tensor) -> int | Failure:
        failure = self._stored.read(index, row)
        return self._dataset.items[index].label if failure is None else failure

    def _new_pixels(self, videos: int) -> Tensor:
        shape = (videos, *self._stored.index.shape)
        return torch.empty(shape, dtype=self._stored.dtype, pin_memory=self._device.type == "cuda")

    def _on_device(self, pixels: Tensor) -> Tensor:
        return pixels.to(self._device, non_blocking=True)
