"""Runs DALI's pipelines, in a process of its own, which a damaged file ends alone."""

from __future__ import annotations

import functools
import gc
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

from mote_fast.data.dali import color as dali_color
from mote_fast.data.dali.pipeline import (
    DALI_ERRORS,
    ClipInput,
    Columns,
    build_pipeline,
    columns,
    why_unavailable,
)
from mote_fast.data.decoding.colors import BT470BG, SMPTE170M, UNSPECIFIED
from mote_fast.data.gpu.decode_server import (
    TRIAL_CLIPS,
    Abilities,
    DecodeServer,
    Device,
    GpuDecoder,
    ReadyClip,
    content_of,
    other_shape,
)
from mote_fast.data.plan import ClipRecipe
from mote_fast.errors import one_line
from mote_fast.runtime.workers import WithTensor

if TYPE_CHECKING:
    from nvidia.dali.pipeline import Pipeline


class DaliServer(DecodeServer):
    """Serves as ``DecodeServer`` does; see there. The threads are DALI's, and those that read files."""

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


def clip_input(clip: ReadyClip, encoded: np.ndarray) -> ClipInput:
    """The graph's input for a clip whose file is ``encoded``, uint8 [bytes]."""
    colors = dali_color.to_ffmpeg(clip.colors)
    return ClipInput(
        encoded=encoded,
        indices=clip.indices,
        scaled=np.array(clip.geometry.scaled, np.float32),
        boxes=np.array(clip.geometry.boxes, np.int32),
        colors=dali_color.to_gray(colors) if clip.geometry.grayscale else colors,
        mirrored=np.array(clip.geometry.flip, np.int32),
        order=clip.order,
    )


def _with_file(clip: ReadyClip) -> ClipInput:
    """Read the file; see ``content_of``."""
    return clip_input(clip, content_of(clip))


class _Repeat:
    """Yields the same batch forever."""

    def __init__(self, items: list[ClipInput]) -> None:
        self._columns = columns(items)

    def __call__(self) -> Columns:
        return self._columns


# Its decoder of a GPU treats every picture as 8-bit 4:2:0, and reads the range from the bit stream alone, which nobody
# has verified. That of a CPU supports VP8 too, but conceals damage in it without an error. Both convert every video to
# RGB as BT.601. Of other matrices' colours they cut off what BT.601 puts outside 0..255, so that no later step can
# restore them.
_MATRICES = frozenset({UNSPECIFIED, BT470BG, SMPTE170M})

DECODER = GpuDecoder(
    DaliServer,
    why_unavailable,
    {
        "cpu": Abilities(
            frozenset({"vp9", "mjpeg"}),
            frozenset({"yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p"}),
            _MATRICES,
            full_range=True,
        ),
        "gpu": Abilities(
            frozenset({"h264", "hevc", "mpeg4", "vp8", "vp9", "av1"}),
            frozenset({"yuv420p"}),
            _MATRICES,
            full_range=False,
        ),
    },
    ("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
)
