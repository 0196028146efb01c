"""The formats that are opened, and the lists of other files that are not."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.data.decoding.decode import probe, read_frames
from mote_fast.data.decoding.formats import is_certain, why_not_video
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.errors import MissingVideoError, UndecodableVideoError

# Text of a list that names {target}.
LISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n",
    "hls_marked": "\ufeff#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile {target}\n",
    "concat_plain": "file {target}\nfile {target}\n",
    "dash": '<?xml version="1.0"?><MPD profiles="urn:mpeg:dash:profile:isoff-live:2011" type="static"><Period>'
    '<AdaptationSet mimeType="video/mp4"><Representation id="1"><BaseURL>{target}</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
    "imf": '<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>{target}</Id>'
    "</CompositionPlaylist>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\na=control:{target}\n",
    "asx": '<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
    "smil": '<smil><body><video src="{target}"/></body></smil>',
    "redirect": "[Reference]\nRef1={target}\n",
    "subtitles": "1\n00:00:00,000 --> 00:00:02,000\n{target}\n",
    "vobsub": "# VobSub index file, v7 (do not modify this line!)\n{target}\n",
    "metadata": ";FFMETADATA1\ntitle={target}\n",
    "avisynth": 'AviSource("{target}")\n',
    "vector": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{target}"/></svg>',
}
SUFFIXES = (".mp4", ".m3u8", ".mpd", ".ffconcat", ".sdp", ".avs", ".idx", ".srt", ".svg", ".ts", "")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server on the loopback interface that nobody may call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server
        assert not select.select([server], [], [], 0.0)[0], "a connection was made"


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_of_other_files_opens_none_of_them(kind: str, tmp_path: Path, listener: socket.socket) -> None:
    """Whatever the file is called, no host is asked and no named file is opened: a pipe would block for ever."""
    port = listener.getsockname()[1]
    pipe = tmp_path / "pipe.ts"
    os.mkfifo(pipe)
    for target in (f"http://127.0.0.1:{port}/x.ts", f"tcp://127.0.0.1:{port}", f"file:{pipe}", "pipe.ts", "data:,x"):
        text = LISTS[kind].format(target=target, port=port).encode()
        for suffix in SUFFIXES:
            path = tmp_path / f"clip{suffix}"
            path.write_bytes(text)
            with pytest.raises(UndecodableVideoError, match="not a video"):
                probe(path)
        with pytest.raises(UndecodableVideoError, match="not a video"):
            probe(text)


def test_a_list_that_names_itself_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg would open it until no descriptor or stack is left."""
    monkeypatch.chdir(tmp_path)
    Path("clip.mp4").write_text("ffconcat version 1.0\nfile clip.mp4\n")
    with pytest.raises(UndecodableVideoError, match="a list of files to join"):
        probe("clip.mp4")


@pytest.mark.parametrize("name", ["http://127.0.0.1:{port}/x.mp4", "pipe:0", "data:video/mp4,x", "concat:a|b"])
def test_an_address_is_a_file_name(name: str, listener: socket.socket) -> None:
    """Only files are read, so an address is a file that does not exist."""
    with pytest.raises(MissingVideoError):
        probe(name.format(port=listener.getsockname()[1]))


@pytest.fixture(scope="module")
def two_faced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gray video for PyAV; a playlist, of a private red one, for some versions of FFmpeg."""
    folder = tmp_path_factory.mktemp("two_faced")
    red = np.zeros((30, 240, 320, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    private = write_video(folder / "private.ts", red, codec="mpeg4")
    with av.open(str(folder / "plain.mxf"), "w", format="mxf") as file:
        stream = file.add_stream("mpeg2video", rate=25, options={"g": "1", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(30):
            gray = av.VideoFrame.from_ndarray(np.full((240, 320, 3), 90, np.uint8), format="rgb24")
            file.mux(stream.encode(gray))
        file.mux(stream.encode(None))
    playlist = f"#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1.2,\nfile:{private}\n#EXT-X-ENDLIST\n"
    path = folder / "clip.mp4"
    path.write_bytes(b"\n" + playlist.encode() + (folder / "plain.mxf").read_bytes())
    return path


def test_a_file_of_two_formats_goes_to_one_library(two_faced: Path) -> None:
    """What is read is what was probed; a library that might take the file for a list is not given it."""
    info = probe(two_faced)
    assert read_frames(two_faced, [0, 10], info=info).float().mean(dim=(0, 1, 2)).tolist() == pytest.approx(
        [90] * 3, abs=3
    )
    assert info.timeline.pyav_only == "its first bytes leave its format open"


@pytest.mark.torchcodec
def test_torchcodec_is_not_given_a_file_of_two_formats(two_faced: Path) -> None:
    """Its FFmpeg may open what the playlist names, or wait for ever."""
    with pytest.raises(UndecodableVideoError, match="use PyAV"):
        read_frames(two_faced, [0], "torchcodec")


def test_a_playlist_before_a_video_is_refused(two_faced: Path, tmp_path: Path) -> None:
    """A file that begins with a playlist's first line is a playlist, whatever follows."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"#EXTM3U" + two_faced.read_bytes())
    with pytest.raises(UndecodableVideoError, match="an HLS playlist"):
        probe(path)


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        (".mp4", "libx264", "yuv420p"),
        (".mov", "mjpeg", "yuvj420p"),
        (".mkv", "mpeg4", "yuv420p"),
        (".webm", "libvpx", "yuv420p"),
        (".avi", "mpeg4", "yuv420p"),
        (".flv", "flv", "yuv420p"),
        (".gif", "gif", "rgb8"),
        (".mxf", "mpeg2video", "yuv420p"),
        (".asf", "wmv2", "yuv420p"),
        (".ivf", "libvpx", "yuv420p"),
    ],
)
def test_the_usual_formats_are_certain(suffix: str, codec: str, pix_fmt: str, tmp_path: Path) -> None:
    """No video that people have is kept from other libraries by its first bytes."""
    frames = np.zeros((5, 64, 96, 3), np.uint8)
    path = Path(write_video(tmp_path / f"clip{suffix}", frames, codec=codec, pix_fmt=pix_fmt))
    with av.open(str(path)) as container:
        assert is_certain(path.read_bytes()[:4096], container.format.name)


@given(st.binary(max_size=40).filter(lambda text: b"\0" not in text), st.sampled_from([b"<MPD x", b"<smil", b"<"]))
def test_a_manifest_after_a_videos_first_bytes_is_not_certain(filler: bytes, manifest: bytes) -> None:
    """A manifest is looked for up to the first zero byte, also inside a chunk of an AVI or Matroska file."""
    for head, name in ((b"RIFFAAAAAVI LIST", "avi"), (b"\x1a\x45\xdf\xa3\xa3", "matroska,webm")):
        assert not is_certain(head + filler + manifest + b"\0" * 8, name)
        assert is_certain(head + filler.replace(b"<", b"") + b"\0" * 8, name)
        assert not is_certain(b"x" + head + b"\0" * 8, name)


@given(st.binary(max_size=300))
def test_any_first_bytes_are_judged(head: bytes) -> None:
    """No content makes the judgment fail."""
    assert why_not_video(head) is None or isinstance(why_not_video(head), str)
    assert is_certain(head, "avi") in (True, False)
