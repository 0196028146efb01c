"""Re-encoding one video: frames, their order, times and colours are kept, and the size is as specified."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.data.decoding.decode import probe, read_frames
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.errors import ConfigError, UndecodableVideoError
from mote_fast.prepare.encoding import Span, encode, frames_within
from mote_fast.prepare.prepare_settings import Encoding
from tests.data.charts import COLORS, FULL, GRAYS, KR_KB, LIMITED, Coding, chart, planar_frame, read_patches
from tests.data.charts import encode as encode_chart
from tests.data.conftest import HEIGHT, WIDTH, NumberedVideos
from tests.tolerances import GREY_LEVELS


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> NumberedVideos:
    return NumberedVideos(tmp_path_factory.mktemp("numbered"))


def check_same_frames(source: Path, target: Path) -> None:
    """The target has the source's frames, in order, at the same times from the first."""
    before, after = probe(source), probe(target)
    every = list(range(before.num_frames))
    assert after.num_frames == before.num_frames
    numbers = NumberedVideos.read(read_frames(target, every, "pyav"))
    assert numbers == NumberedVideos.read(read_frames(source, every, "pyav"))
    if before.timeline.by_pts:
        assert times(target) == pytest.approx(times(source), abs=1e-4)


def times(path: Path) -> list[float]:
    """Seconds from the first frame to each."""
    timeline = probe(path).timeline
    stamps = [pts for pts in timeline.pts if pts is not None]
    return [float((pts - stamps[0]) * timeline.time_base) for pts in stamps]


KINDS: dict[str, dict[str, Any]] = {
    "b_frames.mp4": {},
    "long_gop.mkv": {"g": 250, "bf": 3},
    "mpeg4_b_frames.avi": {"codec": "mpeg4", "g": 12, "bf": 2},
    "mpeg2.mpg": {"codec": "mpeg2video", "g": 12, "bf": 2},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "vp8.webm": {"codec": "libvpx"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "hevc.mp4": {"codec": "libx265", "g": 12},
    "ten_bits.mp4": {"pix_fmt": "yuv420p10le", "g": 12},
    "rgb.mkv": {"codec": "libx264rgb", "pix_fmt": "rgb24"},
    "transport.ts": {"g": 12, "bf": 2},
}


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_kept_one_to_one(numbered: NumberedVideos, tmp_path: Path, name: str) -> None:
    """The output has the frames that ``probe`` counts, in order, for any codec, container and B-frames."""
    source = numbered.write(name, **KINDS[name])
    encoded = encode(str(source), tmp_path / "out.mp4", Encoding())
    assert encoded.num_frames == probe(source).num_frames
    assert encoded.lost == ""
    check_same_frames(source, tmp_path / "out.mp4")


@pytest.mark.parametrize("name", ["b_frames.mp4", "mpeg4_b_frames.avi", "transport.ts", "mjpeg.avi"])
@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0.0, 9.0, range(40)),
        (0.4, 0.8, range(10, 20)),
        (0.41, 0.81, range(11, 21)),
        (1.52, 99.0, range(38, 40)),
        (0.41, 0.42, range(10, 11)),
        (1.57, 1.59, range(39, 40)),
    ],
)
def test_a_span_is_cut_exactly(
    numbered: NumberedVideos, tmp_path: Path, name: str, start: float, end: float, expected: range
) -> None:
    """The frames shown in the span, from the first one on, with a new time of zero; of 40 frames at 25 a second."""
    source = numbered.write(name, **KINDS[name])
    encoded = encode(str(source), tmp_path / "out.mp4", Encoding(), span=Span(start, end))
    assert encoded.num_frames == len(expected)
    found = probe(tmp_path / "out.mp4")
    assert NumberedVideos.read(read_frames(tmp_path / "out.mp4", range(found.num_frames))) == list(expected)
    assert times(tmp_path / "out.mp4") == pytest.approx([at / 25 for at in range(len(expected))], abs=1e-3)


