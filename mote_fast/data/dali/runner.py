"""A pipeline at work: what goes in, what it holds, and what comes out."""

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
    """One place of a batch in work, and what came of it."""

    epoch: int
    position: int
    index: int
    sample: Future[Sample] = field(init=False)
    clip: ReadyClip | None = None
    # The video that is being read, which may be a stand-in, and since when; set in one step for all threads.
    reading: tuple[int, float] | None = None


ReadyBatch = list[PendingSample]


def clips_of(batch: ReadyBatch) -> list[ReadyClip]:
    """The videos of a batch that could be read."""
    return [place.clip for place in batch if place.clip is not None]


def other_shapes(batch: ReadyBatch, shapes: Tensor) -> dict[int, str]:
    """Which videos did not come out of DALI in the number and size of frames that were asked for."""
    found = zip(clips_of(batch), shapes.tolist(), strict=True)
    return {
        clip.index: f"it gives frames of {tuple(shape)} instead of {clip.shape}"
        for clip, shape in found
        if tuple(shape) != clip.shape
    }


class SampleQueue:
    """The source of a pipeline for an epoch; keeps what DALI holds, in order, until it is delivered.

    Args:
        batches: made ready in order.
        first: come before them.
    """

    def __init__(self, batches: Iterator[ReadyBatch], first: Iterable[ReadyBatch] = ()) -> None:
        self._batches = itertools.chain(first, batches)
        self.in_flight: deque[ReadyBatch] = deque()

    def __call__(self) -> Columns:
        """Give the next batch with anything in it, as DALI takes no empty ones."""
        while True:
            batch = next(self._batches)
            self.in_flight.append(batch)
            if clips := clips_of(batch):
                return columns([clip.item for clip in clips])

    def pop_empty(self, deliver: Callable[[ReadyBatch], Batch]) -> Iterator[Batch]:
        """Deliver the batches that come before the next one with anything in it."""
        while self.in_flight and not clips_of(self.in_flight[0]):
            yield deliver(self.in_flight.popleft())


class Outputs(NamedTuple):
    """What a pipeline gives for a batch."""

    pixels: Tensor  # [B, V * T, 3, S, S]
    shapes: Tensor  # int32 [B, 4]


class _Source:
    """What a pipeline calls for its batches; knows nothing of the pipeline, which is so freed when it is let go."""

    feed: SampleQueue | None = None

    def __call__(self) -> Columns:
        if self.feed is None:
            raise StopIteration
        return self.feed()


class DaliRunner:
    """A pipeline, and the feed that it takes its batches from."""

    def __init__(self, build: Callable[[Callable[[], Columns]], Pipeline]) -> None:
        self._source = _Source()
        self.pipeline = build(self._source)

    def serve(self, feed: SampleQueue) -> None:
        """Take the next batches from ``feed``."""
        self._source.feed = feed

    def run(self, device: torch.device) -> Outputs:
        """Take the next batch's outputs, and set DALI to work on one more.

        The tensors share DALI's memory, which is not written again while they live.
        """
        stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        pixels, shapes = self.pipeline.run(stream)
        return Outputs(torch.from_dlpack(pixels.as_tensor()), torch.from_dlpack(shapes.as_tensor()))
