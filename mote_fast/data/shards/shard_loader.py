"""The loader of tar shards: read from end to end, shuffled by shard and in a buffer, divided over ranks and workers."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Generator, Iterator
from multiprocessing.connection import wait
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from mote_fast.data.loading.batch import Batch, normalised_batch
from mote_fast.data.loading.faults import CRASH, TIMEOUT, Failure, FaultLog
from mote_fast.data.loading.order import ALONE, Shard
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.shards.batches import IDLE, Desk, LaneBatches, RawBatch
from mote_fast.data.shards.shard_index import key_of, read_shard_index
from mote_fast.data.shards.shard_stream import Lane, lanes_of, webdataset
from mote_fast.errors import BackendError, ConfigError, MoteError, one_line
from mote_fast.runtime.processes import worker_context

logger = logging.getLogger(__name__)

# A sample whose worker died so often while it was decoded is not tried again: once may be the kernel's choice of a
# victim when memory runs out.
_DEATHS_PER_SAMPLE = 2

# Deaths of workers while nothing was decoded, in one epoch: beyond these the machine is at fault.
_IDLE_DEATHS = 3


# Seconds until the death of a process is known everywhere.
_DEATH_SHOWS = 5.0


class ShardLoader:
    """A ``VideoLoader`` of the shards that ``mote-fast prepare shards`` wrote.

    A clip is the one that ``VideoDataset`` makes of the loose file: a function of (seed, epoch, index in the list).
    Which videos share a batch is a function of (seed, epoch, rank, world size, ``workers``): a resumed run has to keep
    these. In training, the place of a video that cannot be read takes the next sound one of the worker's stream, which
    also keeps its own place. With workers, a decoder that crashes or hangs costs only its video: the workers are
    started again at the batch that was due.

    Args:
        folder: of the shards and their index.
        recipe: how videos become clips.
        batch_size: B, videos in a batch of this process.
        training: see ``lanes_of``; otherwise every sample once, in the order of the shards, and unreadable ones are
            named in ``Batch.failures``, those that were left out of the shards in the first batch of the last rank.
        seed: of the run.
        decode_backend: "auto", "torchcodec" or "pyav", see ``read_frames``.
        shard: this process among those that share the epoch.
        workers: processes that read and decode; 0 decodes in this one, without protection from crashes and hangs.
        device: of the pixels and labels.
        dtype: of the pixels.
        time_limit: seconds that one video may take, with workers.
        fault_file: JSON lines to which the videos that cannot be read are appended.
        shuffle_buffer: samples that a worker draws from in training; it holds as many files in memory.

    Raises:
        BackendError: the library webdataset is not installed.
        ListError: the folder has no index, or a damaged one.
        ConfigError: an argument is out of range, or there are too few samples for one batch.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        recipe: ClipRecipe,
        batch_size: int,
        *,
        training: bool,
        seed: int = 0,
        decode_backend: str = "auto",
        shard: Shard = ALONE,
        workers: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        time_limit: float = 60.0,
        fault_file: str | Path | None = None,
        shuffle_buffer: int = 256,
    ) -> None:
        webdataset()
        if workers < 0 or time_limit <= 0 or shuffle_buffer < 0:
            raise ConfigError(
                f"workers and shuffle_buffer must be at least 0 and time_limit above 0, "
                f"got {workers}, {shuffle_buffer} and {time_limit}"
            )
        self.index = read_shard_index(folder)
        self.faults = FaultLog(Path(fault_file) if fault_file is not None else None)
        self._recipe = recipe
        self._batch_size = batch_size
        self._training = training
        self._seed = seed
        self._decode_backend = decode_backend
        self._shard = shard
        self._workers = workers
        self._device = torch.device(device)
        self._dtype = dtype
        self._time_limit = time_limit
        self._shuffle_buffer = shuffle_buffer if training else 0
        # Videos that killed their worker, in an earlier run or in this one.
        self._deadly = {
            failure.index: failure
            for failure in self.faults.failures
            if failure.kind in (CRASH, TIMEOUT) and failure.path.startswith(f"{self.index.folder}/")
        }
        self._running: Generator[Batch, None, None] | None = None
        self._batches = sum(len(lane.batch_sizes) for lane in self._lanes(0))
        if shard.rank == 0:
            for failure in self.index.left_out:
                self.faults.record(failure)

    @property
    def batches_per_epoch(self) -> int:
        """Batches that ``epoch`` yields when it starts at 0."""
        return self._batches

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from batch ``start`` on; the same ones whatever came before.

        Starting in the middle reads the shards from where the worker's part begins, and decodes nothing before
        ``start``. A second epoch ends the one before.

        Raises:
            ListError: none of the videos that a worker reads can be decoded, in training.
            BackendError: workers keep dying without a video to blame.
        """
        self.close()
        self._running = self._epoch(epoch, start)
        return self._running

    def close(self) -> None:
        """Stop the workers and give back their memory."""
        running, self._running = self._running, None
        if running is not None:
            running.close()

    def _lanes(self, epoch: int) -> list[Lane]:
        return lanes_of(
            self.index,
            self._batch_size,
            training=self._training,
            seed=self._seed,
            epoch=epoch,
            shard=self._shard,
            lanes=max(1, self._workers),
        )

    def _epoch(self, epoch: int, start: int) -> Generator[Batch, None, None]:
        lanes = self._lanes(epoch)
        deaths: Counter[int] = Counter()
        due = start
        while due < self._batches:
            work = self._work(epoch, lanes, due)
            loader = DataLoader(
                work,
                batch_size=None,
                num_workers=self._workers,
                pin_memory=self._device.type == "cuda",
                multiprocessing_context=worker_context(LaneBatches.__module__, "webdataset") if self._workers else None,
            )
            batches = iter(loader)
            try:
                for raw in batches:
                    yield self._deliver(raw, first=due == 0)
                    due += 1
            # A batch that its dead worker sent is lost with it, which shows as an error of the system.
            except (RuntimeError, OSError, EOFError) as error:
                if isinstance(error, MoteError) or not self._find_deaths(work.desk, deaths):
                    raise
                logger.warning("a worker died; starting again at batch %d (%s)", due, one_line(error))
            finally:
                # The workers stop when nothing refers to the iterator.
                del batches
        self.faults.end_epoch()

    def _work(self, epoch: int, lanes: list[Lane], due: int) -> LaneBatches:
        return LaneBatches(
            folder=self.index.folder,
            lanes=lanes,
            start=due,
            recipe=self._recipe,
            training=self._training,
            seed=self._seed,
            epoch=epoch,
            rank=self._shard.rank,
            decode_backend=self._decode_backend,
            time_limit=self._time_limit,
            shuffle_buffer=self._shuffle_buffer,
            deadly=self._deadly,
        )

    def _deliver(self, raw: RawBatch, first: bool) -> Batch:
        failures = list(raw.failures)
        # The last rank has a batch wherever there is one at all.
        if first and not self._training and self._shard.rank == self._shard.world_size - 1:
            failures += self.index.left_out
        for failure in failures:
            self.faults.record(failure)
        return normalised_batch(
            raw.pixels,
            raw.labels,
            raw.indices,
            failures,
            recipe=self._recipe,
            device=self._device,
            dtype=self._dtype,
        )

    def _find_deaths(self, desk: Desk, deaths: Counter[int]) -> bool:
        """Find what the dead workers were decoding, and strike it off where that is enough; False if none died."""
        pids = [pid for pid in desk.pid.tolist() if pid]
        alive = [process for process in multiprocessing.active_children() if process.pid in pids]
        if alive and len(alive) == len(pids):
            # The loss of what a process sent may show before its death does.
            wait([process.sentinel for process in alive], timeout=_DEATH_SHOWS)
        left = {process.pid for process in multiprocessing.active_children()}
        dead = [lane for lane, pid in enumerate(desk.pid.tolist()) if pid and pid not in left]
        for lane in dead:
            index, began = int(desk.index[lane]), float(desk.began[lane])
            deaths[index] += 1
            if index == IDLE:
                if deaths[IDLE] > _IDLE_DEATHS:
                    raise BackendError(
                        "workers keep dying while they read shards; use fewer of them, or look for a full memory"
                    )
            elif time.monotonic() - began >= self._time_limit:
                self._strike_off(index, TIMEOUT, f"took longer than {self._time_limit:g} s and was stopped")
            elif deaths[index] >= _DEATHS_PER_SAMPLE:
                self._strike_off(index, CRASH, f"killed its worker {_DEATHS_PER_SAMPLE} times")
        return bool(dead)

    def _strike_off(self, index: int, kind: str, reason: str) -> None:
        name = next(shard.name for shard in self.index.shards if index in shard.indices)
        self._deadly[index] = Failure(index, f"{self.index.folder / name}/{key_of(index)}", kind, reason, lasting=True)