@given(data=st.data())
def test_spans_of_uneven_times(numbered: NumberedVideos, tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """For any times of frames and any span: the frames whose time lies in it, or the one that is shown."""
    path = tmp_path_factory.getbasetemp() / "uneven_spans.mp4"
    stamps = [0, 40, 41, 300, 301, 1000, 1040, 2500]
    if not path.exists():
        NumberedVideos.encode_timed(path, NumberedVideos.draw(len(stamps)), stamps)
    info = probe(path)
    at = data.draw(st.integers(0, 2500))
    end = data.draw(st.integers(at + 1, 3000))
    inside = [number for number, stamp in enumerate(stamps) if at <= stamp < end]
    shown = [max(number for number, stamp in enumerate(stamps) if stamp <= at)]
    assert list(frames_within(info, Span(at / 1000, end / 1000))) == (inside or shown)


def test_a_span_after_the_end_is_refused(numbered: NumberedVideos, tmp_path: Path) -> None:
    """An annotation of another video, for example; the message has both times."""
    source = numbered.write("b_frames.mp4")
    with pytest.raises(UndecodableVideoError, match=r"the part from 7 s is after its end, at 1\.600 s"):
        encode(str(source), tmp_path / "out.mp4", Encoding(), span=Span(7.0, 8.0))


def test_damage_after_a_span_does_not_matter(numbered: NumberedVideos, tmp_path: Path) -> None:
    """Of a video that is cut short, the parts before the damage can be cut, and no others."""
    whole = tmp_path / "whole.mp4"
    NumberedVideos.put_index_first(numbered.write("b_frames.mp4"), whole)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    left = probe(damaged).num_frames
    assert 10 < left < 40
    assert encode(str(damaged), tmp_path / "out.mp4", Encoding(), span=Span(0.0, 0.2)).num_frames == 5
    with pytest.raises(UndecodableVideoError, match=f"cut short after {left} frames"):
        encode(str(damaged), tmp_path / "out.mp4", Encoding(), span=Span(0.0, 1.6))


def test_the_output_is_what_it_promises(numbered: NumberedVideos, tmp_path: Path) -> None:
    """The output is H.264 in MP4, yuv420p, without audio, with key frames exactly at the interval."""
    source = numbered.write("b_frames.mp4")
    encode(str(source), tmp_path / "out.mp4", Encoding(key_interval=7))
    info = probe(tmp_path / "out.mp4")
    assert (info.codec, info.width, info.height, info.rotation) == ("h264", WIDTH, HEIGHT, 0)
    assert info.key_frames == tuple(range(0, 40, 7))
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert "mp4" in container.format.name
        assert [stream.type for stream in container.streams] == ["video"]
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


def test_sound_is_dropped(tmp_path: Path) -> None:
    """Nothing reads the audio track, which is a fifth of a small file."""
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=16000)
        for image in NumberedVideos.draw(10):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 16000
        container.mux(audio.encode(samples))  # pyright: ignore[reportAttributeAccessIssue]
        container.mux(video.encode(None))
        container.mux(audio.encode(None))  # pyright: ignore[reportAttributeAccessIssue]
    encode(str(path), tmp_path / "out.mp4", Encoding())
    check_same_frames(path, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(container.streams) == 1


def test_uneven_times_are_kept(numbered: NumberedVideos, tmp_path: Path) -> None:
    """Phone and screen videos have a variable rate; frames must not be repeated or dropped."""
    stamps = np.cumsum([40, 1, 400, 33, 33, 2000, 7, 40, 40, 40])
    source = numbered.encode_timed(tmp_path / "uneven.mkv", numbered.draw(10), [int(stamp) for stamp in stamps])
    encode(str(source), tmp_path / "out.mp4", Encoding())
    check_same_frames(source, tmp_path / "out.mp4")


def test_edit_lists_are_applied(numbered: NumberedVideos, tmp_path: Path) -> None:
    """Frames that an edit list hides are not part of the video."""
    source = tmp_path / "edited.mp4"
    source.write_bytes(numbered.write("b_frames.mp4").read_bytes())
    numbered.skip_by_edit_list(source, 5 * 512)
    encode(str(source), tmp_path / "out.mp4", Encoding())
    assert probe(tmp_path / "out.mp4").num_frames < 40
    check_same_frames(source, tmp_path / "out.mp4")


@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_rotation_is_applied(numbered: NumberedVideos, tmp_path: Path, clockwise: int) -> None:
    """The output needs no rotation, and shows what readers of the source see."""
    source = tmp_path / "turned.mp4"
    source.write_bytes(numbered.write("b_frames.mp4").read_bytes())
    numbered.set_rotation(source, clockwise)
    encode(str(source), tmp_path / "out.mp4", Encoding())
    assert probe(tmp_path / "out.mp4").rotation == 0
    expected, actual = (read_frames(path, [0, 20, 39], "pyav").float() for path in (source, tmp_path / "out.mp4"))
    assert actual.shape == expected.shape
    assert (actual - expected).abs().mean() < 4


@pytest.mark.parametrize(
    ("pix_fmt", "options"),
    [
        ("yuv420p", {}),
        ("yuv420p", {"colorspace": "bt709", "color_range": "tv"}),
        ("yuvj420p", {}),
        ("yuv444p", {"colorspace": "bt709", "color_range": "pc"}),
    ],
)
def test_colours_are_kept(tmp_path: Path, pix_fmt: str, options: dict[str, Any]) -> None:
    """A wrong matrix or range shifts every pixel without an error."""
    # Large patches, because chroma is lost at edges.
    patches = torch.tensor([[[250, 20, 30], [20, 240, 20]], [[10, 20, 240], [200, 200, 60]]], dtype=torch.uint8)
    frame = patches.repeat_interleave(32, dim=0).repeat_interleave(32, dim=1)
    source = write_video(tmp_path / "in.mp4", frame.expand(5, -1, -1, -1), pix_fmt=pix_fmt, crf=4, **options)
    encode(source, tmp_path / "out.mp4", Encoding(crf=4))
    expected, actual = (read_frames(path, [0, 4], "pyav").float() for path in (source, tmp_path / "out.mp4"))
    assert (actual - expected).abs().mean() < 2.5


def _matrix_alone(matrix: int) -> bytes:
    """A chart of BT.601 that states another matrix."""
    frame = planar_frame(Coding("yuv444p", 6))
    frame.colorspace = matrix
    return encode_chart([frame], "ffv1", "matroska", Coding("yuv444p", matrix))


@pytest.mark.parametrize("matrix", [*KR_KB, 0])
@pytest.mark.parametrize("color_range", [LIMITED, FULL])
def test_saturated_colors_are_kept(matrix: int, color_range: int, tmp_path: Path) -> None:
    """From every matrix and range to BT.601, which 0, the identity, is where it makes no sense."""
    coding = Coding("yuv444p", matrix, color_range)
    (tmp_path / "in.mkv").write_bytes(chart(coding) if matrix else _matrix_alone(0))
    encode(str(tmp_path / "in.mkv"), tmp_path / "out.mp4", Encoding(crf=1))
    shown = read_patches(read_frames(tmp_path / "out.mp4", [0]))
    assert abs(shown - COLORS).max() <= GREY_LEVELS
    colors = probe(tmp_path / "out.mp4").colors
    assert (colors.matrix, colors.range) == (6, LIMITED)


@pytest.mark.parametrize("color_range", [LIMITED, FULL])
def test_gray_keeps_its_range(color_range: int, tmp_path: Path) -> None:
    """FFmpeg's scaler takes every gray picture as full range."""
    coding = Coding("gray", 2, color_range)
    (tmp_path / "in.mkv").write_bytes(encode_chart([planar_frame(coding, GRAYS)], "ffv1", "matroska", coding))
    encode(str(tmp_path / "in.mkv"), tmp_path / "out.mp4", Encoding(crf=1))
    assert abs(read_patches(read_frames(tmp_path / "out.mp4", [0])) - GRAYS).max() <= GREY_LEVELS


def test_a_matrix_that_ffmpeg_does_not_convert(tmp_path: Path) -> None:
    """It is refused by name, not written with other colours."""
    (tmp_path / "in.mkv").write_bytes(_matrix_alone(8))
    with pytest.raises(UndecodableVideoError, match="YCgCo"):
        encode(str(tmp_path / "in.mkv"), tmp_path / "out.mp4", Encoding())


@given(width=st.integers(2, 4000), height=st.integers(2, 4000), short=st.integers(1, 300).map(lambda half: 2 * half))
def test_sizes(width: int, height: int, short: int) -> None:
    """Sizes are even and never larger, with the requested short side and the aspect kept up to rounding."""
    across, down = Encoding(short_side=short).size_of(width, height)
    assert across % 2 == down % 2 == 0
    assert across <= max(2, width)
    assert down <= max(2, height)
    if min(width, height) >= short:
        assert min(across, down) == short
    else:
        assert (across, down) == (width // 2 * 2, height // 2 * 2)
    scale = min(Fraction(1), Fraction(short, min(width, height)))
    assert width * scale - across < 2
    assert height * scale - down < 2


def test_large_and_odd_videos_shrink(tmp_path: Path) -> None:
    """The short side becomes 256 in both orientations, and an odd side loses a pixel."""
    for height, width, expected in ((300, 401, (342, 256)), (401, 300, (256, 342)), (31, 45, (44, 30))):
        source = write_video(
            tmp_path / f"{height}.mkv", NumberedVideos.draw(3, height, width), codec="ffv1", pix_fmt="bgr0"
        )
        encode(source, tmp_path / "out.mp4", Encoding())
        info = probe(tmp_path / "out.mp4")
        assert (info.width, info.height, info.num_frames) == (*expected, 3)


def test_damage_is_refused_or_cut_off(numbered: NumberedVideos, tmp_path: Path) -> None:
    """The output has no concealed frames, and has the part before the damage only on request."""
    whole = tmp_path / "whole.mp4"
    numbered.put_index_first(numbered.write("b_frames.mp4"), whole)
    cut = tmp_path / "cut.mp4"
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(UndecodableVideoError, match=r"cut\.mp4: damaged or cut short after"):
        encode(str(cut), tmp_path / "out.mp4", Encoding())
    encoded = encode(str(cut), tmp_path / "out.mp4", Encoding(), keep_intact_prefix=True)
    assert 0 < encoded.num_frames < 40
    assert "kept the" in encoded.lost
    assert probe(tmp_path / "out.mp4").num_frames == encoded.num_frames
    frames = read_frames(tmp_path / "out.mp4", range(encoded.num_frames), "pyav")
    assert NumberedVideos.read(frames) == list(range(encoded.num_frames))


@pytest.mark.parametrize("options", [{"short_side": 255}, {"key_interval": 0}, {"crf": 52}, {"preset": "fine"}])
def test_options_are_checked(options: dict[str, Any]) -> None:
    """Options are checked before a long run, not during it."""
    with pytest.raises(ConfigError):
        Encoding(**options)
