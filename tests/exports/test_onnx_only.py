"""examples/onnx_only.py: an exported folder without PyTorch and without this library, ranking as the library does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mote_fast.runtime.environment import PRESETS
from tests.exports.exported import Exported

# Exports of whole models.
pytestmark = pytest.mark.heavy

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_only.py"
CLIPS = sorted((PRESETS / "demo").glob("*/*.mp4"))

# What the example must do without, and a start that takes it away.
ABSENT = ("torch", "torchvision", "open_clip", "mote_fast", "onnx", "safetensors")
WITHOUT = f"""
import runpy, sys
for name in {ABSENT}: sys.modules[name] = None
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_outside(command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run a program where this repository is not on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment)


def check_ranking(trained: Exported, command: list[str | Path]) -> None:
    """Compare the example's output with the library's: grey levels that round otherwise change scores a little."""
    done = run_outside([*command, EXAMPLE, trained.folder, *CLIPS])
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["video"] for each in found] == [str(clip) for clip in CLIPS]
    for clip, each in zip(CLIPS, found, strict=True):
        ranked = trained.model.classify(clip, trained.record.labels, topk=1000)
        assert [label for label, _ in each["predictions"]] == [one.label for one in ranked]
        assert max(abs(a[1] - b.score) for a, b in zip(each["predictions"], ranked, strict=True)) < 1e-3


def test_ranks_as_the_library(trained: Exported) -> None:
    """The demo's videos, where nothing but ONNX Runtime, NumPy and PyAV can be imported."""
    assert len(CLIPS) == 6
    check_ranking(trained, [sys.executable, "-c", WITHOUT])


@pytest.mark.slow
def test_runs_in_an_environment_of_its_own(trained: Exported, tmp_path: Path) -> None:
    """Only the three packages are installed."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    done = run_outside([python, "-m", "pip", "install", "--quiet", "--prefer-binary", "onnxruntime", "numpy", "av"])
    if done.returncode:
        pytest.skip(f"the packages cannot be installed here: {done.stderr[-300:]}")
    for name in ABSENT:
        assert run_outside([python, "-c", f"import {name}"]).returncode
    check_ranking(trained, [python])
