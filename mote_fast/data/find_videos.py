"""Finds the video files below a folder: each once, wherever links lead."""

from __future__ import annotations

import os
from collections import deque
from pathlib import PurePath
from typing import NamedTuple

# File extensions that are taken for videos.
VIDEO_SUFFIXES = frozenset(
    {".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".3gp"}
)


class FoundVideos(NamedTuple):
    """The sorted paths of videos, relative to the searched folder; and of each unreadable folder why, with its path."""

    paths: list[str]
    unreadable: list[str]


def find_videos(root: str | os.PathLike[str]) -> FoundVideos:
    """Find the files with a video's extension below ``root``; nothing is opened.

    Hidden files and folders, whose names begin with a dot, are left out. Links to folders are followed, after the
    folders that are none. A folder to which several paths lead is searched once, so a circle of links ends.
    """
    root = os.fspath(root) or os.curdir
    found = FoundVideos([], [])
    seen: set[tuple[int, int]] = set()
    folders, links = deque([""]), deque[str]()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        at = os.path.join(root, folder) if folder else root
        try:
            status = os.stat(at)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(at) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            found.unreadable.append(f"{at}: cannot be read ({error.strerror})")
            continue
        for entry in entries:
            path = os.path.join(folder, entry.name)
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append(path)
            elif is_video_name(entry.name):
                found.paths.append(path)
    found.paths.sort()
    return found


def is_video_name(name: str) -> bool:
    """Whether a file of this name is taken for a video."""
    return PurePath(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself. Reading it as a video will report the error.
        return False
