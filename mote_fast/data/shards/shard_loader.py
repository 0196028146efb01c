"""The loader of tar shards: reads sequentially, shuffles shards and a buffer, divides them over ranks and workers."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from torch import Tensor

from mote_fast.data.loading.batch import Batch
from mote_fast.data.loading.decode_pool import DecodePool
from mote_fast.data.loading.faults import CRASH, TIMEOUT, Failure
from mote_fast.data.loading.video_loader import LoaderOptions, VideoLoader, ending, run_now
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.shards.batches import BatchReader, RawBatch, SampleDecoder
from mote_fast.data.shards.shard_index import read_shard_index
from mote_fast.data.shards.shard_stream import RawSample, ShardStream, read_stream, streams_of
from mote_fast.errors import ConfigError

# Batches that each worker reads ahead.
_AHEAD = 2


class ShardLoader(VideoLoader):
    """A loader of the shards that ``mote-fast prepare shards`` wrote.

    A clip equals the one that ``VideoDataset`` makes from the video file; it depends on (seed, epoch, index in the
    list). The composition of batches depends on (seed, epoch, rank, world size, ``workers``), which a resumed run must
    not change. In training, the next decodable sample of the worker's stream replaces an unreadable video, and is also
    used at its own position. In evaluation, the first batch of the last rank names the videos that were left out of the
    shards. Each worker has a thread that reads its stream and sends the files to the decoding process.

    Args:
        folder: folder of the shards and their index.
        recipe: how videos become clips.
        options: see ``LoaderOptions``.
        seed: seed of the run.
        decode_backend: "auto", "torchcodec" or "pyav", see ``read_frames``.
        classes: number of classes; a sample with another label counts as unreadable.
        shuffle_buffer: samples that a worker draws from in training; it keeps that many files, or
            ``MAX_BUFFER_BYTES``, in memory.

    Raises:
        BackendError: the device is not available.
        ListError: the folder has no index, or a damaged one.
        ConfigError: an argument is out of range, or there are too few samples for one batch.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        recipe: ClipRecipe,
        options: LoaderOptions,
        *,
        classes: int,
        seed: int = 0,
        decode_backend: str = "auto",
        shuffle_buffer: int = 256,
    ) -> None:
        if shuffle_buffer < 0:
            raise ConfigError(f"shuffle_buffer must be at least 0, got {shuffle_buffer}")
        self.index = read_shard_index(folder)
        super().__init__(recipe, options)
        self._seed = seed
        self._classes = classes
        self._shuffle_buffer = shuffle_buffer if options.training else 0
        # Videos that crashed or stalled the decoder, in this run or an earlier one.
        self._deadly = {
            failure.index: failure
            for failure in self.faults.failures
            if failure.kind in (CRASH, TIMEOUT) and failure.path.startswith(f"{self.index.folder}/")
        }
        self.batches_per_epoch = sum(len(stream.batch_sizes) for stream in self._streams(0))
        self._decoder = SampleDecoder(recipe, seed, decode_backend)
        self._pool = (
            DecodePool(self._decoder, recipe, options.processes, options.time_limit) if options.processes else None
        )
        # One executor per stream: only one thread at a time can read a stream.
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix="mote-fast-shards") for _ in range(options.workers)]
        if options.replica.rank == 0:
            for failure in self.index.left_out:
                self.faults.record(failure)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """See ``VideoLoader.epoch``.

        An epoch that starts in the middle reads each worker's part of the shards from its beginning, but decodes
        nothing before ``start``.
        """
        self._check_open()
        streams = self._streams(epoch)
        readers = [self._read(epoch, number, each, start, len(streams)) for number, each in enumerate(streams)]
        pending: deque[tuple[int, Future[RawBatch]]] = deque()
        try:
            for due in range(start, self.batches_per_epoch):
                turn = due % len(readers)
                submit = self._threads[turn].submit if self._threads else run_now
                pending.append((due, submit(next, readers[turn])))
                if len(pending) > _AHEAD * len(self._threads):
                    yield self._finish(*pending.popleft())
            while pending:
                yield self._finish(*pending.popleft())
            self.faults.end_epoch()
        finally:
            # The caller may have stopped in the middle of the epoch.
            for _, batch in pending:
                batch.cancel()

    def close(self) -> None:
        """See ``VideoLoader.close``."""
        self._closed = True
        with ending(*self._threads):
            if self._pool is not None:
                self._pool.close()

    def _streams(self, epoch: int) -> list[ShardStream]:
        options = self._options
        return streams_of(
            self.index,
            options.batch_size,
            training=options.training,
            seed=self._seed,
            epoch=epoch,
            replica=options.replica,
            streams=max(1, options.workers),
        )

    def _read(self, epoch: int, number: int, stream: ShardStream, start: int, streams: int) -> Iterator[RawBatch]:
        samples = partial(
            read_stream,
            self.index.folder,
            stream,
            shuffle_buffer=self._shuffle_buffer,
            seed_parts=(self._seed, "buffer", epoch, self._options.replica.rank, number),
            classes=self._classes,
        )
        reader = BatchReader(
            self.index.folder, samples, partial(self._load, epoch), self._new_pixels, self._options.training
        )
        # The streams take turns; ``skipped`` counts this stream's turns before ``start``.
        return reader.read(stream.batch_sizes, skipped=len(range(number, start, streams)))

    def _load(self, epoch: int, sample: RawSample, row: Tensor) -> int | Failure:
        if sample.index in self._deadly:
            return replace(self._deadly[sample.index], path=sample.path)
        if self._pool is None:
            return self._decoder((sample, epoch), row)
        result = self._pool.load(sample.index, sample.path, (sample, epoch), row)
        if isinstance(result, Failure) and result.kind in (CRASH, TIMEOUT):
            self._deadly[sample.index] = result
        return result

    def _finish(self, number: int, batch: Future[RawBatch]) -> Batch:
        raw, replica = batch.result(), self._options.replica
        failures = raw.failures
        # The last rank has a batch if any rank has one.
        if number == 0 and not self._options.training and replica.rank == replica.world_size - 1:
            failures = [*failures, *self.index.left_out]
        return self._deliver(raw.pixels, raw.labels, raw.indices, failures)
