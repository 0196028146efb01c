"""The clip plan of one video: frames, crops, flip, grayscale; fixed before decoding.

A plan depends on the video's size and length, the recipe, and (seed, epoch, index) alone. It is the same for every
backend and number of workers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch

from mote_fast.data.decoding.video_info import PixelAspect
from mote_fast.data.flip_labels import FlipLabels
from mote_fast.data.sampling import Mode, sample_frames
from mote_fast.data.transforms import (
    CLIP_PREPROCESSING,
    Box,
    CropsAlong,
    Geometry,
    Preprocessing,
    crop_offsets,
    short_side_size,
)
from mote_fast.data.views import ViewPlan, Views
from mote_fast.errors import ConfigError
from mote_fast.runtime.checks import check_choice
from mote_fast.runtime.seeding import generator_of

Augmentation = Literal["none", "kinetics", "ssv2"]

# docs/method.md, Views.
SSV2_SIZE = (256, 320)
CROP_AREA = (0.08, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)
FLIP_CHANCE = 0.5
GRAYSCALE_CHANCE = 0.2

ONE_VIEW = Views(clips=1, crops=1)

# Draws of a crop before the fallback, as in torchvision's RandomResizedCrop.
_CROP_TRIES = 10


@dataclass(frozen=True)
class ClipRecipe:
    """How videos become clips.

    Attributes:
        frames: T, frames per view.
        preprocessing: the model's: size of the crops, normalisation, resize mode and interpolation. Augmentation is the
            same for all models, except that its first scaling takes the model's interpolation and, on Kinetics, follows
            its size, see ``train_short_side``.
        views: clips x crops; training takes 1x1.
        augmentation: "none" for evaluation crops at evaluation frames; "kinetics" or "ssv2" for random frames and
            crops (docs/method.md, Views).
        dense: sample from a window instead of the whole video, see ``sample_frames``.
        flip_labels: label -> label of the mirrored video, or None where it must not be mirrored; labels not listed stay
            unchanged.
        pixel_aspect: "ignore" takes pixels as square, as the released recipe does; "apply" scales frames to their true
            shape.
        crops_along: three crops lie along the "width", as in the released recipe, or along the "long_side", which
            differs for portrait videos, see ``crop_offsets``.

    Raises:
        ConfigError: a value is out of range, or the views do not fit the augmentation or the resize mode.
    """

    frames: int = 8
    preprocessing: Preprocessing = CLIP_PREPROCESSING
    views: Views = ONE_VIEW
    augmentation: Augmentation = "none"
    dense: bool = False
    flip_labels: FlipLabels = field(default_factory=dict)
    pixel_aspect: PixelAspect = "ignore"
    crops_along: CropsAlong = "width"

    def __post_init__(self) -> None:
        if self.augmentation not in ("none", "kinetics", "ssv2"):
            raise ConfigError(f"augmentation must be 'none', 'kinetics' or 'ssv2', got {self.augmentation!r}")
        if self.augmentation != "none" and self.views != ONE_VIEW:
            raise ConfigError(f"augmented clips take views 1x1, got {self.views.clips}x{self.views.crops}")
        check_choice("pixel_aspect", self.pixel_aspect, PixelAspect)
        check_choice("crops_along", self.crops_along, CropsAlong)
        if self.frames < 1:
            raise ConfigError(f"frames must be at least 1, got {self.frames}")
        self.preprocessing.check_crops(self.views.crops)

    @property
    def size(self) -> int:
        """S, side of the crops, pixels."""
        return self.preprocessing.size

    @property
    def views_per_video(self) -> int:
        """V, clips times crops."""
        return self.views.clips * self.views.crops

    @property
    def clip_shape(self) -> tuple[int, int, int, int, int]:
        """Shape of one video's pixels, (V, T, 3, S, S)."""
        return self.views_per_video, self.frames, 3, self.size, self.size


@dataclass(frozen=True)
class ClipPlan:
    """One video's frames, geometry and label."""

    views: ViewPlan
    geometry: Geometry
    label: int


def train_short_side(size: int) -> int:
    """Return the short side, pixels, that Kinetics' augmentation scales to: as released, 256 for crops of 224 alone.

    For any other ``size`` it is the size itself, so that no larger crop is taken from a frame scaled down to 256.
    """
    return 256 if size == 224 else size


def plan_clip(
    num_frames: int, height: int, width: int, label: int, recipe: ClipRecipe, *, seed: int, epoch: int, index: int
) -> ClipPlan:
    """Plan the clips of a video.

    Args:
        num_frames: frames in the video.
        height: frame height, pixels.
        width: frame width, pixels.
        label: class index.
        recipe: see ``ClipRecipe``.
        seed: seed of the run.
        epoch: counted from 0.
        index: the video's index in its list.
    """
    random = generator_of(seed, "clip", epoch, index)
    augmented = recipe.augmentation != "none"
    mode: Mode = "train" if augmented else "test"
    indices = sample_frames(num_frames, recipe.frames, mode, recipe.views.clips, recipe.dense, random)
    distinct, positions = torch.unique(indices, return_inverse=True)
    views = ViewPlan(distinct, positions, recipe.views.crops)
    if not augmented:
        scaled = recipe.preprocessing.scaled(height, width)
        corners = crop_offsets(*scaled, recipe.size, recipe.views.crops, recipe.crops_along)
        boxes = tuple(Box(top, left, recipe.size, recipe.size) for top, left in corners)
        return ClipPlan(views, Geometry(scaled, boxes), label)
    ssv2 = recipe.augmentation == "ssv2"
    scaled = SSV2_SIZE if ssv2 else short_side_size(height, width, train_short_side(recipe.size))
    box = _random_box(*scaled, random)
    flip, gray = torch.rand(2, generator=random, dtype=torch.float64).tolist()
    mirrored = recipe.flip_labels.get(label, label) if flip < FLIP_CHANCE else None
    geometry = Geometry(scaled, (box,), mirrored is not None, not ssv2 and gray < GRAYSCALE_CHANCE)
    return ClipPlan(views, geometry, label if mirrored is None else mirrored)


def _random_box(height: int, width: int, random: torch.Generator) -> Box:
    """Draw a box of random area and aspect, uniform in area and in the logarithm of the aspect."""
    low, high = (math.log(aspect) for aspect in CROP_ASPECT)
    # All draws at once: the number of tries that a video needs must not shift later draws.
    for area, aspect, down, across in torch.rand(_CROP_TRIES, 4, generator=random, dtype=torch.float64).tolist():
        pixels = height * width * (CROP_AREA[0] + area * (CROP_AREA[1] - CROP_AREA[0]))
        ratio = math.exp(low + aspect * (high - low))
        box_width, box_height = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            top, left = int(down * (height - box_height + 1)), int(across * (width - box_width + 1))
            return Box(top, left, box_height, box_width)
    box_height = min(height, round(width / CROP_ASPECT[0]))
    box_width = min(width, round(height * CROP_ASPECT[1]))
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)
