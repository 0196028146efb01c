"""Colours: an affine map of RGB corrects where DALI's decoders differ from FFmpeg's conversion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mote_fast.data.decoding.video_info import open_video

# Matrix coefficients, ITU-T H.273 table 4: those that DALI decodes with, or that a linear map reaches.
BT709, UNSPECIFIED, BT470BG, SMPTE170M = 1, 2, 5, 6
_BT601 = frozenset({UNSPECIFIED, BT470BG, SMPTE170M})
KNOWN_MATRICES = _BT601 | {BT709}

_FULL_RANGE = 2

# Weights of red and blue in luma, H.273.
_KR_KB = {SMPTE170M: (0.299, 0.114), BT709: (0.2126, 0.0722)}

# The CPU loader and the released recipe use FFmpeg's conversion of 4:2:0 and 4:2:2, which rounds down at every step;
# DALI rounds to nearest. Grey levels by which FFmpeg is darker, measured over sizes, VP8, VP9 and MJPEG.
_DARKER_LIMITED = (1.0, 1.5, 1.0)
_DARKER_FULL = (0.5, 1.0, 0.5)

# As torchvision's rgb_to_grayscale.
_LUMA = (0.2989, 0.587, 0.114)


@dataclass(frozen=True)
class StreamFacts:
    """What a file's header says about its best video stream.

    ``container`` and ``pixel_format`` are FFmpeg's names, ``matrix`` is H.273's number, and ``frames`` is the header's
    count, 0 if the header has none.
    """

    container: str
    pixel_format: str
    matrix: int
    is_full_range: bool
    frames: int


def read_facts(path: str) -> StreamFacts:
    """Read the header of a video.

    Raises:
        UndecodableVideoError: the video cannot be opened.
    """
    with open_video(path, path) as (container, stream):
        context = stream.codec_context
        pixel_format = context.pix_fmt or ""
        is_full = context.color_range == _FULL_RANGE or pixel_format.startswith("yuvj")
        return StreamFacts(container.format.name, pixel_format, int(context.colorspace), is_full, stream.frames)


def identity() -> np.ndarray:
    """The identity map, float32 [3, 4]."""
    return np.eye(3, 4, dtype=np.float32)


def to_ffmpeg(facts: StreamFacts) -> np.ndarray:
    """The map from DALI's RGB to FFmpeg's RGB, float32 [3, 4], in grey levels.

    DALI decodes every matrix as BT.601. The map is exact except for colours that were clipped to the RGB cube.
    """
    result = identity()
    if facts.matrix == BT709:
        result[:, :3] = _from_ycbcr(BT709) @ np.linalg.inv(_from_ycbcr(SMPTE170M))
    if facts.pixel_format != "yuv444p":
        result[:, 3] = np.negative(_DARKER_FULL if facts.is_full_range else _DARKER_LIMITED)
    return result


def to_gray(colors: np.ndarray) -> np.ndarray:
    """Extend a map [3, 4] so that its output is the luma, repeated in all three channels."""
    luma = np.asarray(_LUMA, np.float32) @ colors
    # torchvision truncates, DALI rounds.
    luma[3] -= 0.5
    return np.tile(luma, (3, 1))


def _from_ycbcr(matrix: int) -> np.ndarray:
    """Matrix [3, 3] from (Y, Cb, Cr) to RGB, H.273 equations 38 to 43; the range cancels when two are combined."""
    red, blue = _KR_KB[matrix]
    green = 1 - red - blue
    return np.array(
        [
            [1, 0, 2 * (1 - red)],
            [1, -2 * (1 - blue) * blue / green, -2 * (1 - red) * red / green],
            [1, 2 * (1 - blue), 0],
        ]
    )
