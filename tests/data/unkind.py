"""Data sets whose decoder crashes or hangs if a path says so, for workers to import."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

from mote_fast.data.dataset import Clip, VideoDataset
from mote_fast.data.items import VideoItem
from mote_fast.data.plan import ClipRecipe


class UnkindDataset(VideoDataset):
    """Videos, some of which end or stop the process that decodes them.

    Args:
        sound: the video behind every item.
        behaviors: of each item: "sound", "crash" (segmentation fault), "crash once", "hang", "hang holding the GIL",
            "exit" or "missing".
        marks: a folder in which "crash once" records that it crashed.
        recipe: how videos become clips.
    """

    def __init__(self, sound: Path, behaviors: Sequence[str], marks: Path, recipe: ClipRecipe) -> None:
        items = [
            VideoItem(f"{sound}.gone" if behavior == "missing" else str(sound), 10 * index)
            for index, behavior in enumerate(behaviors)
        ]
        super().__init__(items, recipe)
        self._behaviors = behaviors
        self._marks = marks

    def load(self, index: int, epoch: int = 0) -> Clip:
        behavior = self._behaviors[index]
        mark = self._marks / str(index)
        if behavior == "crash" or (behavior == "crash once" and not mark.exists()):
            mark.touch()
            # A real fault writes a core file and a trace; what the parent sees is the same.
            os.kill(os.getpid(), signal.SIGSEGV)
        if behavior == "exit":
            os._exit(3)
        if behavior == "hang":
            threading.Event().wait()
        if behavior == "hang holding the GIL":
            ctypes.pythonapi.PyThread_acquire_lock(ctypes.c_void_p(_taken_lock()), 1)
        return super().load(index, epoch)


def _taken_lock() -> int:
    """A locked lock. ``ctypes.pythonapi`` keeps the GIL, so waiting for it stops every thread."""
    ctypes.pythonapi.PyThread_allocate_lock.restype = ctypes.c_void_p
    lock = ctypes.pythonapi.PyThread_allocate_lock()
    ctypes.pythonapi.PyThread_acquire_lock(ctypes.c_void_p(lock), 1)
    return lock
