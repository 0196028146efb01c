"""Colours: the affine maps against the conversions that they replace."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as TF

from mote_fast.data.dali.color import identity, to_ffmpeg, to_gray
from mote_fast.data.decoding.colors import FULL, LIMITED, SMPTE170M, Colors


def test_rounding_is_all_that_is_corrected() -> None:
    """Only subsampled formats are rounded down, and less in full range."""
    assert np.array_equal(to_ffmpeg(Colors("yuv444p", SMPTE170M, LIMITED)), identity())
    limited, full = (to_ffmpeg(Colors("yuv420p", SMPTE170M, value)) for value in (LIMITED, FULL))
    assert np.array_equal(limited[:, :3], identity()[:, :3])
    assert (limited[:, 3] < full[:, 3]).all()
    assert (full[:, 3] < 0).all()
    assert np.array_equal(to_ffmpeg(Colors("yuvj420p", SMPTE170M, 0)), full)


@given(rgb=st.tuples(*[st.integers(0, 255)] * 3))
def test_grey_is_torchvisions(rgb: tuple[int, int, int]) -> None:
    """Rounded to nearest, as in DALI, the map gives torchvision's truncated values."""
    luma = float(np.array([0.2989, 0.587, 0.114]) @ rgb)
    # If the luma is a whole number, float32 may round to either side of it.
    assume(abs(luma - round(luma)) > 1e-3)
    expected = TF.rgb_to_grayscale(torch.tensor(rgb, dtype=torch.uint8)[:, None, None], num_output_channels=3)
    found = np.rint(to_gray(identity()) @ np.array([*rgb, 1.0]))
    assert found.tolist() == expected.flatten().tolist()
