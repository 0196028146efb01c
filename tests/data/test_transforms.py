"""Transforms: against Pillow, for both orientations, and the positions of crops."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from mote_fast.data import Preprocessing, evaluation_pixels
from mote_fast.data.transforms import (
    CLIP_MEAN,
    CLIP_STD,
    CropsAlong,
    Interpolation,
    ResizeMode,
    crop_offsets,
    normalize,
    scale_frames,
)
from mote_fast.errors import ConfigError
from tests.tolerances import assert_close


def picture(height: int, width: int) -> torch.Tensor:
    """A smooth picture with detail, uint8 [H, W, 3]."""
    rows, columns = torch.meshgrid(torch.linspace(0, 9, height), torch.linspace(0, 7, width), indexing="ij")
    waves = torch.stack((torch.sin(rows * columns), torch.cos(rows), torch.sin(columns + rows)), dim=-1)
    return (127.5 + 127.5 * waves).to(torch.uint8)


@given(
    height=st.integers(20, 90),
    width=st.integers(20, 90),
    size=st.integers(10, 60),
    mode=st.sampled_from(get_args(ResizeMode)),
    interpolation=st.sampled_from(get_args(Interpolation)),
)
def test_resize_matches_pillow(
    height: int, width: int, size: int, mode: ResizeMode, interpolation: Interpolation
) -> None:
    """Short side exact, long side rounded down, or both sides squashed; pixels equal Pillow's to within rounding."""
    frame = picture(height, width)
    own = Preprocessing(size, resize_mode=mode, interpolation=interpolation)
    found = scale_frames(frame.permute(2, 0, 1)[None], own.scaled(height, width), own)[0].permute(1, 2, 0)
    other = size if mode == "squash" else int(size * max(height, width) / min(height, width))
    expected_size = (other, size) if width >= height else (size, other)
    resampling = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[interpolation]
    expected = np.asarray(Image.fromarray(frame.numpy()).resize(expected_size, resampling))
    assert found.shape == expected.shape
    difference = (found.float() - torch.from_numpy(expected.astype(np.float32))).abs()
    # Both round to whole grey levels after each of two passes; the second pass can widen the first one's level to two.
    # Where one side grows and the other shrinks, the order of the passes decides which overshoot is cut off at 255.
    mixed = min(height, width) < size < max(height, width) and mode == "squash"
    assert difference.max() <= (20.0 if mixed else 2.0)
    assert difference.mean() <= 0.25


def test_normalise_is_clips() -> None:
    """(x / 255 - mean) / std, per channel."""
    frame = torch.randint(256, (2, 3, 5, 7), dtype=torch.uint8)
    mean, std = torch.tensor(CLIP_MEAN)[:, None, None], torch.tensor(CLIP_STD)[:, None, None]
    assert_close(normalize(frame), (frame.double() / 255 - mean) / std)


def test_whole_numbers_normalise_too() -> None:
    """MobileCLIP's mean and deviation are 0 and 1, which JSON gives as integers."""
    frame = torch.randint(256, (2, 3, 5, 7), dtype=torch.uint8)
    assert_close(normalize(frame, Preprocessing(32, (0, 0, 0), (1, 1, 1))), frame.float() / 255)


def test_three_crops_lie_along_the_width_as_released() -> None:
    """Landscape: left, right, middle. Portrait and square: three times the middle, as the official code gives them."""
    assert crop_offsets(224, 299, 224, 3) == [(0, 0), (0, 72), (0, 36)]
    assert crop_offsets(299, 224, 224, 3) == [(36, 0)] * 3
    assert crop_offsets(224, 224, 224, 3) == [(0, 0)] * 3
    assert crop_offsets(224, 299, 224, 1) == [(0, 38)]


