"""Runs a DALI pipeline: its input queue, the batches in flight, and its outputs."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from mote_fast.data.dali.pipeline import Columns, columns
from mote_fast.data.dali.ready_clips import ReadyClip
from mote_fast.data.loading.batch import Batch
from mote_fast.data.loading.samples import Sample

if TYPE_CHECKING:
    from nvidia.dali.pipeline import Pipeline


@dataclass
class PendingSample:
    """One slot of a batch being prepared, and its result."""

    epoch: int
    position: int
    index: int
    sample: Future[Sample] = field(init=False)
    clip: ReadyClip | None = None
    # The video being read, which may be a stand-in, and its start time; one attribute, so that threads see both.
    reading: tuple[int, float] | None = None


ReadyBatch = list[PendingSample]


def clips_of(batch: ReadyBatch) -> list[ReadyClip]:
    """The videos of a batch that could be read."""
    return [place.clip for place in batch if place.clip is not None]


def other_shapes(batch: ReadyBatch, shapes: Tensor) -> dict[int, str]:
    """Videos whose frames came out of DALI in another number or size than requested, with the reason."""
    found = zip(clips_of(batch), shapes.tolist(), strict=True)
    return {
        clip.index: f"it gives frames of {tuple(shape)} instead of {clip.shape}"
        for clip, shape in found
        if tuple(shape) != clip.shape
    }


class SampleQueue:
    """The source of a pipeline for an epoch; keeps the batches that DALI holds, in order, until they are delivered.

    Args:
        batches: prepared batches, in order.
        first: batches that come before them.
    """

    def __init__(self, batches: Iterator[ReadyBatch], first: Iterable[ReadyBatch] = ()) -> None:
        self._batches = itertools.chain(first, batches)
        self.in_flight: deque[ReadyBatch] = deque()

    def __call__(self) -> Columns:
        """Return the next non-empty batch; DALI accepts no empty ones."""
        while True:
            batch = next(self._batches)
            self.in_flight.append(batch)
            if clips := clips_of(batch):
                return columns([clip.item for clip in clips])

    def pop_empty(self, deliver: Callable[[ReadyBatch], Batch]) -> Iterator[Batch]:
        """Deliver the empty batches before the next non-empty one."""
        while self.in_flight and not clips_of(self.in_flight[0]):
            yield deliver(self.in_flight.popleft())


class Outputs(NamedTuple):
    """A pipeline's outputs for a batch."""

    pixels: Tensor  # [B, V * T, 3, S, S]
    shapes: Tensor  # int32 [B, 4]


class _Source:
    """Supplies a pipeline's batches. It holds no reference to the pipeline, which is freed as soon as it is dropped."""

    feed: SampleQueue | None = None

    def __call__(self) -> Columns:
        if self.feed is None:
            raise StopIteration
        return self.feed()


class DaliRunner:
    """A pipeline and the queue that supplies its batches."""

    def __init__(self, build: Callable[[Callable[[], Columns]], Pipeline]) -> None:
        self._source = _Source()
        self.pipeline = build(self._source)

    def serve(self, feed: SampleQueue) -> None:
        """Take the next batches from ``feed``."""
        self._source.feed = feed

    def run(self, device: torch.device) -> Outputs:
        """Return the next batch's outputs, and let DALI start on one more.

        The tensors share DALI's memory, which is not overwritten while they live.
        """
        stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        pixels, shapes = self.pipeline.run(stream)
        return Outputs(torch.from_dlpack(pixels.as_tensor()), torch.from_dlpack(shapes.as_tensor()))
