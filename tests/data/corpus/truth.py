"""What playing a file from the start shows: the stream that FFmpeg's command line takes, decoded without seeking."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import av
from av.error import FFmpegError
from av.stream import Disposition

from tests.data.corpus.pictures import cells_of, number_of


class Picture(NamedTuple):
    """A picture of a playback as stored, before any display matrix: its number (None if unreadable) and its size."""

    number: int | None
    width: int
    height: int


class Playback(NamedTuple):
    """All pictures in output order, the decoder's errors, and how many pictures there are if not all are compared."""

    pictures: tuple[Picture, ...]
    broke: str
    more: int = 0

    @property
    def count(self) -> int:
        """How many pictures playing shows."""
        return max(len(self.pictures), self.more)

    @property
    def numbers(self) -> list[int | None]:
        """The numbers in the pictures."""
        return [picture.number for picture in self.pictures]


def play(path: Path) -> Playback:
    """Decode every packet of the chosen stream in file order, and nothing else.

    Raises ``FFmpegError`` or ``ValueError`` if the file does not open, or has no stream with a decoder.
    """
    shown: list[Picture] = []
    errors: list[str] = []
    with av.open(f"file:{path}", metadata_errors="replace") as container:
        stream = choose_stream(container)
        packets = container.demux(stream)
        context = stream.codec_context
        if context is None:
            raise ValueError("no decoder")
        context.thread_count = 1
        done = False
        while not done:
            try:
                packet = next(packets)
            except StopIteration:
                packet = None
            except FFmpegError as error:
                errors.append(str(error))
                packet = None
            done = packet is None or (packet.size == 0 and packet.dts is None)
            # A packet without data would drain the decoder.
            if packet is not None and not done and packet.size == 0:
                continue
            try:
                frames = context.decode(None if done else packet)
            except FFmpegError as error:
                errors.append(str(error))
                continue
            shown += [_picture(frame) for frame in frames]
    return Playback(tuple(shown), "; ".join(errors))


def choose_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The video stream of FFmpeg's command line: default ones first, then the largest; covers last.

    The picture that an animated AVIF shows before it plays is a stream of its own, and playing means the track.
    """

    def score(stream: av.VideoStream) -> tuple[bool, int]:
        if stream.disposition & Disposition.attached_pic:
            return False, 1
        # None where FFmpeg knows no decoder.
        context = stream.codec_context
        pixels = context.width * context.height if context is not None else 0
        return stream.frames != 1, pixels + 5_000_000 * bool(stream.disposition & Disposition.default)

    # Without a video stream this raises ValueError.
    return max(container.streams.video, key=score)


def _picture(frame: av.VideoFrame) -> Picture:
    number = number_of(cells_of(frame.to_ndarray(format="rgb24")))
    return Picture(number, frame.width, frame.height)
