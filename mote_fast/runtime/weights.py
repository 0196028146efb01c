"""Reading and writing weight files: only tensors are unpickled, and writes are atomic."""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mote_fast.errors import CheckpointError, ConfigError
from mote_fast.runtime.files import make_folder, staged_folder
from mote_fast.runtime.json_text import from_json, to_json
from mote_fast.runtime.torchscript import UnsafeArchiveError, is_torchscript, read_torchscript

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
# Folder of the files of a text tower or tokenizer that transformers implements; other models have none.
TEXT_FOLDER = "text"
# All that a model folder holds.
_MEMBERS = {CONFIG_FILE, WEIGHTS_FILE, TEXT_FOLDER}


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read a weights file onto the CPU: safetensors, a TorchScript archive, or ``torch.save`` output.

    Args:
        path: the file.

    Returns:
        A state dict, or a dictionary that contains state dicts.

    Raises:
        CheckpointError: the file is missing or unreadable, or holds objects other than tensors and plain containers.
            Such a file could run any code when it is loaded, so nothing of it is run.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if is_torchscript(path):
            return read_torchscript(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" not in str(error):
            raise CheckpointError(f"{path}: not a weights file, or damaged ({_first_line(error)})") from error
        raise CheckpointError(
            f"{path}: refused, because it holds a pickled Python object, which could run any code when loaded "
            f"({_blamed_global(error)}); save state dicts only"
        ) from error
    except UnsafeArchiveError as error:
        raise CheckpointError(f"{path}: refused, because {error}; save its state dict instead") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, SafetensorError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: not a weights file, or damaged ({_first_line(error)})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a dictionary of tensors")
    return content


def state_dict_of(content: Mapping[str, Any], key: str, path: str | Path) -> dict[str, Tensor]:
    """Return ``content[key]`` as a state dict, "module." prefixes removed.

    Raises:
        CheckpointError: the key is missing, or holds something other than named tensors.
    """
    if key not in content:
        raise CheckpointError(f"{path}: key {key!r} is missing; found {sorted(map(str, content))[:8]}")
    return plain_state_dict(content[key], path)


def plain_state_dict(state: object, path: str | Path) -> dict[str, Tensor]:
    """Check that ``state`` maps names to tensors, and remove the "module." prefix of data-parallel training."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: expected names mapped to tensors")
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
    folder = Path(folder)
    _check_replaceable(folder)
    with staged_folder(folder, CheckpointError) as part:
        # safetensors refuses tensors that share memory, so each is cloned.
        copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        save_tensors(copies, part / WEIGHTS_FILE)
        if write_text is not None:
            write_text(part / TEXT_FOLDER)
        (part / CONFIG_FILE).write_text(to_json(config, indent=2) + "\n", encoding="utf-8")


def check_model_folder(folder: str | Path) -> None:
    """Check, before any work is done, that ``write_model_folder`` can write to ``folder``.

    Raises:
        CheckpointError: the folder exists and holds other files, or cannot be written.
    """
    folder = Path(folder)
    _check_replaceable(folder)
    try:
        make_folder(folder.parent, "the folder")
    except ConfigError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error.__cause__})") from error


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file; its tensors must not share memory.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        raise OSError(_first_line(error)) from error


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
        raise OSError(_first_line(cause or error)) from error


def check_numbers(
    state: Mapping[str, Tensor], source: str | Path, expected: Mapping[str, Tensor] | None = None
) -> None:
    """Check that weights are the numbers that a model expects, before they are loaded into it.

    Floating-point numbers of any width are converted to the model's; integers in their place would be taken for weights
    without a sign of it, and NaN or infinity makes every score NaN.

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
        if value.is_floating_point() != (own is None or own.is_floating_point()):
            wanted = "floating-point numbers" if own is None else own.dtype
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


def read_model_folder(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what ``write_model_folder`` wrote.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    folder = Path(folder)
    try:
        config = from_json((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: no {CONFIG_FILE}; expected a folder written by save()") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: unreadable ({error})") from error
    return config, read_weights(folder / WEIGHTS_FILE)


def _check_replaceable(folder: Path) -> None:
    try:
        if not folder.exists():
            return
        replaceable = folder.is_dir() and {entry.name for entry in folder.iterdir()} <= _MEMBERS
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error})") from error
    if not replaceable:
        raise CheckpointError(f"{folder}: exists and holds something else than a model; choose another name")


def _blamed_global(error: BaseException) -> str:
    """Extract the name of the object that PyTorch refused from its long message."""
    match = re.search(r"GLOBAL (\S+)", str(error))
    return match[1] if match else "unnamed"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
