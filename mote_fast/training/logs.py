"""Run logging: progress bar and console line, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import logging
import os
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mote_fast.errors import ConfigError
from mote_fast.runtime.files import write_all
from mote_fast.runtime.json_text import finite, to_json

log = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"

T = TypeVar("T")


class MetricsFile:
    """JSON lines, one record per line, truncated to the position of the checkpoint that a run resumes from.

    Args:
        path: the file.
        kept: bytes of an earlier part of the run to keep; the rest is rewritten.

    Raises:
        ConfigError: the file cannot be written; every method raises it.
    """

    def __init__(self, path: Path, kept: int = 0) -> None:
        self._path = path
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
            self._file.truncate(min(kept, self._file.tell()))

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record."""
        with self._writing():
            write_all(self._file, to_json(record).encode() + b"\n")

    def flushed(self) -> int:
        """Flush to disk and return the file's length, bytes."""
        with self._writing():
            os.fsync(self._file.fileno())
            return self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(f"{self._path}: cannot be written ({error})") from error


class TensorBoardFiles:
    """TensorBoard's files of a run. If they can no longer be written, as on a full disk, the run goes on without them.

    Args:
        folder: their folder.
        step: optimiser steps taken before; points after it, written by a run that was killed, are hidden.

    Raises:
        ConfigError: TensorBoard is not installed, or the folder cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                f"run.tensorboard: TensorBoard is not installed ({error}); pip install tensorboard, or "
                "run.tensorboard=false"
            ) from error
        self._folder = folder
        try:
            self._writer: SummaryWriter | None = SummaryWriter(str(folder), purge_step=step + 1)
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be written ({error})") from error

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Write the numbers of a record; see ``RunLog.record``."""
        if self._writer is None:
            return
        try:
            for name, value in values.items():
                if isinstance(value, (int, float)) and name != "epoch":
                    self._writer.add_scalar(f"{kind}/{name}", value, step)
        # A thread of TensorBoard's writes; the error of an earlier record may show at a later one.
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Write what is left, and close the files."""
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        log.warning("%s: cannot be written (%s); the metrics are in %s alone", self._folder, error, METRICS_FILE)
        self._writer = None


class RunLog:
    """Writes the log of a run in the first process; in the others every method does nothing.

    Args:
        output: the run's folder.
        leads: whether this is the first process.
        step: optimiser steps taken before.
        steps: optimiser steps of the whole run.
        kept: bytes of the metrics file to keep.
        tensorboard: write TensorBoard's files too.

    Raises:
        ConfigError: ``tensorboard`` is true and TensorBoard is not installed, or a file cannot be written.
    """

    def __init__(self, output: Path, *, leads: bool, step: int, steps: int, kept: int, tensorboard: bool) -> None:
        self._leads = leads
        self._exits = ExitStack()
        if not leads:
            return
        self._metrics = MetricsFile(output / METRICS_FILE, kept)
        self._exits.callback(self._metrics.close)
        self._board = TensorBoardFiles(output / TENSORBOARD_FOLDER, step) if tensorboard else None
        if self._board is not None:
            self._exits.callback(self._board.close)
        # The bar is drawn on terminals only; log lines are printed above it.
        self._bar = self._exits.enter_context(tqdm(total=steps, initial=step, unit="step", disable=None))
        if not self._bar.disable:
            self._exits.enter_context(logging_redirect_tqdm())

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    def advance(self) -> None:
        """Count a step on the progress bar."""
        if self._leads:
            self._bar.update()

    def record(self, kind: str, step: int, values: Mapping[str, Any], line: str) -> None:
        """Write one record everywhere.

        Args:
            kind: "train", "val" or "faults"; TensorBoard's group.
            step: optimiser steps taken.
            values: by name; numbers go to TensorBoard. Non-finite numbers are recorded as null.
            line: the console line.
        """
        if not self._leads:
            return
        # JSON has no NaN or infinity; overflow steps of float16's loss scaler are expected.
        values = finite(values)
        self._metrics.write({"kind": kind, "step": step, **values})
        if self._board is not None:
            self._board.write(kind, step, values)
        log.info(line)

    def flushed(self) -> int:
        """Flush the metrics file and return its length, bytes."""
        return self._metrics.flushed() if self._leads else 0


class ThroughputMeter:
    """Measures an interval of training: clips per second, and the share of time spent waiting for data.

    Args:
        on_gpu: measure the waiting of the current GPU too: the host may wait while the GPU is at work.
    """

    def __init__(self, on_gpu: bool = False) -> None:
        self._on_gpu = on_gpu
        self.restart()

    def restart(self) -> None:
        """Begin a new interval: after a log line, or after validating or saving."""
        self._since = time.perf_counter()
        self._waited = 0.0
        self._clips = 0
        self._gaps: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def timed(self, items: Iterator[T]) -> Iterator[T]:
        """Yield ``items`` and count the waiting time for each."""
        while True:
            begun, queued = time.perf_counter(), self._mark()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self._waited += time.perf_counter() - begun
            if queued is not None and (arrived := self._mark()) is not None:
                self._gaps.append((queued, arrived))
            yield item

    def _mark(self) -> torch.cuda.Event | None:
        """A point in the GPU's queue, which it passes when all work before is done."""
        if not self._on_gpu:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def count(self, clips: int) -> None:
        """Count training clips."""
        self._clips += clips

    @property
    def seconds(self) -> float:
        """Length of the interval, seconds."""
        return max(time.perf_counter() - self._since, 1e-9)

    @property
    def clips_per_second(self) -> float:
        """Clips per second of this process."""
        return self._clips / self.seconds

    @property
    def waited(self) -> float:
        """Share of the time spent waiting for data, in [0, 1]."""
        return min(self._waited / self.seconds, 1.0)

    @property
    def gpu_waited(self) -> float | None:
        """Share of the time for which the GPU had done all its work and no next batch, in [0, 1]; None on a CPU.

        The interval's work must be done, as it is once a loss was read.
        """
        if not self._on_gpu:
            return None
        # Milliseconds.
        idle = sum(queued.elapsed_time(arrived) for queued, arrived in self._gaps)
        return min(idle / 1000 / self.seconds, 1.0)


def peak_memory(device: torch.device) -> int:
    """Return the peak memory so far, bytes: PyTorch's on a GPU, the process's on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux counts in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def duration(seconds: float) -> str:
    """Return ``[D days, ]H:MM:SS``."""
    return str(timedelta(seconds=round(seconds)))
