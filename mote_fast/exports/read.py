"""Reading an exported folder without believing it: sizes, hashes and shapes are compared before a graph is opened."""

from __future__ import annotations

import io
from pathlib import Path
from tokenize import TokenError

import numpy as np
import torch
from torch import Tensor

from mote_fast.errors import BackendError, CheckpointError, one_line
from mote_fast.exports.record import CLASSES_FILE, MAX_RECORD, RECORD_FILE, ExportRecord
from mote_fast.exports.runners import Runner, open_graph
from mote_fast.runtime.environment import machine
from mote_fast.runtime.json_text import from_json
from mote_fast.runtime.reading import check_inside, open_regular, read_small
from mote_fast.runtime.transfer import sha256_of

# Bytes of the header of a .npy file with class features.
_MAX_HEADER = 1024
# NumPy reads the header, text of Python, by Python's own parsers, whose errors it leaves as they are.
_ERRORS = (OSError, ValueError, SyntaxError, TokenError, RecursionError, MemoryError)


def read_record(folder: Path) -> ExportRecord:
    """Read the folder's export.json.

    Raises:
        CheckpointError: it is missing, damaged, too large, or a link that leads out of the folder.
    """
    path = folder / RECORD_FILE
    try:
        check_inside(path, folder)
        values = from_json(read_small(path, MAX_RECORD).decode("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: no {RECORD_FILE}; expected a folder written by mote_fast.export") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: unreadable ({_reason(error)})") from error
    return ExportRecord.from_json(values, str(path))


def check_files(folder: Path, record: ExportRecord) -> None:
    """Compare every file of the folder with the record.

    Raises:
        CheckpointError: a file is missing, no regular file in this folder, cut off or damaged.
    """
    for name, stated in record.files.items():
        path = folder / name
        try:
            check_inside(path, folder)
            with open_regular(path) as file:
                size = file.seek(0, io.SEEK_END)
            intact = size == stated.size and sha256_of(path) == stated.sha256
        except OSError as error:
            raise CheckpointError(f"{path}: {_reason(error)}") from error
        if not intact:
            what = f"has {size} bytes, not {stated.size}" if size != stated.size else "its SHA-256 does not fit"
            raise CheckpointError(f"{path}: not the file that {RECORD_FILE} describes ({what}); export again")


def open_graphs(folder: Path, record: ExportRecord) -> dict[str, Runner]:
    """Open the graphs of a folder whose files have been compared.

    Raises:
        BackendError: they were compiled for another processor or another PyTorch; or see ``open_graph``.
        CheckpointError: see ``open_graph``.
    """
    if record.format == "aoti":
        made_by = record.versions.get("torch")
        if made_by != torch.__version__:
            raise BackendError(
                f"{folder}: compiled for PyTorch {made_by}, this is {torch.__version__}; export again, or as 'onnx'"
            )
        if record.machine != machine():
            raise BackendError(f"{folder}: compiled for another processor; export again here, or as 'onnx'")
    return {name: open_graph(folder, graph, record.format) for name, graph in record.graphs.items()}


def read_classes(folder: Path, record: ExportRecord) -> Tensor | None:
    """Return the stored class features, float32 [C, d]; None if there are none.

    Raises:
        CheckpointError: the file holds something else than the record says, or numbers that are not finite.
    """
    if record.labels is None:
        return None
    path = folder / CLASSES_FILE
    shape = (len(record.labels), record.embed_dim)
    try:
        # No object is unpickled: the header is read alone, and what follows are numbers.
        content = io.BytesIO(read_small(path, 4 * shape[0] * shape[1] + _MAX_HEADER))
        if np.lib.format.read_magic(content) != (1, 0):
            raise ValueError("another version of the format")
        header = np.lib.format.read_array_header_1_0(content, max_header_size=_MAX_HEADER)
        if header != (shape, False, np.dtype("<f4")):
            raise ValueError(f"holds {header[2]} {list(header[0])}, expected float32 {list(shape)}")
        features = torch.from_numpy(np.frombuffer(content.read(), "<f4").reshape(shape).astype(np.float32))
    except _ERRORS as error:
        raise CheckpointError(f"{path}: {_reason(error)}") from error
    if not bool(torch.isfinite(features).all()):
        raise CheckpointError(f"{path}: holds NaN or infinity; export again")
    return features


def _reason(error: Exception) -> str:
    """What is wrong with a file that the message names already."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return (error.strerror if isinstance(error, OSError) else None) or one_line(error)