@given(height=st.integers(32, 200), width=st.integers(32, 200))
def test_crops_along_the_long_side(height: int, width: int) -> None:
    """A portrait frame's crops are those of the frame lying on its side; all other crops stay as released."""
    found = crop_offsets(height, width, 32, 3, "long_side")
    if height > width:
        assert found == [(top, left) for left, top in crop_offsets(width, height, 32, 3)]
    else:
        assert found == crop_offsets(height, width, 32, 3)


@pytest.mark.parametrize("along", get_args(CropsAlong))
@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (40, 40)])
def test_evaluation_pixels_are_those_crops(shape: tuple[int, int], along: CropsAlong) -> None:
    """Every crop equals the slice of the resized frame at its offset, for every frame."""
    frames = torch.stack([picture(*shape), picture(*shape).flip(0)])
    pixels = evaluation_pixels(frames, Preprocessing(32), crops=3, crops_along=along)
    own = Preprocessing(32)
    resized = scale_frames(frames.permute(0, 3, 1, 2), own.scaled(*shape), own)
    assert pixels.shape == (2, 3, 3, 32, 32)
    for crop, (top, left) in enumerate(crop_offsets(*resized.shape[-2:], 32, 3, along)):
        assert_close(pixels[:, crop], normalize(resized[..., top : top + 32, left : left + 32]), "equivalent")


@pytest.mark.parametrize("resize_mode", get_args(ResizeMode))
@pytest.mark.parametrize("interpolation", get_args(Interpolation))
@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (40, 40)])
def test_pixels_are_open_clips(shape: tuple[int, int], interpolation: Interpolation, resize_mode: ResizeMode) -> None:
    """Every resize mode and interpolation, and any mean and deviation, give the pixels of open_clip's transform."""
    values: dict[str, Any] = {"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.2, 1.0)}
    values |= {"interpolation": interpolation, "resize_mode": resize_mode}
    frame = picture(*shape)
    wanted = image_transform_v2(PreprocessCfg(size=32, **values), is_train=False)(Image.fromarray(frame.numpy()))
    found = evaluation_pixels(frame[None], Preprocessing(32, **values))[0, 0]
    grey_levels = ((found - wanted) * 255 * torch.tensor(values["std"])[:, None, None]).abs()
    assert grey_levels.max() <= 2.1
    assert grey_levels.mean() <= 0.25


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "size"),
        ({"mean": (0.5,)}, "mean"),
        ({"std": (1.0, 0.0, 1.0)}, "std"),
        ({"resize_mode": "longest"}, "resize_mode"),
        ({"interpolation": "nearest"}, "interpolation"),
    ],
)
def test_impossible_preprocessing_is_refused(values: dict[str, Any], message: str) -> None:
    """The message names the value at fault."""
    with pytest.raises(ConfigError, match=message):
        Preprocessing(**values)


def test_squashed_frames_have_one_crop() -> None:
    """Three crops of a squashed frame would be three times the same work."""
    own = Preprocessing(32, resize_mode="squash")
    assert evaluation_pixels(picture(40, 90)[None], own).shape == (1, 1, 3, 32, 32)
    with pytest.raises(ConfigError, match="views x1"):
        evaluation_pixels(picture(40, 90)[None], own, crops=3)


def test_small_frames_are_scaled_up_and_bad_crops_refused() -> None:
    """A frame smaller than the crop is enlarged; two crops, or a crop larger than its frame, are errors."""
    assert evaluation_pixels(picture(8, 12)[None], Preprocessing(32)).shape == (1, 1, 3, 32, 32)
    with pytest.raises(ConfigError, match="crops"):
        crop_offsets(32, 40, 32, 2)
    with pytest.raises(ConfigError, match="crops_along"):
        crop_offsets(32, 40, 32, 3, "height")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="does not fit"):
        crop_offsets(31, 40, 32, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_pixels() -> None:
    """On a GPU the pixels differ by rounding of one grey level at most."""
    frames = picture(240, 320)[None]
    assert_close(evaluation_pixels(frames.cuda(), crops=3).cpu(), evaluation_pixels(frames, crops=3), "pixels")
