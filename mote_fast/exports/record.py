"""export.json: what an exported folder says of its graphs, written and read strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias, get_args

from mote_fast.data.decoding.video_info import PixelAspect
from mote_fast.data.transforms import CropsAlong, Preprocessing
from mote_fast.errors import CheckpointError, ConfigError, one_line, quoted
from mote_fast.exports.export_choices import Format, GraphName
from mote_fast.runtime.checks import check_choice, check_count

# Shapes by name; a text names a dimension that is free at run time.
Shapes: TypeAlias = dict[str, list[int | str]]

RECORD_FILE = "export.json"
CLASSES_FILE = "classes.npy"
# Bytes of export.json, the names of its classes included.
MAX_RECORD = 2**26

# Version of the folder's format; raised when older code cannot read the new one.
FORMAT_VERSION = 1

# Sizes that no model has: an image's side as in clip_config, widths of features.
_MAX_SIZE, _MAX_WIDTH = 2**13, 2**16

_SUFFIXES: Mapping[str, str] = {"onnx": ".onnx", "pt2": ".pt2", "aoti": ".pt2"}
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileRecord:
    """The size of a file, bytes, and its SHA-256, hexadecimal."""

    size: int
    sha256: str

    def __post_init__(self) -> None:
        check_count("size", self.size, 1, 2**50)
        if not isinstance(self.sha256, str) or not _DIGEST.fullmatch(self.sha256):
            raise ConfigError(f"sha256 must be 64 hexadecimal digits, got {quoted(self.sha256)}")


@dataclass(frozen=True)
class GraphRecord:
    """One graph.

    Attributes:
        file: its name in the folder.
        inputs: shapes of the inputs, in order.
        outputs: shape of the one output.
        parameter_bytes: bytes of the numbers that the graph holds, without the graph itself.
        parity: largest difference from the library's output, measured when the folder was written: of scores as it is,
            of features relative to the largest.
    """

    file: str
    inputs: Shapes
    outputs: Shapes
    parameter_bytes: int
    parity: float


@dataclass(frozen=True)
class ExportRecord:
    """What a folder holds.

    Attributes:
        format: of its graphs.
        frames: T, frames per view, that the model was trained with.
        max_frames: the most frames of a view: the head has this many positions.
        embed_dim: d, the width of features.
        preprocessing: how frames become pixels.
        crops_along: see ``VideoClassifier``.
        pixel_aspect: see ``VideoClassifier``.
        logit_scale: the factor of cosines, which the graphs contain.
        caution: why the model's ranking of real videos means nothing; None if it is trained for them.
        graphs: by name.
        files: every other file of the folder, by name.
        labels: class names of the stored class features; None if there are none.
        opset: ONNX's operator set; None for other formats.
        machine: for "aoti", the processor that the graphs are compiled for, as ``environment.machine`` describes it;
            None for other formats.
        instruction_set: for "aoti", the vector instructions in use; None for other formats.
        versions: of the packages that wrote the folder.
    """

    format: Format
    frames: int
    max_frames: int
    embed_dim: int
    preprocessing: Preprocessing
    crops_along: CropsAlong
    pixel_aspect: PixelAspect
    logit_scale: float
    caution: str | None
    graphs: dict[str, GraphRecord]
    files: dict[str, FileRecord]
    labels: list[str] | None = None
    opset: int | None = None
    machine: str | None = None
    instruction_set: str | None = None
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("format", self.format, Format)
        check_count("max_frames", self.max_frames, 1, 2**12)
        check_count("frames", self.frames, 1, self.max_frames)
        check_count("embed_dim", self.embed_dim, 1, _MAX_WIDTH)
        check_count("preprocessing.size", self.preprocessing.size, 1, _MAX_SIZE)
        check_choice("crops_along", self.crops_along, CropsAlong)
        check_choice("pixel_aspect", self.pixel_aspect, PixelAspect)
        if not self.graphs or not {*self.graphs} <= {*get_args(GraphName)}:
            raise ConfigError(f"graphs must be some of {', '.join(get_args(GraphName))}, got {quoted([*self.graphs])}")
        for name, graph in self.graphs.items():
            # A name of the folder's own choice could lead out of it.
            if graph.file != graph_file(name, self.format):
                raise ConfigError(f"the graph {name} must lie in {graph_file(name, self.format)}")
            if (graph.inputs, graph.outputs) != graph_shapes(name, self.preprocessing.size, self.embed_dim):
                raise ConfigError(f"the graph {name} has other inputs and outputs than its kind")
        needed = {graph.file for graph in self.graphs.values()} | ({CLASSES_FILE} if self.labels is not None else set())
        extra = {data_file(graph.file) for graph in self.graphs.values()} if self.format == "onnx" else set()
        if not needed <= {*self.files} <= needed | extra:
            raise ConfigError(f"files must be {sorted(needed)}, got {quoted(sorted(self.files))}")

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, values: Any, source: str) -> ExportRecord:
        """Read the output of ``to_json``.

        Raises:
            CheckpointError: keys are missing, unknown, of another kind, or from a newer version of the format.
        """
        if not isinstance(values, Mapping):
            raise CheckpointError(f"{source}: not the record of an export (holds {quoted(values)})")
        values = dict(values)
        version = values.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{source}: format version {quoted(version)}, this release reads {FORMAT_VERSION}; export again"
            )
        try:
            own = dict(values.pop("preprocessing"))
            own |= {"mean": tuple(own["mean"]), "std": tuple(own["std"])}
            labels = values.get("labels")
            if labels is not None and not (isinstance(labels, list) and all(isinstance(each, str) for each in labels)):
                raise ConfigError("labels must be a list of texts")
            if not isinstance(values.get("caution"), str | None):
                raise ConfigError("caution must be a text")
            return cls(
                preprocessing=Preprocessing(**own),
                graphs={name: GraphRecord(**graph) for name, graph in dict(values.pop("graphs")).items()},
                files={name: FileRecord(**file) for name, file in dict(values.pop("files")).items()},
                **values,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{source}: not the record of an export ({one_line(error)})") from error


def graph_shapes(name: str, size: int, dim: int) -> tuple[Shapes, Shapes]:
    """Return the shapes of a graph's inputs and of its output.

    Args:
        name: of the graph.
        size: S, side of the image tower's input, pixels.
        dim: d, the width of features.
    """
    classes: Shapes = {"classes": ["classes", dim]}
    scores: Shapes = {"scores": ["classes"]}
    if name == "tower":
        return {"pixels": ["images", 3, size, size]}, {"features": ["images", dim]}
    if name == "head":
        return {"features": ["views", "frames", dim], **classes}, scores
    return {"pixels": ["views", "frames", 3, size, size], **classes}, scores


def graph_file(name: str, file_format: Format) -> str:
    """The name of a graph's file."""
    return name + _SUFFIXES[file_format]


def data_file(file: str) -> str:
    """The name of the file beside an ONNX graph that holds its weights, where they exceed what the graph may have."""
    return f"{file}.data"
