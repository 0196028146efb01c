"""Colours of decoded frames, and the conversions to RGB that FFmpeg does right only with help, or not at all."""

from __future__ import annotations

from typing import NamedTuple

from av.video.frame import VideoFrame

# Ranges as FFmpeg numbers them; 0 is unspecified.
LIMITED, FULL = 1, 2

# Matrix coefficients, ITU-T H.273 table 4, that FFmpeg converts: an unspecified matrix is BT.601's. So is the identity
# where the planes are luma and chroma, because the identity belongs to RGB planes alone.
IDENTITY, BT709, UNSPECIFIED, FCC, BT470BG, SMPTE170M, SMPTE240M, BT2020 = 0, 1, 2, 4, 5, 6, 7, 9
CONVERTED = frozenset({IDENTITY, BT709, UNSPECIFIED, FCC, BT470BG, SMPTE170M, SMPTE240M, BT2020})

# Those that FFmpeg's scaler does not convert: version 8 fails, earlier ones silently convert as BT.601.
UNCONVERTED = {
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "SMPTE ST 2085",
    12: "derived from the primaries",
    13: "derived from the primaries, with constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}

# Beginnings of the names of pixel formats.
_GRAY = ("gray", "ya")
_WITHOUT_MATRIX = (*_GRAY, "mono", "pal", "rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "x2", "xyz", "bayer")

# FFmpeg 8 confuses the channels of 16-bit big-endian RGB, unless the bytes are swapped first.
_SWAPPED = frozenset({"rgb555be", "bgr555be", "rgb565be", "bgr565be"})

# FFmpeg takes every gray picture as full range.
_WIDEN = "clip((val-16)*255/219+0.5,0,255)"


class Colors(NamedTuple):
    """What a decoded frame says about its samples.

    ``pixel_format`` is FFmpeg's name, ``matrix`` H.273's number, and ``range`` is unspecified (0), ``LIMITED`` or
    ``FULL``. The decoder takes them from the bit stream, and from the container only where that is silent.
    """

    pixel_format: str
    matrix: int
    range: int

    @classmethod
    def of(cls, frame: VideoFrame) -> Colors:
        """The colours of a decoded frame."""
        return cls(frame.format.name, int(frame.colorspace), int(frame.color_range))

    @property
    def has_matrix(self) -> bool:
        """Whether the samples are luma and chroma, and not RGB, XYZ, indices, or luma alone."""
        return not self.pixel_format.startswith(_WITHOUT_MATRIX)

    @property
    def is_limited_gray(self) -> bool:
        """Whether there is luma alone, with or without alpha, in limited range."""
        return self.range == LIMITED and self.pixel_format.startswith(_GRAY)

    @property
    def is_full_range(self) -> bool:
        """Whether luma and chroma use all values; the yuvj formats say so by their name."""
        return self.range == FULL or self.pixel_format.startswith("yuvj")


def why_not_converted(colors: Colors) -> str | None:
    """Why frames of these colours cannot be converted to RGB, or None if they can."""
    if not colors.has_matrix or colors.matrix not in UNCONVERTED:
        return None
    name = UNCONVERTED[colors.matrix]
    return f"its colour matrix ({name}) is one that FFmpeg does not convert; re-encode it with BT.709's"


def repairs(colors: Colors) -> list[tuple[str, str]]:
    """The filters, by name and arguments, that must precede FFmpeg's conversion of frames of these colours."""
    if colors.pixel_format in _SWAPPED:
        return [("format", colors.pixel_format.removesuffix("be") + "le")]
    if colors.is_limited_gray:
        return [("format", "rgb24"), ("lutrgb", ":".join(f"{channel}='{_WIDEN}'" for channel in "rgb"))]
    if colors.has_matrix and colors.matrix not in CONVERTED:
        # A reserved number says nothing, and FFmpeg 8 would fail.
        return [("setparams", "colorspace=smpte170m")]
    return []
