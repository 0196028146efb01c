"""The index of a set of tar shards: lists each shard's samples, so that an epoch's length is known before reading."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from mote_fast.data.loading.faults import Failure
from mote_fast.errors import ListError
from mote_fast.runtime.json_text import from_json, to_json

INDEX_FILE = "shards.json"

# Incremented when the layout changes, so that an older reader refuses files that it would misread.
FORMAT = 1


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
        ListError: the index is missing, damaged, or of another format.
    """
    path = Path(folder) / INDEX_FILE
    try:
        content = from_json(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ListError(f"{path}: has format {content['format']}, expected {FORMAT}; write the shards again")
        shards = tuple(
            TarShard(str(entry["name"]), int(entry["size"]), tuple(map(int, entry["indices"])))
            for entry in content["shards"]
        )
        left_out = tuple(Failure(**entry) for entry in content["left_out"])
        return ShardIndex(Path(folder), shards, left_out, tuple(content["labels"]))
    except FileNotFoundError as error:
        raise ListError(f"{path}: no such file; write it with 'mote-fast prepare shards', which may resume") from error
    except OSError as error:
        raise ListError(f"{path}: cannot be read ({error})") from error
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ListError):
            raise
        raise ListError(f"{path}: damaged ({error!r}); write the shards again") from error


def key_of(index: int) -> str:
    """The key of a sample in its shard: its video's index in the list, ten digits."""
    return f"{index:010d}"
