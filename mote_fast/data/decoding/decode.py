"""Video files to frames, through one interface for all decoding libraries."""

from __future__ import annotations

import operator
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from mote_fast.data.decoding import backend_pyav, backend_torchcodec, packet_index
from mote_fast.data.decoding.video_info import VideoInfo, check_read_size
from mote_fast.errors import (
    BackendError,
    ConfigError,
    FrameIndexError,
    MissingVideoError,
    UndecodableVideoError,
    UnreadableVideoError,
)

VideoSource = str | os.PathLike[str] | bytes


@dataclass(frozen=True)
class Backend:
    """A decoding library: why it is not available (None if it is), and how it reads an indexed video."""

    why_unavailable: Callable[[], str | None]
    read: Callable[[str | bytes, VideoInfo, Sequence[int], int], torch.Tensor]


BACKENDS: dict[str, Backend] = {
    "pyav": Backend(backend_pyav.why_unavailable, backend_pyav.read),
    "torchcodec": Backend(backend_torchcodec.why_unavailable, backend_torchcodec.read),
}

# What "auto" stands for. PyAV is at least as fast, brings its own FFmpeg, and reports damage that torchcodec conceals.
DEFAULT_BACKEND = "pyav"


def available_backends() -> dict[str, str | None]:
    """Every backend by name, with None if it is available on this machine, otherwise the reason why not."""
    return {name: backend.why_unavailable() for name, backend in BACKENDS.items()}


def probe(path: VideoSource) -> VideoInfo:
    """Probe a video file: exact frame count, size, rate, codec, rotation and key frames.

    ``path`` is a path, or the ``bytes`` of a whole file. The packets are read and not decoded, except in the few kinds
    of file whose packets do not identify the frames (see ``packet_index``).

    Raises ``MissingVideoError`` if there is no such file, and ``UndecodableVideoError`` if it is not a regular file,
    is not readable, holds no video stream, exceeds ``MAX_PIXELS`` per frame, or has no decodable frame.
    """
    source, label = _check_source(path)
    return packet_index.scan(source, label)


def read_frames(
    path: VideoSource,
    indices: Sequence[int] | torch.Tensor,
    backend: str = "auto",
    *,
    num_threads: int = 1,
    info: VideoInfo | None = None,
) -> torch.Tensor:
    """Decode the frames at ``indices`` and return them as RGB: uint8 ``[N, H, W, 3]``, in the requested order.

    ``path`` is a path, or the ``bytes`` of a whole file. ``indices`` count from 0 in presentation order; any order and
    repeats are allowed, and each distinct frame is decoded once. ``backend`` is "pyav", which "auto" stands for, or
    "torchcodec". ``num_threads`` are the decoder's threads, 0 for one per core. ``info`` is what ``probe`` returned for
    the same unchanged file; it saves the scan.

    Rotation and mirroring that the file states are applied. Colours follow the matrix and range that the decoded
    frames state, otherwise BT.601 limited range (gray: full range); transfer functions and primaries are not converted.
    A video whose frame size changes between the requested frames is refused. torchcodec does not report bit errors that
    its decoder conceals; "pyav" raises on those that the decoder notices.

    Raises what ``probe`` raises, ``FrameIndexError`` for an index outside the video, ``UndecodableVideoError`` if a
    frame is damaged, lies after the point where the file is cut short, or has a colour matrix that FFmpeg does not
    convert, ``BackendError`` if the requested backend is not available, and ``ConfigError`` for empty or non-integer
    ``indices`` and for other arguments out of range.
    """
    wanted = _check_indices(indices)
    reader = _choose_backend(backend)
    if operator.index(num_threads) < 0:
        raise ConfigError(f"num_threads must be 0 (one a core) or more, got {num_threads}")
    source, label = _check_source(path)
    if info is None:
        info = packet_index.scan(source, label)
    elif info.path != label:
        raise ConfigError(f"info is of {info.path}, not of {label}: pass what probe returned for this file")
    _check_range(wanted, info)
    distinct = sorted(set(wanted))
    check_read_size(info.path, len(distinct), info.width, info.height)
    return _in_order(reader(source, info, distinct, num_threads), distinct, wanted)


class ReadableFrames(NamedTuple):
    """Frames of a video of which some may not be decodable.

    ``frames`` are uint8 ``[N, H, W, 3]`` in the requested order. ``stand_ins`` maps the index of each frame that cannot
    be decoded to the index of the one returned in its place.
    """

    frames: torch.Tensor
    stand_ins: dict[int, int]


