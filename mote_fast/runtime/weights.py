"""Reading and writing weight files: only tensors are unpickled, and writes are atomic."""

from __future__ import annotations

import math
import os
import sys
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from mote_fast.errors import CheckpointError, ConfigError, one_line, quoted
from mote_fast.runtime.archives import Archive
from mote_fast.runtime.files import make_folder, staged_folder
from mote_fast.runtime.json_text import from_json, to_json
from mote_fast.runtime.plain_pickle import MAX_BYTES, UnsafeContentError, read_plain
from mote_fast.runtime.reading import check_inside, check_regular, expanded, open_regular, read_small
from mote_fast.runtime.torchscript import names_of_weights, weights_of

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
# Its counterpart in open_clip's layout.
OPEN_CLIP_CONFIG = "open_clip_config.json"
# Folder of the files of a text tower or tokenizer that transformers implements; other models have none.
TEXT_FOLDER = "text"
# Bytes of a model folder's configuration, the merges of a tokenizer included.
MAX_CONFIG = 2**22
# Bytes of the header of a safetensors file; one of two thousand tensors has 200 KB.
_MAX_HEADER = 2**24
# How often the numbers of a file may occur in its state dict: tied weights have two names.
_MAX_REPEATS = 4
# The types of weights.
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# All that a model folder holds.
_MEMBERS = {CONFIG_FILE, WEIGHTS_FILE, TEXT_FOLDER}


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read a weights file onto the CPU: safetensors, a TorchScript archive, or ``torch.save`` output.

    Args:
        path: the file.

    Returns:
        A state dict, or a dictionary that contains state dicts.

    Raises:
        CheckpointError: the file is missing, unreadable or damaged, or holds objects other than tensors and plain
            containers. Such a file could run any code when it is loaded, so nothing of it is run.
    """
    path = Path(path)
    with _read_errors(path):
        content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_archive(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a dictionary of tensors")
    return content


def state_dict_of(content: Mapping[str, Any], key: str, path: str | Path) -> dict[str, Tensor]:
    """Return ``content[key]`` as a state dict, "module." prefixes removed.

    Raises:
        CheckpointError: the key is missing, or holds something other than named tensors.
    """
    if key not in content:
        raise CheckpointError(f"{path}: key {key!r} is missing; found {quoted(sorted(map(str, content)))}")
    return plain_state_dict(content[key], path)


def plain_state_dict(state: object, path: str | Path) -> dict[str, Tensor]:
    """Check that ``state`` maps names to tensors, and remove the "module." prefix of data-parallel training.

    Raises:
        CheckpointError: it is something else, or has so many names for the same numbers that a copy would not fit.
    """
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: expected names mapped to tensors")
    owned = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in state.values()}
    if sum(value.nbytes for value in state.values()) > _MAX_REPEATS * sum(owned.values()):
        raise CheckpointError(f"{path}: has over {_MAX_REPEATS} names for each of its numbers")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def write_model_folder(
    folder: str | Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    write_text: Callable[[Path], None] | None = None,
) -> None:
    """Write ``config.json``, ``model.safetensors`` and the files of the text tower into ``folder`` atomically.

    An interrupted write leaves the earlier folder unchanged. An existing folder is replaced only if it holds a model
    and nothing else.

    Args:
        folder: the folder.
        config: values of JSON.
        tensors: the weights by name.
        write_text: creates ``TEXT_FOLDER``, whose path it receives, if the model needs it.

    Raises:
        CheckpointError: the folder exists and holds other files, or cannot be written.
    """
    folder = expanded(folder)
    check_replaceable(folder)
    text = config_text(config, folder)
    with staged_folder(folder, CheckpointError) as part:
        # safetensors refuses tensors that share memory, so each is cloned.
        copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        save_tensors(copies, part / WEIGHTS_FILE)
        if write_text is not None:
            write_text(part / TEXT_FOLDER)
        (part / CONFIG_FILE).write_text(text, encoding="utf-8")


def config_text(config: Mapping[str, Any], source: str | Path) -> str:
    """Return the text of a model folder's configuration.

    Raises:
        CheckpointError: it is longer than ``MAX_CONFIG``, so that it could not be read back.
    """
    text = to_json(config, indent=2) + "\n"
    if len(text) > MAX_CONFIG:
        raise CheckpointError(
            f"{source}: its class names, prompts and descriptions make a configuration of {len(text)} bytes, over the "
            f"limit of {MAX_CONFIG}; shorten them"
        )
    return text


def check_model_folder(folder: str | Path) -> None:
    """Check, before any work is done, that ``write_model_folder`` can write to ``folder``.

    Raises:
        CheckpointError: the folder exists and holds other files, or cannot be written.
    """
    folder = expanded(folder)
    check_replaceable(folder)
    try:
        make_folder(folder.parent, "the folder")
    except ConfigError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error.__cause__})") from error


def check_replaceable(folder: Path, members: Collection[str] = _MEMBERS) -> None:
    """Check that a folder does not exist yet, or holds ``members`` and nothing else.

    Raises:
        CheckpointError: it holds something else, or cannot be read.
    """
    try:
        if not folder.exists():
            return
        replaceable = folder.is_dir() and {entry.name for entry in folder.iterdir()} <= {*members}
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error})") from error
    if not replaceable:
        raise CheckpointError(f"{folder}: exists and holds something else than a model; choose another name")


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file; its tensors must not share memory.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        raise OSError(one_line(error)) from error


def save_pickled(content: Mapping[str, Any], path: Path) -> None:
    """Write tensors and plain containers with ``torch.save``.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        with path.open("wb") as file:
            torch.save(dict(content), file)
    except RuntimeError as error:
        # PyTorch fails while it handles the file's own error.
        cause = error.__context__ if isinstance(error.__context__, OSError) else None
        raise OSError(one_line(cause or error)) from error


