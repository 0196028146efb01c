"""Colours: an affine map of RGB makes up for the rounding in which DALI's decoders differ from FFmpeg's conversion.

The map cannot correct a wrong matrix. DALI converts every video with BT.601's and cuts the result to 0..255, which
loses saturated colours of other matrices (red of BT.709 becomes (232, 0, 2)), and ``fn.decoders.video`` has no option
for YCbCr; ``routing`` sends such videos to the CPU.
"""

from __future__ import annotations

import numpy as np

from mote_fast.data.decoding.colors import Colors

# The CPU loader and the released recipe use FFmpeg's conversion of 4:2:0 and 4:2:2, which rounds down at every step;
# DALI rounds to nearest. Grey levels by which FFmpeg is darker, measured over sizes, VP8, VP9 and MJPEG.
_DARKER_LIMITED = (1.0, 1.5, 1.0)
_DARKER_FULL = (0.5, 1.0, 0.5)

# As torchvision's rgb_to_grayscale.
_LUMA = (0.2989, 0.587, 0.114)


def identity() -> np.ndarray:
    """The identity map, float32 [3, 4]."""
    return np.eye(3, 4, dtype=np.float32)


def to_ffmpeg(colors: Colors) -> np.ndarray:
    """The map from DALI's RGB to FFmpeg's RGB, float32 [3, 4], in grey levels."""
    result = identity()
    if colors.pixel_format != "yuv444p":
        result[:, 3] = np.negative(_DARKER_FULL if colors.is_full_range else _DARKER_LIMITED)
    return result


def to_gray(colors: np.ndarray) -> np.ndarray:
    """Extend a map [3, 4] so that its output is the luma, repeated in all three channels."""
    luma = np.asarray(_LUMA, np.float32) @ colors
    # torchvision truncates, DALI rounds.
    luma[3] -= 0.5
    return np.tile(luma, (3, 1))
