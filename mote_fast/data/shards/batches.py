"""The worker's half of the shard loader: from raw samples to batches of uint8 clips."""

from __future__ import annotations

import faulthandler
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from mote_fast.data.dataset import Clip, load_clip
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.samples import failure_of
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.shards.shard_stream import Lane, RawSample, read_lane
from mote_fast.errors import ListError

# What a lane decodes while it decodes nothing.
IDLE = -1


class RawBatch(NamedTuple):
    """A batch before normalisation: pixels uint8 [B, V, T, 3, S, S], labels and indices int64 [B]."""

    pixels: Tensor
    labels: Tensor
    indices: Tensor
    failures: list[Failure]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A clip and the index of its video."""

    index: int
    clip: Clip


@dataclass(frozen=True)
class Desk:
    """Shared memory in which each lane says who it is and what it decodes, for when its process dies.

    ``pid`` and ``index`` are int64 [lanes]; ``began`` is float64 [lanes], by the monotonic clock.
    """

    pid: Tensor
    index: Tensor
    began: Tensor

    @classmethod
    def of(cls, lanes: int) -> Desk:
        """An empty one."""
        pid, index = torch.zeros(lanes, dtype=torch.int64), torch.full((lanes,), IDLE, dtype=torch.int64)
        return cls(pid.share_memory_(), index.share_memory_(), torch.zeros(lanes, dtype=torch.float64).share_memory_())


@dataclass
class LaneBatches(IterableDataset):
    """The batches of a rank from batch ``start`` on; in each DataLoader worker, those of its lane.

    ``deadly`` are videos that are not to be decoded, as they killed a worker before.
    """

    folder: Path
    lanes: list[Lane]
    start: int
    recipe: ClipRecipe
    training: bool
    seed: int
    epoch: int
    rank: int
    decode_backend: str
    time_limit: float
    shuffle_buffer: int
    deadly: dict[int, Failure]
    desk: Desk = field(init=False)

    def __post_init__(self) -> None:
        self.desk = Desk.of(len(self.lanes))

    def __iter__(self) -> Iterator[RawBatch]:
        worker = get_worker_info()
        # The DataLoader asks its workers in turn from the first one, which must have the batch that is due.
        lane = (self.start + (worker.id if worker else 0)) % len(self.lanes)
        if worker:
            self.desk.pid[lane] = os.getpid()
        skipped = len(range(lane, self.start, len(self.lanes)))
        sizes = self.lanes[lane].batch_sizes
        stream = self._samples(lane)
        for _ in range(sum(sizes[:skipped])):
            next(stream)
        ahead: deque[RawSample | Failure] = deque()
        for size in sizes[skipped:]:
            samples = [ahead.popleft() if ahead else next(stream) for _ in range(size)]
            yield self._batch(lane, samples, stream, ahead)

    def _samples(self, lane: int) -> Iterator[RawSample | Failure]:
        return read_lane(
            self.folder,
            self.lanes[lane],
            shuffle_buffer=self.shuffle_buffer if self.training else 0,
            seed_parts=(self.seed, "buffer", self.epoch, self.rank, lane),
        )

    def _batch(
        self,
        lane: int,
        samples: list[RawSample | Failure],
        stream: Iterator[RawSample | Failure],
        ahead: deque[RawSample | Failure],
    ) -> RawBatch:
        results = [self._decode(lane, sample) for sample in samples]
        failures = [result for result in results if isinstance(result, Failure)]
        decoded = [result for result in results if isinstance(result, Decoded)]
        if self.training and failures:
            decoded = self._fill(lane, results, stream, ahead)
        views, size = self.recipe.views_per_video, self.recipe.size
        pixels = torch.empty(len(decoded), views, self.recipe.frames, 3, size, size, dtype=torch.uint8)
        for row, result in zip(pixels, decoded, strict=True):
            row.copy_(result.clip.pixels)
        labels = torch.tensor([result.clip.label for result in decoded], dtype=torch.int64)
        return RawBatch(pixels, labels, torch.tensor([each.index for each in decoded], dtype=torch.int64), failures)

    def _fill(
        self,
        lane: int,
        results: list[Decoded | Failure],
        stream: Iterator[RawSample | Failure],
        ahead: deque[RawSample | Failure],
    ) -> list[Decoded]:
        """Give each place that failed the next sound sample of the stream."""
        filled: list[Decoded] = []
        following = None
        for result in reversed(results):
            if isinstance(result, Decoded):
                following = result
            elif following is None:
                following = self._next_sound(lane, stream, ahead)
            filled.append(following)
        return filled[::-1]

    def _next_sound(
        self, lane: int, stream: Iterator[RawSample | Failure], ahead: deque[RawSample | Failure]
    ) -> Decoded:
        """Look ahead for a sound sample, past the end of the lane to its beginning; what was passed stays in line."""
        for sample in ahead:
            if isinstance(result := self._decode(lane, sample), Decoded):
                return result
        for sample in stream:
            ahead.append(sample)
            if isinstance(result := self._decode(lane, sample), Decoded):
                return result
        for sample in self._samples(lane):
            if isinstance(result := self._decode(lane, sample), Decoded):
                return result
        raise ListError(f"{self.folder}: not one video of those that a worker reads can be decoded; write it again")

    def _decode(self, lane: int, sample: RawSample | Failure) -> Decoded | Failure:
        """Decode a sample, or say why it cannot be."""
        if isinstance(sample, Failure):
            return sample
        if sample.index in self.deadly:
            return replace(self.deadly[sample.index], path=sample.path)
        self.desk.began[lane] = time.monotonic()
        self.desk.index[lane] = sample.index
        try:
            with _limit(self.time_limit) if get_worker_info() else nullcontext():
                clip = load_clip(
                    sample.video,
                    sample.label,
                    self.recipe,
                    seed=self.seed,
                    epoch=self.epoch,
                    index=sample.index,
                    decode_backend=self.decode_backend,
                )
            return Decoded(sample.index, clip)
        except Exception as error:
            return failure_of(sample.index, sample.path, error)
        finally:
            self.desk.index[lane] = IDLE


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer than so many seconds, whatever it hangs in."""
    with open(os.devnull, "w") as nowhere:
        # A thread of C, which needs no interpreter lock; it also prints the stack, which interests nobody.
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
