"""Turns the raw samples of a stream into batches of uint8 clips."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from mote_fast.data.dataset import load_clip
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.samples import failure_of
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.shards.shard_stream import RawSample
from mote_fast.errors import ListError

Samples = Iterator[RawSample | Failure]


class RawBatch(NamedTuple):
    """A batch before normalisation: pixels uint8 [B, V, T, 3, S, S], B labels and B indices."""

    pixels: Tensor
    labels: list[int]
    indices: list[int]
    failures: list[Failure]


@dataclass(frozen=True, slots=True)
class Decoded:
    """The video whose clip fills a row."""

    index: int
    label: int


@dataclass(frozen=True)
class SampleDecoder:
    """Decodes the samples of an epoch; a clip equals the one that ``VideoDataset`` makes from the video file."""

    recipe: ClipRecipe
    seed: int
    decode_backend: str

    def __call__(self, task: tuple[RawSample, int], row: Tensor) -> int | Failure:
        """Decode a sample for an epoch into ``row``; return its label, or why it cannot be decoded.

        Raises:
            MoteError: the recipe or a backend is at fault, not the video.
        """
        sample, epoch = task
        try:
            clip = load_clip(
                sample.video,
                sample.label,
                self.recipe,
                seed=self.seed,
                epoch=epoch,
                index=sample.index,
                decode_backend=self.decode_backend,
            )
        except Exception as error:
            return failure_of(sample.index, sample.path, error)
        row.copy_(clip.pixels)
        return clip.label


@dataclass
class BatchReader:
    """Makes batches of the samples of one stream.

    Attributes:
        folder: folder of the shards.
        samples: starts reading the stream.
        load: decodes a sample into a row; returns its label, or why it cannot be decoded.
        new_pixels: allocates memory for the clips of a number of videos.
        training: whether a video that cannot be decoded is replaced.
    """

    folder: Path
    samples: Callable[[], Samples]
    load: Callable[[RawSample, Tensor], int | Failure]
    new_pixels: Callable[[int], Tensor]
    training: bool
    # What stands in for failures after the end of the stream.
    _first_sound: RawSample | Failure | None = field(default=None, init=False)

    def read(self, sizes: list[int], skipped: int) -> Iterator[RawBatch]:
        """Yield batches of the given sizes; the first ``skipped`` are left out and not decoded."""
        stream = self.samples()
        for _ in range(sum(sizes[:skipped])):
            next(stream)
        ahead: deque[RawSample | Failure] = deque()
        for size in sizes[skipped:]:
            samples = [ahead.popleft() if ahead else next(stream) for _ in range(size)]
            yield self._batch(samples, stream, ahead)

    def _batch(
        self, samples: list[RawSample | Failure], stream: Samples, ahead: deque[RawSample | Failure]
    ) -> RawBatch:
        pixels = self.new_pixels(len(samples))
        results = [self._decode(sample, row) for sample, row in zip(samples, pixels, strict=True)]
        failures = [result for result in results if isinstance(result, Failure)]
        if failures and self.training:
            self._fill(results, pixels, stream, ahead)
        decoded = [(row, result) for row, result in enumerate(results) if isinstance(result, Decoded)]
        if len(decoded) < len(results):
            pixels = pixels[[row for row, _ in decoded]]
        return RawBatch(
            pixels, [result.label for _, result in decoded], [result.index for _, result in decoded], failures
        )

    def _fill(
        self,
        results: list[Decoded | Failure],
        pixels: Tensor,
        stream: Samples,
        ahead: deque[RawSample | Failure],
    ) -> None:
        """Give each row that failed the next decodable sample of the stream."""
        for row in reversed(range(len(results))):
            if isinstance(results[row], Decoded):
                continue
            if row + 1 < len(results):
                results[row] = results[row + 1]
                pixels[row].copy_(pixels[row + 1])
            else:
                results[row] = self._next_decodable(pixels[row], stream, ahead)

    def _next_decodable(self, row: Tensor, stream: Samples, ahead: deque[RawSample | Failure]) -> Decoded:
        """Find the next decodable sample, wrapping around at the end of the stream; skipped samples stay queued."""
        for sample in ahead:
            if isinstance(result := self._decode(sample, row), Decoded):
                return result
        for sample in stream:
            result = self._decode(sample, row)
            # Of a sample that cannot be decoded only the reason is kept: a shard may hold any number of them.
            ahead.append(sample if isinstance(result, Decoded) else result)
            if isinstance(result, Decoded):
                return result
        for sample in self.samples() if self._first_sound is None else [self._first_sound]:
            if isinstance(result := self._decode(sample, row), Decoded):
                self._first_sound = sample
                return result
        raise ListError(f"{self.folder}: not one video of those that a worker reads can be decoded; write it again")

    def _decode(self, sample: RawSample | Failure, row: Tensor) -> Decoded | Failure:
        if isinstance(sample, Failure):
            return sample
        result = self.load(sample, row)
        return result if isinstance(result, Failure) else Decoded(sample.index, result)
