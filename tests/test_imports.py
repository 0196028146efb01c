"""The modules of the library import one another in one direction."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def modules() -> dict[str, Path]:
    """Every module of the library by its name; kernels/ is installed as mote_fast.kernels."""
    found = {}
    for folder, package in ((ROOT / "mote_fast", "mote_fast"), (ROOT / "kernels", "mote_fast.kernels")):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


def imports_of(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules that a file imports, inside functions and for the type checker too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for each in node.names:
                whole = f"{node.module}.{each.name}"
                yield whole if whole in known else node.module


def test_no_module_reaches_back() -> None:
    """An import cycle means that two modules should be one, or that one holds code of a third."""
    known = modules()
    assert len(known) > 100
    graph = {name: set(imports_of(path, known)) for name, path in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


# A training step of the head and its inference, with the names that a bare machine with a GPU is checked by.
STEP = """
import sys
for name in sys.argv[1].split(","): sys.modules[name] = None
import torch
import mote_fast, mote_fast.ops.operators, mote_fast.training.streams
from mote_fast.head.scores import view_probabilities
if sys.argv[2] == "triton":
    import importlib, mote_fast.kernels
    for name in sys.argv[3].split(","): importlib.import_module(f"mote_fast.kernels.{name}")
torch.manual_seed(0)
head = mote_fast.VideoHead(mote_fast.HeadConfig(16, 2, 1, 3), torch.randn(7, 16))
optimizer = mote_fast.head_optimizer(head, lr=1e-3)
features, classes = torch.randn(4, 5, 16), torch.randn(6, 16)
loss = mote_fast.training_loss(head, features, classes, torch.tensor([0, 1, 2, 3]), logit_scale=10.0)
loss.total.backward()
optimizer.step()
print(view_probabilities(head.fold()(features, classes), 2, 10.0).shape)
"""


@pytest.mark.heavy
def test_the_head_needs_pytorch_triton_and_numpy_alone() -> None:
    """Kernels, operators, losses and optimiser are checked on machines that have no more."""
    stated = {canonicalize_name(Requirement(each).name) for each in importlib.metadata.requires("mote_fast") or []}
    owners = importlib.metadata.packages_distributions()
    # PyTorch itself takes some packages where they are installed: only the library's own are taken away.
    others = stated - {"torch", "triton", "numpy"}
    blocked = {top for top, names in owners.items() if others & {canonicalize_name(each) for each in names}}
    assert {"open_clip", "torchvision", "av", "yaml", "safetensors"} <= blocked
    triton = "triton" if importlib.util.find_spec("triton") else "none"
    kernels = ",".join(path.stem for path in sorted((ROOT / "kernels").glob("*.py")) if path.stem != "__init__")
    command = [sys.executable, "-c", STEP, ",".join(sorted(blocked)), triton, kernels]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["torch.Size([2,", "6])"]


def test_a_checkout_that_is_not_installed_has_its_own_kernels(tmp_path: Path) -> None:
    """On PYTHONPATH alone, also beside an installation of another checkout, whose kernels must not be taken."""
    for folder in ("mote_fast", "kernels"):
        copied = shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    program = "import mote_fast.kernels.reference as found; print(found.__file__)"
    environment = {"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == copied / "reference.py"
