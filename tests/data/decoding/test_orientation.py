"""The eight orientations of a picture, from MP4's matrices, from EXIF, and from matrices that say nothing."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mote_fast.data.decoding.decode import probe, read_frames
from mote_fast.data.decoding.orientation import UPRIGHT, of_matrix
from mote_fast.data.decoding.video_writer import write_video

if TYPE_CHECKING:
    from conftest import NumberedVideos

# a, b, c, d: a stored point (x, y) is shown at (a x + c y, b x + d y).
SIGNED_PERMUTATIONS = [
    (1, 0, 0, 1),
    (-1, 0, 0, 1),
    (-1, 0, 0, -1),
    (1, 0, 0, -1),
    (0, 1, 1, 0),
    (0, 1, -1, 0),
    (0, -1, -1, 0),
    (0, -1, 1, 0),
]
ONE = 1 << 16


def matrix_of(a: float, b: float, c: float, d: float) -> bytes:
    """A display matrix as FFmpeg attaches it to a frame."""
    scaled = [int(value * ONE) for value in (a, b, 0, c, d, 0, 0, 0)]
    return struct.pack("=9i", *scaled, 1 << 30)


def shown(stored: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """Move every pixel of a picture [H, W, 3] as the matrix says."""
    height, width = stored.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    x, y = a * columns + c * rows, b * columns + d * rows
    result = np.empty((int(np.ptp(y)) + 1, int(np.ptp(x)) + 1, 3), stored.dtype)
    result[y - y.min(), x - x.min()] = stored
    return result


@pytest.mark.parametrize("signs", SIGNED_PERMUTATIONS)
def test_a_matrix_moves_pixels_as_defined(signs: tuple[int, int, int, int]) -> None:
    """Mirroring is never taken for a turn: each pixel is compared with the definition of the matrix."""
    stored = np.arange(5 * 7 * 3).reshape(5, 7, 3)
    assert np.array_equal(of_matrix(matrix_of(*signs)).apply(stored), shown(stored, *signs))


@given(signs=st.sampled_from(SIGNED_PERMUTATIONS), turn=st.floats(-44, 44), scale=st.floats(0.1, 8))
def test_other_matrices_are_rounded_to_quarter_turns(
    signs: tuple[int, int, int, int], turn: float, scale: float
) -> None:
    """A matrix may scale, and turn by any angle."""
    angle = np.deg2rad(turn)
    small = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    a, b, c, d = (scale * np.array(signs).reshape(2, 2) @ small).flatten().tolist()
    assert of_matrix(matrix_of(a, b, c, d)) == of_matrix(matrix_of(*signs))


@pytest.mark.parametrize("values", [(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 0, 0), (1, 0, 0, 0)])
def test_a_matrix_that_cannot_be_inverted_is_ignored(values: tuple[int, int, int, int]) -> None:
    """It would show nothing; FFmpeg's players ignore it."""
    assert of_matrix(matrix_of(*values)) == UPRIGHT


@pytest.mark.parametrize("signs", [*SIGNED_PERMUTATIONS, (0, 0, 0, 0)])
def test_mp4_matrices(
    decode_backend: str, signs: tuple[int, int, int, int], tmp_path: Path, numbered_videos: NumberedVideos
) -> None:
    """Selfie cameras mirror; both backends and ``probe`` agree on what is shown."""
    path = Path(write_video(tmp_path / "turned.mp4", numbered_videos.draw(5)))
    plain = read_frames(path, [4, 2]).numpy()
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack(">4i", ONE, 0, 0, 0), data.index(b"tkhd"))
    a, b, c, d = signs
    struct.pack_into(">5i", data, at, a * ONE, b * ONE, 0, c * ONE, d * ONE)
    path.write_bytes(data)
    info, frames = probe(path), read_frames(path, [4, 2], decode_backend).numpy()
    expected = [picture if not any(signs) else shown(picture, *signs) for picture in plain]
    assert frames.shape[1:3] == (info.height, info.width)
    assert np.array_equal(frames, expected)


@pytest.mark.parametrize("suffix", ["webp", "jpg", "png", "tiff"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_exif(decode_backend: str, tag: int, suffix: str, tmp_path: Path) -> None:
    """FFmpeg's versions differ in the EXIF that they read; Pillow is the judge."""
    stored = np.zeros((32, 64, 3), np.uint8)
    stored[:16, :32], stored[:16, 32:], stored[16:, :32] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = tag
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(stored).save(path, exif=exif, quality=95)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")).astype(int)
    info, frame = probe(path), read_frames(path, [0], decode_backend)[0].numpy().astype(int)
    assert frame.shape[:2] == expected.shape[:2] == (info.height, info.width)
    assert np.abs(frame - expected).mean() < 8
