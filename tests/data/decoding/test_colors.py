"""Colours of every backend against the definition (ITU-T H.273) on charts of saturated colours."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

from mote_fast.data.decoding import backend_pyav
from mote_fast.data.decoding.colors import UNCONVERTED
from mote_fast.data.decoding.decode import probe, read_frames
from mote_fast.errors import UndecodableVideoError
from tests.data.charts import (
    COLORS,
    FRAMES,
    FULL,
    GRAYS,
    KR_KB,
    LIMITED,
    PATCH,
    SIDE,
    Coding,
    chart,
    encode,
    fill,
    joined,
    patches,
    planar_frame,
    read_patches,
    relabelled,
    rgb_frame,
)
from tests.tolerances import GREY_LEVELS

BACKENDS = ["pyav", pytest.param("torchcodec", marks=pytest.mark.torchcodec)]

PLANAR = [
    *["yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuv410p", "yuva420p", "yuva422p", "yuva444p"],
    *["yuv420p9le", "yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv440p10le", "yuva420p10le", "yuva444p10le"],
    *["yuv420p12le", "yuv422p12le", "yuv444p12le", "yuv440p12le", "yuv422p14le", "yuv420p16le", "yuv444p16le"],
]

_X265 = {"x265-params": "lossless=1:log-level=none"}
_JPEG = {"qmin": 1, "qmax": 1, "strict": "unofficial"}

# Codec, container, pixel format, encoder options: lossless where the encoder can.
CODECS: list[tuple[str, str, str, dict[str, Any]]] = [
    *[("libx264", "mp4", name, {"qp": 0}) for name in ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le")],
    *[("libx264", "matroska", name, {"qp": 0}) for name in ("yuvj420p", "yuvj444p", "yuv444p10le")],
    *[("libx265", "mp4", name, _X265) for name in ("yuv420p", "yuv422p", "yuv420p10le", "yuv444p10le", "yuv422p12le")],
    *[("libvpx-vp9", "webm", name, {"lossless": 1}) for name in ("yuv420p", "yuv422p", "yuv440p", "yuv444p")],
    *[("libsvtav1", "mp4", name, {"crf": 1, "svtav1-params": "lp=1"}) for name in ("yuv420p", "yuv420p10le")],
    *[("rawvideo", "matroska", name, {}) for name in ("yuv420p", "yuv422p")],
    *[("prores_ks", "mov", name, {"qscale": 1}) for name in ("yuv422p10le", "yuv444p10le", "yuva444p10le")],
]
# ProRes has limited range only, the yuvj formats full range only.
_RANGES = {"prores_ks": [LIMITED]}

# Codecs that carry no matrix: their colours are BT.601's by definition or by default.
BT601_CODECS = [
    *[("mjpeg", "avi", name, _JPEG, FULL) for name in ("yuvj420p", "yuvj422p", "yuvj444p")],
    *[("mjpeg", "avi", name, _JPEG, LIMITED) for name in ("yuv420p", "yuv422p")],
    ("libvpx", "webm", "yuv420p", {"b": "4M", "qmin": 0, "qmax": 1}, LIMITED),
    ("mpeg4", "mp4", "yuv420p", {"qmin": 1, "qmax": 1}, LIMITED),
    ("mpeg2video", "mov", "yuv422p", {"qmin": 1, "qmax": 1, "g": 1}, LIMITED),
    ("huffyuv", "avi", "yuv422p", {}, LIMITED),
    ("ffvhuff", "avi", "yuv444p", {}, LIMITED),
    ("rawvideo", "nut", "yuv444p10le", {}, LIMITED),
]

RGB_CODECS = [
    *[("libx264rgb", "mp4", name) for name in ("rgb24", "bgr0")],
    *[("libx265", "mp4", name) for name in ("gbrp", "gbrp10le", "gbrp12le")],
    ("libvpx-vp9", "webm", "gbrp"),
    *[("ffv1", "matroska", name) for name in ("bgr0", "bgra", "gbrp10le", "gbrp16le")],
    *[("png", "mov", name) for name in ("rgb24", "rgba")],
    ("apng", "apng", "rgba"),
    *[("rawvideo", "nut", name) for name in ("rgb24", "bgr24", "bgr0", "rgba", "argb")],
    *[("huffyuv", "avi", name) for name in ("rgb24", "bgra")],
    *[("utvideo", "avi", name) for name in ("gbrp", "gbrap")],
    *[("qtrle", "mov", name) for name in ("rgb24", "argb")],
]


def assert_colors(data: bytes, backend: str, expected: np.ndarray = COLORS, levels: int = GREY_LEVELS) -> None:
    """Every frame shows the chart, and so does the last one alone."""
    info = probe(data)
    last = info.num_frames - 1
    shown = read_patches(read_frames(data, [*range(info.num_frames), last], backend, info=info))
    alone = read_patches(read_frames(data, [last], backend, info=info))
    assert np.abs(shown - expected).max() <= levels
    assert np.array_equal(alone[0], shown[last])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pixel_format", PLANAR)
def test_every_matrix_and_range(pixel_format: str, backend: str) -> None:
    """In every chroma layout, at every bit depth; an unspecified matrix is BT.601's."""
    for matrix in KR_KB:
        for color_range in (LIMITED, FULL):
            assert_colors(chart(Coding(pixel_format, matrix, color_range)), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("codec", "container", "pixel_format", "options"), CODECS)
