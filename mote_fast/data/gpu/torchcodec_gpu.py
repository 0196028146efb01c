"""torchcodec as a decoder of a GPU: all of its code; without this file and its line in the table it is gone."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from mote_fast.data.decoding import backend_torchcodec
from mote_fast.data.decoding.colors import BT470BG, SMPTE170M, UNSPECIFIED
from mote_fast.data.decoding.formats import HEAD_BYTES
from mote_fast.data.decoding.video_info import as_input
from mote_fast.data.gpu.decode_server import (
    TRIAL_CLIPS,
    Abilities,
    DecodeServer,
    Device,
    GpuDecoder,
    ReadyClip,
    check_head,
    other_shape,
)
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


class TorchcodecServer(DecodeServer):
    """Serves as ``DecodeServer`` does; see there. Each thread decodes a file, and renders its frames on the device."""

    def __init__(
        self, recipe: ClipRecipe, device: Device, device_id: int | None, batch_size: int, threads: int
    ) -> None:
        del batch_size
        self._threads = threads
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
        """Return the oldest batch as ``DecodeServer.take`` does."""
        try:
            with ThreadPoolExecutor(self._threads) as threads:
                decoded = list(threads.map(self._decode, self._clips.popleft()))
        except _ERRORS as error:
            self.clear()
            return one_line(error)
        return WithTensor([shape for _, shape in decoded], torch.stack([pixels for pixels, _ in decoded]).cpu())

    def attempt(self, clip: ReadyClip, timed: bool) -> float | str:
        """Decode a clip alone; return as ``DecodeServer.attempt`` does."""
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

        if isinstance(clip.source, bytes):
            check_head(clip, clip.source[:HEAD_BYTES])
        else:
            with Path(clip.source).open("rb") as head:
                check_head(clip, head.read(HEAD_BYTES))
        with as_input(clip.source) as file:
            decoder = VideoDecoder(
                file,  # pyright: ignore[reportArgumentType]
                stream_index=clip.stream,
                dimension_order="NHWC",
                device=str(self._device),
            )
            batch = decoder.get_frames_at(clip.indices.tolist())
        seconds, half_a_tick = clip.seconds
        if (batch.pts_seconds.cpu() - torch.tensor(seconds, dtype=torch.float64)).abs().max() > half_a_tick:
            raise ValueError("it gave other frames than those asked for")
        pixels = render(batch.data, clip.geometry, self._preprocessing)
        # By crop, then by frame, as ``ReadyClip.order`` counts them.
        order = torch.from_numpy(clip.order).to(self._device, torch.int64)
        return pixels.transpose(0, 1).flatten(0, 1)[order], tuple(batch.data.shape)


# What torchcodec's decoder of a GPU does with other layouts, ranges and matrices is not verified.
_MATRICES = frozenset({UNSPECIFIED, BT470BG, SMPTE170M})

DECODER = GpuDecoder(
    TorchcodecServer,
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
    ("torchcodec",),
)
