"""Finds a data set's videos by their names in the annotations, in any folder."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from pathlib import Path, PurePosixPath

from mote_fast.data.find_videos import find_videos
from mote_fast.errors import ListError
from mote_fast.runtime.text import plain

log = logging.getLogger(__name__)


class VideoTree:
    """The video files under a folder, by name without extension.

    Copies of a data set differ in their folders (class folders with spaces or underscores, a folder for each split, or
    none) and in their containers (re-encoded, or as crawled), but rarely in the file names.

    Args:
        root: folder to search, as ``find_videos`` does. A folder that cannot be read is named in the log.
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
        paths, unreadable = find_videos(self.root)
        for reason in unreadable:
            log.warning("%s; its videos count as missing", reason)
        for path in paths:
            self._paths[self._key(PurePosixPath(path).stem)].append(Path(path).as_posix())
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
