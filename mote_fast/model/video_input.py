"""What may be given as a video: a path, the bytes of a file, or decoded frames."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import torch
from torch import Tensor

from mote_fast.errors import ConfigError

# A file's path or its bytes, or decoded frames: uint8 [N, H, W, 3].
Video: TypeAlias = str | os.PathLike[str] | bytes | Tensor | np.ndarray
# Several: a list, a generator, ...
Videos: TypeAlias = Sequence[Video] | Iterator[Video]
_ONE_VIDEO = (str, os.PathLike, bytes, Tensor, np.ndarray)


def are_several(video: Any) -> TypeGuard[Iterable[Any]]:
    """Whether an argument holds several videos, and is not one itself."""
    # An open file is iterable too, by its lines.
    return isinstance(video, Iterable) and not isinstance(video, (*_ONE_VIDEO, io.IOBase))


def name_of(video: Any) -> str:
    """Return what a video is called in messages."""
    if isinstance(video, str | os.PathLike):
        return os.fsdecode(video)
    return "<bytes>" if isinstance(video, bytes) else "<frames>"


def source_of(video: Any) -> str | bytes | Tensor | np.ndarray:
    """Return the path or the bytes of a file, or checked frames uint8 [N, H, W, 3].

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(video, Tensor | np.ndarray):
        if (
            str(video.dtype) not in ("torch.uint8", "uint8")
            or video.ndim != 4
            or video.shape[-1] != 3
            or 0 in video.shape
        ):
            raise ConfigError(f"decoded frames must be uint8 [N, H, W, 3], got {video.dtype} {list(video.shape)}")
        return video
    if isinstance(video, os.PathLike):
        return os.fsdecode(video)
    if not isinstance(video, str | bytes):
        raise ConfigError(
            f"a video is a path, the bytes of a file, or decoded frames uint8 [N, H, W, 3] as a tensor or a NumPy "
            f"array, not {type(video).__name__}"
        )
    return video


def take_frames(frames: Tensor | np.ndarray, indices: Tensor) -> Tensor:
    """Return the frames at ``indices``, on their device."""
    if isinstance(frames, Tensor):
        return frames[indices.to(frames.device)]
    # PyTorch takes no negative strides, such as those of reversed colors.
    return torch.from_numpy(np.ascontiguousarray(frames[indices.numpy()]))