def test_codecs_carry_matrix_and_range(
    codec: str, container: str, pixel_format: str, options: dict[str, Any], backend: str
) -> None:
    """Decoders state them in their own ways."""
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder {codec}")
    ranges = [FULL] if pixel_format.startswith("yuvj") else _RANGES.get(codec, [LIMITED, FULL])
    for matrix in (1, 6):
        for color_range in ranges:
            assert_colors(chart(Coding(pixel_format, matrix, color_range), codec, container, **options), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("codec", "container", "pixel_format", "options", "color_range"), BT601_CODECS)
def test_codecs_without_a_matrix(
    codec: str, container: str, pixel_format: str, options: dict[str, Any], color_range: int, backend: str
) -> None:
    """They are BT.601, in limited range unless the decoder knows better."""
    assert_colors(chart(Coding(pixel_format, 5, color_range), codec, container, **options), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("codec", "container", "pixel_format"), RGB_CODECS)
def test_rgb_stays_as_it_is(codec: str, container: str, pixel_format: str, backend: str) -> None:
    """No matrix and no range applies to RGB, whatever the file states; alpha is ignored."""
    lossless = {"libx264rgb": {"qp": 0}, "libx265": _X265, "libvpx-vp9": {"lossless": 1}}.get(codec)
    for color_range in (0, LIMITED, FULL):
        coding = Coding(pixel_format, 2 if color_range == 0 else 0, color_range)
        assert_colors(
            encode([rgb_frame(coding) for _ in range(FRAMES)], codec, container, coding, lossless), backend, levels=0
        )


@pytest.mark.parametrize("pixel_format", ["gray", "gray10le", "gray12le", "gray16le"])
def test_gray_has_a_range(pixel_format: str) -> None:
    """FFmpeg's scaler takes every gray picture as full range, torchcodec only some."""
    for color_range in (LIMITED, FULL):
        coding = Coding(pixel_format, 2, color_range)
        assert_colors(encode([planar_frame(coding, GRAYS)], "ffv1", "matroska", coding), "auto", GRAYS)
    coding = Coding("gray", 2, LIMITED)
    frames = [planar_frame(coding, GRAYS) for _ in range(FRAMES)]
    assert_colors(encode(frames, "libx265", "mp4", coding, _X265), "auto", GRAYS)


@pytest.mark.parametrize("backend", ["auto", "pyav"])
@pytest.mark.parametrize(("codec", "container"), [("png", "mov"), ("zmbv", "avi"), ("rawvideo", "nut"), ("gif", "gif")])
def test_palettes(codec: str, container: str, backend: str) -> None:
    """Indices of colours, some decoded to RGB by the decoder itself."""
    frame = av.VideoFrame(SIDE * PATCH, SIDE * PATCH, "pal8")
    palette = np.zeros((256, 4), np.uint8)
    palette[: len(COLORS), :3] = COLORS[:, ::-1]
    palette[:, 3] = 255
    fill(frame.planes[0], patches(np.arange(len(COLORS), dtype=np.uint8)))
    frame.planes[1].update(palette.tobytes())
    assert_colors(encode([frame], codec, container, Coding("pal8", 2, 0)), backend, levels=0)


@pytest.mark.parametrize("backend", ["auto", "pyav"])
@pytest.mark.parametrize("pixel_format", ["rgb555", "rgb565", "bgr555", "bgr565"])
@pytest.mark.parametrize("order", ["be", "le"])
def test_16_bit_rgb(pixel_format: str, order: str, backend: str) -> None:
    """FFmpeg 8 exchanged the channels of the big-endian formats; five bits are 8 levels apart."""
    bits = [int(bit) for bit in pixel_format[3:]]
    red, green, blue = np.rint(COLORS.T / 255 * (2 ** np.array(bits)[:, None] - 1)).astype(int)
    first, last = (red, blue) if pixel_format.startswith("rgb") else (blue, red)
    packed = (first << (bits[1] + bits[2])) | (green << bits[2]) | last
    frame = av.VideoFrame(SIDE * PATCH, SIDE * PATCH, pixel_format + order)
    fill(frame.planes[0], patches(packed).astype(">u2" if order == "be" else "<u2"))
    data = encode([frame], "rawvideo", "nut", Coding(pixel_format + order, 2, 0))
    assert_colors(data, backend, levels=4)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("matrix", UNCONVERTED)
