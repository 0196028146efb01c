"""Whether the library reads a file as it plays: every picture at its index, or a typed error."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from mote_fast.data import available_backends, probe, read_frames
from mote_fast.data.decoding.video_info import VideoInfo
from mote_fast.errors import FrameIndexError, UndecodableVideoError
from tests.data.corpus.pictures import cells_of, number_of, read, turn_back
from tests.data.corpus.truth import Picture, Playback


class Outcome(NamedTuple):
    """What the library makes of one file.

    ``wrong`` has a line for each silent difference and each error that is not typed; ``refused`` maps a backend (or
    "probe") to its typed error's reason.
    """

    wrong: list[str]
    refused: dict[str, str]


def backends() -> list[str]:
    """The names to pass to ``read_frames`` on this machine."""
    return ["auto", *(name for name, reason in available_backends().items() if reason is None)]


def check(path: Path, playback: Playback, orientation: int, seed: int) -> Outcome:
    """Compare ``probe`` and ``read_frames`` with a playback of the file.

    Args:
        path: the video.
        playback: what playing it from the start shows.
        orientation: of the display matrix, one of ``pictures.ORIENTATIONS``.
        seed: of the random indices.
    """
    outcome = Outcome([], {})
    pictures = playback.pictures
    try:
        info = probe(path)
    except UndecodableVideoError as error:
        outcome.refused["probe"] = error.reason
        return outcome
    except Exception as error:
        outcome.wrong.append(f"probe: {type(error).__name__}: {error}")
        return outcome
    if not pictures:
        outcome.wrong.append(f"probe: {info.num_frames} frames in a file that plays none")
        return outcome
    if info.num_frames > len(pictures):
        outcome.wrong.append(f"probe: {info.num_frames} frames, playing shows {len(pictures)}")
    elif info.num_frames < len(pictures):
        _check_beyond(path, info, len(pictures), outcome)
    count = min(info.num_frames, len(pictures))
    for backend in backends():
        _check_read(path, info, backend, range(count), pictures, orientation, outcome)
        for index in _spread(count, info.key_frames, seed):
            _check_read(path, info, backend, [index], pictures, orientation, outcome)
    return outcome


def _check_beyond(path: Path, info: VideoInfo, played: int, outcome: Outcome) -> None:
    """Fewer frames than play are right only in a file known to be damaged, where the rest raise a typed error."""
    try:
        read_frames(path, [info.num_frames], info=info)
    except UndecodableVideoError as error:
        outcome.refused["the rest"] = error.reason
    except FrameIndexError:
        outcome.wrong.append(f"probe: {info.num_frames} frames, playing shows {played}")


def _spread(count: int, keys: Sequence[int], seed: int) -> list[int]:
    draws = random.Random(seed)
    near = {key + step for key in keys for step in (-1, 0, 1)}
    wanted = {0, count - 1, draws.randrange(count), draws.randrange(count)} | set(
        draws.sample(sorted(near), min(3, len(near)))
    )
    return sorted(index for index in wanted if 0 <= index < count)


def _check_read(
    path: Path,
    info: VideoInfo,
    backend: str,
    indices: Sequence[int],
    pictures: Sequence[Picture],
    orientation: int,
    outcome: Outcome,
) -> None:
    what = f"{backend} {indices[0] if len(indices) == 1 else 'all'}"
    try:
        frames = read_frames(path, indices, backend, info=info)
    except UndecodableVideoError as error:
        outcome.refused.setdefault(backend if len(indices) == 1 else f"{backend} all", error.reason)
        return
    except Exception as error:
        outcome.wrong.append(f"{what}: {type(error).__name__}: {error}")
        return
    if frames.shape[1:3] != (info.height, info.width):
        outcome.wrong.append(f"{what}: frames {tuple(frames.shape)}, probe says {info.width}x{info.height}")
    compare(what, frames, [pictures[index] for index in indices], orientation, outcome)
    for frame, picture in zip(frames, (pictures[index] for index in indices), strict=True):
        height, width = turn_back(frame.numpy(), orientation).shape[:2]
        if (height, width) != (picture.height, picture.width):
            outcome.wrong.append(
                f"{what}: a stored picture of {width}x{height}, playing {picture.width}x{picture.height}"
            )
            break


def compare(what: str, frames: torch.Tensor, wanted: Sequence[Picture], orientation: int, outcome: Outcome) -> None:
    """Compare frames, ``[N, H, W, 3]``, with the pictures that they should be; add a line if one differs."""
    got: list[object] = []
    bad = False
    for frame, picture in zip(frames, wanted, strict=True):
        cells = cells_of(turn_back(frame.numpy(), orientation))
        number = number_of(cells)
        # Versions of FFmpeg conceal damage differently: a picture that plays without a readable number may be anything
        # but one of the others, and a readable number decides.
        is_same = number == picture.number or (number is None and picture.number is None)
        bad |= not is_same
        got.append(number if is_same else read(frame.numpy()) or "another picture")
    if bad:
        outcome.wrong.append(f"{what}: wanted {[picture.number for picture in wanted]}, got {got}")
