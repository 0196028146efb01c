"""Every form of a video that people have gives the answer of its file, or says what to pass."""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mote_fast import VideoClassifier
from mote_fast.data import read_frames
from mote_fast.errors import ConfigError, MissingVideoError, MoteError, UndecodableVideoError, VideoError
from mote_fast.model import video_input
from mote_fast.model.video_input import name_of, sort_out, source_of

LABELS = ["archery", "juggling balls", "playing the cello"]


@pytest.fixture(scope="module")
def frames(moving_video: str) -> Tensor:
    return read_frames(moving_video, range(10))


def pictures(frames: Tensor) -> list[Image.Image]:
    return [Image.fromarray(frame.numpy()) for frame in frames]


FORMS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda frames: frames,
    "array": lambda frames: frames.numpy(),
    "channels first": lambda frames: frames.permute(0, 3, 1, 2),
    "channels first, contiguous array": lambda frames: np.ascontiguousarray(frames.numpy().transpose(0, 3, 1, 2)),
    "float": lambda frames: frames / 255,
    "float64 array": lambda frames: frames.numpy() / 255.0,
    "float, channels first, with a graph": lambda frames: (frames.permute(0, 3, 1, 2) / 255).requires_grad_(),
    "images": pictures,
    "a tuple of images": lambda frames: tuple(pictures(frames)),
    "images with alpha": lambda frames: [picture.convert("RGBA") for picture in pictures(frames)],
    "a list of arrays": lambda frames: list(frames.numpy()),
    "a list of tensors": list,
    "a list of tensors, channels first": lambda frames: list(frames.permute(0, 3, 1, 2) / 255),
    "a generator of images": lambda frames: (picture for picture in pictures(frames)),
    "a generator of arrays": lambda frames: iter(frames.numpy()),
}


@pytest.mark.parametrize("name", FORMS)
def test_decoded_frames(tiny: VideoClassifier, frames: Tensor, name: str) -> None:
    """Alone, in a list and in a stream, for labels and embeddings: the same as uint8 [N, H, W, 3]."""
    form, expected, vector = FORMS[name], tiny.classify(frames, LABELS), tiny.embed(frames)
    assert tiny.classify(form(frames), LABELS) == expected
    assert tiny.classify([form(frames), form(frames)], LABELS) == [expected] * 2
    assert tiny.classify((each for each in (form(frames), frames)), LABELS) == [expected] * 2
    assert [each.predictions for each in tiny.stream_results([form(frames)], LABELS)] == [expected]
    assert torch.equal(tiny.embed(form(frames)), vector)
    assert torch.equal(tiny.view_features(form(frames)), tiny.view_features(frames))


def test_one_image_is_a_video_of_one_frame(tiny: VideoClassifier, frames: Tensor) -> None:
    """It stands still; gray and palette images have colors too."""
    picture = pictures(frames)[0]
    expected = tiny.classify(frames[:1], LABELS)
    assert tiny.classify(picture, LABELS) == tiny.classify([picture], LABELS)[:3] == expected
    assert [each.predictions for each in tiny.stream_results([picture] * 2, LABELS)] == [expected] * 2
    assert len(tiny.classify(picture.convert("L"), LABELS)) == len(tiny.classify(picture.convert("P"), LABELS)) == 3


def test_layout_decides_where_two_fit(tiny: VideoClassifier) -> None:
    """Three frame rows could be colors; the argument says so, everywhere."""
    video = torch.randint(256, (5, 3, 40, 3), dtype=torch.uint8)
    for use in (tiny.embed, tiny.view_features, lambda video, **options: tiny.classify(video, LABELS, **options)):
        with pytest.raises(ConfigError, match="give layout='THWC' or 'TCHW'"):
            use(video)
    assert torch.equal(tiny.embed(video, layout="THWC"), tiny.embed([video], layout="THWC")[0])
    first = video.permute(0, 3, 1, 2)
    assert torch.equal(tiny.embed(first, layout="TCHW"), tiny.embed(video, layout="THWC"))
    assert not torch.equal(tiny.embed(video, layout="TCHW"), tiny.embed(video, layout="THWC"))
    assert torch.equal(tiny.embed(video.permute(3, 0, 1, 2), layout="CTHW"), tiny.embed(video, layout="THWC"))
    (streamed,) = tiny.stream_embeddings([first], layout="TCHW")
    assert streamed.embedding is not None
    assert torch.equal(streamed.embedding, tiny.embed(video, layout="THWC"))
    with pytest.raises(ConfigError, match="layout must be"):
        tiny.stream_results([video], LABELS, layout="TWHC")  # pyright: ignore[reportArgumentType]


