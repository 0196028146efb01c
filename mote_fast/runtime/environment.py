"""Properties of the installation: the default device of models, and the folder of shipped models and videos."""

from __future__ import annotations

from pathlib import Path

PRESETS = Path(__file__).parents[1] / "presets"


def best_device() -> str:
    """Return "cuda" if PyTorch sees a GPU, otherwise "cpu"."""
    # Whoever looks for a shipped file does without PyTorch, which takes a second to import.
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
