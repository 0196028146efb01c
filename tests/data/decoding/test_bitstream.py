"""What a packet's first bytes say, against what the decoder says about the same packet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import av
import pytest
from av.video.frame import PictureType
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.data.decoding.bitstream import reader_of

if TYPE_CHECKING:
    from conftest import NumberedVideos

QUIET = "log-level=none:keyint=12"

# Encoder, container and options: units with lengths and with start codes, B-pictures, hidden pictures, several slices.
STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "h264.mp4": ("libx264", {"g": 12, "bf": 3}),
    "h264_slices.mp4": ("libx264", {"g": 12, "bf": 2, "x264-params": "slices=3"}),
    "h264_open.ts": ("libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3"}),
    "hevc.mp4": ("libx265", {"x265-params": f"{QUIET}:bframes=4"}),
    "hevc_open.ts": ("libx265", {"x265-params": f"{QUIET}:open-gop=1:bframes=4"}),
    "mpeg2.ts": ("mpeg2video", {"g": 12, "bf": 2}),
    "mpeg1.mpg": ("mpeg1video", {"g": 12, "bf": 2}),
    "mpeg4.mp4": ("mpeg4", {"g": 12}),
    "h263p.avi": ("h263p", {"g": 12}),
    "flv1.flv": ("flv", {"g": 12}),
    "msmpeg4v2.avi": ("msmpeg4v2", {"g": 12}),
    "msmpeg4v3.avi": ("msmpeg4", {"g": 12}),
    "wmv1.asf": ("wmv1", {"g": 12}),
    "wmv2.asf": ("wmv2", {"g": 12}),
    "vp8.webm": ("libvpx", {"g": 20, "auto-alt-ref": 1, "lag-in-frames": 16, "b": "60k"}),
    "vp9.webm": ("libvpx-vp9", {"g": 12, "auto-alt-ref": 1, "lag-in-frames": 16}),
    "av1.mkv": ("libsvtav1", {"g": 12, "svtav1-params": "lp=1"}),
}
KINDS = {PictureType.I: "I", PictureType.P: "P", PictureType.B: "B"}


@pytest.mark.parametrize("name", STREAMS)
def test_pictures_are_those_that_the_decoder_outputs(name: str, numbered_videos: NumberedVideos) -> None:
    """Each packet's picture is of the kind that the decoder finds, and none is counted that it does not output."""
    codec, options = STREAMS[name]
    path = numbered_videos.write(f"bits_{name}", codec=codec, **options)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        read = reader_of(context.codec.canonical_name, context.codec.intra_only, context.extradata)
        assert read is not None
        packets = [packet for packet in container.demux(stream) if packet.size]
        said = {packet.pts: read(memoryview(packet)) for packet in packets}
        frames = [frame for packet in [*packets, None] for frame in context.decode(packet)]
    assert sum(pictures.shown for pictures in said.values()) == len(frames) == 40
    assert sum(pictures.starts for pictures in said.values()) >= 2
    for frame in frames:
        pictures = said[frame.pts]
        if KINDS.get(frame.pict_type) and context.codec.canonical_name not in ("vp9", "av1"):
            assert pictures.kind == KINDS[frame.pict_type]
        if pictures.starts:
            assert frame.key_frame


@pytest.mark.parametrize(
    "codec", ["h264", "hevc", "mpeg2video", "mpeg4", "h263", "flv1", "msmpeg4v3", "vp8", "vp9", "av1"]
)
@given(data=st.binary(min_size=1, max_size=64), prefixed=st.booleans())
def test_any_bytes_are_read(codec: str, data: bytes, prefixed: bool) -> None:
    """Damaged packets must not end the scan."""
    header = b"\x01" + bytes(30) if prefixed else None
    read = reader_of(codec, False, header)
    assert read is not None
    shown, kind, starts = read(memoryview(data))
    assert -1 <= shown <= 64
    assert kind in ("I", "P", "B")
    assert isinstance(starts, bool)


def test_a_codec_without_a_reader() -> None:
    """It is never trusted, so there must be none by chance."""
    assert reader_of("theora", False, None) is None


def test_two_pictures_in_a_packet(numbered_videos: NumberedVideos) -> None:
    """They must not pass for one, whatever the codec."""
    for name, (codec, options) in STREAMS.items():
        path = numbered_videos.write(f"bits_{name}", codec=codec, **options)
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            name = context.codec.canonical_name
            if name in ("h263", "h263p", "flv1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "vp8", "vp9"):
                # Their decoders output one picture a packet.
                continue
            read = reader_of(name, False, context.extradata)
            assert read is not None
            one, two = (bytes(packet) for packet, _ in zip(container.demux(video=0), range(2), strict=False))
        assert read(memoryview(one + two)).shown != 1, name
