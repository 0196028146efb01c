"""Transforms: against Pillow, for both orientations, and the positions of crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mote_fast.data import evaluation_pixels
from mote_fast.data.transforms import CLIP_MEAN, CLIP_STD, crop_offsets, normalize, resize_short_side
from mote_fast.errors import ConfigError
from tests.tolerances import assert_close


def picture(height: int, width: int) -> torch.Tensor:
    """A smooth picture with detail, uint8 [H, W, 3]."""
    rows, columns = torch.meshgrid(torch.linspace(0, 9, height), torch.linspace(0, 7, width), indexing="ij")
    waves = torch.stack((torch.sin(rows * columns), torch.cos(rows), torch.sin(columns + rows)), dim=-1)
    return (127.5 + 127.5 * waves).to(torch.uint8)


@given(height=st.integers(20, 90), width=st.integers(20, 90), size=st.integers(10, 60))
def test_resize_matches_pillow(height: int, width: int, size: int) -> None:
    """Short side exact, long side rounded down, pixels equal Pillow's bicubic to within rounding."""
    frame = picture(height, width)
    found = resize_short_side(frame.permute(2, 0, 1)[None], size)[0].permute(1, 2, 0)
    short, long = min(height, width), max(height, width)
    other = int(size * long / short)
    expected_size = (other, size) if width >= height else (size, other)
    expected = np.asarray(Image.fromarray(frame.numpy()).resize(expected_size, Image.Resampling.BICUBIC))
    assert found.shape == expected.shape
    difference = (found.float() - torch.from_numpy(expected.astype(np.float32))).abs()
    # Both round to whole grey levels after each of two passes; the second pass can widen the first one's level to two.
    assert difference.max() <= 2.0
    assert difference.mean() <= 0.25


def test_normalise_is_clips() -> None:
    """(x / 255 - mean) / std, per channel."""
    frame = torch.randint(256, (2, 3, 5, 7), dtype=torch.uint8)
    mean, std = torch.tensor(CLIP_MEAN)[:, None, None], torch.tensor(CLIP_STD)[:, None, None]
    assert_close(normalize(frame), (frame.double() / 255 - mean) / std)


def test_three_crops_follow_the_long_side() -> None:
    """Landscape: left, right, centre. Portrait: top, bottom, centre. Square: all three are equal."""
    assert crop_offsets(224, 299, 224, 3) == [(0, 0), (0, 72), (0, 36)]
    assert crop_offsets(299, 224, 224, 3) == [(0, 0), (72, 0), (36, 0)]
    assert crop_offsets(224, 224, 224, 3) == [(0, 0)] * 3
    assert crop_offsets(224, 299, 224, 1) == [(0, 38)]


@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (40, 40)])
def test_evaluation_pixels_are_those_crops(shape: tuple[int, int]) -> None:
    """Every crop equals the slice of the resized frame at its offset, for every frame."""
    frames = torch.stack([picture(*shape), picture(*shape).flip(0)])
    pixels = evaluation_pixels(frames, 32, crops=3)
    resized = resize_short_side(frames.permute(0, 3, 1, 2), 32)
    assert pixels.shape == (2, 3, 3, 32, 32)
    for crop, (top, left) in enumerate(crop_offsets(*resized.shape[-2:], 32, 3)):
        assert_close(pixels[:, crop], normalize(resized[..., top : top + 32, left : left + 32]), "equivalent")


def test_small_frames_are_scaled_up_and_bad_crops_refused() -> None:
    """A frame smaller than the crop is enlarged; two crops, or a crop larger than its frame, are errors."""
    assert evaluation_pixels(picture(8, 12)[None], 32).shape == (1, 1, 3, 32, 32)
    with pytest.raises(ConfigError, match="crops"):
        crop_offsets(32, 40, 32, 2)
    with pytest.raises(ConfigError, match="does not fit"):
        crop_offsets(31, 40, 32, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_pixels() -> None:
    """On a GPU the pixels differ by rounding of one grey level at most."""
    frames = picture(240, 320)[None]
    assert_close(evaluation_pixels(frames.cuda(), 224, 3).cpu(), evaluation_pixels(frames, 224, 3), "pixels")
