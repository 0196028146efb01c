"""Transforms on uint8 tensors, CPU or CUDA: scaling, crops, flips, grey, normalisation (docs/method.md, Views)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from mote_fast.data.reading_choices import CropsAlong
from mote_fast.errors import ConfigError
from mote_fast.runtime.checks import check_choice, check_count

# CLIP's normalisation (OpenAI).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

ResizeMode = Literal["shortest", "squash"]
Interpolation = Literal["bicubic", "bilinear"]

_INTERPOLATION = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}


@dataclass(frozen=True)
class Preprocessing:
    """How an image tower wants its frames; the defaults are OpenAI's CLIP's.

    Attributes:
        size: S, side of the square input, pixels.
        mean: per channel, in [0, 1].
        std: per channel, in [0, 1].
        resize_mode: "shortest" scales the short side to ``size``, and crops are cut out of the rest; "squash" scales
            both sides to ``size``, so that the only crop is the whole frame.
        interpolation: of that scaling, always with antialiasing.

    Raises:
        ConfigError: a value is unknown or out of range.
    """

    size: int = 224
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    resize_mode: ResizeMode = "shortest"
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        check_count("size", self.size, 1)
        if len(self.mean) != 3 or not all(map(math.isfinite, self.mean)):
            raise ConfigError(f"mean must be three finite numbers, got {self.mean}")
        if len(self.std) != 3 or not all(0 < value < math.inf for value in self.std):
            raise ConfigError(f"std must be three numbers above 0, got {self.std}")
        check_choice("resize_mode", self.resize_mode, ResizeMode)
        check_choice("interpolation", self.interpolation, Interpolation)

    def scaled(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) that a frame is scaled to before its crops."""
        return (self.size, self.size) if self.resize_mode == "squash" else short_side_size(height, width, self.size)

    def check_crops(self, crops: int) -> None:
        """Check that frames can be seen in this number of crops.

        Raises:
            ConfigError: frames are squashed, and ``crops`` is not 1.
        """
        if self.resize_mode == "squash" and crops != 1:
            raise ConfigError(
                f"views of {crops} crops: this model squashes the whole frame into its square input, which leaves one "
                "crop; take views x1, such as 4x1"
            )


CLIP_PREPROCESSING = Preprocessing()


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
        scaled: (height, width) to scale the frame to, with the model's interpolation and antialiasing.
        boxes: crops of the scaled frame, each then scaled to the crop size, bilinear with antialiasing (a no-op if the
            box has that size).
        flip: mirror left to right.
        grayscale: replace the three channels by their luma.
    """

    scaled: tuple[int, int]
    boxes: tuple[Box, ...]
    flip: bool = False
    grayscale: bool = False


def short_side_size(height: int, width: int, size: int) -> tuple[int, int]:
    """The (height, width) of a frame whose short side is scaled to ``size``, the long side rounded down."""
    other = int(size * max(height, width) / min(height, width))
    return (size, other) if height <= width else (other, size)


def crop_offsets(height: int, width: int, size: int, crops: int, along: CropsAlong = "width") -> list[tuple[int, int]]:
    """Top-left corners (top, left) of the evaluation crops, in the official order.

    One crop is the centre crop. Three crops lie at the left, at the right and in the middle: in a portrait frame, three
    times in the middle. ``along="long_side"`` places those of a portrait frame at the top, at the bottom and in the
    middle.

    Raises:
        ConfigError: ``crops`` is neither 1 nor 3, ``along`` is unknown, or the frame is smaller than the crop.
    """
    check_choice("crops_along", along, CropsAlong)
    if min(height, width) < size:
        raise ConfigError(f"a crop of {size} pixels does not fit into a frame of {height} x {width}")
    if crops == 1:
        # Python rounds half to even, as torchvision's CenterCrop does.
        return [(round((height - size) / 2), round((width - size) / 2))]
    if crops == 3:
        row, column = (height - size) // 4, (width - size) // 4
        if along == "long_side" and height > width:
            return [(0, 2 * column), (4 * row, 2 * column), (2 * row, 2 * column)]
        return [(2 * row, 0), (2 * row, 4 * column), (2 * row, 2 * column)]
    raise ConfigError(f"crops must be 1 or 3, got {crops}")


def normalize(
    frames: Tensor, preprocessing: Preprocessing = CLIP_PREPROCESSING, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Map uint8 [..., 3, H, W] to ``(x / 255 - mean) / std`` in ``dtype``; computed in float32."""
    shift, scale = constants_on(tuple(preprocessing.mean), tuple(preprocessing.std), frames.device)
    return frames.float().sub_(shift).div_(scale).to(dtype)


