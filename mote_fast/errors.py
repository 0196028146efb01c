"""Every error that the library raises on purpose.

Each error names the file or argument at fault and says what to do. All derive from ``MoteError`` and from the built-in
error that a caller would expect, so that ``except ValueError`` and ``except FileNotFoundError`` work.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class _Short(reprlib.Repr):
    """Writes out a few items of a few levels, so that the work is bounded too: a small file can name large values."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 6
        self.maxstring = self.maxother = 120

    def repr_int(self, x: int, level: int) -> str:
        """Describe an integer that Python may refuse to write out."""
        return repr(x) if x.bit_length() <= 256 else f"<an integer of {x.bit_length()} bits>"


_short = _Short()


def quoted(value: object, limit: int = 160) -> str:
    """Return what ``repr`` writes, in at most ``limit`` characters: for messages that show a value of a file."""
    text = _short.repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def one_line(error: BaseException, limit: int = 240) -> str:
    """Return the text of an error on one line of at most ``limit`` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


class MoteError(Exception):
    """Base class of the library's own errors."""


class ConfigError(MoteError, ValueError):
    """An argument or configuration value is out of range or contradicts another."""


class CheckpointError(MoteError, ValueError):
    """A weights file is missing, unreadable, unsafe, or does not fit the model."""


@contextmanager
def naming(source: object) -> Iterator[None]:
    """Put the name of a file before the message of an error about what it describes, unless it is there."""
    try:
        yield
    except (ConfigError, CheckpointError) as error:
        if str(source) in str(error):
            raise
        raise type(error)(f"{source}: {error}") from error


class ActivationMismatchError(CheckpointError):
    """Weights trained with one MLP activation were asked to run with another (the QuickGELU trap)."""


class UntrainedWarning(UserWarning):
    """A model ranks videos although its head or towers are untrained, or know drawn videos alone."""


class LabelError(MoteError, ValueError):
    """A list of class names is empty, or one of its entries cannot be encoded."""


class NotFiniteError(MoteError, ArithmeticError):
    """A model gave features or scores that are NaN or infinite, which rank nothing."""


class ListError(MoteError, ValueError):
    """A list of videos or a file of class names is missing, malformed, or contradicts another."""


class BackendError(MoteError, RuntimeError):
    """A backend was requested explicitly and is not available on this machine."""


class ShapeError(MoteError, ValueError):
    """Tensors given to an operator do not fit together."""


class DerivativeError(MoteError, RuntimeError):
    """A derivative by torch.func or in forward mode was requested from an operator that has none."""


class DoubleBackwardError(DerivativeError):
    """A second derivative was requested from an operator that supports only the first."""


class VideoError(MoteError):
    """A video cannot be read; ``path`` is the file and ``reason`` says why."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = str(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class MissingVideoError(VideoError, FileNotFoundError):
    """The path does not name a file."""


class UndecodableVideoError(VideoError, ValueError):
    """The file holds no video stream, or its frames cannot be decoded."""


class UnreadableVideoError(UndecodableVideoError):
    """The path names no regular file that may be read, or its address cannot be fetched."""


class DecoderCrashError(UndecodableVideoError):
    """The process that decoded the video died, and a second one too."""


class DecodingTimeoutError(UndecodableVideoError):
    """Decoding the video took longer than the time limit."""


class FrameIndexError(VideoError, IndexError):
    """A requested frame lies outside the video."""
