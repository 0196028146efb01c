"""Properties of the installation: the default device, the processor, the folders of shipped files and of caches."""

from __future__ import annotations

import platform
from contextlib import suppress
from pathlib import Path

PRESETS = Path(__file__).parents[1] / "presets"


def best_device() -> str:
    """Return "cuda" if PyTorch sees a GPU, otherwise "cpu"."""
    # Whoever looks for a shipped file does without PyTorch, which takes a second to import.
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def machine() -> str:
    """Describe the processor by what decides its arithmetic: architecture and instruction sets."""
    return f"{platform.system()} {platform.machine()} {' '.join(sorted(instruction_sets()))}"


def instruction_sets() -> list[str]:
    """The instruction sets of the processor in Linux's names; elsewhere, words that describe it."""
    flags = platform.processor()
    # Elsewhere than on Linux the instruction sets have no file.
    with suppress(OSError, StopIteration), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
        flags = next(line for line in info if line.startswith(("flags", "Features")))
    return flags.split()


def default_cache_folder() -> Path | None:
    """The library's folder among the user's caches; None for a user without a home folder."""
    import platformdirs

    try:
        folder = platformdirs.user_cache_path("mote_fast")
    except (RuntimeError, KeyError, OSError):
        return None
    # Without a home folder some versions return "~/.cache" as it is.
    return folder if folder.is_absolute() else None
