"""What an index says of a video, or of a part of one: a row that is added, and a row that is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from mote_fast.errors import ConfigError, quoted

# Bytes of an id or a path, more than any file system allows.
MAX_TEXT = 2**16

# The end of a part: larger whole numbers are not exact in float64.
MAX_SECONDS = 2**53


@dataclass(frozen=True)
class IndexRow:
    """A video, or a part of one.

    Attributes:
        id: unique in an index; must not be empty.
        path: of the video's file; None if there is none.
        start: seconds of presentation time where the part begins; None for the whole video.
        end: where it ends; given with ``start``.

    Raises:
        ConfigError: a value is of another kind, an id or a path is empty or too long, or the end is before the start.
    """

    id: str
    path: str | None = None
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        for name, text in (("id", self.id), ("path", self.path)):
            if text is None and name == "path":
                continue
            if not isinstance(text, str) or not text:
                raise ConfigError(f"the {name} of a row must be a text that is not empty, got {quoted(text)}")
            if len(encoded(text)) > MAX_TEXT:
                raise ConfigError(f"the {name} {quoted(text)} has more than {MAX_TEXT} bytes")
        if self.start is None and self.end is None:
            return
        seconds = [each for each in (self.start, self.end) if isinstance(each, Real)]
        # NaN compares with nothing.
        if len(seconds) < 2 or not 0 <= seconds[0] <= seconds[1] <= MAX_SECONDS:
            given = quoted((self.start, self.end))
            raise ConfigError(f"{quoted(self.id)}: start and end must be seconds, start first, got {given}")


@dataclass(frozen=True)
class Hit:
    """A row that was found.

    Attributes:
        id: see ``IndexRow``.
        path: see ``IndexRow``.
        score: its cosine with the query, in [-1, 1] up to rounding.
        start: see ``IndexRow``.
        end: see ``IndexRow``.
    """

    id: str
    path: str | None
    score: float
    start: float | None = None
    end: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the values by their names, which JSON can hold."""
        return {"id": self.id, "path": self.path, "score": self.score, "start": self.start, "end": self.end}


def encoded(text: str) -> bytes:
    """Return the bytes of an id or a path, which may hold what is not UTF-8, as file names do.

    Raises:
        ConfigError: it holds a surrogate that stands for no byte.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ConfigError(f"{quoted(text)} is no text") from error


def check_distinct(rows: Sequence[IndexRow]) -> None:
    """Check that no id occurs twice.

    Raises:
        ConfigError: one does.
    """
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise ConfigError(f"the id {quoted(row.id)} is given twice")
        seen.add(row.id)
