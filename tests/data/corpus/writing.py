"""Writes the video of a recipe, with PyAV's own encoders."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition

from tests.data.corpus import edits
from tests.data.corpus.edits import PACKET_EDITS, Piece, state_orientation
from tests.data.corpus.pictures import draw
from tests.data.corpus.recipes import ENCODERS, MUXERS, Recipe

_COLORS = {"bt709": 1, "smpte170m": 6}


class UnwritableError(Exception):
    """The encoder or the container refuses the recipe: there is no such file."""


def write(recipe: Recipe, folder: Path, name: str = "video") -> Path:
    """Write the video of a recipe into ``folder``.

    Raises ``UnwritableError`` if the encoder is missing, or it or the container refuses.
    """
    path = folder / f"{name}.{recipe.container}"
    draws = random.Random(recipe.seed)
    try:
        _write(recipe, path, draws)
        _edit(recipe, path, draws)
    except (FFmpegError, ValueError, OSError, TypeError) as error:
        path.unlink(missing_ok=True)
        raise UnwritableError(f"{recipe}: {error}") from error
    if not path.stat().st_size:
        raise UnwritableError(f"{recipe}: an empty file")
    return path


def _write(recipe: Recipe, path: Path, draws: random.Random) -> None:
    width, height = ENCODERS[recipe.codec].size
    with av.open(str(path), "w", format=_muxer(path)) as file:
        packets = _cover(file) if recipe.lie == "cover" else []
        streams = [_add(file, recipe, width, height)]
        if recipe.lie == "second_stream":
            streams.append(_add(file, recipe, width // 2, height // 2))
        elif recipe.lie == "larger_second_stream":
            streams.append(_add(file, recipe, width * 2, height * 2))
        elif recipe.lie == "noisy_second_stream":
            streams.append(_add(file, recipe, width, height))
            # As the colours and the alpha plane of an AVIF.
            for stream in streams:
                stream.disposition = Disposition.default
        unit, stamps = _stamps(recipe, draws)
        encoded = [_encode(streams[0], [draw(n, width, height) for n in range(len(stamps))], stamps, unit)]
        encoded += [_encode(stream, _others(recipe, stream), stamps, unit) for stream in streams[1:]]
        encoded[0] = _edit_packets(recipe, streams[0], encoded[0], draws)
        packets += [packet for stream_packets in encoded for packet in stream_packets]
        # In the order of decoding, each stream's own order kept; one without a time goes first.
        if len(streams) > 1:
            packets.sort(key=lambda packet: packet.dts * packet.time_base if packet.dts is not None else -1)
        for packet in packets:
            file.mux_one(packet)


def _others(recipe: Recipe, stream: av.VideoStream) -> list[np.ndarray]:
    """The pictures of a second stream: other numbers, or noise of a high bit rate, so that a mistaken stream shows."""
    if recipe.lie == "noisy_second_stream":
        noise = np.random.default_rng(recipe.seed)
        return [noise.integers(0, 256, (stream.height, stream.width, 3), np.uint8) for _ in range(recipe.frames)]
    return [draw(63 - number, stream.width, stream.height) for number in range(recipe.frames)]


def _cover(file: av.container.OutputContainer) -> list[av.Packet]:
    """A still picture before the video, as a file's cover."""
    stream = file.add_stream("mjpeg", rate=25)
    stream.width, stream.height, stream.pix_fmt = 640, 480, "yuvj420p"
    stream.disposition = Disposition.attached_pic
    grey = av.VideoFrame.from_ndarray(np.full((480, 640, 3), 90, np.uint8), format="rgb24")
    return [*stream.encode(grey), *stream.encode(None)]


def _muxer(path: Path) -> str | None:
    return MUXERS.get(path.suffix[1:])


def _add(file: av.container.OutputContainer, recipe: Recipe, width: int, height: int) -> av.VideoStream:
    encoder = ENCODERS[recipe.codec]
    if encoder.name not in av.codecs_available:
        raise UnwritableError(f"this PyAV has no encoder {encoder.name}")
    stream = file.add_stream(encoder.name, rate=recipe.rate or Fraction(25), options=_options(recipe))
    assert isinstance(stream, av.VideoStream)
    stream.width, stream.height, stream.pix_fmt = width, height, recipe.pix_fmt
    if not recipe.rate:
        stream.codec_context.time_base = Fraction(1, 1000)
    if recipe.color:
        stream.codec_context.colorspace = _COLORS[recipe.color]
    if recipe.full_range:
        stream.codec_context.color_range = 2
    # One thread, and no lookahead of other threads: files are the same on every machine.
    stream.codec_context.thread_count = 1
    return stream


