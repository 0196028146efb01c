"""A DALI that some files end or stop, for processes to import."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

from mote_fast.data.dali.server import DaliServer
from mote_fast.data.gpu.decode_server import ReadyClip


class DeadlyServer(DaliServer):
    """Files named "crash..." end the process, "hang..." stop it; "late..." end it, but not if they are tried alone."""

    def feed(self, clips: Sequence[ReadyClip]) -> str | None:
        for clip in clips:
            _behave(clip, "crash", "hang", "late")
        return super().feed(clips)

    def attempt(self, clip: ReadyClip, timed: bool) -> float | str:
        _behave(clip, "crash", "hang")
        return super().attempt(clip, timed)


def _behave(clip: ReadyClip, *kinds: str) -> None:
    assert isinstance(clip.source, str)
    name = Path(clip.source).name
    if not name.startswith(kinds):
        return
    if name.startswith("hang"):
        threading.Event().wait()
    # A real fault writes a core file and a trace; what the parent sees is the same.
    os.kill(os.getpid(), signal.SIGSEGV)
