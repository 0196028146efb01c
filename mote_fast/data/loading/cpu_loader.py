"""The loader that decodes on the CPU: worker processes write uint8 crops, and the device normalises whole batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from torch import Tensor

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.loading.batch import Batch
from mote_fast.data.loading.decode_pool import DecodePool
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.order import BatchIndices
from mote_fast.data.loading.samples import Sample, SampleReader, load_row
from mote_fast.data.loading.video_loader import DatasetLoader, LoaderOptions, ending, run_now


class _Pending(NamedTuple):
    """A batch being read: uint8 [B, V, T, 3, S, S] on the host, and the samples of its rows."""

    pixels: Tensor
    samples: list[Future[Sample]]


class CpuLoader(DatasetLoader):
    """Loads the videos of a ``VideoDataset``; see ``make_loader``.

    Each worker process has a thread that sends it videos and copies the results into the batch. Timing decides which
    process decodes a video; the batches do not depend on it.
    """

    def __init__(self, dataset: VideoDataset, options: LoaderOptions) -> None:
        super().__init__(dataset, options)
        self._pool = self._threads = None
        # Two batches, plus enough to occupy every worker.
        self._ahead = 2 + options.workers // options.batch_size if options.workers else 0
        if options.processes:
            decode = DatasetDecoder(dataset)
            self._pool = DecodePool(decode, dataset.recipe, options.processes, options.time_limit)
        if options.workers:
            self._threads = ThreadPoolExecutor(options.workers, thread_name_prefix="mote-fast-loader")
        self._reader = SampleReader(dataset, options.training, self._load, self.faults)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """See ``VideoLoader.epoch``."""
        self._check_open()
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
            # The caller may have stopped in the middle of the epoch.
            for sample in (sample for batch in pending for sample in batch.samples):
                sample.cancel()

    def close(self) -> None:
        """See ``VideoLoader.close``."""
        self._closed = True
        with ending(self._threads):
            if self._pool is not None:
                self._pool.close()

    def _load(self, index: int, epoch: int, row: Tensor) -> int | Failure:
        if self._pool is None:
            return load_row(self._dataset, index, epoch, row)
        return self._pool.load(index, self._dataset.items[index].path, (index, epoch), row)

    def _begin(self, epoch: int, slots: BatchIndices) -> _Pending:
        submit = self._threads.submit if self._threads is not None else run_now
        pixels = self._new_pixels(len(slots.indices))
        places = zip(*slots, pixels, strict=True)
        return _Pending(pixels, [submit(self._reader.read, epoch, *place) for place in places])

    def _finish(self, batch: _Pending) -> Batch:
        samples = [sample.result() for sample in batch.samples]
        failures = [failure for sample in samples for failure in sample.failures]
        read = [(row, sample.label, sample.index) for row, sample in enumerate(samples) if sample.label is not None]
        pixels = batch.pixels if len(read) == len(samples) else batch.pixels[[row for row, _, _ in read]]
        return self._deliver(pixels, [label for _, label, _ in read], [index for _, _, index in read], failures)


class DatasetDecoder:
    """Runs in a worker process: decodes videos of a data set by index."""

    def __init__(self, dataset: VideoDataset) -> None:
        self._dataset = dataset

    def __call__(self, task: tuple[int, int], row: Tensor) -> int | Failure:
        """Decode the task (index, epoch) into ``row``; see ``load_row``."""
        return load_row(self._dataset, *task, row)
