"""Requests to stop: a signal sets a flag that the loop checks between steps, and ends the wait for a batch."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

from mote_fast.data.loading.batch import Batch
from mote_fast.data.loading.video_loader import VideoLoader
from mote_fast.runtime.distributed import ProcessGroup

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)

T = TypeVar("T")


class Stopped(Exception):
    """The processes of a run have agreed to stop. Internal."""


class _WaitEndedError(BaseException):
    """A signal came during a wait; no ``Exception``, so that no loader takes it for a fault of a video."""


class StopRequest:
    """While entered, SIGTERM and SIGINT set ``asked`` instead of ending the process: a step can finish and be saved.

    Further signals change nothing: torchrun forwards signals that the terminal has already sent.
    """

    def __init__(self) -> None:
        self.asked = False
        self._waiting = False
        self._before: dict[int, Any] = {}

    def until_asked(self, items: Iterator[T]) -> Iterator[T | None]:
        """Yield ``items``, and None as the last one once a stop is asked for.

        A signal ends the wait for the next item, which may take minutes where a decoder hangs; ``items`` cannot be
        continued then.
        """
        try:
            while True:
                # Set before the flag is read: a signal between the two would otherwise be seen after the wait.
                self._waiting = True
                if self.asked:
                    break
                item = next(items)
                self._waiting = False
                yield item
        except StopIteration:
            return
        except _WaitEndedError:
            pass
        finally:
            self._waiting = False
        yield None

    def batches_of_step(self, batches: Iterator[Batch | None], count: int, world: ProcessGroup) -> Iterator[Batch]:
        """Yield the next ``count`` of ``until_asked``'s batches, unless a process is asked to stop before the last.

        Raises:
            Stopped: on all processes alike, before the last batch.
        """
        for number in range(1, count + 1):
            batch = next(batches)
            # Up to the backward pass of the last batch the processes exchange nothing: all can still leave the step.
            if batch is None or number == count:
                self.agree(world)
            if batch is not None:
                yield batch

    def agree(self, world: ProcessGroup) -> None:
        """Raise ``Stopped`` on all processes if one of them is asked to stop; every process must call it."""
        if world.any(self.asked):
            raise Stopped

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        first, self.asked = not self.asked, True
        if not first:
            return
        # The flag is already set, even if this log line interrupts another one and fails.
        log.warning("%s: saving after the last whole step, then stopping", signal.Signals(number).name)
        if self._waiting:
            raise _WaitEndedError


class StoppableLoader(VideoLoader):
    """The batches of another loader, ended by a request to stop.

    Args:
        loader: the loader; it belongs to the caller.
        stop: the request of this process.
        world: the processes, each with its own share of the batches.
    """

    def __init__(self, loader: VideoLoader, stop: StopRequest, world: ProcessGroup) -> None:
        self._loader, self._stop, self._world = loader, stop, world
        self.faults, self.batches_per_epoch = loader.faults, loader.batches_per_epoch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """See ``VideoLoader.epoch``.

        Raises:
            Stopped: on all processes, at the end of each one's own batches, if one of them was asked to stop.
        """
        for batch in self._stop.until_asked(self._loader.epoch(epoch, start)):
            if batch is not None:
                yield batch
        self._stop.agree(self._world)

    def close(self) -> None:
        """Leave the other loader open."""
