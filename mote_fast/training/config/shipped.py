"""Configurations that come with the package, each found by its name: ``smoke``, ``table1/mse``."""

from __future__ import annotations

import difflib
import os
from itertools import takewhile
from pathlib import Path

from mote_fast.errors import ConfigError, quoted
from mote_fast.runtime.environment import PRESETS

FOLDER = PRESETS / "configs"
_SUFFIX = ".yaml"


def shipped() -> dict[str, Path]:
    """Return the file of every shipped configuration, by name, in the order of the names."""
    files = FOLDER.rglob(f"*{_SUFFIX}")
    return dict(sorted((path.relative_to(FOLDER).as_posix().removesuffix(_SUFFIX), path) for path in files))


def config_path(name: str | Path) -> Path:
    """Return the file that a name means: that of an existing file, otherwise a shipped one.

    A path with a suffix is returned as it is, for its reader to say that it does not exist.

    Raises:
        ConfigError: there is neither a file nor a shipped configuration of that name.
    """
    text = os.fspath(name)
    if os.path.isfile(text):
        return Path(name)
    known = shipped()
    if text in known:
        return known[text]
    if Path(text).suffix:
        return Path(name)
    close = difflib.get_close_matches(text, known, 1, cutoff=0.7)
    meant = f"did you mean {close[0]!r}?" if close else "`mote-fast configs` lists those that come with mote_fast"
    raise ConfigError(f"{quoted(text)}: no such configuration file; {meant}")


def summary(path: Path) -> str:
    """Return the first sentence of the comment that a shipped configuration begins with."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    comment = [line.removeprefix("#").strip() for line in lines]
    return " ".join(comment).split(". ")[0].rstrip(".")
