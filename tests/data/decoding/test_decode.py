"""The public verbs on valid files of every kind."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mote_fast.data.decoding import backend_pyav, decode
from mote_fast.data.decoding.decode import available_backends, probe, read_frames, read_readable_frames
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.errors import BackendError, ConfigError, FrameIndexError, UndecodableVideoError

if TYPE_CHECKING:
    from conftest import NumberedVideos

# Codec, container and encoder options; x265 writes its log to stderr unless told not to.
KINDS = {
    "h264.mp4": ("libx264", {}),
    "h264_long_gop.mkv": ("libx264", {"g": 250, "bf": 3}),
    "h264_open_gop.mp4": ("libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3"}),
    "h264_10bit.mp4": ("libx264", {"pix_fmt": "yuv420p10le", "g": 12}),
    "hevc.mp4": ("libx265", {"x265-params": "log-level=none:keyint=12:bframes=3"}),
    "hevc_10bit.mkv": ("libx265", {"pix_fmt": "yuv420p10le", "x265-params": "log-level=none:keyint=12"}),
    "mpeg4.avi": ("mpeg4", {"g": 12}),
    "mpeg4_bframes.avi": ("mpeg4", {"g": 12, "bf": 2}),
    "h264_bframes.avi": ("libx264", {"g": 12, "bf": 2}),
    "vp9.webm": ("libvpx-vp9", {"g": 12, "auto-alt-ref": 1, "lag-in-frames": 16}),
    "vp8_hidden.webm": ("libvpx", {"g": 20, "auto-alt-ref": 1, "lag-in-frames": 16, "b": "60k"}),
    "av1.mkv": ("libsvtav1", {"g": 12, "svtav1-params": "lp=1"}),
    "mjpeg.avi": ("mjpeg", {"pix_fmt": "yuvj420p"}),
    "ffv1_gray.mkv": ("ffv1", {"pix_fmt": "gray"}),
    "qtrle_alpha.mov": ("qtrle", {"pix_fmt": "argb"}),
    "gif.gif": ("gif", {"pix_fmt": "rgb8"}),
    "mpeg2.mpg": ("mpeg2video", {"g": 12, "bf": 2}),
    "mpeg2.ts": ("mpeg2video", {"g": 12, "bf": 2}),
    "h264.ts": ("libx264", {"g": 12, "bf": 2}),
    "hevc_open_gop.ts": ("libx265", {"x265-params": "log-level=none:open-gop=1:keyint=12:bframes=4"}),
    "h264.flv": ("libx264", {"g": 12, "bf": 2}),
    "h264.h264": ("libx264", {"g": 12, "bf": 2}),
}

# Files that torchcodec does not get: containers without an index for seeking or without times, and B-frames in
# containers that do not store presentation times.
PYAV_ONLY = {
    "mpeg4_bframes.avi",
    "h264_bframes.avi",
    "mpeg2.mpg",
    "mpeg2.ts",
    "h264.ts",
    "hevc_open_gop.ts",
    "h264.h264",
}


@pytest.fixture(params=KINDS)
def video(request: pytest.FixtureRequest, numbered_videos: NumberedVideos) -> Path:
    codec, options = KINDS[request.param]
    return numbered_videos.write(request.param, codec=codec, **options)


def test_every_index_gives_its_frame(video: Path, numbered_videos: NumberedVideos) -> None:
    """Read alone, each frame is reached by seeking; read together, they are decoded in a row. Both must be exact."""
    info = probe(video)
    assert info.num_frames == 40
    assert numbered_videos.read(read_frames(video, range(40), info=info)) == list(range(40))
    assert [numbered_videos.read(read_frames(video, [index], "pyav", info=info)) for index in range(40)] == [
        [i] for i in range(40)
    ]


@pytest.mark.parametrize("name", [name for name in KINDS if name not in PYAV_ONLY])
@pytest.mark.torchcodec
def test_backends_return_the_same_frames(name: str, numbered_videos: NumberedVideos) -> None:
    """A model trained on one backend must see the same pixels on the other."""
    codec, options = KINDS[name]
    video = numbered_videos.write(name, codec=codec, **options)
    info = probe(video)
    one, two = (read_frames(video, range(40), backend, info=info).int() for backend in ("torchcodec", "pyav"))
    assert one.shape == (40, 48, 64, 3)
    assert (one - two).abs().float().mean() < 1


@pytest.mark.parametrize("name", sorted(PYAV_ONLY))
@pytest.mark.torchcodec
def test_torchcodec_refuses_what_it_would_read_wrongly(name: str, numbered_videos: NumberedVideos) -> None:
    """torchcodec fails on these, or returns wrong frames without an error, so that it must not even be tried."""
    codec, options = KINDS[name]
    path = numbered_videos.write(name, codec=codec, **options)
    assert numbered_videos.read(read_frames(path, [30, 13])) == [30, 13]
    with pytest.raises(UndecodableVideoError, match="use PyAV"):
        read_frames(path, [30, 13], "torchcodec")


@settings(max_examples=25, deadline=None)
@given(indices=st.lists(st.integers(0, 39), min_size=1, max_size=12), backend=st.sampled_from(["auto", "pyav"]))
def test_any_index_list_keeps_its_order(indices: list[int], backend: str, numbered_videos: NumberedVideos) -> None:
    """The output has the caller's order and repeats, for any decoding order."""
    path = numbered_videos.write("h264.mp4")
    assert numbered_videos.read(read_frames(path, indices, backend)) == indices
    assert numbered_videos.read(read_frames(path, torch.tensor(indices), backend)) == indices


