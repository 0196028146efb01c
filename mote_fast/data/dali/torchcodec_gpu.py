"""torchcodec's decoder on a GPU in place of DALI's: the same loader, routing, trials and batches.

Which of the two stays is decided by measurements on a GPU, of which there are none yet. DALI's own code is in
``pipeline.py``, ``color.py`` and ``DaliServer``, torchcodec's in this file; the rest of the folder serves both.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from mote_fast.data.dali.dali_loader import DaliLoader
from mote_fast.data.dali.pipeline import Device
from mote_fast.data.dali.ready_clips import ReadyClip
from mote_fast.data.dali.server import TRIAL_CLIPS, DaliServer, other_shape
from mote_fast.data.decoding import backend_torchcodec
from mote_fast.data.decoding.formats import HEAD_BYTES, is_certain
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import render
from mote_fast.errors import one_line
from mote_fast.runtime.workers import WithTensor

# Exception types of torchcodec's C++ errors, of missing memory of a GPU among them, and of files that changed.
_ERRORS = (RuntimeError, ValueError, IndexError, OSError)


def why_unavailable(device: Device) -> str | None:
    """Why torchcodec cannot decode on a device, and what to install; None if it can be tried.

    Whether its build decodes on a GPU shows when the first video is tried: a refused video is decoded on the CPU.
    """
    if device == "gpu" and not torch.cuda.is_available():
        return "PyTorch sees no CUDA device; use backend 'cpu', or install the driver and a CUDA build of PyTorch"
    return backend_torchcodec.why_unavailable()


class TorchcodecServer(DaliServer):
    """Serves as ``DaliServer`` does; see there. Files are decoded by as many threads, frames rendered on the device."""

    def __init__(
        self, recipe: ClipRecipe, device: Device, device_id: int | None, batch_size: int, threads: int
    ) -> None:
        super().__init__(recipe, device, device_id, batch_size, threads)
        self._preprocessing = recipe.preprocessing
        self._device = torch.device("cpu") if device == "cpu" else torch.device("cuda", device_id or 0)
        self._clips: deque[list[ReadyClip]] = deque()

    def clear(self) -> None:
        """Forget what was fed."""
        self._clips.clear()

    def feed(self, clips: Sequence[ReadyClip]) -> str | None:
        """Take the next batch; its files are opened when it is decoded."""
        self._clips.append(list(clips))
        return None

    def take(self) -> WithTensor | str:
        """Return the oldest batch as ``DaliServer.take`` does."""
        try:
            with ThreadPoolExecutor(self._threads) as threads:
                decoded = list(threads.map(self._decode, self._clips.popleft()))
        except _ERRORS as error:
            self.clear()
            return one_line(error)
        return WithTensor([shape for _, shape in decoded], torch.stack([pixels for pixels, _ in decoded]).cpu())

    def attempt(self, clip: ReadyClip, timed: bool) -> float | str:
        """Decode a clip alone; return as ``DaliServer.attempt`` does."""
        try:
            # The first one sets decoders up.
            _, shape = self._decode(clip)
            if shape != clip.shape:
                return other_shape(shape, clip)
            start = time.perf_counter()
            if timed:
                with ThreadPoolExecutor(self._threads) as threads:
                    found = list(threads.map(self._decode, [clip] * TRIAL_CLIPS))
                torch.stack([pixels for pixels, _ in found]).cpu()
            return time.perf_counter() - start if timed else 0.0
        except _ERRORS as error:
            return one_line(error)

    def _decode(self, clip: ReadyClip) -> tuple[Tensor, tuple[int, ...]]:
        """The views of a clip, uint8 [V * T, 3, S, S] on the device, and the shape of its frames.

        Raises:
            ValueError: the file is another now, or other frames came than those asked for.
        """
        from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportPrivateImportUsage]

        with Path(clip.path).open("rb") as file:
            if not is_certain(file.read(HEAD_BYTES), clip.kind.container):
                raise ValueError(f"{clip.path}: changed while it was read")
        decoder = VideoDecoder(clip.path, stream_index=clip.stream, dimension_order="NHWC", device=str(self._device))
        batch = decoder.get_frames_at(clip.item.indices.tolist())
        seconds, half_a_tick = clip.seconds
        if (batch.pts_seconds.cpu() - torch.tensor(seconds, dtype=torch.float64)).abs().max() > half_a_tick:
            raise ValueError(f"{clip.path}: it gave other frames than those asked for")
        pixels = render(batch.data, clip.geometry, self._preprocessing)
        # By crop, then by frame, as ``ClipInput.order`` counts them.
        order = torch.from_numpy(clip.item.order).to(self._device, torch.int64)
        return pixels.transpose(0, 1).flatten(0, 1)[order], tuple(batch.data.shape)


class TorchcodecLoader(DaliLoader):
    """Loads videos through torchcodec on a GPU; see ``DaliLoader`` and ``make_loader``."""

    backend = "torchcodec-gpu"
    server = TorchcodecServer
    why_not = staticmethod(why_unavailable)
