"""Runs DALI's pipelines. The loader calls it in a process of its own, which a damaged file ends alone."""

from __future__ import annotations

import functools
import gc
import os
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mote_fast.data.dali.pipeline import DALI_ERRORS, ClipInput, Columns, Device, build_pipeline, columns
from mote_fast.data.dali.ready_clips import ReadyClip
from mote_fast.data.dali.routing import MAX_BYTES
from mote_fast.data.decoding.formats import HEAD_BYTES, is_certain
from mote_fast.data.plan import ClipRecipe
from mote_fast.errors import one_line
from mote_fast.runtime.workers import WithTensor

if TYPE_CHECKING:
    from nvidia.dali.pipeline import Pipeline

# Clips decoded at once in a measurement: enough to keep a GPU's decoders busy.
TRIAL_CLIPS = 8


class DaliServer:
    """Decodes batches of clips in the order in which they are fed, and tries single clips.

    A request is a method with its arguments, ``server((DaliServer.feed, clips))``, so that it can be sent to a process;
    a subclass serves it by its own method of that name.
    A method returns a text where DALI or a file is at fault; what was fed is then lost.

    Args:
        recipe: how videos become clips.
        device: DALI's device.
        device_id: index of the GPU; None on the CPU.
        batch_size: the largest batch.
        threads: DALI's CPU threads, and those that read files.
    """

    def __init__(
        self, recipe: ClipRecipe, device: Device, device_id: int | None, batch_size: int, threads: int
    ) -> None:
        self._build = functools.partial(
            build_pipeline, recipe=recipe, device=device, device_id=device_id, threads=threads
        )
        self._batch_size = batch_size
        self._threads = threads
        self._pipeline: Pipeline | None = None
        self._fed: deque[Columns] = deque()
        # Batches that the pipeline has taken from ``_fed`` and not returned.
        self._inside = 0

    def __call__(self, request: tuple[Any, ...]) -> Any:
        """Serve a request."""
        method, *arguments = request
        return getattr(self, method.__name__)(*arguments)

    def clear(self) -> None:
        """Forget what was fed."""
        if self._fed or self._inside:
            self._drop()

    def feed(self, clips: Sequence[ReadyClip]) -> str | None:
        """Read the files of the next batch; return a text if one cannot be read."""
        try:
            with ThreadPoolExecutor(self._threads) as threads:
                self._fed.append(columns(list(threads.map(_with_file, clips))))
        except (OSError, ValueError) as error:
            return one_line(error)
        return None

    def take(self) -> WithTensor | str:
        """Return the oldest batch, uint8 [B, V * T, 3, S, S], with the shapes [U, H, W, 3] of its frames.

        DALI goes on with the next batch, if that has been fed.
        """
        try:
            if self._pipeline is None:
                self._pipeline = self._build(self._next, batch_size=self._batch_size)
            if not self._inside:
                # The pipeline takes a lack of batches for the end.
                self._pipeline.reset()
            pixels, shapes = self._pipeline.run()
            self._inside -= 1
        except (*DALI_ERRORS, StopIteration) as error:
            self._drop()
            return one_line(error)
        found = torch.from_dlpack(shapes.as_tensor()).tolist()
        return WithTensor([tuple(shape) for shape in found], torch.from_dlpack(pixels.as_tensor()).cpu())

    def attempt(self, clip: ReadyClip, timed: bool) -> float | str:
        """Decode a clip alone; return the seconds that ``TRIAL_CLIPS`` copies take, 0 if not timed, or why it fails."""
        try:
            source = _Repeat([_with_file(clip)] * (TRIAL_CLIPS if timed else 1))
            pipeline = self._build(source, batch_size=TRIAL_CLIPS, prefetch=1)
            # The first run sets decoders up and fills memory pools.
            _, shapes = pipeline.run()
            found = tuple(torch.from_dlpack(shapes.as_tensor())[0].tolist())
            if found != clip.shape:
                return other_shape(found, clip)
            start = time.perf_counter()
            if timed:
                # No stream is given, so the outputs are complete on return.
                pipeline.run()
            return time.perf_counter() - start if timed else 0.0
        except (*DALI_ERRORS, OSError) as error:
            return one_line(error)
        finally:
            pipeline = None
            gc.collect()

    def _drop(self) -> None:
        self._fed.clear()
        self._pipeline, self._inside = None, 0
        # Pipelines are in reference cycles, with megabytes of buffers that Python does not count.
        gc.collect()

    def _next(self) -> Columns:
        if not self._fed:
            raise StopIteration
        self._inside += 1
        return self._fed.popleft()


def other_shape(found: tuple[int, ...], clip: ReadyClip) -> str:
    """Say that DALI's frames differ from those requested."""
    return f"it gives frames of {found} instead of {clip.shape}"


def _with_file(clip: ReadyClip) -> ClipInput:
    """Read the file, which may have changed since it was looked at.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is another file now.
    """
    data = np.fromfile(clip.path, np.uint8, MAX_BYTES) if os.path.isfile(clip.path) else np.zeros(0, np.uint8)
    if not is_certain(data[:HEAD_BYTES].tobytes(), clip.kind.container):
        raise ValueError(f"{clip.path}: changed while it was read")
    return clip.item._replace(encoded=data)


class _Repeat:
    """Yields the same batch forever."""

    def __init__(self, items: list[ClipInput]) -> None:
        self._columns = columns(items)

    def __call__(self) -> Columns:
        return self._columns
