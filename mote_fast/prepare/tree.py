"""Finds a data set's videos by their names in the annotations, in any folder."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from mote_fast.data.items import VIDEO_SUFFIXES
from mote_fast.errors import ListError
from mote_fast.runtime.text import plain


class VideoTree:
    """The video files under a folder, by name without extension.

    Copies of a data set differ in their folders (class folders with spaces or underscores, a folder for each split, or
    none) and in their containers (re-encoded, or as crawled), but rarely in the file names.

    Args:
        root: folder to search, with all folders below it; links to folders are followed.
        ignore_case: also find names that differ in case, for data sets whose files and lists disagree.

    Raises:
        ListError: the folder does not exist, or holds no video.
    """

    def __init__(self, root: str | os.PathLike[str], *, ignore_case: bool = False) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise ListError(f"{self.root}: no such folder; give --root the folder that holds the videos")
        self.ignore_case = ignore_case
        self._paths: defaultdict[str, list[str]] = defaultdict(list)
        for path in tqdm(_walk(self.root), unit="videos", desc="find", disable=None, delay=2):
            self._paths[self._key(PurePosixPath(path).stem)].append(path)
        if not self._paths:
            raise ListError(f"{self.root}: holds no videos; give --root the folder that holds them")

    def find(self, stem: str, *near: str) -> str | None:
        """Return the path, relative to the root, of the video with this name without extension, or None.

        If several files match, the one with most of the folders ``near`` in its path is returned, and of equal ones the
        first by path. The comparison of folder names ignores case, spaces and underscores.
        """
        found = self._paths.get(self._key(stem))
        if not found:
            return None
        wanted = {plain(name) for name in near}

        def rank(path: str) -> tuple[bool, int, str]:
            folders = {plain(part) for part in PurePosixPath(path).parts[:-1]}
            return PurePosixPath(path).stem != stem, -len(wanted & folders), path

        return min(found, key=rank)

    def _key(self, stem: str) -> str:
        return stem.casefold() if self.ignore_case else stem


def _walk(root: Path) -> Iterator[str]:
    seen: set[tuple[int, int]] = set()
    for at, folders, names in os.walk(root, followlinks=True):
        status = os.stat(at)
        # A link to a parent folder would cause an endless walk.
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        for name in names:
            if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith("."):
                yield Path(at, name).relative_to(root).as_posix()
