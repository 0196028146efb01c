"""The PyAV backend: decodes chosen frames of an indexed video.

Every frame that the decoder outputs is compared with the index, so that a file whose index is wrong is noticed.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from av.error import FFmpegError
from av.video.frame import VideoFrame

from mote_fast.data.decoding.frame_converter import FrameConverter, rgb_pixels
from mote_fast.data.decoding.orientation import orientation_of
from mote_fast.data.decoding.video_info import (
    CORRUPT,
    DamageError,
    DecodeBudget,
    VideoInfo,
    decode_packets,
    intact_frames,
    is_entry,
    open_video,
)
from mote_fast.errors import UndecodableVideoError, one_line

logger = logging.getLogger(__name__)

# Decoders that skip non-reference frames at no cost.
_SKIPPING_CODECS = frozenset({"h264", "hevc"})


def why_unavailable() -> str | None:
    """Return None: PyAV bundles FFmpeg, and this module does not import without PyAV."""
    return None


class _OrderError(Exception):
    """The decoder outputs frames in another order than the index has them."""


def read(source: str | bytes, info: VideoInfo, indices: Sequence[int], num_threads: int) -> torch.Tensor:
    """Decode the frames at ascending distinct ``indices`` of an indexed video: uint8 ``[len(indices), H, W, 3]``.

    Raises ``UndecodableVideoError`` if one of them cannot be decoded.
    """
    jumps, skip, by_pts = _plan_jumps(indices, info), can_skip(info), info.timeline.by_pts
    if jumps or skip:
        try:
            return _read(source, info, indices, _Walk(jumps, skip, by_pts), num_threads)
        except (DamageError, FFmpegError, _OrderError) as error:
            # Skipping delays the decoder's output, so damage after a wanted frame can lose that frame.
            logger.debug("%s: decoding every frame from the start instead: %s", info.path, one_line(error))
    try:
        try:
            return _read(source, info, indices, _Walk({}, False, by_pts), num_threads)
        except _OrderError as error:
            logger.debug("%s: counting frames instead: %s", info.path, str(error))
            return _read(source, info, indices, _Walk({}, False, False), num_threads)
    except (DamageError, FFmpegError) as error:
        raise UndecodableVideoError(info.path, f"a frame cannot be decoded ({one_line(error)})") from error


class _Walk(NamedTuple):
    """A way through a file.

    ``jumps`` maps wanted frames to the key frame to seek to, ``skip`` leaves out frames that are neither wanted nor
    references, and ``by_pts`` identifies frames by their timestamps instead of counting them.
    """

    jumps: dict[int, int]
    skip: bool
    by_pts: bool


def _plan_jumps(indices: Sequence[int], info: VideoInfo) -> dict[int, int]:
    """Map wanted frames to the key frame to seek to, where one lies between the previous wanted frame and this one."""
    jumps: dict[int, int] = {}
    before = -1
    for index in indices:
        at = bisect_right(info.key_frames, index) - 1
        if info.timeline.by_pts and at >= 0 and info.key_frames[at] > before + 1:
            jumps[index] = info.key_frames[at]
        before = index
    return jumps


def _read(source: str | bytes, info: VideoInfo, indices: Sequence[int], walk: _Walk, num_threads: int) -> torch.Tensor:
    out: np.ndarray | None = None
    images = _wanted_images(source, info, indices, walk, num_threads)
    for row, (index, image) in enumerate(zip(indices, images, strict=True)):
        if out is None:
            out = np.empty((len(indices), *image.shape), np.uint8)
        if image.shape != out.shape[1:]:
            raise UndecodableVideoError(
                info.path,
                f"frame {index} is {image.shape[1]}x{image.shape[0]} pixels and the ones before it "
                f"{out.shape[2]}x{out.shape[1]}; re-encode the video to one size",
            )
        out[row] = image
    assert out is not None
    return torch.from_numpy(out)


def _wanted_images(
    source: str | bytes, info: VideoInfo, indices: Sequence[int], walk: _Walk, num_threads: int
) -> Iterator[np.ndarray]:
    """Decode the frames at ascending distinct ``indices``, in this order, as images ``[H, W, 3]``."""
    pts = info.timeline.pts
    to_rgb = RgbConverter(source, info.path, info.timeline.time_base, num_threads)
    budget = DecodeBudget(info.path)
    with open_video(source, info.path, num_threads) as (container, stream):
        wanted = {pts[index] for index in indices} if walk.skip else None
        frames = intact_frames(container, stream, budget, wanted=wanted)
        number, start = -1, 0
        for index in indices:
            if index in walk.jumps:
                start = walk.jumps[index]
                target, number = pts[start], start - 1
                assert target is not None
                container.seek(target, stream=stream)
                frames = intact_frames(container, stream, budget, after_seek=True, wanted=wanted)
            for frame in frames:
                number = _number(frame, number, start, pts) if walk.by_pts else number + 1
                if number >= index:
                    break
            else:
                raise DamageError(f"the file ends before frame {index}")
            if number != index:
                raise DamageError(f"frame {index} is not where the file's packets place it")
            if frame.is_corrupt:
                raise DamageError(CORRUPT)
            yield to_rgb(frame)


def _number(frame: VideoFrame, before: int, start: int, pts: Sequence[int | None]) -> int:
    """The index of a frame by its timestamp, given that of the one before it; ``start - 1`` for a frame before start.

    After seeking, the pictures that an open group shows before its key frame come first.
    """
    stamp, first = frame.pts, pts[start]
    if stamp is None or first is None:
        raise _OrderError("a frame without a timestamp")
    if stamp < first and before < start:
        return before
    found = bisect_left(pts, stamp, before + 1)  # pyright: ignore[reportArgumentType]
    if found == len(pts) or pts[found] != stamp:
        raise _OrderError(f"timestamp {stamp} after frame {before}")
    return found


def read_readable(
    source: str | bytes, info: VideoInfo, indices: Sequence[int], num_threads: int
) -> tuple[torch.Tensor, dict[int, int]]:
    """Decode as ``read`` does, but take the nearest readable frame for one that cannot be decoded.

    Returns the frames, and the index of the frame that stands in for each one that is missing. Raises
    ``UndecodableVideoError`` if fewer than half of the frames can be decoded.
    """
    to_rgb = RgbConverter(source, info.path, info.timeline.time_base, num_threads)
    images: dict[int, np.ndarray] = {}
    choice: dict[int, int] = {}

    def choose(index: int, number: int, frame: VideoFrame) -> None:
        if number not in images:
            images[number] = to_rgb(frame).copy()
        choice[index] = number

    before: tuple[int, VideoFrame] | None = None
    waiting = list(reversed(indices))
    for number, frame in _readable_frames(source, info, num_threads):
        while waiting and waiting[-1] <= number:
            index = waiting.pop()
            if before is not None and index - before[0] <= number - index and index != number:
                choose(index, *before)
            else:
                choose(index, number, frame)
        before = number, frame
        if not waiting:
            break
    if before is not None:
        for index in waiting:
            choose(index, *before)
    missing = {index: number for index, number in choice.items() if index != number}
    if len(choice) < len(indices) or 2 * len(missing) > len(indices):
        raise UndecodableVideoError(info.path, f"{len(indices) - len(choice) + len(missing)} of {len(indices)} frames")
    chosen = [images[choice[index]] for index in indices]
    if len({image.shape for image in chosen}) > 1:
        raise UndecodableVideoError(info.path, "its frames differ in size; re-encode the video to one size")
    return torch.from_numpy(np.stack(chosen)), missing


class StreamedFrame(NamedTuple):
    """A frame of ``stream``: the index wanted, that of the frame given, and the image, uint8 ``[H, W, 3]``.

    ``image`` is a view of memory that lives as long as the view.
    """

    wanted: int
    number: int
    image: np.ndarray


def stream(
    source: str | bytes, info: VideoInfo, indices: Sequence[int], num_threads: int = 1
) -> Generator[StreamedFrame, None, None]:
    """Decode the frames at ascending distinct ``indices`` one after another; the memory holds one at a time.

    As for ``read_readable``, the nearest readable frame stands in for one that cannot be decoded. Raises
    ``UndecodableVideoError`` where no frame can be decoded, and at the end if fewer than half of them could.
    """
    jumps, skip, by_pts = _plan_jumps(indices, info), can_skip(info), info.timeline.by_pts
    walks = [_Walk({}, False, False), _Walk({}, False, by_pts)]
    if jumps or skip:
        walks.append(_Walk(jumps, skip, by_pts))
    done = 0
    while walks:
        walk, rest = walks.pop(), indices[done:]
        try:
            for index, image in zip(rest, _wanted_images(source, info, rest, walk, num_threads), strict=True):
                yield StreamedFrame(index, index, image)
                done += 1
            return
        except (DamageError, FFmpegError, _OrderError) as error:
            logger.debug("%s: streaming from frame %d differently: %s", info.path, rest[0], one_line(error))
            # To count frames helps against wrong times, and not against damage.
            if not walk.skip and not walk.jumps and not isinstance(error, _OrderError):
                break
    yield from _stream_readable(source, info, indices, done, num_threads)


def _stream_readable(
    source: str | bytes, info: VideoInfo, indices: Sequence[int], done: int, num_threads: int
) -> Iterator[StreamedFrame]:
    """Give the frames at ``indices[done:]``, or the nearest readable ones."""
    to_rgb = RgbConverter(source, info.path, info.timeline.time_base, num_threads)
    before: tuple[int, VideoFrame] | None = None
    at, missing = done, 0
    for number, frame in _readable_frames(source, info, num_threads):
        while at < len(indices) and indices[at] <= number:
            index = indices[at]
            is_nearer = before is not None and index != number and index - before[0] <= number - index
            chosen = before if is_nearer and before is not None else (number, frame)
            yield StreamedFrame(index, chosen[0], to_rgb(chosen[1]))
            at, missing = at + 1, missing + (chosen[0] != index)
        before = number, frame
        if at == len(indices):
            break
    for index in indices[at:] if before is not None else ():
        assert before is not None
        yield StreamedFrame(index, before[0], to_rgb(before[1]))
        missing += 1
    if before is None or 2 * missing > len(indices):
        raise UndecodableVideoError(info.path, f"{missing or len(indices)} of {len(indices)} frames cannot be decoded")


def _readable_frames(source: str | bytes, info: VideoInfo, num_threads: int) -> Iterator[tuple[int, VideoFrame]]:
    """The intact frames from the start, with their indices.

    What follows damage is predicted from it until the next key frame, and therefore left out.
    """
    by_pts, number = info.timeline.by_pts, -1
    place = {stamp: at for at, stamp in enumerate(info.timeline.pts)}
    is_damaged, damaged_at = False, None
    with open_video(source, info.path, num_threads) as (container, stream):
        for packet, frames in decode_packets(container, stream, DecodeBudget(info.path)):
            if frames is None and packet is not None:
                is_damaged, damaged_at = True, packet.pts
            for frame in frames or ():
                number += 1
                index = place.get(frame.pts) if by_pts else number
                # A key frame that was decoded before the damage may be output after it.
                if is_entry(frame) and frame.pts is not None and damaged_at is not None and frame.pts > damaged_at:
                    is_damaged = False
                if frame.is_corrupt:
                    is_damaged, damaged_at = True, frame.pts
                if index is not None and not is_damaged:
                    yield index, frame


def can_skip(info: VideoInfo) -> bool:
    """Whether reading skips the frames that are neither wanted nor used as references."""
    # A packet's timestamp must be its frame's, and the decoder must know which frames are references.
    return info.codec in _SKIPPING_CODECS and info.timeline.by_pts and bool(info.timeline.packet_pts)


class RgbConverter:
    """Converts the frames of a file to RGB images as torchcodec does, turned and mirrored as they are shown."""

    def __init__(self, source: str | bytes, label: str, time_base: Fraction, num_threads: int) -> None:
        self._source = source
        self._convert = FrameConverter(label, time_base, [("format", "rgb24")], num_threads)

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """Return uint8 ``[H, W, 3]``, a view that keeps the converted frame's memory alive."""
        return orientation_of(frame, self._source).apply(rgb_pixels(self._convert(frame)))
