"""Draws scenes: every frame of a batch at once, from signed distances, without any file or font."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Lines of the texture over the object's radius.
_STRIPES, _DOTS = 5.0, 4.6
# Share of the object's colour in the gaps of its texture.
_GAP = 0.3
_MINOR_RADIUS = 0.13


@dataclass(frozen=True)
class Scenes:
    """The content of N frames. Coordinates run from -1 to 1, to the right and down; sizes are in the same units.

    Attributes:
        position: [N, 2], x and y of the object's centre.
        size: [N], radius of the object.
        angle: [N], radians.
        strength: [N], opacity of the object.
        colour: [N, 3], in [0, 1].
        shape: int64 [N], index into ``SHAPES``.
        texture: int64 [N], index into ``TEXTURES``.
        ground: [N, 2, 3], background colours at the two ends of its gradient.
        pattern: [N], strength of a pattern over the background.
        pattern_angle: [N], radians.
        minor: [N, M, 2], positions of distractors, small and grey; far outside the frame if there is none.
        minor_grey: [N, M], brightness of the distractors.
        noise: [N], deviation of the camera's noise.
        colour_name: int64 [N], index into ``COLOURS``, which ``colour`` is a shade of.
    """

    position: Tensor
    size: Tensor
    angle: Tensor
    strength: Tensor
    colour: Tensor
    shape: Tensor
    texture: Tensor
    ground: Tensor
    pattern: Tensor
    pattern_angle: Tensor
    minor: Tensor
    minor_grey: Tensor
    noise: Tensor
    colour_name: Tensor

    def __len__(self) -> int:
        return len(self.size)


def draw(scenes: Scenes, height: int, width: int, random: torch.Generator) -> Tensor:
    """Draw the frames: uint8 [N, H, W, 3]; ``random`` gives the camera's noise."""
    across = (torch.arange(width) + 0.5) * 2 / width - 1
    down = (torch.arange(height) + 0.5) * 2 / height - 1
    y, x = torch.meshgrid(down, across, indexing="ij")
    sharpness = min(height, width) / 2
    image = _ground(scenes, x, y)
    for index in range(scenes.minor.shape[1]):
        place = scenes.minor[:, index, :, None, None]
        distance = torch.hypot(x - place[:, 0], y - place[:, 1]) - _MINOR_RADIUS
        cover = _cover(distance, sharpness)[:, None]
        image += cover * (scenes.minor_grey[:, index, None, None, None] - image)
    image += _object_cover(scenes, x, y, sharpness)[:, None] * (_object_colour(scenes, x, y) - image)
    image += scenes.noise[:, None, None, None] * torch.randn(image.shape, generator=random)
    return image.clamp_(0, 1).mul_(255).round_().to(torch.uint8).permute(0, 2, 3, 1)


def _ground(scenes: Scenes, x: Tensor, y: Tensor) -> Tensor:
    """The background, [N, 3, H, W]: a gradient, and bars over it."""
    first, last = scenes.ground[..., None, None].unbind(1)
    angle = scenes.pattern_angle[:, None, None]
    along = x * angle.cos() + y * angle.sin()
    share = (along / 2 + 0.5).clamp(0, 1)[:, None]
    bars = torch.sign(torch.sin(9 * along))[:, None] * scenes.pattern[:, None, None, None]
    return first + share * (last - first) + bars


def _local(scenes: Scenes, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The coordinates in which the object is upright and of radius 1, each [N, H, W]."""
    across = x - scenes.position[:, 0, None, None]
    down = y - scenes.position[:, 1, None, None]
    cos, sin = scenes.angle.cos()[:, None, None], scenes.angle.sin()[:, None, None]
    size = scenes.size[:, None, None]
    return (across * cos + down * sin) / size, (down * cos - across * sin) / size


def _cover(distance: Tensor, sharpness: float) -> Tensor:
    """The share of a pixel inside the object, for signed distances in the coordinates of the frame."""
    return (0.5 - distance * sharpness).clamp(0, 1)


def _object_cover(scenes: Scenes, x: Tensor, y: Tensor, sharpness: float) -> Tensor:
    u, v = _local(scenes, x, y)
    distance = torch.empty_like(u)
    for shape, of in enumerate(_DISTANCES):
        rows = scenes.shape == shape
        if rows.any():
            distance[rows] = of(u[rows], v[rows])
    cover = _cover(distance * scenes.size[:, None, None], sharpness)
    return cover * scenes.strength[:, None, None]


def _object_colour(scenes: Scenes, x: Tensor, y: Tensor) -> Tensor:
    u, v = _local(scenes, x, y)
    texture = scenes.texture[:, None, None]
    stripes = torch.sin(2 * _STRIPES * u) > 0
    dots = torch.cos(2 * _DOTS * u) * torch.cos(2 * _DOTS * v) > -0.1
    on = (texture == 0) | ((texture == 1) & stripes) | ((texture == 2) & dots)
    light = torch.where(on, 1.0, _GAP)
    return scenes.colour[:, :, None, None] * light[:, None]


def _circle(u: Tensor, v: Tensor) -> Tensor:
    return torch.hypot(u, v) - 0.92


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 0.8


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(0.866 * u.abs() - 0.5 * v, v) - 0.5


def _star(u: Tensor, v: Tensor) -> Tensor:
    return torch.hypot(u, v) - (0.66 + 0.34 * torch.cos(5 * torch.atan2(u, -v)))


def _cross(u: Tensor, v: Tensor) -> Tensor:
    upright = torch.maximum(u.abs() - 0.3, v.abs() - 0.95)
    level = torch.maximum(u.abs() - 0.95, v.abs() - 0.3)
    return torch.minimum(upright, level)


def _ring(u: Tensor, v: Tensor) -> Tensor:
    return (torch.hypot(u, v) - 0.7).abs() - 0.24


# In the order of words.SHAPES.
_DISTANCES = (_circle, _square, _triangle, _star, _cross, _ring)
