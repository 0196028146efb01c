"""Transforms on uint8 tensors, CPU or CUDA: scaling, crops, flips, grey, CLIP normalisation (docs/method.md, Views)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from mote_fast.errors import ConfigError

# CLIP's normalisation (OpenAI).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Box(NamedTuple):
    """A rectangle of the scaled frame, pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Geometry:
    """The operations on every frame of a video, in this order.

    Attributes:
        scaled: (height, width) to scale the frame to, bicubic with antialiasing.
        boxes: crops of the scaled frame, each then scaled to the crop size, bilinear with antialiasing (a no-op if the
            box has that size).
        flip: mirror left to right.
        grayscale: replace the three channels by their luma.
    """

    scaled: tuple[int, int]
    boxes: tuple[Box, ...]
    flip: bool = False
    grayscale: bool = False


def resize_short_side(frames: Tensor, size: int) -> Tensor:
    """Scale the short side to ``size`` pixels, bicubic with antialiasing, the long side rounded down.

    Args:
        frames: uint8 [..., 3, H, W].
        size: pixels.

    Returns:
        uint8 [..., 3, h, w] with ``min(h, w) == size``.
    """
    return _resize(frames, short_side_size(frames.shape[-2], frames.shape[-1], size), InterpolationMode.BICUBIC)


def short_side_size(height: int, width: int, size: int) -> tuple[int, int]:
    """The (height, width) of a frame whose short side is scaled to ``size``, the long side rounded down."""
    other = int(size * max(height, width) / min(height, width))
    return (size, other) if height <= width else (other, size)


def crop_offsets(height: int, width: int, size: int, crops: int) -> list[tuple[int, int]]:
    """Top-left corners (top, left) of the evaluation crops, in the official order.

    One crop is the centre crop. Three crops lie along the long side: at its start, its end, its middle.

    Raises:
        ConfigError: ``crops`` is neither 1 nor 3, or the frame is smaller than the crop.
    """
    if min(height, width) < size:
        raise ConfigError(f"a crop of {size} pixels does not fit into a frame of {height} x {width}")
    if crops == 1:
        # Python rounds half to even, as torchvision's CenterCrop does.
        return [(round((height - size) / 2), round((width - size) / 2))]
    if crops == 3:
        row, column = (height - size) // 4, (width - size) // 4
        if height > width:
            return [(0, 2 * column), (4 * row, 2 * column), (2 * row, 2 * column)]
        return [(2 * row, 0), (2 * row, 4 * column), (2 * row, 2 * column)]
    raise ConfigError(f"crops must be 1 or 3, got {crops}")


def normalize(
    frames: Tensor,
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Map uint8 [..., 3, H, W] to ``(x / 255 - mean) / std`` in ``dtype``; computed in float32."""
    scale = torch.tensor(std, device=frames.device).mul_(255.0)[:, None, None]
    shift = torch.tensor(mean, device=frames.device).mul_(255.0)[:, None, None]
    return frames.float().sub_(shift).div_(scale).to(dtype)


def evaluation_pixels(
    frames: Tensor,
    size: int = 224,
    crops: int = 1,
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Turn decoded frames into the frame encoder's input pixels.

    Args:
        frames: uint8 [N, H, W, 3], as ``read_frames`` returns them, on any device.
        size: side of the crops, pixels; the short side is scaled to it.
        crops: 1 or 3, see ``crop_offsets``.
        mean: per channel, in [0, 1].
        std: per channel, in [0, 1].
        dtype: of the result.

    Returns:
        [N, crops, 3, size, size].
    """
    # The permuted view keeps channels last in memory, which is torchvision's fast path for uint8.
    resized = resize_short_side(frames.permute(0, 3, 1, 2), size)
    corners = crop_offsets(resized.shape[-2], resized.shape[-1], size, crops)
    cropped = torch.stack([resized[..., top : top + size, left : left + size] for top, left in corners], dim=1)
    return normalize(cropped, mean, std, dtype)


def render(frames: Tensor, geometry: Geometry, size: int) -> Tensor:
    """Scale, crop, mirror and convert decoded frames to grayscale as planned.

    Args:
        frames: uint8 [U, H, W, 3], as ``read_frames`` returns them, on any device.
        geometry: the operations, see ``Geometry``.
        size: side of the crops, pixels.

    Returns:
        uint8 [U, crops, 3, size, size].
    """
    # The permuted view keeps channels last in memory, which is torchvision's fast path for uint8.
    scaled = _resize(frames.permute(0, 3, 1, 2), geometry.scaled, InterpolationMode.BICUBIC)
    crops = [
        _resize(
            scaled[..., box.top : box.top + box.height, box.left : box.left + box.width],
            (size, size),
            InterpolationMode.BILINEAR,
        )
        for box in geometry.boxes
    ]
    pixels = torch.stack(crops, dim=1)
    if geometry.grayscale:
        pixels = TF.rgb_to_grayscale(pixels, num_output_channels=3)
    return pixels.flip(-1) if geometry.flip else pixels


def _resize(frames: Tensor, target: tuple[int, int], interpolation: InterpolationMode) -> Tensor:
    if tuple(frames.shape[-2:]) == target:
        return frames
    return TF.resize(frames, list(target), interpolation=interpolation, antialias=True)
