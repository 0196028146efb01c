"""Reads the sample of a batch slot: its video, or in training a stand-in for a video that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.loading.faults import CRASH, TIMEOUT, Failure, FaultLog
from mote_fast.data.loading.order import replacement
from mote_fast.errors import ListError, MoteError, VideoError, one_line
from mote_fast.runtime.workers import WorkerLostError

# Stand-ins tried per slot. If nine of ten videos are broken, one slot in 800 needs more.
MAX_STAND_INS = 64


@dataclass(frozen=True, slots=True)
class Sample:
    """The sample in one batch slot; ``label`` is None if no video could be read."""

    index: int
    label: int | None
    failures: list[Failure]


def failure_of(index: int, path: str, error: Exception, *, lasting: bool = False) -> Failure:
    """Return the failure to report for an error in reading a video, or for the loss of its worker process.

    An unknown error also counts against the video: one odd file must not end a long run.

    Raises:
        MoteError: ``error`` itself, if the recipe or a backend is at fault and not the video.
    """
    if isinstance(error, VideoError):
        return Failure(index, path, type(error).__name__, error.reason, lasting)
    if isinstance(error, WorkerLostError):
        return Failure(index, path, TIMEOUT if error.timed_out else CRASH, str(error), lasting)
    if isinstance(error, MoteError):
        raise error
    return Failure(index, path, type(error).__name__, one_line(error))


def load_row(dataset: VideoDataset, index: int, epoch: int, row: Tensor) -> int | Failure:
    """Decode video ``index`` into ``row``, uint8 [V, T, 3, S, S]; return its label, or why it cannot be read.

    Raises:
        MoteError: the recipe or a backend is at fault, not the video.
    """
    path = dataset.items[index].path
    try:
        clip = dataset.load(index, epoch)
    except Exception as error:
        lasting = isinstance(error, VideoError) and _cannot_be_planned(dataset, index, epoch)
        return failure_of(index, path, error, lasting=lasting)
    row.copy_(clip.pixels)
    return clip.label


class SampleReader:
    """Reads the samples of batches; in training it replaces unreadable videos by stand-ins.

    A failure that would recur in every epoch is remembered. Other failures are not: the video in a slot must depend on
    (seed, epoch, position) alone, or a resumed run would see other videos than an uninterrupted one.

    Args:
        dataset: the videos.
        training: whether a video that cannot be read is replaced.
        load: does what ``load_row`` does, given index, epoch and row.
        faults: failures of earlier runs; a video that crashed or stalled the decoder is not tried again.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        training: bool,
        load: Callable[[int, int, Tensor], int | Failure],
        faults: FaultLog,
    ) -> None:
        self._dataset = dataset
        self._training = training
        self._load = load
        self._known = {
            failure.index: failure
            for failure in faults.failures
            if failure.kind in (CRASH, TIMEOUT)
            and failure.index < len(dataset)
            and dataset.items[failure.index].path == failure.path
        }

    def read(self, epoch: int, position: int, index: int, row: Tensor) -> Sample:
        """Read video ``index``, at ``position`` in the epoch's order, into ``row``.

        Raises:
            ListError: ``MAX_STAND_INS`` stand-ins could not be read either.
            MoteError: ``load`` raised it.
        """
        failures: list[Failure] = []
        for attempt in range(1, MAX_STAND_INS + 2):
            result = self._known.get(index) or self._load(index, epoch, row)
            if not isinstance(result, Failure):
                return Sample(index, result, failures)
            if result.lasting:
                self._known[index] = result
            failures.append(result)
            if not self._training:
                return Sample(index, None, failures)
            index = replacement(
                len(self._dataset), seed=self._dataset.seed, epoch=epoch, position=position, attempt=attempt
            )
        last = failures[-1]
        raise ListError(
            f"{failures[0].path} cannot be read, and neither can {MAX_STAND_INS} videos in its place; the last was "
            f"{last.path}: {last.reason}; check the data root, and clean the list"
        )


def _cannot_be_planned(dataset: VideoDataset, index: int, epoch: int) -> bool:
    """Whether probing the video fails, for any choice of frames."""
    try:
        dataset.plan(index, epoch)
    except VideoError:
        return True
    return False