@pytest.mark.parametrize(("height", "width"), [(49, 67), (48, 96), (50, 66)])
@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuvj444p", "yuv420p10le"])
def test_odd_sizes_and_formats_agree_with_the_source(
    decode_backend: str, height: int, width: int, pix_fmt: str, tmp_path: Path, numbered_videos: NumberedVideos
) -> None:
    """torchcodec converts widths that are not a multiple of 32 differently, and the codec pads odd sizes."""
    if pix_fmt == "yuv420p10le":
        height, width = height // 2 * 2, width // 2 * 2
    frames = numbered_videos.draw(6, height, width)
    path = write_video(tmp_path / "odd.mkv", frames, pix_fmt=pix_fmt, crf=1)
    decoded = read_frames(path, range(6), decode_backend)
    assert decoded.shape == frames.shape
    assert np.abs(decoded.numpy().astype(int) - frames).mean() < 5
    assert (decoded.int() - read_frames(path, range(6), "pyav").int()).abs().float().mean() < 1


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m", "bt2020nc"])
@pytest.mark.torchcodec
def test_stated_colour_matrix_is_used_by_both(matrix: str, tmp_path: Path, numbered_videos: NumberedVideos) -> None:
    """A wrong matrix shifts colours by tens of grey levels."""
    path = write_video(tmp_path / "matrix.mp4", numbered_videos.draw(3), colorspace=matrix, crf=1)
    one, two = (read_frames(path, range(3), backend).int() for backend in ("torchcodec", "pyav"))
    assert (one - two).abs().float().mean() < 1


def test_variable_frame_rate(decode_backend: str, tmp_path: Path, numbered_videos: NumberedVideos) -> None:
    """Frames count by order, not by time; the rate is the average, the duration ends with the last frame."""
    gaps = np.array([0, *([10, 90, 40, 500] * 10)[:39]])
    path = numbered_videos.encode_timed(tmp_path / "vfr.mkv", numbered_videos.draw(40), np.cumsum(gaps).tolist())
    info = probe(path)
    assert info.num_frames == 40
    # The encoder's rate is 25: the last frame lasts 40 ms.
    assert info.duration == pytest.approx((gaps.sum() + 40) / 1000)
    assert info.fps == pytest.approx(40 / info.duration)
    assert numbered_videos.read(read_frames(path, [39, 0, 17, 18, 31], decode_backend)) == [39, 0, 17, 18, 31]


@pytest.mark.parametrize("delays", [(100, 300, 50), (20, 20, 20, 2000), (700,)])
def test_duration_ends_with_the_last_picture(delays: tuple[int, ...], tmp_path: Path) -> None:
    """Every picture of a GIF has a time of its own, in hundredths of a second; the last one counts too."""
    pictures = [Image.new("RGB", (32, 24), (60 * number, 0, 0)) for number in range(len(delays))]
    path = tmp_path / "delays.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=list(delays))
    info = probe(path)
    assert info.num_frames == len(delays)
    assert info.duration == pytest.approx(sum(delays) / 1000)
    assert info.fps == pytest.approx(1000 * len(delays) / sum(delays))


