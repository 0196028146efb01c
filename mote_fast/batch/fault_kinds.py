"""The kinds of faults by which the rows of an output are counted and repeated; imports nothing slow."""

from __future__ import annotations

from typing import Literal, TypeAlias

from mote_fast.errors import (
    DecoderCrashError,
    DecodingTimeoutError,
    MissingVideoError,
    MoteError,
    NotFiniteError,
    UndecodableVideoError,
    UnreadableVideoError,
    VideoError,
)

# Why a video has no result: there is no such file; it may not be read, or not be fetched; it is damaged, too large or
# no video; its decoder died twice; its decoder took too long; or the model gave NaN.
FaultKind: TypeAlias = Literal["missing", "unreadable", "undecodable", "crashed", "timed_out", "not_finite"]

# The first class that fits decides.
_KINDS: tuple[tuple[type[MoteError], FaultKind], ...] = (
    (MissingVideoError, "missing"),
    (UnreadableVideoError, "unreadable"),
    (DecoderCrashError, "crashed"),
    (DecodingTimeoutError, "timed_out"),
    (UndecodableVideoError, "undecodable"),
    (VideoError, "undecodable"),
    (NotFiniteError, "not_finite"),
)


def kind_of_fault(error: MoteError) -> FaultKind:
    """Return the kind of a video's error.

    Raises:
        MoteError: the error itself, if it is not about one video.
    """
    for known, kind in _KINDS:
        if isinstance(error, known):
            return kind
    raise error
