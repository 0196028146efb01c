"""The loader that decodes on a GPU: worker processes look at the videos, and one more runs the GPU's decoder.

The workers decode the videos that the decoder cannot decode, or would decode differently from the CPU loader
(``routing``), as the CPU loader does, into the rows of the same batch. Labels and order therefore equal the CPU
loader's, and the pixels differ only as two decoders do. A file that ends the decoder's process is decoded by a worker,
like any that the decoder refuses.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.gpu.decode_engine import DecodeEngine, kind_of_device
from mote_fast.data.gpu.decode_server import (
    PREFETCH,
    TRIAL_CLIPS,
    DecodeServer,
    GpuDecoder,
    ReadyClip,
    other_shape,
)
from mote_fast.data.gpu.ready_clips import ClipReader, OwnClip
from mote_fast.data.gpu.routing import Chooser
from mote_fast.data.gpu.trial import Trial
from mote_fast.data.loading.batch import Batch
from mote_fast.data.loading.decode_pool import DecodePool
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.samples import Sample, SampleReader
from mote_fast.data.loading.video_loader import DatasetLoader, LoaderOptions, ending, run_now
from mote_fast.errors import BackendError
from mote_fast.runtime.workers import WithTensor, WorkerLostError

logger = logging.getLogger(__name__)

# Batches prepared beyond those that the decoder holds.
_AHEAD = 2


@dataclass(eq=False)
class _Slot:
    """One slot of a batch: uint8 [V, T, 3, S, S] on the host, the sample, and its clip if the GPU decodes it."""

    epoch: int
    position: int
    index: int
    row: Tensor
    sample: Future[Sample] = field(init=False)
    clip: ReadyClip | None = None


@dataclass
class _Pending:
    """A batch being read: uint8 [B, V, T, 3, S, S] on the host, its slots, and whether the decoder has it."""

    pixels: Tensor
    slots: list[_Slot]
    fed: bool = False

    @property
    def clips(self) -> list[ReadyClip]:
        return [slot.clip for slot in self.slots if slot.clip is not None]


class GpuLoader(DatasetLoader):
    """Loads the videos of a ``VideoDataset`` through a decoder of a GPU; see ``make_loader``.

    ``workers`` processes look at files and decode what the decoder does not; the decoder gets the same number of
    threads. A crash of a decoder, and a video that exceeds the time limit, cost that video, as in the CPU loader. With
    ``workers=0``, and without ``isolate``, all run in this process, which a decoder can end.

    Args:
        dataset: the videos.
        options: see ``LoaderOptions``.
        decoder: what decodes; it must be available.
    """

    def __init__(self, dataset: VideoDataset, options: LoaderOptions, decoder: GpuDecoder) -> None:
        kind = kind_of_device(options.device)
        super().__init__(dataset, options)
        if kind == "gpu" and self._device.index is None:
            self._device = torch.device("cuda", torch.cuda.current_device())
        self._decoder = decoder
        threads = max(1, options.workers)
        self._read_clip: Callable[[tuple[int, int, str], Tensor], ReadyClip | OwnClip | Failure] = ClipReader(
            dataset, decoder.takes[kind]
        )
        self._pool = self._threads = None
        if options.processes:
            self._pool = DecodePool(self._read_clip, dataset.recipe, options.processes, options.time_limit)
        if options.workers:
            self._threads = ThreadPoolExecutor(threads, thread_name_prefix="mote-fast-gpu")
        self._engines: list[DecodeEngine] = []
        # One bad video makes a whole pipeline unusable, so that batches have another process.
        tried = self._new_engine(TRIAL_CLIPS if kind == "gpu" else 1)
        self._trial = Trial(tried.ask, threads, timed=kind == "gpu")
        self._chooser = Chooser()
        self._reader = SampleReader(dataset, options.training, self._load, self.faults)
        self._engine: DecodeEngine | None = None
        self._refused: dict[int, str] = {}
        self._passed_over: Counter[str] = Counter()
        self._lock = threading.Lock()

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from batch ``start`` on; earlier calls do not affect them.

        Raises:
            ConfigError: the loader is closed.
            ListError: a training batch cannot be filled, see ``SampleReader``.
            BackendError: the decoder fails, and no single video is the cause.
        """
        self._check_open()
        engine, self._engine = self._engine or self._new_engine(self._options.batch_size), None
        prepared = self._prepare_batches(epoch, start)
        held: deque[_Pending] = deque()
        try:
            for batch in prepared:
                held.append(batch)
                if len(held) == PREFETCH:
                    yield self._take(engine, held)
            while held:
                yield self._take(engine, held)
            self.faults.end_epoch()
        finally:
            # The caller may have stopped in the middle of the epoch, or begun another.
            prepared.close()
            if self._engine is None:
                self._engine = engine
            else:
                engine.close()
                self._engines.remove(engine)
        with self._lock:
            reasons, self._passed_over = self._passed_over.most_common(), Counter()
        if reasons:
            text = ", ".join(f"{videos} ({reason})" for reason, videos in reasons)
            logger.info("epoch %d, videos decoded on the CPU: %s", epoch, text)

    def close(self) -> None:
        """See ``VideoLoader.close``."""
        self._closed = True
        with ending(self._threads):
            if self._pool is not None:
                self._pool.close()
            for engine in self._engines:
                engine.close()

    def _new_engine(self, clips: int) -> DecodeEngine:
        """Make an engine for batches of so many clips."""
        engine = DecodeEngine(
            self._decoder,
            self._recipe,
            self._device,
            batch_size=clips,
            threads=max(1, self._options.workers),
            time_limit=self._options.time_limit,
            isolated=self._options.processes > 0,
        )
        self._engines.append(engine)
        return engine

    def _prepare_batches(self, epoch: int, start: int) -> Generator[_Pending, None, None]:
        """Prepare batches in order, ``_AHEAD`` of them in advance."""
        begun: deque[_Pending] = deque()
        ahead = _AHEAD if self._threads is not None else 0
        try:
            for places in self._batches(epoch)[start:]:
                pixels = self._new_pixels(len(places.indices))
                slots = [self._begin(epoch, *place) for place in zip(*places, pixels, strict=True)]
                begun.append(_Pending(pixels, slots))
                if len(begun) > ahead:
                    yield self._complete(begun.popleft())
            while begun:
                yield self._complete(begun.popleft())
        finally:
            for slot in (slot for batch in begun for slot in batch.slots):
                slot.sample.cancel()

    def _begin(self, epoch: int, position: int, index: int, row: Tensor) -> _Slot:
        self._check_open()
        slot = _Slot(epoch, position, index, row)
        submit = self._threads.submit if self._threads is not None else run_now
        # The reader only passes the slot on to _load.
        target: Any = slot
        slot.sample = submit(self._reader.read, epoch, position, index, target)
        return slot

    def _load(self, index: int, epoch: int, slot: Any) -> int | Failure:
        """Do as ``samples.load_row``; a video for the decoder is left in the slot instead."""
        slot.clip = None
        found = self._read(index, epoch, self._refused.get(index, ""), slot.row)
        if isinstance(found, ReadyClip):
            clip = found

            def readable() -> bool:
                return isinstance(self._read(index, epoch, "to compare", slot.row), OwnClip)

            if self._chooser.prefers_gpu(clip.kind, lambda: self._trial.measure(clip, readable)):
                slot.clip = clip
                return clip.label
            reason = f"{clip.kind.codec} in {clip.kind.container}: refused, or slower"
            found = self._read(index, epoch, reason, slot.row)
        if isinstance(found, Failure):
            return found
        assert isinstance(found, OwnClip)
        logger.debug("%s: decoded on the CPU: %s", self._dataset.items[index].path, found.reason)
        with self._lock:
            self._passed_over[found.reason] += 1
        return found.label

    def _read(self, index: int, epoch: int, reason: str, row: Tensor) -> ReadyClip | OwnClip | Failure:
        task = index, epoch, reason
        if self._pool is None:
            return self._read_clip(task, row)
        return self._pool.load(index, self._dataset.items[index].path, task, row)

    def _take(self, engine: DecodeEngine, held: deque[_Pending]) -> Batch:
        """Return the oldest batch. If the decoder fails, find the videos at fault, and read them on the CPU."""
        while True:
            self._check_open()
            lost: WorkerLostError | None = None
            try:
                answer = _decode(engine, held)
            except WorkerLostError as error:
                answer, lost = f"in the decoder, {error}", error
            if isinstance(answer, str):
                refused = self._find_refused(held)
                if not refused and lost is None:
                    raise BackendError(f"the GPU's decoder fails, and not over one video: {answer}; use backend='cpu'")
                # Damaged memory may end the process after the video that damaged it: none of them is trusted.
                refused = refused or {clip.index: answer for batch in held for clip in batch.clips}
            else:
                refused = _other_shapes(held[0], answer)
                if not refused:
                    return self._finish(held.popleft(), answer)
            self._repair(held, refused)

    def _find_refused(self, batches: Iterable[_Pending]) -> dict[int, str]:
        """Try the clips of each batch one by one; return those that are refused in the first bad batch, and why."""
        for batch in batches:
            reasons = ((clip.index, self._trial.why_refused(clip)) for clip in batch.clips)
            refused = {index: reason for index, reason in reasons if reason is not None}
            if refused:
                return refused
        return {}

    def _repair(self, batches: Iterable[_Pending], refused: dict[int, str]) -> None:
        """Read the samples of refused videos again; the decoder gets them no longer, and begins again."""
        for index, reason in refused.items():
            logger.warning("%s: decoded on the CPU from now on: %s", self._dataset.items[index].path, reason)
            self._refused[index] = reason
        for batch in batches:
            batch.fed = False
            self._complete(batch)

    def _complete(self, batch: _Pending) -> _Pending:
        """Wait for the samples; read those again whose video was refused since."""
        while True:
            for slot in batch.slots:
                slot.sample.result()
            again = [slot for slot in batch.slots if slot.clip is not None and slot.clip.index in self._refused]
            if not again:
                return batch
            batch.slots = [
                self._begin(slot.epoch, slot.position, slot.index, slot.row) if slot in again else slot
                for slot in batch.slots
            ]

    def _finish(self, batch: _Pending, decoded: WithTensor | None) -> Batch:
        """Make a ``Batch``; ``decoded`` are the decoder's clips."""
        if decoded is not None:
            rows = [slot.row for slot in batch.slots if slot.clip is not None]
            for row, pixels in zip(rows, decoded.tensor, strict=True):
                row.copy_(pixels.view(row.shape))
        samples = [slot.sample.result() for slot in batch.slots]
        failures = [failure for sample in samples for failure in sample.failures]
        read = [(row, sample.label, sample.index) for row, sample in enumerate(samples) if sample.label is not None]
        pixels = batch.pixels if len(read) == len(samples) else batch.pixels[[row for row, _, _ in read]]
        return self._deliver(pixels, [label for _, label, _ in read], [index for _, _, index in read], failures)


def _decode(engine: DecodeEngine, held: deque[_Pending]) -> WithTensor | str | None:
    """Feed the batches that the decoder does not have, and decode the oldest; None if no video of it is for it.

    Raises:
        WorkerLostError: the decoder's process died, or was stopped.
    """
    if not any(batch.fed for batch in held):
        engine.ask((DecodeServer.clear,))
    for batch in held:
        if batch.clips and not batch.fed:
            problem = engine.ask((DecodeServer.feed, batch.clips))
            if problem is not None:
                return problem
            batch.fed = True
    return engine.ask((DecodeServer.take,)) if held[0].clips else None


def _other_shapes(batch: _Pending, answer: WithTensor | None) -> dict[int, str]:
    """Videos whose frames came out in another number or size than requested, with the reason."""
    if answer is None:
        return {}
    pairs = zip(batch.clips, answer.value, strict=True)
    return {clip.index: other_shape(found, clip) for clip, found in pairs if found != clip.shape}