def _options(recipe: Recipe) -> dict[str, str]:
    encoder = ENCODERS[recipe.codec]
    options = dict(encoder.options)
    if encoder.gop:
        options["g"] = str(recipe.gop)
    if recipe.codec == "h264":
        options |= {"bf": str(recipe.b_frames), "sc_threshold": "0"}
        params = [
            f"open-gop={int(recipe.open_gop)}",
            f"b-pyramid={2 * recipe.pyramid}",
            "b-adapt=0",
            f"bframes={recipe.b_frames}",
        ]
        params += ["interlaced=1"] if recipe.interlaced else []
        options["x264-params"] = ":".join([*params, "threads=1"])
    elif recipe.codec == "hevc":
        params = [
            "log-level=none:pools=none:frame-threads=1:scenecut=0:b-adapt=0",
            f"keyint={recipe.gop}:min-keyint={min(recipe.gop, 12)}:bframes={recipe.b_frames}",
            f"open-gop={int(recipe.open_gop)}:b-pyramid={int(recipe.pyramid)}",
        ]
        options["x265-params"] = ":".join(params)
    elif encoder.b_frames:
        options |= {"bf": str(recipe.b_frames), "sc_threshold": "1000000000", "b_strategy": "0"}
        flags = [] if recipe.open_gop or recipe.b_frames == 0 else ["cgop"] if recipe.codec == "mpeg2" else []
        flags += ["ildct", "ilme"] if recipe.interlaced else []
        if flags:
            options["flags"] = "+" + "+".join(flags)
    return options


def _stamps(recipe: Recipe, draws: random.Random) -> tuple[Fraction, list[int]]:
    """The time base and the time stamp of each picture."""
    if recipe.rate:
        return 1 / recipe.rate, [recipe.start + number for number in range(recipe.frames)]
    stamps = [40 * recipe.start]
    for _ in range(recipe.frames - 1):
        stamps.append(stamps[-1] + draws.choice((10, 20, 40, 90, 500)))
    return Fraction(1, 1000), stamps


def _encode(
    stream: av.VideoStream, images: Sequence[np.ndarray], stamps: Sequence[int], unit: Fraction
) -> list[av.Packet]:
    packets: list[av.Packet] = []
    for image, stamp in zip(images, stamps, strict=True):
        frame = _frame(image, stream.pix_fmt)
        frame.pts, frame.time_base = stamp, unit
        packets += stream.encode(frame)
    return [*packets, *stream.encode(None)]


def _frame(image: np.ndarray, pix_fmt: str | None) -> av.VideoFrame:
    if pix_fmt != "pal8":
        return av.VideoFrame.from_ndarray(image, format="rgb24")
    # FFmpeg does not convert to a palette. This one has white at an odd place.
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 0] = palette[7] = 255
    return av.VideoFrame.from_ndarray((7 * (image[..., 0] > 127).astype(np.uint8), palette), format="pal8")


def _edit_packets(
    recipe: Recipe, stream: av.VideoStream, packets: list[av.Packet], draws: random.Random
) -> list[av.Packet]:
    edit = state_orientation(recipe.orientation) if recipe.by_message else PACKET_EDITS.get(recipe.lie)
    if edit is None:
        return packets
    base = packets[0].time_base
    # Times in thousandths of a picture's, so that there is room between two.
    step = 1000 * round(1 / (recipe.rate or 25) / base)
    pieces = []
    for packet in packets:
        dts = packet.dts if packet.dts is not None else packet.pts or 0
        pts = packet.pts if packet.pts is not None else dts
        pieces.append(Piece(bytes(packet), 1000 * pts, 1000 * dts, packet.is_keyframe, step))
    edited = []
    for piece in edit(pieces, draws, recipe.codec):
        packet = av.Packet(piece.data)
        packet.pts, packet.dts, packet.duration = piece.pts, piece.dts, piece.step
        packet.time_base = base / 1000
        packet.is_keyframe, packet.stream = piece.key, stream
        edited.append(packet)
    return edited


def _edit(recipe: Recipe, path: Path, draws: random.Random) -> None:
    """The changes of bytes that a recipe asks for."""
    if recipe.lie == "no_stss":
        edits.hide_box(path, b"stss")
    elif recipe.lie == "wrong_stss":
        edits.shift_stss(path, draws)
    elif recipe.lie == "no_ctts":
        edits.hide_box(path, b"ctts")
    elif recipe.lie == "edit_list":
        edits.start_later(path, draws.randint(1, recipe.frames - 1), float(recipe.rate or 25))
    elif recipe.lie == "comment":
        edits.comment_gif(path)
    elif recipe.lie == "garbage":
        edits.append_garbage(path, draws)
    if recipe.matrix or (recipe.orientation and not recipe.by_message):
        edits.set_matrix(path, recipe.orientation, recipe.matrix)