def check_numbers(
    state: Mapping[str, Tensor], source: str | Path, expected: Mapping[str, Tensor] | None = None
) -> None:
    """Check that weights are the numbers that a model expects, before they are loaded into it.

    Floating-point numbers of 16, 32 and 64 bits are converted to the model's; integers in their place would be taken
    for weights without a sign of it, and NaN or infinity makes every score NaN.

    Args:
        state: tensors by name.
        source: the file, for the message.
        expected: the model's tensors before loading, by name; one that is infinite, such as a mask, may be infinite in
            ``state`` too, and other names are passed over. None expects floating-point numbers under every name.

    Raises:
        CheckpointError: a tensor has another kind of number, or is not finite; the message names it.
    """
    for name, value in state.items():
        own = None if expected is None else expected.get(name)
        if expected is not None and own is None:
            continue
        if (value.dtype in _FLOATS) != (own is None or own.is_floating_point()):
            wanted = "floating-point numbers of 16 to 64 bits" if own is None else own.dtype
            raise CheckpointError(f"{source}: {name} holds {value.dtype}, expected {wanted}")
        if not is_finite(value) and (own is None or is_finite(own)):
            raise CheckpointError(
                f"{source}: {name} holds NaN or infinity, as training leaves it when it diverges; use an earlier "
                "checkpoint"
            )


def is_finite(values: Tensor) -> bool:
    """Whether all values are finite, by their sum: one fast pass, and a second one only if the sum is not finite."""
    if not values.is_floating_point():
        return True
    wide = torch.float64 if values.dtype == torch.float64 else torch.float32
    return math.isfinite(values.sum(dtype=wide).item()) or bool(torch.isfinite(values.to(wide)).all())


def read_model_config(folder: str | Path) -> Any:
    """Read the ``config.json`` that ``write_model_folder`` wrote.

    Raises:
        CheckpointError: it is missing, damaged, too large, or a link that leads out of the folder.
    """
    folder = Path(folder)
    try:
        check_inside(folder / CONFIG_FILE, folder)
        return from_json(read_small(folder / CONFIG_FILE, MAX_CONFIG).decode("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder}: no {CONFIG_FILE}; expected a folder written by save(){_inside(folder)}"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: unreadable ({_reason(error)})") from error


def read_model_shapes(folder: str | Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors in a model folder, by name; only the header of their file is read.

    Raises:
        CheckpointError: the file is missing or damaged, or a link that leads out of the folder.
    """
    path = Path(folder) / WEIGHTS_FILE
    with _read_errors(path):
        check_inside(path, path.parent)
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def read_model_weights(folder: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a model folder, by name.

    Raises:
        CheckpointError: as for ``read_model_shapes``.
    """
    path = Path(folder) / WEIGHTS_FILE
    with _read_errors(path):
        check_inside(path, path.parent)
        return _read_safetensors(path)


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Turn the errors of reading a weights file into ours."""
    try:
        yield
    except UnsafeContentError as error:
        raise CheckpointError(f"{path}: refused, because {error}; save state dicts only") from error
    except OSError as error:
        raise CheckpointError(f"{path}: {_reason(error)}") from error
    except (ValueError, KeyError, RuntimeError, MemoryError, SafetensorError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: not a weights file, or damaged ({one_line(error)})") from error


def _check_header(path: Path) -> None:
    """Bound the header of a safetensors file; the library compares all else with the file's size."""
    with open_regular(path) as file:
        length = int.from_bytes(os.read(file.fileno(), 8), "little")
    if length > _MAX_HEADER:
        raise ValueError(f"a header of {length} bytes")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    _check_header(path)
    return load_file(path)


def _read_archive(path: Path) -> Any:
    """Read what ``torch.save`` or ``torch.jit.save`` wrote: its pickle, or the weights of its module."""
    check_regular(path)
    if not zipfile.is_zipfile(path):
        raise ValueError("neither .safetensors nor an archive of PyTorch; what PyTorch saved before 1.6, save again")
    with Archive(path) as archive:
        root = next((name.removesuffix("data.pkl") for name in archive.names if name.endswith("/data.pkl")), None)
        if root is None:
            raise ValueError("an archive without data.pkl")
        order = f"{root}byteorder"
        if order in archive and archive.read(order, 16) != sys.byteorder.encode():
            raise ValueError("its numbers have another byte order than this machine's")
        scripted = f"{root}constants.pkl" in archive
        storages: dict[str, Tensor] = {}

        def storage(key: str, dtype: torch.dtype, length: int) -> Tensor:
            if key not in storages:
                storages[key] = archive.tensor(f"{root}data/{key}", dtype, length)
            if (storages[key].dtype, len(storages[key])) != (dtype, length):
                raise ValueError(f"its storage {quoted(key)} is of two kinds")
            return storages[key]

        content = read_plain(archive.read(f"{root}data.pkl", MAX_BYTES), storage, records=scripted)
        return weights_of(content, names_of_weights(archive, root)) if scripted else content


def models_in(folder: Path) -> list[Path]:
    """Return the sub-folders that look like model folders, by name: those of the folder of a training run."""
    try:
        return sorted(each for each in folder.iterdir() if (each / CONFIG_FILE).is_file())
    except OSError:
        return []


def _inside(folder: Path) -> str:
    if (folder / OPEN_CLIP_CONFIG).is_file():
        return f"; it holds CLIP towers for create_model('local-dir:{folder}', header='mean')"
    found = models_in(folder)
    return f"; load {' or '.join(map(str, found[:4]))}" if found else ""


def _reason(error: Exception) -> str:
    """What is wrong with a file that the message names already."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return (error.strerror if isinstance(error, OSError) else None) or one_line(error)
