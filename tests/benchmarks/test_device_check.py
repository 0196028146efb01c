"""The command that checks a device; ``make device-dry`` runs its sections without one."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import device_check
import pytest

BENCHMARKS = Path(device_check.__file__).parent


def test_sections_are_there_and_have_numbers_of_their_own() -> None:
    """A section that cannot be imported would be found on a rented machine only; budgets fit the stated minutes."""
    numbers = [section.number for section in device_check.SECTIONS]
    assert numbers == sorted(set(numbers))
    assert all(callable(importlib.import_module(section.module).checks) for section in device_check.SECTIONS)
    assert sum(section.seconds for section in device_check.SECTIONS) <= 600


# What a machine with PyTorch, Triton and NumPy lacks, of what the library and its tests use.
ABSENT = (
    *("open_clip", "timm", "torchvision", "transformers", "safetensors", "huggingface_hub", "ftfy", "platformdirs"),
    *("av", "torchcodec", "xformers", "nvidia.dali", "webdataset", "yaml", "tqdm", "onnx", "onnxruntime", "openvino"),
    *("fastapi", "pyarrow", "hypothesis", "pytest"),
)
# Python runs it at the start of every process, also of those that a section starts.
HIDE = f"""
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        absent = any(name == each or name.startswith(each + ".") for each in {ABSENT})
        return None if absent else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
# The command, by a process that has imported every section.
PROGRAM = """
import importlib, sys, device_check
for each in device_check.SECTIONS:
    importlib.import_module(each.module)
sys.exit(device_check.main())
"""


@pytest.mark.heavy
def test_a_bare_machine_starts_it(tmp_path: Path) -> None:
    """Every section can be imported; those that run say what they skip for want of a package, and nothing fails."""
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    path = os.pathsep.join([str(tmp_path), str(BENCHMARKS), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    out = tmp_path / "out"
    command = [sys.executable, "-c", PROGRAM, "--out", str(out), "--device", "cpu", "--dry"]
    done = subprocess.run([*command, "--only", "0", "5"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((out / "report.json").read_text())
    checks = {check["name"]: check for section in report["sections"] for check in section["checks"]}
    assert checks["head's step waits for nothing"]["verdict"] == "pass"
    # Its model needs the library's other packages.
    assert checks["training step waits for nothing"]["note"].endswith(" is not installed")


def test_a_processor_is_only_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing that a CPU computes may pass for a device's report."""
    for options in (["--device", "cpu"], ["--dry"], ["--minutes", "0"]):
        monkeypatch.setattr(sys, "argv", ["device_check.py", "--out", str(tmp_path / "out"), *options])
        with pytest.raises(SystemExit) as ended:
            device_check.main()
        assert ended.value.code == 2
    assert not (tmp_path / "out").exists()
