"""A decoder of a GPU that decodes on the CPU, for processes to import: right, wrong, or failing as files are named."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mote_fast.data.decoding.colors import BT470BG, SMPTE170M, UNSPECIFIED
from mote_fast.data.decoding.decode import read_frames
from mote_fast.data.gpu.decode_server import Abilities, DecodeServer, Device, GpuDecoder, ReadyClip
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import render
from mote_fast.runtime.workers import WithTensor

# Seconds that it says its clips take.
SECONDS = 0.5


class StandIn(DecodeServer):
    """Gives the CPU's pixels. Files named "refused..." fail; of "small..." it gives frames of another size."""

    # Added to the number of each frame that is asked for.
    shift = 0
    # Batches so far, in this process.
    batches: list[int]

    def __init__(
        self, recipe: ClipRecipe, device: Device, device_id: int | None, batch_size: int, threads: int
    ) -> None:
        del device, device_id, threads
        self.recipe, self.batch_size = recipe, batch_size
        self.fed: deque[list[ReadyClip]] = deque()
        self.batches = []

    def clear(self) -> None:
        self.fed.clear()

    def feed(self, clips: Sequence[ReadyClip]) -> str | None:
        assert len(clips) <= self.batch_size
        self.fed.append(list(clips))
        return None

    def take(self) -> WithTensor | str:
        clips = self.fed.popleft()
        self.batches.append(len(clips))
        if any(_named(clip, "refused") for clip in clips):
            return "it is refused"
        shapes = [(1, 2, 3, 3) if _named(clip, "small") else clip.shape for clip in clips]
        return WithTensor(shapes, torch.stack([self._decode(clip) for clip in clips]))

    def attempt(self, clip: ReadyClip, timed: bool) -> float | str:
        if _named(clip, "refused"):
            return "it is refused"
        return SECONDS if timed else 0.0

    def _decode(self, clip: ReadyClip) -> Tensor:
        wanted = [max(0, index + self.shift) for index in clip.indices.tolist()]
        pixels = render(read_frames(clip.source, wanted), clip.geometry, self.recipe.preprocessing)
        return pixels.transpose(0, 1).flatten(0, 1)[torch.from_numpy(clip.order).long()]


class Neighbor(StandIn):
    """Gives the frame before each one that is asked for."""

    shift = -1


class Slow(StandIn):
    """Takes twice as long."""

    def attempt(self, clip: ReadyClip, timed: bool) -> float | str:
        found = super().attempt(clip, timed)
        return found if isinstance(found, str) else 2 * found


def available(device: Device) -> str | None:
    """It always is."""
    del device


def missing(device: Device) -> str | None:
    """It never is."""
    return f"no {device}; install it"


_TAKES = Abilities(
    frozenset({"vp9", "h264"}), frozenset({"yuv420p"}), frozenset({UNSPECIFIED, BT470BG, SMPTE170M}), full_range=False
)


def decoder_of(server: type[DecodeServer]) -> GpuDecoder:
    """A decoder that is always available."""
    return GpuDecoder(server, available, {"cpu": _TAKES, "gpu": _TAKES}, ("numpy",))


def _named(clip: ReadyClip, start: str) -> bool:
    return isinstance(clip.source, str) and Path(clip.source).name.startswith(start)
