"""The index of a set of tar shards: lists each shard's samples, so that an epoch's length is known before reading."""

from __future__ import annotations

import os
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, TypeVar

from mote_fast.data.loading.faults import Failure
from mote_fast.errors import ListError, one_line
from mote_fast.runtime.json_text import from_json, to_json
from mote_fast.runtime.reading import read_small

INDEX_FILE = "shards.json"

# Incremented when the layout changes, so that an older reader refuses files that it would misread.
FORMAT = 1

# Bytes of an index; a video takes about ten.
MAX_BYTES = 2**30

# A key has ten digits.
_MOST_VIDEOS = 10**10

T = TypeVar("T")


@dataclass(frozen=True)
class TarShard:
    """One tar file: its name, size in bytes, and the list indices of its videos in order."""

    name: str
    size: int
    indices: tuple[int, ...]


@dataclass(frozen=True)
class ShardIndex:
    """The shards that ``mote-fast prepare shards`` wrote into a folder.

    Attributes:
        folder: folder of the shards.
        shards: in the order of their names.
        left_out: videos of the list that could not be read when the shards were written.
        labels: class names in index order; empty if none were given.
    """

    folder: Path
    shards: tuple[TarShard, ...]
    left_out: tuple[Failure, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """Samples in all shards."""
        return sum(len(shard.indices) for shard in self.shards)

    def document(self) -> str:
        """The text of the index file."""
        content = {
            "format": FORMAT,
            "samples": self.samples,
            "labels": self.labels,
            "left_out": [asdict(failure) for failure in self.left_out],
            "shards": [{"samples": len(shard.indices), **asdict(shard)} for shard in self.shards],
        }
        return to_json(content) + "\n"


def read_shard_index(folder: str | os.PathLike[str]) -> ShardIndex:
    """Read the index of a folder of shards.

    Raises:
        ListError: the index is missing, damaged, of another format, or names a shard outside its folder.
    """
    path = Path(folder) / INDEX_FILE
    try:
        content = from_json(read_small(path, MAX_BYTES).decode())
        if content["format"] != FORMAT:
            raise ListError(f"{path}: has format {content['format']!r:.40}, expected {FORMAT}; write the shards again")
        shards = tuple(_shard(entry) for entry in content["shards"])
        indices = [index for shard in shards for index in shard.indices]
        if len(set(indices)) < len(indices):
            raise ValueError("a video is listed twice")
        left_out = tuple(_left_out(entry) for entry in content["left_out"])
        labels = _list_of(str, content["labels"])
    except FileNotFoundError as error:
        raise ListError(f"{path}: no such file; write it with 'mote-fast prepare shards', which may resume") from error
    except OSError as error:
        raise ListError(f"{path}: cannot be read ({error})") from error
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ListError):
            raise
        raise ListError(f"{path}: damaged ({one_line(error)}); write the shards again") from error
    return ShardIndex(Path(folder), shards, left_out, tuple(labels))


def _shard(entry: Any) -> TarShard:
    name, indices = _of(str, entry["name"]), _list_of(int, entry["indices"])
    if Path(name).name != name or name in ("", "..") or "\0" in name:
        raise ValueError(f"{name!r} is no name of a file in this folder")
    if any(not 0 <= index < _MOST_VIDEOS for index in indices):
        raise ValueError(f"an index in {name!r} is out of range")
    return TarShard(name, _of(int, entry["size"]), tuple(indices))


def _left_out(entry: Any) -> Failure:
    failure = Failure(**entry)
    for value, kind in zip(astuple(failure), (int, str, str, str, bool), strict=True):
        _of(kind, value)
    return failure


def _of(kind: type[T], value: object) -> T:
    # Not isinstance: true is an int too.
    if type(value) is not kind:
        raise TypeError(f"{value!r:.40} in place of {kind.__name__}")
    return value


def _list_of(kind: type[T], values: object) -> list[T]:
    return [_of(kind, value) for value in _of(list, values)]


def key_of(index: int) -> str:
    """The key of a sample in its shard: its video's index in the list, ten digits."""
    return f"{index:010d}"
