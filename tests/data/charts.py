"""Color charts: flat patches of saturated colors, coded by the equations of ITU-T H.273 and not by FFmpeg."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
import torch

# Primaries, secondaries, black, white, greys, and colours of half the saturation or brightness: uint8 [16, 3].
COLORS = np.array(
    [
        *[(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0)],
        *[(0, 0, 255), (0, 255, 255), (255, 0, 255), (255, 255, 0)],
        *[(128, 128, 128), (64, 64, 64), (191, 191, 191), (191, 64, 64)],
        *[(64, 191, 64), (64, 64, 191), (128, 0, 0), (0, 0, 128)],
    ],
    np.uint8,
)
GRAYS = np.linspace(0, 255, 16).round().astype(np.uint8)[:, None].repeat(3, axis=1)

# Patches to a side, and the pixels of a patch to a side.
SIDE, PATCH = 4, 16
SIZE = SIDE * PATCH

# x265 gives shorter streams no timestamps.
FRAMES = 4

LIMITED, FULL = 1, 2

# Weights of red and blue in luma, H.273 table 4, by the number of the matrix; 2 is unspecified, here BT.601.
KR_KB = {
    1: (0.2126, 0.0722),
    2: (0.299, 0.114),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}


class Coding(NamedTuple):
    """How a chart's samples are coded, and what its file says about it."""

    pixel_format: str
    matrix: int = 2
    range: int = LIMITED


def samples(colors: np.ndarray, matrix: int, color_range: int, depth: int) -> np.ndarray:
    """Y, Cb and Cr of the colors, integers [3, 16], by H.273's equations 33 to 40."""
    red, green, blue = colors.T / 255
    kr, kb = KR_KB[matrix]
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = np.stack([(blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))])
    if color_range == FULL:
        top = 2**depth - 1
        return np.clip(np.rint(np.stack([top * luma, *(top * chroma + 2 ** (depth - 1))])), 0, top).astype(int)
    return np.rint(2 ** (depth - 8) * np.stack([219 * luma + 16, *(224 * chroma + 128)])).astype(int)


def patches(values: np.ndarray, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """A picture [height, width, ...] of 16 patches with the given values [16, ...]."""
    grid = values.reshape(SIDE, SIDE, *values.shape[1:])
    return grid.repeat(height // SIDE, axis=0).repeat(width // SIDE, axis=1)


def planar_frame(coding: Coding, colors: np.ndarray = COLORS) -> av.VideoFrame:
    """A chart in a planar YUV or gray format, with opaque alpha."""
    frame = av.VideoFrame(SIZE, SIZE, coding.pixel_format)
    depth = frame.format.components[0].bits
    opaque = np.full((1, len(colors)), 2**depth - 1)
    values = [*samples(colors, coding.matrix, coding.range, depth), *opaque]
    if coding.pixel_format.startswith("gray"):
        values = values[:1]
    for plane, levels in zip(frame.planes, values, strict=False):
        fill(plane, patches(levels, plane.height, plane.width).astype(np.uint8 if depth == 8 else "<u2"))
    return _labelled(frame, coding)


def rgb_frame(coding: Coding) -> av.VideoFrame:
    """A chart in an RGB format; FFmpeg only moves bytes and widens them."""
    frame = av.VideoFrame.from_ndarray(patches(COLORS), format="rgb24").reformat(format=coding.pixel_format)
    return _labelled(frame, coding)


def fill(plane: Any, rows: np.ndarray) -> None:
    """Fill a plane, whose rows may be padded, with rows [H, ...]."""
    rows = rows.reshape(len(rows), -1).view(np.uint8)
    padded = np.zeros((len(rows), plane.line_size), np.uint8)
    padded[:, : rows.shape[1]] = rows
    plane.update(padded.tobytes())


def _labelled(frame: av.VideoFrame, coding: Coding) -> av.VideoFrame:
    frame.colorspace, frame.color_range = coding.matrix, coding.range
    return frame


def encode(
    frames: Iterable[av.VideoFrame], codec: str, container: str, coding: Coding, options: dict[str, Any] | None = None
) -> bytes:
    """A video file of the frames, at 25 frames a second."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.height = stream.width = SIZE
        stream.pix_fmt = coding.pixel_format
        stream.codec_context.colorspace, stream.codec_context.color_range = coding.matrix, coding.range
        stream.options = {key: str(value) for key, value in (options or {}).items()}
        for at, frame in enumerate(frames):
            frame.pts, frame.time_base = at, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def chart(coding: Coding, codec: str = "ffv1", container: str = "matroska", **options: str | int) -> bytes:
    """A video file of a still chart in a planar YUV format."""
    return encode((planar_frame(coding) for _ in range(FRAMES)), codec, container, coding, options)


def relabelled(data: bytes, container: str, matrix: int, color_range: int) -> bytes:
    """The same packets in a container that states another matrix and range."""
    return joined([data], container, matrix, color_range)


def joined(parts: Sequence[bytes], container: str, matrix: int | None = None, color_range: int | None = None) -> bytes:
    """The packets of files of one codec without B-frames, one after another, in a container that states these."""
    file, at = io.BytesIO(), 0
    muxer_options = {"movflags": "write_colr"} if container == "mp4" else {}
    with av.open(file, "w", format=container, options=muxer_options) as output:
        target = None
        for data in parts:
            with av.open(io.BytesIO(data)) as source:
                stream = source.streams.video[0]
                if target is None:
                    target = output.add_stream_from_template(stream)
                    if matrix is not None and color_range is not None:
                        target.codec_context.colorspace, target.codec_context.color_range = matrix, color_range
                for packet in source.demux(stream):
                    if packet.size and packet.time_base:
                        packet.pts = packet.dts = int(at / (25 * packet.time_base))
                        packet.stream = target
                        output.mux(packet)
                        at += 1
    return file.getvalue()


def read_patches(frames: torch.Tensor) -> np.ndarray:
    """The centre pixels of a chart's patches in decoded frames [N, S, S, 3]: float [N, 16, 3]."""
    step = frames.shape[1] // SIDE
    return frames[:, step // 2 :: step, step // 2 :: step].reshape(len(frames), -1, 3).double().numpy()
