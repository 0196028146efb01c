"""Folders of extracted frames, one image per frame, which the official code reads besides video files."""

from __future__ import annotations

import os
import stat
import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mote_fast.data.decoding.colors import FULL, IDENTITY, Colors
from mote_fast.data.decoding.video_info import (
    MAX_FRAMES,
    MAX_IMAGE_BYTES,
    MAX_PIXELS,
    Timeline,
    VideoInfo,
    check_read_size,
)
from mote_fast.data.reading_choices import FRAME_TEMPLATE
from mote_fast.errors import ConfigError, FrameIndexError, MissingVideoError, UndecodableVideoError, one_line

# Formats of images, chosen by content. Others that Pillow knows start programs (EPS) or hold much that is not an image.
IMAGE_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")

# Rows that are converted to RGB at a time.
_ROWS = 256


def check_template(template: str) -> str:
    """Return ``template`` if it names a different file for each frame number.

    Raises:
        ConfigError: the names are equal, or the template cannot be formatted with a number.
    """
    try:
        specs = [spec or "" for _, _, spec, _ in string.Formatter().parse(template)]
        # A number is as long as its field is wide, whatever memory that takes.
        if any(sum(map(str.isdigit, spec)) > 3 for spec in specs):
            raise ValueError("a field of over 999 characters")
        distinct = template.format(1) != template.format(2)
    except (ValueError, IndexError, KeyError, AttributeError) as error:
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
        UndecodableVideoError: there are over ``MAX_FRAMES`` images; the first file is not a regular one, not in one of
            ``IMAGE_FORMATS``, over ``MAX_IMAGE_BYTES``, or larger than ``MAX_PIXELS``.
    """
    name = os.fspath(folder)
    if num_frames > MAX_FRAMES:
        raise UndecodableVideoError(name, f"a list says {num_frames} images, over the limit of {MAX_FRAMES}")
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
        ConfigError: ``indices`` is empty.
        FrameIndexError: an index lies outside the folder.
        MissingVideoError: an image is missing.
        UndecodableVideoError: an image is refused as in ``probe_frame_folder``, damaged, or differs in size from the
            first; or the images together take more memory than ``MAX_READ_BYTES``.
    """
    name = os.fspath(folder)
    wanted = [int(index) for index in indices]
    for index in wanted:
        if not 0 <= index < num_frames:
            raise FrameIndexError(name, f"frame {index} is outside the folder of {num_frames} (0 to {num_frames - 1})")
    if not wanted:
        raise ConfigError("indices is empty: ask for at least one frame")
    row = {index: at for at, index in enumerate(sorted(set(wanted)))}
    # Each image is copied here as soon as it is decoded, so that one more at a time takes memory.
    frames = np.empty((0, 0, 0, 3), np.uint8)
    for index, at in row.items():
        with _open(name, template, index) as image:
            if at == 0:
                check_read_size(name, len(row), *image.size)
                frames = np.empty((len(row), image.height, image.width, 3), np.uint8)
            _, height, width, _ = frames.shape
            if image.size != (width, height):
                found = f"{width}x{height}, {image.width}x{image.height}"
                raise UndecodableVideoError(
                    name, f"its images differ in size ({found}); extract them again to one size"
                )
            _decode(image, frames[at], _path(name, template, index))
    rows = [row[index] for index in wanted]
    return torch.from_numpy(frames if rows == list(range(len(row))) else frames[rows])


def _path(folder: str, template: str, index: int) -> str:
    return os.path.join(folder, template.format(index + 1))


@contextmanager
def _open(folder: str, template: str, index: int) -> Iterator[Image.Image]:
    """Open an image without decoding it; refuse one whose header declares too many pixels."""
    path = _path(folder, template, index)
    with _open_regular(path) as file:
        try:
            image = Image.open(file, formats=IMAGE_FORMATS)
        # Pillow's readers raise what the damage happens to cause, from struct.error to KeyError.
        except Exception as error:
            raise UndecodableVideoError(
                path, f"not an image that can be opened ({one_line(error)}); use {', '.join(IMAGE_FORMATS)}"
            ) from error
        with image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width}x{image.height}"
                raise UndecodableVideoError(path, f"declares {size}, over the limit of {MAX_PIXELS} pixels")
            yield image


def _open_regular(path: str) -> BinaryIO:
    """Open a file of at most ``MAX_IMAGE_BYTES``; never wait for a pipe's other end."""
    # Windows has no such flag and no such pipes, and needs the other one.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        file = os.fdopen(os.open(path, flags), "rb")
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise MissingVideoError(path, "no such frame; check the data root, frame_template and the list") from error
    except OSError as error:
        raise UndecodableVideoError(path, f"cannot be read: {error.strerror}") from error
    status = os.fstat(file.fileno())
    problem = ""
    if not stat.S_ISREG(status.st_mode):
        problem = "not a regular file; give an image"
    elif status.st_size > MAX_IMAGE_BYTES:
        problem = f"{status.st_size >> 20} MiB, over the limit of {MAX_IMAGE_BYTES >> 20} for an image"
    if problem:
        file.close()
        raise UndecodableVideoError(path, problem)
    return file


def _decode(image: Image.Image, out: np.ndarray, path: str) -> None:
    """Decode an image into ``out``, uint8 [H, W, 3]."""
    try:
        image.load()
        # In parts: the conversion and the copy of a whole large picture would take more memory than the picture.
        for top in range(0, image.height, _ROWS):
            part = image.crop((0, top, image.width, min(top + _ROWS, image.height)))
            out[top : top + _ROWS] = np.asarray(part.convert("RGB"))
    # As for opening.
    except Exception as error:
        raise UndecodableVideoError(path, f"the image is damaged ({one_line(error)}); extract it again") from error
