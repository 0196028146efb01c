"""Frame features of a list of videos on disk: what a frozen image tower gives for the views of each.

A folder holds safetensors files of some videos each, and ``features.json``, which is written last: it names the files,
the videos that could not be read, and what the features were made of.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mote_fast.data.items import VideoItem
from mote_fast.data.loading.faults import Failure
from mote_fast.data.plan import ClipRecipe
from mote_fast.errors import ConfigError, ListError, one_line, quoted
from mote_fast.runtime.json_text import from_json, to_json
from mote_fast.runtime.reading import read_small
from mote_fast.runtime.weights import read_weights
from mote_fast.version import __version__

INDEX_FILE = "features.json"

# The tensor of a file.
TENSOR = "features"

# Incremented when the layout changes, so that an older reader refuses files that it would misread.
FORMAT = 1

# Bytes of an index; a video takes about ten.
MAX_BYTES = 2**30

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}


@dataclass(frozen=True)
class FeatureFile:
    """One file: its name, and the list indices of its rows' videos in order."""

    name: str
    indices: tuple[int, ...]


@dataclass(frozen=True)
class FeatureIndex:
    """The features of a list.

    Attributes:
        source: what they were made of, see ``source_of``.
        shape: (V, T, d) of one video: views, frames, width of the features.
        dtype: "float32", "bfloat16" or "float16", as the tower gave them.
        files: in the order of the list.
        failures: videos that could not be read.
    """

    source: Mapping[str, Any]
    shape: tuple[int, int, int]
    dtype: str
    files: tuple[FeatureFile, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def videos(self) -> int:
        """Number of videos with features."""
        return sum(len(file.indices) for file in self.files)

    def document(self) -> str:
        """The text of the index file."""
        return to_json({"format": FORMAT, **asdict(self)}) + "\n"


def source_of(
    recipe: ClipRecipe, items: Sequence[VideoItem], root: str, *, weights: str, precision: str
) -> dict[str, Any]:
    """Return what decides the features of a list, by names that a user knows; equal sources give equal features.

    Args:
        recipe: how videos become clips; its augmentation and mirrored labels have no part in it.
        items: the list.
        root: base folder of its paths, which may change.
        weights: fingerprint of the image tower.
        precision: see ``optim.precision``.
    """
    below = os.path.join(root, "") if root else ""
    digest = hashlib.sha256()
    for item in items:
        digest.update(to_json([item.path.removeprefix(below), item.num_frames]).encode() + b"\n")
    return {
        "the version of mote_fast": __version__,
        "the image tower": weights,
        "the paths of the list": digest.hexdigest(),
        "data.frames": recipe.frames,
        "data.views": f"{recipe.views.clips}x{recipe.views.crops}",
        "data.dense": recipe.dense,
        "data.pixel_aspect": recipe.pixel_aspect,
        "data.crops_along": recipe.crops_along,
        "optim.precision": precision,
        # As JSON gives it back.
        "the preprocessing": from_json(to_json(asdict(recipe.preprocessing))),
    }


def check_source(found: Mapping[str, Any], wanted: Mapping[str, Any], where: Path) -> None:
    """Check that features were made of what is wanted.

    Raises:
        ConfigError: something differs; the message names it.
    """
    for name in {**wanted, **found}:
        ours, theirs = wanted.get(name), found.get(name)
        if ours == theirs:
            continue
        # Hashes tell nobody anything.
        shown = "differs" if name.startswith("the ") else f"was {quoted(theirs)}, is now {quoted(ours)}"
        raise ConfigError(
            f"{where}: {name} {shown}; write the features into another folder with `mote-fast prepare features`"
        )


class StoredFeatures:
    """Complete features of a list; their files are mapped into memory as they are needed.

    Args:
        folder: where they are.
        wanted: the source that they must have, see ``source_of``.

    Raises:
        ListError: the folder holds no index, or a damaged one.
        ConfigError: they were made of something else.
    """

    def __init__(self, folder: Path, wanted: Mapping[str, Any]) -> None:
        self.folder = folder
        self.index = _read_index(folder / INDEX_FILE)
        check_source(self.index.source, wanted, folder)
        self.dtype = _DTYPES[self.index.dtype]
        self.failures = {failure.index: failure for failure in self.index.failures}
        self._places = {index: (file, row) for file in self.index.files for row, index in enumerate(file.indices)}
        self._open: dict[str, Tensor] = {}

    def failure(self, index: int) -> Failure | None:
        """Return why a video has no features, None if it has.

        Raises:
            ListError: the index lacks the video.
        """
        if index not in self._places and index not in self.failures:
            raise ListError(f"{self.folder / INDEX_FILE}: lacks video {index} of the list; write the features again")
        return self.failures.get(index)

    def gather(self, indices: Sequence[int], out: Tensor) -> None:
        """Copy the features of videos that have them into ``out [len(indices), V, T, d]``.

        Raises:
            ListError: a file is damaged.
            CheckpointError: a file cannot be read.
        """
        if indices:
            torch.stack([self._row(index) for index in indices], out=out)

    def _row(self, index: int) -> Tensor:
        file, at = self._places[index]
        found = self._open.get(file.name)
        if found is None:
            found = self._open[file.name] = self._read_file(file)
        return found[at]

    def _read_file(self, file: FeatureFile) -> Tensor:
        path = self.folder / file.name
        found = read_weights(path).get(TENSOR)
        wanted = (len(file.indices), *self.index.shape)
        if not isinstance(found, Tensor) or (tuple(found.shape), found.dtype) != (wanted, self.dtype):
            raise ListError(f"{path}: holds no {self.index.dtype} features {list(wanted)}; write the features again")
        return found


def _read_index(path: Path) -> FeatureIndex:
    try:
        content = from_json(read_small(path, MAX_BYTES).decode())
        if content["format"] != FORMAT:
            raise ValueError(f"format {quoted(content['format'])} instead of {FORMAT}")
        files = tuple(_file(entry) for entry in content["files"])
        indices = [index for file in files for index in file.indices]
        if len(set(indices)) < len(indices):
            raise ValueError("a video is listed twice")
        views, frames, width = content["shape"]
        if not all(type(size) is int and size > 0 for size in (views, frames, width)):
            raise ValueError(f"shape {quoted(content['shape'])}")
        if content["dtype"] not in _DTYPES or not isinstance(content["source"], dict):
            raise ValueError("its dtype or its source is none")
        failures = tuple(Failure(**entry) for entry in content["failures"])
        return FeatureIndex(content["source"], (views, frames, width), content["dtype"], files, failures)
    except FileNotFoundError as error:
        raise ListError(
            f"{path}: no such file; write it with `mote-fast prepare features`, which goes on where it was interrupted"
        ) from error
    except OSError as error:
        raise ListError(f"{path}: cannot be read ({error})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ListError(f"{path}: damaged ({one_line(error)}); write the features again") from error


def _file(entry: Any) -> FeatureFile:
    name, indices = entry["name"], entry["indices"]
    if Path(name).name != name or not name.endswith(".safetensors"):
        raise ValueError(f"{quoted(name)} is no name of a file in this folder")
    if not all(type(index) is int and index >= 0 for index in indices):
        raise ValueError(f"an index in {quoted(name)} is none")
    return FeatureFile(name, tuple(indices))