def zeros(*shape: int, dtype: Any = torch.uint8) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (zeros(2, 8, 16, 16, 3), "a batch of videos give list(batch)"),
        (zeros(16, 16, 3), "frame[None]"),
        (zeros(16, 16), "frame[None]"),
        (zeros(8, 16, 16), "gray frames"),
        (zeros(8, 16, 16, 4), "[..., :3]"),
        (zeros(8, 16, 16, 1), "gray frames"),
        (zeros(3, 8, 16, 16), "layout='CTHW'"),
        (zeros(0, 16, 16, 3), "[0, 16, 16, 3]"),
        (zeros(8, 0, 16, 3), "[8, 0, 16, 3]"),
        (zeros(8, 16, 16, 3, dtype=torch.int8), "int8"),
        (np.zeros((8, 16, 16, 3), np.int64), "convert values of 0 to 255 to uint8"),
        (zeros(8, 16, 16, 3, dtype=torch.float32) + 200, "got 200 to 200: divide by 255"),
        (zeros(8, 16, 16, 3, dtype=torch.float32) - 1, "undo a normalisation"),
        (zeros(8, 16, 16, 3, dtype=torch.float32) * float("nan"), "got nan to nan"),
        (zeros(8, 16, 16, 3, dtype=torch.complex64), "complex64"),
        (np.array([b"a.mp4"]), "must be uint8"),
        ([zeros(16, 16, 3), zeros(16, 20, 3)], "one size"),
        ([zeros(16, 16, 3), "a.mp4"], "the frames hold a str"),
        ([[]], "at least one"),
        (None, "not NoneType"),
        (0, "cameras are not opened"),
        (3.5, "not float"),
        ({"a": "a.mp4"}, "dict"),
        ("", "is empty"),
        (io.StringIO("text"), "binary mode"),
        (object(), "not object"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_video_is_refused(tiny: VideoClassifier, video: Any, message: str) -> None:
    """The error is the library's, and says what to pass; in a stream it is that video's."""
    for use in (tiny.embed, lambda video: tiny.classify(video, LABELS)):
        with pytest.raises(ConfigError, match=re.escape(message)):
            use(video)
    if not isinstance(video, list):
        (result,) = tiny.stream_results([video], LABELS)
        assert isinstance(result.error, ConfigError)


@pytest.mark.parametrize("videos", ["a.mp4", b"data", zeros(8, 16, 16, 3), None, 7, {"a": "a.mp4"}])
def test_a_stream_is_of_several_videos(tiny: VideoClassifier, videos: Any) -> None:
    """The characters of a path are no videos."""
    with pytest.raises(ConfigError, match="videos must be a list"):
        tiny.stream_results(videos, LABELS)


def test_files_in_every_form(tiny: VideoClassifier, moving_video: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Paths of each kind, bytes and open files; nothing is left behind."""
    path = Path(moving_video)
    data = path.read_bytes()
    expected = tiny.classify(moving_video, LABELS)
    monkeypatch.setenv("HOME", str(path.parent))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    named = tmp_path / "a name with spaces & ümlaut %41.mp4"
    named.write_bytes(data)
    with path.open("rb") as file, named.open("rb", buffering=0) as raw, tempfile.TemporaryFile() as unnamed:
        unnamed.write(data)
        unnamed.seek(0)
        forms = [np.str_(moving_video), path, named, f"~/{path.name}", path.as_uri(), named.as_uri()]
        forms += [f"file://localhost{moving_video}", data, bytearray(data), memoryview(data), io.BytesIO(data)]
        forms += [file, raw, unnamed]
        assert [tiny.classify(form, LABELS) for form in forms] == [expected] * len(forms)
        assert tiny.classify(file, LABELS, errors="return").reason.endswith("call seek(0)")
    assert tiny.classify(np.array([moving_video]), LABELS) == [expected]
    assert {*os.listdir(tmp_path)} == {named.name, "cache"}


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ("https://example.com/a.mp4", "a https address, and none is opened; download the video"),
        ("s3://bucket/a.mp4", "a s3 address"),
        ("rtsp://camera/1", "a rtsp address"),
        (Path("http://example.com/a.mp4"), "a http address"),
        ("file://elsewhere/a.mp4", "another machine, elsewhere"),
        ("0", "no such file"),
        ("bad\0name.mp4", "no such file"),
        (".", "a folder; give the paths of the videos in it"),
        (io.BytesIO(b"no video"), "not a video"),
        (io.BytesIO(), "no data"),
        (bytearray(b"no video"), "not a video"),
    ],
)
def test_files_that_cannot_be_read(tiny: VideoClassifier, video: Any, message: str) -> None:
    """A VideoError that says what to do."""
    with pytest.raises(VideoError, match=message) as caught:
        tiny.classify(video, LABELS)
    assert isinstance(caught.value, MissingVideoError | UndecodableVideoError)


def test_open_files_that_cannot_be_read(tiny: VideoClassifier, tmp_path: Path, monkeypatch: Any) -> None:
    """Closed, write-only, too large: each a typed error of its video."""
    (tmp_path / "a.mp4").write_bytes(b"12345")
    closed = (tmp_path / "a.mp4").open("rb")
    closed.close()
    with pytest.raises(UndecodableVideoError, match="cannot be read"):
        tiny.embed(closed)
    with (tmp_path / "b.mp4").open("wb") as writing, pytest.raises(UndecodableVideoError, match="cannot be read"):
        tiny.embed(writing)
    monkeypatch.setattr(video_input, "MAX_BYTES", 4)
    with (tmp_path / "a.mp4").open("rb") as large, pytest.raises(UndecodableVideoError, match="give its path"):
        tiny.embed(large)


def test_images_that_cannot_be_read(tiny: VideoClassifier, frames: Tensor, tmp_path: Path) -> None:
    """Pillow opens an image lazily; a cut one fails when it is used."""
    pictures(frames)[0].save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    with pytest.raises(UndecodableVideoError, match="an image cannot be read"):
        tiny.classify([Image.open(io.BytesIO(data[: len(data) // 2]))], LABELS)


def test_a_generator_of_frames_is_bounded(monkeypatch: Any) -> None:
    """An endless one does not fill the memory."""
    monkeypatch.setattr(video_input, "MAX_READ_BYTES", 100_000)

    def endless() -> Any:
        while True:
            yield zeros(64, 64, 3)

    _, video = sort_out(endless())
    with pytest.raises(ConfigError, match="write them to a file"):
        source_of(video)


@pytest.mark.torchcodec
def test_a_decoder_of_torchcodec(tiny: VideoClassifier, moving_video: str) -> None:
    """The frames that are needed are taken from it, whichever order of axes it gives."""
    from torchcodec.decoders import VideoDecoder

    tiny.decode_backend = "torchcodec"
    expected = tiny.classify(moving_video, LABELS)
    for order in ("NCHW", "NHWC"):
        decoder: Any = VideoDecoder(moving_video, dimension_order=order)
        assert tiny.classify(decoder, LABELS) == expected
        assert tiny.classify([decoder, decoder], LABELS) == [expected] * 2


def test_names() -> None:
    """What a result calls its video."""
    names = [name_of(video) for video in ("a.mp4", Path("b.mp4"), b"", io.BytesIO(), zeros(1, 2, 2, 3), [])]
    assert names == ["a.mp4", "b.mp4", "<bytes>", "<bytes>", "<frames>", "<frames>"]
    assert issubclass(ConfigError, MoteError)
