"""Folders of extracted frames, one image per frame, which the official code reads besides video files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mote_fast.data.decoding.colors import FULL, IDENTITY, Colors
from mote_fast.data.decoding.video_info import MAX_PIXELS, Timeline, VideoInfo, check_read_size
from mote_fast.errors import ConfigError, FrameIndexError, MissingVideoError, UndecodableVideoError, one_line

# The names that common extraction scripts use; numbers start at 1.
FRAME_TEMPLATE = "img_{:05d}.jpg"


def check_template(template: str) -> str:
    """Return ``template`` if it names a different file for each frame number.

    Raises:
        ConfigError: the names are equal, or the template cannot be formatted with a number.
    """
    try:
        distinct = template.format(1) != template.format(2)
    except (ValueError, IndexError, KeyError) as error:
        raise ConfigError(f"frame_template {template!r} cannot be filled in with a frame number ({error})") from error
    if not distinct:
        raise ConfigError(f"frame_template {template!r} has no place for the frame number; use 'img_{{:05d}}.jpg'")
    return template


def probe_frame_folder(folder: str | os.PathLike[str], num_frames: int, template: str = FRAME_TEMPLATE) -> VideoInfo:
    """Describe a folder of ``num_frames`` images as ``probe`` describes a file; only the first image's header is read.

    The count comes from the list: listing a folder is slow on network file systems. ``fps`` and ``duration`` are 0.0,
    ``codec`` is the images' format, and every frame is a key frame.

    Raises:
        MissingVideoError: the first image is missing.
        UndecodableVideoError: the first file is not an image, or larger than ``MAX_PIXELS``.
    """
    name = os.fspath(folder)
    with _open(name, template, 0) as image:
        width, height = image.size
        codec = (image.format or "").lower()
    every = tuple(range(num_frames))
    timeline = Timeline(0, Fraction(1), every, True, (), False)
    colors = Colors("rgb24", IDENTITY, FULL)
    return VideoInfo(name, num_frames, width, height, 0.0, 0.0, codec, 0, every, timeline, colors)


def read_frame_folder(
    folder: str | os.PathLike[str],
    indices: Sequence[int] | Tensor,
    num_frames: int,
    template: str = FRAME_TEMPLATE,
) -> Tensor:
    """Read frames of a folder of images as RGB: uint8 ``[N, H, W, 3]``, in the requested order.

    Args:
        folder: the folder of the images.
        indices: frame indices from 0; frame ``i`` is the image numbered ``i + 1``.
        num_frames: number of images in the folder.
        template: the images' names, formatted with the number.

    Raises:
        FrameIndexError: an index lies outside the folder.
        MissingVideoError: an image is missing.
        UndecodableVideoError: an image is damaged, larger than ``MAX_PIXELS``, or differs in size from the first; or
            the images together take more memory than ``MAX_READ_BYTES``.
    """
    name = os.fspath(folder)
    wanted = [int(index) for index in indices]
    for index in wanted:
        if not 0 <= index < num_frames:
            raise FrameIndexError(name, f"frame {index} is outside the folder of {num_frames} (0 to {num_frames - 1})")
    distinct = sorted(set(wanted))
    images: dict[int, np.ndarray] = {}
    size: tuple[int, int] | None = None
    for index in distinct:
        with _open(name, template, index) as image:
            if size is None:
                size = image.size
                check_read_size(name, len(distinct), *size)
            if image.size != size:
                found = ", ".join(f"{width}x{height}" for width, height in (size, image.size))
                raise UndecodableVideoError(
                    name, f"its images differ in size ({found}); extract them again to one size"
                )
            try:
                images[index] = np.asarray(image.convert("RGB"))
            except (OSError, ValueError, SyntaxError) as error:
                raise UndecodableVideoError(
                    _path(name, template, index), f"the image is damaged ({one_line(error)}); extract it again"
                ) from error
    return torch.from_numpy(np.stack([images[index] for index in wanted]))


def _path(folder: str, template: str, index: int) -> str:
    return os.path.join(folder, template.format(index + 1))


def _open(folder: str, template: str, index: int) -> Image.Image:
    """Open an image without decoding it; refuse one whose header declares too many pixels."""
    path = _path(folder, template, index)
    try:
        image = Image.open(path)
    except FileNotFoundError as error:
        raise MissingVideoError(path, "no such frame; check the data root, frame_template and the list") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UndecodableVideoError(path, f"not an image that can be opened ({one_line(error)})") from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        size = f"{image.width}x{image.height}"
        raise UndecodableVideoError(path, f"declares {size}, over the limit of {MAX_PIXELS} pixels")
    return image
