"""Finds identical video files under several names."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from mote_fast.runtime.reading import open_regular

_CHUNK = 2**20


@dataclass(frozen=True)
class Duplicates:
    """Files with the same content: their paths, sorted, their size in bytes, and the BLAKE2b hash of the content."""

    paths: tuple[str, ...]
    size: int
    digest: str


def find_duplicates(root: Path, sizes: Mapping[str, int], workers: int = 1) -> list[Duplicates]:
    """Group files of equal content; only files of equal size are read.

    Args:
        root: root folder of the files.
        sizes: path relative to ``root`` -> bytes.
        workers: number of reading threads.

    Returns: groups of two or more, sorted by their first path. Unreadable files are in no group.
    """
    by_size: defaultdict[int, list[str]] = defaultdict(list)
    for path, size in sizes.items():
        by_size[size].append(path)
    candidates = [(path, size) for size, paths in by_size.items() if len(paths) > 1 for path in paths]
    by_content: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
    with ThreadPoolExecutor(workers) as pool:
        digests = pool.map(lambda candidate: _digest(root / candidate[0]), candidates)
        progress = tqdm(digests, total=len(candidates), unit="videos", desc="compare", disable=None)
        for (path, size), digest in zip(candidates, progress, strict=True):
            if digest is not None:
                by_content[size, digest].append(path)
    groups = (
        Duplicates(tuple(sorted(paths)), size, digest) for (size, digest), paths in by_content.items() if len(paths) > 1
    )
    return sorted(groups, key=lambda group: group.paths)


def _digest(file: Path) -> str | None:
    state = hashlib.blake2b(digest_size=16)
    try:
        with open_regular(file) as content:
            while chunk := content.read(_CHUNK):
                state.update(chunk)
    except OSError:
        return None
    return state.hexdigest()
