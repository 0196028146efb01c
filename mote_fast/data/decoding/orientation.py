"""How a stored picture is turned and mirrored to be shown: display matrices of MP4, SEI messages, and EXIF alike."""

from __future__ import annotations

import io
import math
import struct
from typing import NamedTuple

import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.frame import VideoFrame
from PIL import Image


class Orientation(NamedTuple):
    """The stored picture is mirrored left to right if ``mirrored``, then turned clockwise by ``rotation`` degrees."""

    rotation: int
    mirrored: bool

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return a stored image, ``[H, W, 3]``, as it is shown; a view."""
        return np.rot90(image[:, ::-1] if self.mirrored else image, -self.rotation // 90)


UPRIGHT = Orientation(0, False)


# By the EXIF tag's value.
_EXIF_TAG = 0x0112
# Pillow's names of FFmpeg's picture formats that have EXIF; others of Pillow's start programs.
_WITH_EXIF = ("JPEG", "PNG", "TIFF", "WEBP")
_EXIF = {
    1: UPRIGHT,
    2: Orientation(0, True),
    3: Orientation(180, False),
    4: Orientation(180, True),
    5: Orientation(270, True),
    6: Orientation(90, False),
    7: Orientation(90, True),
    8: Orientation(270, False),
}


def orientation_of(frame: VideoFrame, source: str | bytes) -> Orientation:
    """The orientation of a decoded frame of the file ``source``, rounded to quarter turns.

    FFmpeg attaches one matrix to a frame, whatever states it. A matrix that is not invertible is ignored, as FFmpeg's
    players do.
    """
    try:
        # frame.side_data would keep the frame in a reference cycle, and its memory until the next garbage collection.
        data = SideDataContainer(frame).get(Type.DISPLAYMATRIX.name)  # pyright: ignore[reportCallIssue]
    except ValueError:
        # PyAV 18 cannot list what is attached to a picture that has EXIF.
        return _of_exif(frame, source)
    return UPRIGHT if data is None else of_matrix(bytes(data))


def _of_exif(frame: VideoFrame, source: str | bytes) -> Orientation:
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_WITH_EXIF) as image:
            return _EXIF.get(image.getexif().get(_EXIF_TAG, 1), UPRIGHT)
    # Pillow's readers raise what the damage happens to cause, from struct.error to KeyError.
    except Exception:
        # A video of such pictures; its pictures are turned, and mirroring is not known.
        return Orientation(round(-frame.rotation / 90) % 4 * 90, False)


def of_matrix(matrix: bytes) -> Orientation:
    """Read nine int32, three rows; a stored point (x, y) is shown at (a x + c y, b x + d y)."""
    if len(matrix) < 36:
        return UPRIGHT
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:36])
    wide, high = math.hypot(a, c), math.hypot(b, d)
    if a * d == b * c or not wide or not high:
        return UPRIGHT
    if abs(b) / high <= abs(a) / wide:
        # Columns stay columns.
        return Orientation(180 if d < 0 else 0, (a < 0) != (d < 0))
    # Rows become columns: a transposition, then mirroring for each negative coefficient.
    return Orientation(90 if c < 0 else 270, (b < 0) == (c < 0))
