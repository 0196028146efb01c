"""Reading and writing weight files: only tensors are unpickled, and writes are atomic."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mote_fast.errors import CheckpointError
from mote_fast.runtime.files import staged_folder

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
# Folder of the files of a text tower or tokenizer that transformers implements; other models have none.
TEXT_FOLDER = "text"


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read a weights file onto the CPU: safetensors, a TorchScript archive, or ``torch.save`` output.

    Args:
        path: the file.

    Returns:
        A state dict, or a dictionary that contains state dicts.

    Raises:
        CheckpointError: the file is missing or unreadable, or holds pickled objects other than tensors and plain
            containers. Such a file could run any code when it is loaded, so it is never unpickled.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if _is_torchscript(path):
            with warnings.catch_warnings():
                # Deprecated in PyTorch, but the only reader of OpenAI's archives.
                warnings.simplefilter("ignore", FutureWarning)
                return dict(torch.jit.load(path, map_location="cpu").state_dict())
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" not in str(error):
            raise CheckpointError(f"{path}: not a weights file, or damaged ({_first_line(error)})") from error
        raise CheckpointError(
            f"{path}: refused, because it holds a pickled Python object, which could run any code when loaded "
            f"({_blamed_global(error)}); save state dicts only"
        ) from error
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
    if folder.exists() and not _is_replaceable(folder):
        raise CheckpointError(f"{folder}: exists and holds something else than a model; choose another name")
    with staged_folder(folder, CheckpointError) as part:
        # safetensors refuses tensors that share memory, so each is cloned.
        save_file(
            {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()},
            part / WEIGHTS_FILE,
        )
        if write_text is not None:
            write_text(part / TEXT_FOLDER)
        (part / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read_model_folder(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what ``write_model_folder`` wrote.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: no {CONFIG_FILE}; expected a folder written by save()") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: unreadable ({error})") from error
    return config, read_weights(folder / WEIGHTS_FILE)


def _is_replaceable(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    return {entry.name for entry in folder.iterdir()} <= {CONFIG_FILE, WEIGHTS_FILE, TEXT_FOLDER}


def _is_torchscript(path: Path) -> bool:
    """Whether the file is a TorchScript archive, recognised by ``constants.pkl`` in its zip directory."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _blamed_global(error: BaseException) -> str:
    """Extract the name of the object that PyTorch refused from its long message."""
    match = re.search(r"GLOBAL (\S+)", str(error))
    return match[1] if match else "unnamed"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
