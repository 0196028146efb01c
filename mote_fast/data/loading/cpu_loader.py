"""The loader that decodes on the CPU: worker processes write uint8 crops, the device normalises whole batches."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.loading.batch import Batch, normalised_batch
from mote_fast.data.loading.faults import FaultLog
from mote_fast.data.loading.order import ALONE, Shard, Slots, evaluation_batches, training_batches
from mote_fast.data.loading.samples import Sample, SampleReader, load_row
from mote_fast.data.loading.workers import WorkerPool
from mote_fast.errors import BackendError, ConfigError


class _Pending(NamedTuple):
    """A batch that is being read: uint8 [B, V, T, 3, S, S] on the host, and what will stand in its rows."""

    pixels: Tensor
    samples: list[Future[Sample]]


class CpuLoader:
    """See ``mote_fast.data.make_loader``, whose arguments these are.

    A thread for each worker process hands it videos, and copies the answers into the batch. Which process decodes what
    depends on the time, and what comes out does not.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        batch_size: int,
        *,
        training: bool,
        shard: Shard = ALONE,
        workers: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        time_limit: float = 60.0,
        fault_file: Path | None = None,
    ) -> None:
        if workers < 0 or time_limit <= 0:
            raise ConfigError(f"workers must be at least 0 and time_limit above 0, got {workers} and {time_limit}")
        self._device = torch.device(device)
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise BackendError(f"device {str(device)!r} cannot serve: PyTorch sees no CUDA device; use device='cpu'")
        self.faults = FaultLog(fault_file)
        self._dataset = dataset
        self._batch_size = batch_size
        self._training = training
        self._shard = shard
        self._dtype = dtype
        recipe = dataset.recipe
        self._clip_shape = (recipe.views_per_video, recipe.frames, 3, recipe.size, recipe.size)
        # Also says at once where the list is too short.
        self._count = len(self._batches(0))
        self._closed = False
        if workers:
            self._pool = WorkerPool(dataset, workers, self._clip_shape, time_limit)
            self._threads = ThreadPoolExecutor(workers, thread_name_prefix="mote-fast-loader")
            load = self._pool.load
            # Two batches, and as many more as it takes to occupy every worker.
            self._ahead = 2 + workers // batch_size
        else:
            self._pool = self._threads = None
            load = functools.partial(load_row, dataset)
            self._ahead = 0
        self._reader = SampleReader(dataset, training, load, self.faults)

    @property
    def batches_per_epoch(self) -> int:
        """Batches that ``epoch`` yields when it starts at 0."""
        return self._count

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from batch ``start`` on; the same ones whatever came before.

        Raises:
            ConfigError: the loader is closed.
            ListError: a training batch cannot be filled, see ``SampleReader``.
        """
        if self._closed:
            raise ConfigError("the loader is closed; make another")
        pending: deque[_Pending] = deque()
        try:
            for slots in self._batches(epoch)[start:]:
                pending.append(self._begin(epoch, slots))
                if len(pending) > self._ahead:
                    yield self._finish(pending.popleft())
            while pending:
                yield self._finish(pending.popleft())
            self.faults.end_epoch()
        finally:
            # The caller may have left in the middle.
            for sample in (sample for batch in pending for sample in batch.samples):
                sample.cancel()

    def close(self) -> None:
        """Stop the workers and give back their memory."""
        self._closed = True
        if self._pool is not None and self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._pool.close()
            self._threads.shutdown()

    def _batches(self, epoch: int) -> list[Slots]:
        videos, seed = len(self._dataset), self._dataset.seed
        if self._training:
            return training_batches(videos, self._batch_size, seed=seed, epoch=epoch, shard=self._shard)
        return evaluation_batches(videos, self._batch_size, shard=self._shard)

    def _begin(self, epoch: int, slots: Slots) -> _Pending:
        submit = self._threads.submit if self._threads is not None else _run
        # PyTorch keeps pinned memory, and reuses it once the copy out of it is done.
        shape, pinned = (len(slots.indices), *self._clip_shape), self._device.type == "cuda"
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        places = zip(*slots, pixels, strict=True)
        return _Pending(pixels, [submit(self._reader.read, epoch, *place) for place in places])

    def _finish(self, batch: _Pending) -> Batch:
        samples = [sample.result() for sample in batch.samples]
        failures = [failure for sample in samples for failure in sample.failures]
        for failure in failures:
            self.faults.record(failure)
        pixels, rows = batch.pixels, [row for row, sample in enumerate(samples) if sample.label is not None]
        if len(rows) < len(samples):
            pixels = pixels[rows]
        return normalised_batch(
            pixels,
            torch.tensor([samples[row].label for row in rows], dtype=torch.int64),
            torch.tensor([samples[row].index for row in rows], dtype=torch.int64),
            failures,
            recipe=self._dataset.recipe,
            device=self._device,
            dtype=self._dtype,
        )


def _run(function: Callable[..., Sample], *arguments: object) -> Future[Sample]:
    """Call at once, where ``ThreadPoolExecutor.submit`` would call in a thread."""
    future: Future[Sample] = Future()
    future.set_result(function(*arguments))
    return future