def read_readable_frames(
    path: VideoSource,
    indices: Sequence[int] | torch.Tensor,
    backend: str = "auto",
    *,
    num_threads: int = 1,
    info: VideoInfo | None = None,
) -> ReadableFrames:
    """Decode as ``read_frames`` does, but let the nearest readable frame stand in for one that cannot be decoded.

    PyAV decodes such a file from the start. Arguments and errors are those of ``read_frames``;
    ``UndecodableVideoError`` is raised if more than half of the distinct frames are unreadable.
    """
    if info is None:
        info = probe(path)
    try:
        return ReadableFrames(read_frames(path, indices, backend, num_threads=num_threads, info=info), {})
    except UndecodableVideoError as error:
        wanted, (source, _) = _check_indices(indices), _check_source(path)
        distinct = sorted(set(wanted))
        try:
            frames, stand_ins = backend_pyav.read_readable(source, info, distinct, num_threads)
        except UndecodableVideoError as again:
            raise UndecodableVideoError(info.path, f"{error.reason}; unreadable: {again.reason}") from error
    return ReadableFrames(_in_order(frames, distinct, wanted), stand_ins)


def _in_order(frames: torch.Tensor, distinct: Sequence[int], wanted: Sequence[int]) -> torch.Tensor:
    """Arrange the frames of ascending ``distinct`` indices as ``wanted``."""
    if list(distinct) == list(wanted):
        return frames
    row = {index: at for at, index in enumerate(distinct)}
    return frames[torch.tensor([row[index] for index in wanted])]


def _choose_backend(backend: str) -> Callable[[str | bytes, VideoInfo, Sequence[int], int], torch.Tensor]:
    name = DEFAULT_BACKEND if backend == "auto" else backend
    if name not in BACKENDS:
        raise ConfigError(f"unknown backend {backend!r}: use auto, {', '.join(BACKENDS)}")
    reason = BACKENDS[name].why_unavailable()
    if reason is not None:
        raise BackendError(f"backend {name!r} cannot serve: {reason}")
    return BACKENDS[name].read


def _check_indices(indices: Iterable[int] | torch.Tensor) -> list[int]:
    if isinstance(indices, torch.Tensor):
        if indices.ndim != 1 or indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
            raise ConfigError(f"indices must be a 1-D integer tensor, got {indices.ndim}-D {indices.dtype}")
        indices = indices.tolist()
    try:
        wanted = [operator.index(index) for index in indices]
    except TypeError as error:
        raise ConfigError(f"indices must be integers: {error}") from error
    if not wanted:
        raise ConfigError("indices is empty: ask for at least one frame")
    return wanted


def _check_range(wanted: Sequence[int], info: VideoInfo) -> None:
    for index in wanted:
        if index >= info.num_frames and info.timeline.damaged:
            raise UndecodableVideoError(
                info.path, f"frame {index} cannot be decoded: damaged or cut short after {info.num_frames} frames"
            )
        if not 0 <= index < info.num_frames:
            last = info.num_frames - 1
            raise FrameIndexError(
                info.path, f"frame {index} is outside the video of {info.num_frames} frames (0 to {last})"
            )


def _check_source(path: VideoSource) -> tuple[str | bytes, str]:
    """The source for a backend and its name in errors; a regular file, because opening a pipe or device could hang."""
    if isinstance(path, bytes):
        if not path:
            raise UndecodableVideoError("<bytes>", "holds no data")
        return path, "<bytes>"
    name = os.fspath(path)
    try:
        status = os.stat(name)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise MissingVideoError(name, _why_missing(name)) from error
    except OSError as error:
        raise UnreadableVideoError(name, f"cannot be read: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableVideoError(name, "a folder; give the paths of the videos in it")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableVideoError(name, "not a regular file; give the path of a video file")
    if status.st_size == 0:
        raise UndecodableVideoError(name, "an empty file; fetch or copy it again")
    if not os.access(name, os.R_OK):
        raise UnreadableVideoError(name, "permission denied; make it readable")
    return name, name


def _why_missing(name: str) -> str:
    schema = re.match(r"([a-z][a-z0-9+.-]+):/", name, re.IGNORECASE)
    if schema is not None:
        return f"a {schema[1]} address, and none is opened; download the video, and give its path"
    return "no such file; check the path and the data root"