@lru_cache(maxsize=64)
def constants_on(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return 255 times mean and std, float32 [3, 1, 1] each, on a device.

    Kept there: the host would wait for the copy, and so for all work of the GPU before it.
    """
    # Those of inference mode could not be used in training later.
    with torch.inference_mode(False):
        shift, scale = (torch.tensor(each, dtype=torch.float32, device=device).mul_(255.0) for each in (mean, std))
        return shift[:, None, None], scale[:, None, None]


def evaluation_pixels(
    frames: Tensor,
    preprocessing: Preprocessing = CLIP_PREPROCESSING,
    crops: int = 1,
    dtype: torch.dtype = torch.float32,
    displayed: tuple[int, int] | None = None,
    crops_along: CropsAlong = "width",
) -> Tensor:
    """Turn decoded frames into the frame encoder's input pixels.

    Args:
        frames: uint8 [N, H, W, 3], as ``read_frames`` returns them, on any device.
        preprocessing: the model's, ``clip.config.preprocessing``.
        crops: 1 or 3, see ``crop_offsets``; 1 if the model squashes frames.
        dtype: of the result.
        displayed: (height, width) of the frames in square pixels; None takes those of ``frames``.
        crops_along: the side along which three crops lie, see ``crop_offsets``.

    Returns:
        [N, crops, 3, S, S].

    Raises:
        ConfigError: ``crops`` does not fit, or ``crops_along`` is unknown.
    """
    return normalize(evaluation_crops(frames, preprocessing, crops, displayed, crops_along), preprocessing, dtype)


def evaluation_crops(
    frames: Tensor,
    preprocessing: Preprocessing = CLIP_PREPROCESSING,
    crops: int = 1,
    displayed: tuple[int, int] | None = None,
    crops_along: CropsAlong = "width",
) -> Tensor:
    """Scale and crop decoded frames as ``evaluation_pixels`` does, not yet normalised: uint8 [N, crops, 3, S, S]."""
    preprocessing.check_crops(crops)
    size = preprocessing.size
    # The permuted view keeps channels last in memory, which is torchvision's fast path for uint8.
    resized = scale_frames(
        frames.permute(0, 3, 1, 2), preprocessing.scaled(*(displayed or frames.shape[1:3])), preprocessing
    )
    corners = crop_offsets(resized.shape[-2], resized.shape[-1], size, crops, crops_along)
    return torch.stack([resized[..., top : top + size, left : left + size] for top, left in corners], dim=1)


def render(frames: Tensor, geometry: Geometry, preprocessing: Preprocessing = CLIP_PREPROCESSING) -> Tensor:
    """Scale, crop, mirror and convert decoded frames to grayscale as planned.

    Args:
        frames: uint8 [U, H, W, 3], as ``read_frames`` returns them, on any device.
        geometry: the operations, see ``Geometry``.
        preprocessing: gives the side of the crops and the interpolation of the scaling.

    Returns:
        uint8 [U, crops, 3, S, S].
    """
    size = preprocessing.size
    # The permuted view keeps channels last in memory, which is torchvision's fast path for uint8.
    scaled = scale_frames(frames.permute(0, 3, 1, 2), geometry.scaled, preprocessing)
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


def scale_frames(frames: Tensor, target: tuple[int, int], preprocessing: Preprocessing) -> Tensor:
    """Scale uint8 [..., 3, H, W] to ``target``, (height, width), with the model's interpolation and antialiasing."""
    return _resize(frames, target, _INTERPOLATION[preprocessing.interpolation])


def _resize(frames: Tensor, target: tuple[int, int], interpolation: InterpolationMode) -> Tensor:
    if tuple(frames.shape[-2:]) == target:
        return frames
    return TF.resize(frames, list(target), interpolation=interpolation, antialias=True)
