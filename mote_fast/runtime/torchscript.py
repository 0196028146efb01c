"""The weights of a TorchScript archive, read without running anything of it.

``torch.jit.load`` runs the archive's ``__setstate__``, which may call any registered operator, and so read and write
any file. Here the archive's classes become records of their attributes, and its code is searched for the names of
parameters and buffers, not run.
"""

from __future__ import annotations

import re

from torch import Tensor

from mote_fast.runtime.archives import Archive
from mote_fast.runtime.plain_pickle import Record, UnsafeContentError

# Bytes of code, unpacked, in one file and in all; ViT-L/14's archive has half a megabyte.
_MAX_FILE = 2**23
_MAX_CODE = 2**26

# Modules of a model; ViT-L/14 has some hundred.
_MAX_MODULES = 2**16

_CLASS = re.compile(r"class (\w+)\(Module\):")
_NAMES = re.compile(r"\s+__(?:parameters|buffers)__ = \[(.*)\]")


def names_of_weights(archive: Archive, root: str) -> dict[str, set[str]]:
    """The names of parameters and buffers of each class, from the archive's code.

    Raises:
        ValueError: the code is damaged or larger than the limits.
    """
    code = f"{root}code/"
    files = [name for name in archive.names if name.startswith(code) and name.endswith(".py")]
    if sum(map(archive.size, files)) > _MAX_CODE:
        raise ValueError(f"it holds over {_MAX_CODE} bytes of code")
    found: dict[str, set[str]] = {}
    for file in files:
        module = file.removeprefix(code).removesuffix(".py").replace("/", ".")
        current: set[str] = set()
        for line in archive.read(file, _MAX_FILE).decode("utf-8", "replace").splitlines():
            if match := _CLASS.match(line):
                current = found[f"{module}.{match[1]}"] = set()
            elif match := _NAMES.match(line):
                current.update(re.findall(r'"([^"]+)"', match[1]))
    return found


def weights_of(module: object, names: dict[str, set[str]]) -> dict[str, Tensor]:
    """The parameters and buffers below a module, named as in its state dict.

    Raises:
        UnsafeContentError: it is no module, or modules contain each other.
    """
    if not isinstance(module, Record):
        raise UnsafeContentError(f"it holds a {type(module).__name__}, not a module")
    weights: dict[str, Tensor] = {}
    waiting = [("", module)]
    for _ in range(_MAX_MODULES):
        if not waiting:
            return weights
        prefix, current = waiting.pop()
        own = names.get(current.kind, set())
        for name, value in current.values.items():
            if isinstance(value, Record):
                waiting.append((f"{prefix}{name}.", value))
            elif isinstance(value, Tensor) and name in own:
                weights[f"{prefix}{name}"] = value
    raise UnsafeContentError(f"it has over {_MAX_MODULES} modules, as where modules contain each other")
