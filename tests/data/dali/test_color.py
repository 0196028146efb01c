"""Colours: the affine maps against the conversions that they replace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as TF

from mote_fast.data import write_video
from mote_fast.data.dali.color import BT709, SMPTE170M, StreamFacts, identity, read_facts, to_ffmpeg, to_gray
from tests.data.conftest import NumberedVideos

_level = st.floats(-0.5, 0.5)


def _to_rgb(kr: float, kb: float, y: float, cb: float, cr: float) -> np.ndarray:
    """Convert to RGB by the definition of the colour differences."""
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    return np.array([red, (y - kr * red - kb * blue) / (1 - kr - kb), blue])


@given(y=st.floats(0, 1), cb=_level, cr=_level)
def test_bt709_is_put_right(y: float, cb: float, cr: float) -> None:
    """RGB computed with the wrong matrix is mapped to RGB of the right matrix."""
    mapped = to_ffmpeg(StreamFacts("webm", "yuv444p", BT709, False, 0))
    wrong, right = _to_rgb(0.299, 0.114, y, cb, cr), _to_rgb(0.2126, 0.0722, y, cb, cr)
    assert mapped[:, :3] @ wrong + mapped[:, 3] == pytest.approx(right, abs=1e-5)


def test_bt601_keeps_its_colours() -> None:
    """The map only corrects the rounding of subsampled formats, which is smaller in full range."""
    assert np.array_equal(to_ffmpeg(StreamFacts("webm", "yuv444p", SMPTE170M, False, 0)), identity())
    limited, full = (to_ffmpeg(StreamFacts("webm", "yuv420p", SMPTE170M, full, 0)) for full in (False, True))
    assert (limited[:, 3] < full[:, 3]).all()
    assert (full[:, 3] < 0).all()


@given(rgb=st.tuples(*[st.integers(0, 255)] * 3))
def test_grey_is_torchvisions(rgb: tuple[int, int, int]) -> None:
    """Rounded to nearest, as in DALI, the map gives torchvision's truncated values."""
    luma = float(np.array([0.2989, 0.587, 0.114]) @ rgb)
    # If the luma is a whole number, float32 may round to either side of it.
    assume(abs(luma - round(luma)) > 1e-3)
    expected = TF.rgb_to_grayscale(torch.tensor(rgb, dtype=torch.uint8)[:, None, None], num_output_channels=3)
    found = np.rint(to_gray(identity()) @ np.array([*rgb, 1.0]))
    assert found.tolist() == expected.flatten().tolist()


def test_facts_of_a_file(tmp_path: Path, numbered_videos: NumberedVideos) -> None:
    """Matrix and range come from the header, and the count if the container has one."""
    path = write_video(tmp_path / "a.webm", numbered_videos.draw(3), codec="libvpx-vp9", colorspace="bt709")
    facts = read_facts(path)
    assert (facts.pixel_format, facts.matrix, facts.is_full_range, facts.frames) == ("yuv420p", BT709, False, 0)
    path = write_video(tmp_path / "a.avi", numbered_videos.draw(3), codec="mjpeg", pix_fmt="yuvj420p")
    facts = read_facts(path)
    assert (facts.container, facts.is_full_range, facts.frames) == ("avi", True, 3)
