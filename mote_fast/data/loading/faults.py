"""Unreadable videos: each is reported once with its reason, none silently replaced."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mote_fast.errors import ConfigError
from mote_fast.runtime.files import write_text
from mote_fast.runtime.json_text import from_json, to_json
from mote_fast.runtime.parts import writing

logger = logging.getLogger(__name__)

# Kinds of failure that are not error classes.
CRASH = "DecoderCrash"
TIMEOUT = "DecoderTimeout"


@dataclass(frozen=True, slots=True)
class Failure:
    """A video that could not be read: its index in the list, its path, and why.

    ``kind`` is the error's class ("MissingVideoError", "UndecodableVideoError", or another library's such as
    "OSError"), or "DecoderCrash" or "DecoderTimeout". ``lasting`` says that no frame of the video can be read;
    otherwise a frame requested in this epoch failed.
    """

    index: int
    path: str
    kind: str
    reason: str
    lasting: bool = False


class FaultLog:
    """Collects the failures of a run, one report per video, and appends each to a JSON-lines file if one is given.

    Args:
        file: written as failures occur, one JSON object per line. An existing file is continued, and its videos are not
            reported again. A truncated line, as a killed run leaves it, is ignored.

    Raises:
        ConfigError: the file cannot be written.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        # By index and path: the list may have changed since the file was started.
        self._failures: dict[tuple[int, str], Failure] = {}
        if file is not None:
            _check_writable(file)
            for failure in _read(file) if file.exists() else ():
                self._failures[failure.index, failure.path] = failure
        self._summarised = len(self._failures)

    @property
    def failures(self) -> list[Failure]:
        """All failures so far, in the order of their first report."""
        return list(self._failures.values())

    def record(self, failure: Failure) -> None:
        """Report a failure, unless its video was reported before."""
        key = failure.index, failure.path
        if key in self._failures:
            return
        self._failures[key] = failure
        logger.warning("%s: %s", failure.path, failure.reason)
        if self.file is None:
            return
        try:
            with self.file.open("a", encoding="utf-8") as out:
                out.write(to_json(asdict(failure)) + "\n")
        except OSError as error:
            # A full disk, for example, must not end a run of days; the log names the bad videos too.
            logger.warning("%s: cannot be written (%s)", self.file, str(error))

    def end_epoch(self) -> None:
        """Log the summary if there were failures since the last call."""
        if len(self._failures) > self._summarised:
            logger.warning("%s", self.summary())
        self._summarised = len(self._failures)

    def summary(self) -> str:
        """One line with the number of failed videos by kind; empty if none failed."""
        if not self._failures:
            return ""
        kinds = Counter(failure.kind for failure in self._failures.values())
        parts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        where = f"; listed in {self.file}" if self.file is not None else ""
        videos = "video" if len(self._failures) == 1 else "videos"
        return f"{len(self._failures)} {videos} could not be read ({parts}){where}"


def write_faults(failures: Sequence[Failure], file: Path) -> None:
    """Write the failures of one call to a file, in place of those of earlier calls; log each.

    Raises:
        ConfigError: the file cannot be written.
    """
    for failure in failures:
        logger.warning("%s: %s", failure.path, failure.reason)
    if failures:
        write_text(file, "".join(to_json(asdict(failure)) + "\n" for failure in failures))
    else:
        with writing(file):
            file.unlink(missing_ok=True)


def _check_writable(file: Path) -> None:
    """Make the folder of ``file`` and try to write, so that an error shows before the first bad video."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            file.open("a", encoding="utf-8").close()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written ({error}); give another fault file") from error


def _read(file: Path) -> list[Failure]:
    """Read the failures of a log. Ends a truncated last line, so that the next failure starts a new line."""
    text = file.read_text(encoding="utf-8", errors="replace")
    if text and not text.endswith("\n"):
        text += "\n"
        with file.open("a", encoding="utf-8") as out:
            out.write("\n")
    failures = []
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            failures.append(Failure(**from_json(line)))
        except (ValueError, TypeError):
            logger.warning("%s:%d: no whole entry, passed over", file, number)
    return failures
