"""The interface of a GPU's decoder: it serves requests in a process of its own, which a damaged file ends alone."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from mote_fast.data.decoding.colors import Colors
from mote_fast.data.decoding.formats import HEAD_BYTES, is_certain
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import Geometry
from mote_fast.runtime.workers import WithTensor

# Where a decoder works. On a CPU it is for those who ask for it, and for tests.
Device = Literal["cpu", "gpu"]

# Clips decoded at once in a measurement: enough to keep a GPU's decoders busy.
TRIAL_CLIPS = 8

# Batches that a decoder prepares while the caller uses one.
PREFETCH = 2

# A decoder gets the whole file in memory. The CPU's libraries read a larger one from its path.
MAX_BYTES = 2**28


class StreamKind(NamedTuple):
    """A group of videos that share one measurement."""

    container: str
    codec: str
    size_class: int


@dataclass(frozen=True)
class ReadyClip:
    """A video that a decoder of a GPU may decode.

    Attributes:
        index: of the video in the list.
        label: of the clip.
        source: absolute path of the file, or its content.
        kind: of the video.
        indices: int32 [U], of the frames to decode.
        order: int32 [V * T], the frames of the result, as crop * U + frame.
        colors: of the video.
        shape: (U, H, W, 3), expected of its frames.
        geometry: scaling, crops, mirroring and grey.
        stream: place of the video stream in the container.
        seconds: when the frames of ``indices`` are shown, and half a tick of the stream's clock.
    """

    index: int
    label: int
    source: str | bytes
    kind: StreamKind
    indices: np.ndarray
    order: np.ndarray
    colors: Colors
    shape: tuple[int, ...]
    geometry: Geometry
    stream: int
    seconds: tuple[tuple[float, ...], float]


@dataclass(frozen=True)
class Abilities:
    """The videos that a decoder decodes to the same frames and colours as the CPU does.

    Attributes:
        codecs: FFmpeg's names of the codecs.
        pixel_formats: FFmpeg's names of the layouts of pixels.
        matrices: FFmpeg's numbers of the colour matrices.
        full_range: whether colours may have the full range.
    """

    codecs: frozenset[str]
    pixel_formats: frozenset[str]
    matrices: frozenset[int]
    full_range: bool


class DecodeServer(ABC):
    """Decodes batches of clips in the order in which they are fed, and tries single clips.

    A request is a method with its arguments, ``server((DecodeServer.feed, clips))``, so that it can be sent to a
    process; a decoder serves it by its own method of that name. A method returns a text where the decoder or a file is
    at fault; what was fed is then lost.

    Args:
        recipe: how videos become clips.
        device: where to decode.
        device_id: index of the GPU; None on the CPU.
        batch_size: the largest batch.
        threads: of the CPU.
    """

    @abstractmethod
    def __init__(
        self, recipe: ClipRecipe, device: Device, device_id: int | None, batch_size: int, threads: int
    ) -> None: ...

    def __call__(self, request: tuple[Any, ...]) -> Any:
        """Serve a request."""
        method, *arguments = request
        return getattr(self, method.__name__)(*arguments)

    @abstractmethod
    def clear(self) -> None:
        """Forget what was fed."""

    @abstractmethod
    def feed(self, clips: Sequence[ReadyClip]) -> str | None:
        """Take the next batch; return a text if a file of it cannot be read."""

    @abstractmethod
    def take(self) -> WithTensor | str:
        """Return the oldest batch, uint8 [B, V * T, 3, S, S], with the shapes [U, H, W, 3] of its frames."""

    @abstractmethod
    def attempt(self, clip: ReadyClip, timed: bool) -> float | str:
        """Decode a clip alone; return the seconds that ``TRIAL_CLIPS`` copies take, 0 if not timed, or why it fails."""


@dataclass(frozen=True)
class GpuDecoder:
    """A decoder of a GPU.

    Attributes:
        server: what decodes.
        why_unavailable: why it cannot decode on a device, and what to install; None if it can be tried.
        takes: what it decodes as the CPU does, by device.
        packages: whose versions decide how fast it is.
    """

    server: type[DecodeServer]
    why_unavailable: Callable[[Device], str | None]
    takes: Mapping[Device, Abilities]
    packages: tuple[str, ...]


def other_shape(found: tuple[int, ...], clip: ReadyClip) -> str:
    """Say that a decoder's frames differ from those requested."""
    return f"it gives frames of {found} instead of {clip.shape}"


def content_of(clip: ReadyClip) -> np.ndarray:
    """Read the whole file of a clip, uint8 [bytes]; it may have changed since it was looked at.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is another file now.
    """
    if isinstance(clip.source, bytes):
        data = np.frombuffer(clip.source, np.uint8)
    else:
        there = os.path.isfile(clip.source)
        data = np.fromfile(clip.source, np.uint8, MAX_BYTES) if there else np.zeros(0, np.uint8)
    check_head(clip, data[:HEAD_BYTES].tobytes())
    return data


def check_head(clip: ReadyClip, head: bytes) -> None:
    """Check that a file still begins as its container does.

    Raises:
        ValueError: it is another file now.
    """
    if not is_certain(head, clip.kind.container):
        name = "<bytes>" if isinstance(clip.source, bytes) else clip.source
        raise ValueError(f"{name}: changed while it was read")
