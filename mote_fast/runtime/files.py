"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mote_fast.errors import ConfigError, MoteError


@contextmanager
def staged(target: Path, error: type[MoteError] = ConfigError) -> Iterator[Path]:
    """Give a path beside ``target`` to write to, which becomes ``target`` in one step where the block succeeds.

    The content is on disk before the name is, and what an interrupted earlier attempt left is overwritten.

    Args:
        target: its folder is made if missing.
        error: what a failure to write raises, with the target's name.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as cause:
        raise error(f"{target}: cannot be written ({cause})") from cause