def test_no_frame_count_in_the_header(decode_backend: str, tmp_path: Path, numbered_videos: NumberedVideos) -> None:
    """A fragmented MP4 and a Matroska file have no frame count; the packets are counted."""
    fragmented = {"movflags": "frag_keyframe+empty_moov"}
    for path, container in ((tmp_path / "f.mp4", fragmented), (tmp_path / "f.mkv", None)):
        numbered_videos.encode_timed(path, numbered_videos.draw(30), range(0, 1200, 40), container)
        assert probe(path).num_frames == 30
        assert numbered_videos.read(read_frames(path, [29, 14], decode_backend)) == [29, 14]


@pytest.mark.parametrize("clockwise", [0, 90, 180, 270])
def test_rotation_is_applied(
    decode_backend: str, clockwise: int, tmp_path: Path, numbered_videos: NumberedVideos
) -> None:
    """A phone's portrait video is stored rotated."""
    path = Path(write_video(tmp_path / "turned.mp4", numbered_videos.draw(5)))
    numbered_videos.set_rotation(path, clockwise)
    info = probe(path)
    decoded = read_frames(path, [4, 2], decode_backend)
    assert info.rotation == clockwise
    assert decoded.shape[1:3] == (info.height, info.width) == ((64, 48) if clockwise % 180 else (48, 64))
    assert numbered_videos.read(torch.rot90(decoded, clockwise // 90, (1, 2))) == [4, 2]


@pytest.mark.parametrize("skipped", [3, 15])
def test_edit_list_hides_frames(
    decode_backend: str, skipped: int, tmp_path: Path, numbered_videos: NumberedVideos
) -> None:
    """A trimmed MP4 still holds the frames before the cut; they are decoded but not counted."""
    path = Path(write_video(tmp_path / "trimmed.mp4", numbered_videos.draw(40), g=12, bf=2))
    numbered_videos.skip_by_edit_list(path, skipped * 512)
    assert probe(path).num_frames == 40 - skipped
    assert numbered_videos.read(read_frames(path, range(0, 40 - skipped, 5), "auto")) == list(range(skipped, 40, 5))
    if decode_backend == "pyav":
        assert numbered_videos.read(read_frames(path, [24, 1], decode_backend)) == [24 + skipped, 1 + skipped]


def test_single_frame(decode_backend: str, tmp_path: Path, numbered_videos: NumberedVideos) -> None:
    """A decoder with a delay outputs its only frame when it is drained."""
    path = write_video(tmp_path / "one.mp4", numbered_videos.draw(1), bf=2)
    info = probe(path)
    assert (info.num_frames, info.key_frames) == (1, (0,))
    assert info.duration == pytest.approx(0.04)
    assert read_frames(path, [0, 0], decode_backend).shape == (2, 48, 64, 3)


def test_probe_reports_the_stream(numbered_videos: NumberedVideos) -> None:
    """``probe`` reports the properties that sampling needs."""
    path = numbered_videos.write("h264.mp4")
    info = probe(os.fspath(path))
    assert (info.path, info.num_frames, info.width, info.height) == (str(path), 40, 64, 48)
    assert (info.fps, info.duration) == (pytest.approx(25), pytest.approx(1.6))
    assert (info.codec, info.rotation, info.key_frames[:2]) == ("h264", 0, (0, 12))


def test_bytes_and_threads(decode_backend: str, numbered_videos: NumberedVideos) -> None:
    """A file in memory works like a path, with any number of decoder threads, and with a probe's result."""
    path = numbered_videos.write("h264.mp4")
    for threads in (0, 2):
        assert numbered_videos.read(read_frames(path.read_bytes(), [39, 3], decode_backend, num_threads=threads)) == [
            39,
            3,
        ]
    assert numbered_videos.read(read_frames(path, [39, 3], decode_backend, info=probe(path))) == [39, 3]


def test_concurrent_reads(numbered_videos: NumberedVideos) -> None:
    """A loader decodes in several threads at once, which must not share state."""
    path = numbered_videos.write("h264.mp4")
    results: dict[int, list[int]] = {}

    def work(number: int) -> None:
        backend = "pyav" if number % 2 else "auto"
        results[number] = numbered_videos.read(read_frames(path, [number, 39 - number], backend))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [number, 39 - number] for number in range(8)}


@pytest.mark.parametrize("index", [-1, 40, 10**9])
def test_index_outside_names_path_index_and_count(index: int, numbered_videos: NumberedVideos) -> None:
    """Python's negative indices would hide a sampler's error."""
    path = numbered_videos.write("h264.mp4")
    with pytest.raises(FrameIndexError) as caught:
        read_frames(path, [0, index])
    for part in (str(path), str(index), "40"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "indices", [[], torch.tensor([], dtype=torch.int64), [0.5], ["0"], torch.tensor([0.0]), torch.tensor(0), [None]]
)
def test_bad_indices(indices: object, numbered_videos: NumberedVideos) -> None:
    """Bad indices are the caller's error, raised before the file is opened."""
    with pytest.raises(ConfigError, match="indices"):
        read_frames(numbered_videos.write("h264.mp4"), indices)  # pyright: ignore[reportArgumentType]


def test_bad_arguments(numbered_videos: NumberedVideos, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown backend lists the known ones; one that does not load says what to install."""
    path = numbered_videos.write("h264.mp4")
    with pytest.raises(ConfigError, match="pyav, torchcodec"):
        read_frames(path, [0], "opencv")
    with pytest.raises(ConfigError, match="num_threads"):
        read_frames(path, [0], num_threads=-1)
    with pytest.raises(ConfigError, match="info"):
        read_frames(path.read_bytes(), [0], info=probe(path))
    broken = decode.Backend(lambda: "install FFmpeg", backend_pyav.read)
    monkeypatch.setitem(decode.BACKENDS, "torchcodec", broken)
    with pytest.raises(BackendError, match="install FFmpeg"):
        read_frames(path, [0], "torchcodec")
    assert available_backends() == {"pyav": None, "torchcodec": "install FFmpeg"}
    assert numbered_videos.read(read_frames(path, [7])) == [7]


@pytest.mark.parametrize(
    "name", ["a b.mp4", "a:b.mp4", "http:x.mp4", "ünï-日本.mp4", "%03d.mp4", "-y.mp4", "\udce4.mp4"]
)
def test_odd_file_names(name: str, numbered_videos: NumberedVideos, tmp_path: Path) -> None:
    """File names are not read as protocols, patterns or options, and need not be UTF-8."""
    path = tmp_path / name
    path.write_bytes(numbered_videos.write("h264.mp4").read_bytes())
    for backend in ("auto", "pyav"):
        assert numbered_videos.read(read_frames(path, [39, 1], backend)) == [39, 1]


def test_size_change_between_frames(tmp_path: Path, numbered_videos: NumberedVideos) -> None:
    """A file joins two streams of different size: frames of one size are returned, a mixture is refused."""
    path = tmp_path / "joined.h264"
    parts = [write_video(tmp_path / f"{w}.h264", numbered_videos.draw(10, 48, w), g=5, bf=0) for w in (64, 96)]
    path.write_bytes(b"".join(Path(part).read_bytes() for part in parts))
    assert probe(path).num_frames == 20
    assert read_frames(path, [0, 9]).shape == (2, 48, 64, 3)
    with pytest.raises(UndecodableVideoError, match="one size"):
        read_frames(path, [0, 19])


def test_writer_refuses_bad_frames(tmp_path: Path) -> None:
    """The writer raises before it creates a file."""
    with pytest.raises(ConfigError, match="uint8"):
        write_video(tmp_path / "x.mp4", np.zeros((2, 48, 64, 3), np.float32))
    with pytest.raises(ConfigError, match="encoder"):
        write_video(tmp_path / "x.mp4", torch.zeros((2, 48, 64, 3), dtype=torch.uint8), codec="nonsense")
    assert not list(tmp_path.iterdir())


def test_frames_are_freed_without_the_garbage_collector(numbered_videos: NumberedVideos) -> None:
    """Python does not see how large frames are, so those in reference cycles pile up for gigabytes."""
    paths = [numbered_videos.write("freed.mp4"), numbered_videos.write("freed.avi", codec="mpeg4", bf=2)]
    damaged = paths[0].with_name("damaged.mp4")
    damaged.write_bytes(paths[0].read_bytes()[:-3000])
    for path in paths:
        read_frames(path, [0, 5])
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for path in [*paths, damaged]:
            with contextlib.suppress(UndecodableVideoError):
                read_frames(path, [0, 5])
                read_readable_frames(path, [0, 5, 9])
        gc.collect()
        # What the compiler left of earlier tests, FakeTensors among it, may be freed now too.
        plain = torch.Tensor, np.ndarray
        held = [found for found in gc.garbage if type(found) in plain or type(found).__module__.startswith("av.")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert not held
