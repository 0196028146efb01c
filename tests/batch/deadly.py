"""Decoding as the library does it, except that the names of some videos make their process crash or hang."""

from __future__ import annotations

import os
import signal
from pathlib import PurePath
from typing import Any

import pytest

from mote_fast.data.loading import view_frames


def read_or_die(task: Any) -> Any:
    """Read a video as a worker does, or die of it."""
    path = str(task[0])
    name = PurePath(path).name if os.path.exists(path) else ""
    if name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("hang"):
        signal.pause()
    return view_frames.read_crops(task)


def let_names_kill(patch: pytest.MonkeyPatch) -> None:
    """Let new decoding processes die of such names."""
    pool = view_frames.WorkerPool
    patch.setattr(view_frames, "WorkerPool", lambda _, *rest, **options: pool(read_or_die, *rest, **options))