def test_what_ffmpeg_does_not_convert_is_refused(matrix: int, backend: str) -> None:
    """FFmpeg 5 converts these as BT.601 without a word: up to 255 levels off for YCgCo."""
    coding = Coding("yuv444p", matrix)
    frames = [planar_frame(Coding("yuv444p", 1))]
    frames[0].colorspace = matrix
    with pytest.raises(UndecodableVideoError, match="use PyAV" if backend == "torchcodec" else "does not convert"):
        read_frames(encode(frames, "ffv1", "matroska", coding), [0], backend)


@pytest.mark.parametrize("matrix", [0, 3, 18])
def test_numbers_that_say_nothing(matrix: int) -> None:
    """The identity on luma and chroma, reserved and unknown numbers are as good as none."""
    assert _patches_alone(planar_frame(Coding("yuv420p", 6)), matrix) <= GREY_LEVELS


@pytest.mark.parametrize("backend", ["auto", "pyav"])
def test_identity_on_luma_and_chroma(backend: str) -> None:
    """torchcodec took it for BT.709."""
    frame = planar_frame(Coding("yuv420p", 6))
    frame.colorspace = 0
    assert_colors(encode([frame], "ffv1", "matroska", Coding("yuv420p", 0)), backend)


@pytest.mark.parametrize("color_range", [0, LIMITED, FULL])
def test_the_name_of_a_format_states_the_range(color_range: int) -> None:
    """Decoders may leave the range of the yuvj formats unspecified."""
    for pixel_format in ("yuvj420p", "yuvj422p", "yuvj444p"):
        frame = planar_frame(Coding(pixel_format, 6, FULL))
        frame.color_range = color_range
        assert _patches_alone(frame, 6) <= GREY_LEVELS


def _patches_alone(frame: av.VideoFrame, matrix: int) -> float:
    """Largest error of a frame that no decoder made."""
    frame.colorspace, frame.pts, frame.time_base = matrix, 0, Fraction(1, 25)
    picture = backend_pyav.RgbConverter("", "a frame", Fraction(1, 25), 1)(frame)
    return np.abs(picture[PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].reshape(-1, 3).astype(int) - COLORS).max()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("codec", "container", "coding", "options"),
    [
        ("libx264", "mp4", Coding("yuv420p", 1, LIMITED), {"qp": 0, "bf": 0}),
        ("libx264", "matroska", Coding("yuv420p", 1, FULL), {"qp": 0, "bf": 0}),
        ("libx265", "mp4", Coding("yuv420p", 1, LIMITED), {"bf": 0} | _X265),
        ("libvpx-vp9", "webm", Coding("yuv420p", 1, LIMITED), {"lossless": 1}),
        ("libvpx-vp9", "matroska", Coding("yuv444p", 1, FULL), {"lossless": 1}),
        ("mjpeg", "matroska", Coding("yuvj420p", 5, FULL), _JPEG),
    ],
)
def test_the_bit_stream_outranks_the_container(
    codec: str, container: str, coding: Coding, options: dict[str, Any], backend: str
) -> None:
    """As in FFmpeg's own player: the decoder's frames decide."""
    data = chart(coding, codec, container, **options)
    for matrix in (1, 6, 9):
        other = relabelled(data, container, matrix, LIMITED if coding.range == FULL else FULL)
        with av.open(io.BytesIO(other)) as file:
            assert int(file.streams.video[0].codec_context.colorspace) == matrix
        assert probe(other).colors.matrix == coding.matrix
        assert_colors(other, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_matrix_that_changes_midway(backend: str) -> None:
    """Every frame is converted by what it states itself."""
    codings = [Coding("yuv420p", 6), Coding("yuv420p", 1), Coding("yuv420p", 7, FULL), Coding("yuv420p", 9)]
    parts = [chart(coding, "libvpx-vp9", "webm", lossless=1, **{"lag-in-frames": 0}) for coding in codings]
    assert_colors(joined(parts, "webm"), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("location", range(6))
def test_chroma_location_moves_no_flat_color(location: int, backend: str) -> None:
    """The place of chroma samples between luma samples is metadata like the matrix."""
    params = {"qp": 0, "x264-params": f"chromaloc={location}"}
    assert_colors(chart(Coding("yuv420p", 1), "libx264", "mp4", **params), backend)
