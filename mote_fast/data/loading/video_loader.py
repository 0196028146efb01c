"""The options and the base class of all loaders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.loading.batch import Batch
from mote_fast.data.loading.faults import Failure, FaultLog
from mote_fast.data.loading.order import ALONE, BatchIndices, Replica, evaluation_batches, training_batches
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import normalize
from mote_fast.errors import BackendError, ConfigError
from mote_fast.runtime.device_copy import beside_compute, to_device

T = TypeVar("T")


@dataclass(frozen=True)
class LoaderOptions:
    """How a loader makes batches.

    Attributes:
        batch_size: B, videos in a batch of this process.
        training: full batches in an order shuffled by epoch, unreadable videos replaced; otherwise every video once, in
            list order, unreadable ones named in ``Batch.failures``.
        replica: the rank of this process among those that share the epoch.
        workers: processes that decode; 0 decodes in this process, where a crash of the decoder ends the run, unless
            ``isolate`` is true.
        device: device of the pixels and labels.
        dtype: dtype of the pixels.
        time_limit: seconds per video, in a process other than this one.
        fault_file: JSON-lines file to which unreadable videos are appended.
        isolate: never decode in this process: with ``workers=0`` one other process decodes while this one waits.

    Raises:
        ConfigError: a value is out of range.
    """

    batch_size: int
    training: bool
    replica: Replica = ALONE
    workers: int = 0
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    time_limit: float = 60.0
    fault_file: str | Path | None = None
    isolate: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {self.batch_size}")
        if not 0 <= self.replica.rank < self.replica.world_size:
            raise ConfigError(f"rank {self.replica.rank} does not lie in a world of {self.replica.world_size}")
        if self.workers < 0 or self.time_limit <= 0:
            raise ConfigError(
                f"workers must be at least 0 and time_limit above 0, got {self.workers} and {self.time_limit}"
            )

    @property
    def processes(self) -> int:
        """The number of processes that decode; 0 if this one does."""
        return max(self.workers, int(self.isolate))


class VideoLoader(ABC):
    """Yields the batches of one rank.

    Attributes:
        faults: the videos that could not be read.
        batches_per_epoch: batches that ``epoch`` yields when it starts at 0.

    Args:
        recipe: how videos become clips.
        options: see ``LoaderOptions``.

    Raises:
        BackendError: the device is not available.
        ConfigError: the fault file cannot be written.
    """

    batches_per_epoch: int

    def __init__(self, recipe: ClipRecipe, options: LoaderOptions) -> None:
        self._recipe = recipe
        self._options = options
        self._closed = False
        self._device = torch.device(options.device)
        if self._device.type == "cuda" and not torch.cuda.is_available():
            device = str(options.device)
            raise BackendError(f"device {device!r} cannot serve: PyTorch sees no CUDA device; use device='cpu'")
        self.faults = FaultLog(Path(options.fault_file) if options.fault_file is not None else None)

    @abstractmethod
    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from batch ``start`` on; earlier calls do not affect them.

        Raises:
            ConfigError: the loader is closed.
            ListError: a training batch cannot be filled.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop the workers and free their memory."""

    def _check_open(self) -> None:
        if self._closed:
            raise ConfigError("the loader is closed; make another")

    def _new_pixels(self, videos: int) -> Tensor:
        """Allocate memory for the clips of a batch: uint8 [videos, V, T, 3, S, S], on the host."""
        # PyTorch caches pinned memory, and reuses it once the copy to the device is done.
        shape = (videos, *self._recipe.clip_shape)
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")

    def _deliver(
        self, pixels: Tensor, labels: Sequence[int], indices: Sequence[int], failures: Sequence[Failure]
    ) -> Batch:
        """Copy clips to the device as bytes, a quarter of the float32 size, and normalise the whole batch there.

        Args:
            pixels: uint8 [B, V, T, 3, S, S], on the host.
            labels: B labels.
            indices: B list indices.
            failures: see ``Batch``; they are recorded.
        """
        for failure in failures:
            self.faults.record(failure)

        def copy() -> tuple[Tensor, Tensor]:
            return self._on_device(pixels.flatten(0, 1)), to_device(
                torch.tensor(labels, dtype=torch.int64), self._device
            )

        on_device, of_clips = beside_compute(self._device, copy)
        return Batch(on_device, of_clips, torch.tensor(indices, dtype=torch.int64), failures)

    def _on_device(self, pixels: Tensor) -> Tensor:
        moved = pixels.to(self._device, non_blocking=True)
        return normalize(moved, self._recipe.preprocessing, self._options.dtype)


class DatasetLoader(VideoLoader):
    """A loader of a ``VideoDataset``, in the batches of ``training_batches`` or ``evaluation_batches``.

    Raises:
        ConfigError: there are too few videos for one batch.
    """

    def __init__(self, dataset: VideoDataset, options: LoaderOptions) -> None:
        super().__init__(dataset.recipe, options)
        self._dataset = dataset
        self.batches_per_epoch = len(self._batches(0))

    def _batches(self, epoch: int) -> list[BatchIndices]:
        options, videos, seed = self._options, len(self._dataset), self._dataset.seed
        if options.training:
            return training_batches(videos, options.batch_size, seed=seed, epoch=epoch, replica=options.replica)
        return evaluation_batches(videos, options.batch_size, replica=options.replica)


def run_now(function: Callable[..., T], *arguments: object) -> Future[T]:
    """Call ``function`` at once; a replacement for ``ThreadPoolExecutor.submit`` without threads."""
    future: Future[T] = Future()
    future.set_result(function(*arguments))
    return future


@contextmanager
def ending(*threads: ThreadPoolExecutor | None) -> Iterator[None]:
    """Cancel what threads have not begun, and wait for the rest after the block, which closes what they wait for."""
    started = [each for each in threads if each is not None]
    for each in started:
        each.shutdown(wait=False, cancel_futures=True)
    yield
    for each in started:
        each.shutdown()
