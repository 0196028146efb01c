"""The loader that reads frame features from disk in place of videos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.feature_files import StoredFeatures
from mote_fast.data.loading.batch import Batch
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.order import BatchIndices
from mote_fast.data.loading.samples import SampleReader
from mote_fast.data.loading.video_loader import DatasetLoader, LoaderOptions


class FeatureLoader(DatasetLoader):
    """Yields batches whose ``pixels`` are features [B * V, T, d]; order, stand-ins and failures are a video loader's.

    Args:
        dataset: the list, whose videos are not opened.
        stored: its features.
        options: see ``LoaderOptions``; no workers are started.
    """

    def __init__(self, dataset: VideoDataset, stored: StoredFeatures, options: LoaderOptions) -> None:
        super().__init__(dataset, replace(options, workers=0, isolate=False))
        self._stored = stored
        self._reader = SampleReader(dataset, options.training, self._find, self.faults)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """See ``VideoLoader.epoch``."""
        self._check_open()
        for slots in self._batches(epoch)[start:]:
            yield self._read(epoch, slots)
        self.faults.end_epoch()

    def close(self) -> None:
        """See ``VideoLoader.close``."""
        self._closed = True

    def _read(self, epoch: int, slots: BatchIndices) -> Batch:
        # Which video fills each slot comes first; their rows are then copied by one call.
        no_row = torch.empty(0)
        samples = [self._reader.read(epoch, *place, no_row) for place in zip(*slots, strict=True)]
        failures = [failure for sample in samples for failure in sample.failures]
        found = [(sample.index, sample.label) for sample in samples if sample.label is not None]
        indices = [index for index, _ in found]
        pixels = self._new_pixels(len(indices))
        self._stored.gather(indices, pixels)
        return self._deliver(pixels, [label for _, label in found], indices, failures)

    def _find(self, index: int, epoch: int, row: Tensor) -> int | Failure:
        del epoch, row
        return self._stored.failure(index) or self._dataset.items[index].label

    def _new_pixels(self, videos: int) -> Tensor:
        shape = (videos, *self._stored.index.shape)
        return torch.empty(shape, dtype=self._stored.dtype, pin_memory=self._device.type == "cuda")

    def _on_device(self, pixels: Tensor) -> Tensor:
        return pixels.to(self._device, non_blocking=True)
