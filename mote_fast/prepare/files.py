"""Writing several text files: each whole or not at all, and none over an earlier one unless asked to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mote_fast.errors import ConfigError
from mote_fast.runtime.files import staged


def check_writable(folder: Path, names: Iterable[str], force: bool) -> None:
    """Check, before any work is done, that none of the files is there yet.

    Raises:
        ConfigError: one is, and ``force`` is not set; or ``folder`` is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder; give another --output")
    for name in names:
        if not force and (folder / name).exists():
            raise ConfigError(f"{folder / name}: exists; give --force to replace it, or another --output")


def write_files(folder: Path, contents: Mapping[str, str], force: bool = False) -> None:
    """Write the texts into ``folder``, which is made if missing; each file is replaced in one step.

    Raises:
        ConfigError: a file exists, and ``force`` is not set, and then nothing is written; or one cannot be written.
    """
    check_writable(folder, contents, force)
    for name, text in contents.items():
        with staged(folder / name) as part:
            part.write_text(text, encoding="utf-8", newline="\n")
