"""Which decoder decodes videos: one choice for training, evaluation, classify, embed and bulk runs."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import logging
import os
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mote_fast.data.gpu.decode_engine import kind_of_device
from mote_fast.data.gpu.decode_server import TRIAL_CLIPS, GpuDecoder
from mote_fast.data.reading_choices import GPU_DECODERS, LoaderBackend
from mote_fast.errors import BackendError, MoteError
from mote_fast.runtime.checks import check_choice
from mote_fast.runtime.environment import default_cache_folder
from mote_fast.runtime.files import write_text
from mote_fast.runtime.json_text import from_json, to_json
from mote_fast.runtime.lock import FileLock
from mote_fast.runtime.reading import read_small
from mote_fast.version import __version__

logger = logging.getLogger(__name__)

# What was measured, in the user's cache folder.
FILE_NAME = "decoders.json"
_MAX_FILE_BYTES = 2**20


@dataclass(frozen=True)
class DecoderChoice:
    """The decoder that was chosen.

    Attributes:
        name: one of ``GPU_DECODERS``, or "cpu".
        why: the reason.
        others: the reason against each other one.
    """

    name: str
    why: str
    others: Mapping[str, str]

    def __str__(self) -> str:
        others = "; ".join(f"{name}: {reason}" for name, reason in self.others.items())
        return f"{self.name} ({self.why}{'; ' if others else ''}{others})"


def gpu_decoder(name: str) -> GpuDecoder:
    """Return a decoder of the table; its module is imported."""
    return importlib.import_module(GPU_DECODERS[name]).DECODER


def choose_decoder(backend: LoaderBackend, device: torch.device | str) -> DecoderChoice:
    """Choose what decodes videos for a device.

    On a GPU "auto" takes the fastest of the decoders that are installed and give the right frames of a drawn video,
    which is measured once for each GPU and version, and kept in the user's cache folder; where it cannot be drawn, the
    first of the table. Elsewhere it takes the CPU.

    Raises:
        ConfigError: there is no such backend, or no decoder works on the device.
        BackendError: the backend that was asked for is not available.
    """
    check_choice("backend", backend, LoaderBackend)
    place = torch.device(device)
    if backend == "cpu":
        return DecoderChoice("cpu", "asked for", {})
    if backend != "auto":
        reason = gpu_decoder(backend).why_unavailable(kind_of_device(place))
        if reason is not None:
            raise BackendError(f"backend {backend!r} cannot serve: {reason}")
        return DecoderChoice(backend, "asked for", {})
    if place.type != "cuda" or not torch.cuda.is_available():
        return DecoderChoice("cpu", f"decoders of a GPU are for CUDA devices, not {place}", {})
    return _measured(torch.cuda.current_device() if place.index is None else place.index)


@functools.cache
def _measured(index: int) -> DecoderChoice:
    missing: dict[str, str] = {}
    installed: dict[str, GpuDecoder] = {}
    for name in GPU_DECODERS:
        decoder = gpu_decoder(name)
        reason = decoder.why_unavailable("gpu")
        if reason is None:
            installed[name] = decoder
        else:
            missing[name] = reason
    if not installed:
        return DecoderChoice("cpu", "no decoder of a GPU can serve", missing)
    chosen = decide(list(installed), _judged(installed, torch.device("cuda", index)), missing)
    logger.info("videos are decoded by %s", str(chosen))
    return chosen


def decide(installed: list[str], judged: Mapping[str, float | str] | None, missing: Mapping[str, str]) -> DecoderChoice:
    """Choose among installed decoders, given what ``judge`` found and why the others are missing."""
    others = dict(missing)
    if judged is None:
        first, *rest = installed
        others |= dict.fromkeys(rest, "comes after it")
        return DecoderChoice(first, "the first that is installed, as no video could be drawn to compare", others)
    seconds = {name: found for name, found in judged.items() if not isinstance(found, str)}
    others |= {name: found for name, found in judged.items() if isinstance(found, str)}
    if not seconds:
        return DecoderChoice("cpu", "no decoder of the GPU gives the right frames", others)
    best = min(seconds, key=seconds.__getitem__)
    others |= {name: f"{1e3 * found / TRIAL_CLIPS:.1f} ms" for name, found in seconds.items() if name != best}
    return DecoderChoice(best, f"{1e3 * seconds[best] / TRIAL_CLIPS:.1f} ms a clip of a drawn video", others)


def _judged(installed: Mapping[str, GpuDecoder], device: torch.device) -> Mapping[str, float | str] | None:
    """What was measured before on such a GPU with such versions, or what is measured now."""
    # Whoever only looks at a choice does without the encoder.
    from mote_fast.data.gpu.trial_video import judge

    threads = min(TRIAL_CLIPS, os.cpu_count() or 1)
    folder, key = default_cache_folder(), _key(installed, device)
    if folder is None:
        return judge(installed, device, threads)
    file = folder / FILE_NAME
    with _locked(folder):
        kept = _read(file)
        if key in kept and set(kept[key]) == set(installed):
            return kept[key]
        found = judge(installed, device, threads)
        if found is not None:
            with suppress(MoteError, OSError):
                write_text(file, to_json({**kept, key: found}, indent=1))
        return found


def _key(installed: Mapping[str, GpuDecoder], device: torch.device) -> str:
    packages = sorted({package for decoder in installed.values() for package in decoder.packages})
    parts = [torch.cuda.get_device_name(device), f"mote_fast {__version__}", f"torch {torch.__version__}"]
    for package in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            parts.append(f"{package} {importlib.metadata.version(package)}")
    return ", ".join(parts)


def _locked(folder: Path) -> Any:
    """One process of a machine measures, and the others wait for what it finds."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{FILE_NAME}.lock", "measuring decoders of the GPU", wait=True)
    except (MoteError, OSError):
        return nullcontext()


def _read(file: Path) -> dict[str, dict[str, float | str]]:
    """What is kept; a file that cannot be read, or was damaged, costs another measurement."""
    try:
        kept = from_json(read_small(file, _MAX_FILE_BYTES).decode())
    except (MoteError, OSError, ValueError):
        return {}
    if not isinstance(kept, dict):
        return {}
    return {
        key: found
        for key, found in kept.items()
        if isinstance(found, dict) and all(isinstance(each, float | str) for each in found.values())
    }
