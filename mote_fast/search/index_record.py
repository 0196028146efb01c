"""index.json: which model an index belongs to, how its videos were embedded, and which files hold its rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from mote_fast.data.decoding.video_info import PixelAspect
from mote_fast.data.transforms import CropsAlong
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError, ListError, one_line, quoted
from mote_fast.runtime.checks import check_choice, check_count
from mote_fast.runtime.json_text import from_json, to_json
from mote_fast.runtime.reading import check_inside, read_small

RECORD_FILE = "index.json"

# Raised when older code cannot read the new format.
FORMAT = 1

# Bytes of index.json; a file of rows takes about 150.
MAX_RECORD = 2**24
MAX_SEGMENTS = 2**16
# Rows of one file, and the width of vectors; their product is compared with the file's size.
MAX_ROWS = 2**31 - 1
MAX_DIMENSION = 2**16

# Seconds of a moment.
MIN_MOMENT = 0.01
MAX_MOMENT = 86400

# What a video's embedding is made of: temporal features in full, as `embed` gives them.
Features: TypeAlias = Literal["temporal"]

_FILE = re.compile(r"(rows|deleted)-[0-9a-f]{32}\.safetensors")
_GRAPH = re.compile(r"graph-[0-9a-f]{32}\.usearch")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Embedding:
    """How the videos of an index were embedded; see the attributes of ``VideoClassifier``.

    Attributes:
        moments: seconds of each moment of a video, which has a row of its own; None has a row for each video.
    """

    features: Features
    views: str
    frames: int
    pixel_aspect: PixelAspect
    crops_along: CropsAlong
    moments: float | None = None

    def __post_init__(self) -> None:
        check_choice("features", self.features, Features)
        Views.parse(self.views)
        check_count("frames", self.frames, 1, 2**12)
        check_choice("pixel_aspect", self.pixel_aspect, PixelAspect)
        check_choice("crops_along", self.crops_along, CropsAlong)
        if self.moments is None:
            return
        # NaN compares with nothing.
        if not isinstance(self.moments, int | float) or not MIN_MOMENT <= self.moments <= MAX_MOMENT:
            raise ConfigError(f"moments must be seconds, from {MIN_MOMENT} to {MAX_MOMENT}, got {quoted(self.moments)}")
        if self.views != "1x1":
            raise ConfigError(f"a moment has one view: views must be 1x1 with moments, got {self.views}")


@dataclass(frozen=True)
class SegmentRecord:
    """A file of ``count`` rows, and the file that marks the deleted ones; None if there are none."""

    rows: str
    count: int
    deleted: str | None = None

    def __post_init__(self) -> None:
        check_count("count", self.count, 1, MAX_ROWS)
        for kind, name in (("rows", self.rows), ("deleted", self.deleted)):
            if name is None and kind == "deleted":
                continue
            # A name of the file's own choice could lead out of the folder.
            if not isinstance(name, str) or not _FILE.fullmatch(name) or not name.startswith(kind):
                raise ConfigError(f"{quoted(name)} is no name of a file in this folder")


@dataclass(frozen=True)
class GraphRecord:
    """The file of the approximate search, and how well it searches.

    Attributes:
        file: its name.
        bytes: its size.
        sha256: its hash, hexadecimal.
        sample: number of rows whose neighbours were searched for when it was built.
        recall: the share of the ten nearest rows of each that were found, in [0, 1].
    """

    file: str
    bytes: int
    sha256: str
    sample: int
    recall: float

    def __post_init__(self) -> None:
        if not isinstance(self.file, str) or not _GRAPH.fullmatch(self.file):
            raise ConfigError(f"{quoted(self.file)} is no name of a graph in this folder")
        check_count("bytes", self.bytes, 1)
        if not isinstance(self.sha256, str) or not _DIGEST.fullmatch(self.sha256):
            raise ConfigError(f"sha256 must be 64 hexadecimal digits, got {quoted(self.sha256)}")
        check_count("sample", self.sample, 1)
        if not isinstance(self.recall, int | float) or not 0 <= self.recall <= 1:
            raise ConfigError(f"recall must be a share, got {quoted(self.recall)}")


@dataclass(frozen=True)
class IndexRecord:
    """What an index says of itself.

    Attributes:
        model: name of the model, for messages alone.
        fingerprint: of its weights, see ``model_fingerprint``.
        dimension: d, the width of the vectors.
        embedding: how videos were embedded.
        segments: the files of rows, in the order of their rows.
        graph: of exactly these rows, for approximate search; None if there is none.
    """

    model: str
    fingerprint: str
    dimension: int
    embedding: Embedding
    segments: tuple[SegmentRecord, ...] = ()
    graph: GraphRecord | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not 0 < len(self.model) <= 2**12:
            raise ConfigError(f"model must be a name of at most 4096 characters, got {quoted(self.model)}")
        if not isinstance(self.fingerprint, str) or not _DIGEST.fullmatch(self.fingerprint):
            raise ConfigError(f"fingerprint must be 64 hexadecimal digits, got {quoted(self.fingerprint)}")
        check_count("dimension", self.dimension, 1, MAX_DIMENSION)
        if len(self.segments) > MAX_SEGMENTS:
            raise ConfigError(f"{len(self.segments)} files of rows, more than {MAX_SEGMENTS}")
        if len(set(self.files)) < len(self.files):
            raise ConfigError("a file is named twice")

    @property
    def files(self) -> list[str]:
        """The names of all files of rows and marks, and of the graph."""
        names = [name for each in self.segments for name in (each.rows, each.deleted) if name is not None]
        return names if self.graph is None else [*names, self.graph.file]

    def to_json(self) -> str:
        """Return the text of index.json."""
        return to_json({"format": FORMAT, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, values: Any) -> IndexRecord:
        """Read the output of ``to_json``.

        Raises:
            ConfigError, TypeError, KeyError: it is none.
        """
        if not isinstance(values, Mapping) or "format" not in values:
            raise ConfigError(f"not the record of an index (holds {quoted(values)})")
        values = dict(values)
        if (version := values.pop("format")) != FORMAT:
            raise ConfigError(f"format {quoted(version)}, this release reads {FORMAT}")
        segments = tuple(SegmentRecord(**each) for each in values.pop("segments"))
        found = values.pop("graph", None)
        graph = None if found is None else GraphRecord(**found)
        return cls(embedding=Embedding(**values.pop("embedding")), segments=segments, graph=graph, **values)


def read_record(folder: Path) -> IndexRecord:
    """Read index.json.

    Raises:
        ListError: it is missing, damaged, too large, from a newer release, or a link that leads out of the folder.
    """
    path = folder / RECORD_FILE
    try:
        check_inside(path, folder)
        return IndexRecord.from_json(from_json(read_small(path, MAX_RECORD).decode()))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ListError(f"{folder}: no {RECORD_FILE}; make an index with `mote-fast index build`") from error
    except OSError as error:
        raise ListError(f"{path}: cannot be read ({error})") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ListError(f"{path}: damaged, or no index ({one_line(error)}); build the index again") from error
