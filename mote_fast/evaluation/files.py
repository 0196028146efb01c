"""Writing a result file whole or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mote_fast.errors import ConfigError
from mote_fast.runtime.files import staged


def make_folder(folder: Path, option: str = "--output") -> None:
    """Make the folder that results go to, before any work is done for them.

    Args:
        folder: its parents are made too.
        option: what the user named it by.

    Raises:
        ConfigError: it cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{option} {folder}: cannot be written ({error})") from error


def write_whole(target: Path, content: bytes) -> None:
    """Write ``content`` to ``target``, whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    with staged(target) as part:
        part.write_bytes(content)
