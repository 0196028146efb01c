"""Installed versions: the bounds of setup.py, and the lock that `make` installs."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tools.versions import GPU_PACKAGES, PACKAGE, PYTHONS, cpu

ROOT = Path(__file__).parents[1]
REQUIREMENTS = [Requirement(text) for text in importlib.metadata.requires(PACKAGE) or []]
# Packages that no environment of ``make`` has: the other one of two alternatives, and extras that tests skip without.
NOT_LOCKED = {"nvidia-dali-cuda120", "openvino", "ray", "sentencepiece", "transformers", "usearch"}


@pytest.fixture(scope="module")
def lock() -> dict[str, str]:
    """Package -> version, of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(re.match(r"([\w.-]+)==([^;\s]+)", line).groups() for line in lines if not line.startswith("#"))


def test_every_requirement_has_a_lower_bound_and_a_pin_within_it(lock: dict[str, str]) -> None:
    """Without a bound `make test-oldest` has nothing to install; without a pin two machines differ."""
    for requirement in REQUIREMENTS:
        assert [bound.operator for bound in requirement.specifier].count(">=") == 1, str(requirement)
        name = canonicalize_name(requirement.name)
        if name not in NOT_LOCKED and str(requirement.marker) != 'extra == "docs"':
            assert requirement.specifier.contains(lock[name]), str(requirement)


def test_committed_figures_were_made_with_the_lock(lock: dict[str, str]) -> None:
    """A repeated measurement installs the measured versions."""
    files = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    assert files
    for path in files:
        found = json.loads(path.read_text())
        versions = found.get("environment", found)["versions"]
        for package, version in versions.items():
            if package != "python":
                assert lock[canonicalize_name(package)] == version, f"{path.name}: {package}"


def test_the_lock_knows_the_pythons_that_are_supported() -> None:
    """The lock's markers cover the supported Python versions."""
    supported = SpecifierSet(importlib.metadata.metadata(PACKAGE)["Requires-Python"])
    assert PYTHONS[0] in supported
    assert f"3.{int(PYTHONS[0].split('.')[1]) - 1}" not in supported


def test_make_dev_cpu_leaves_out_what_only_gpus_need() -> None:
    """It installs the packages of `make venv` without these; a new package for GPUs must be added to them."""
    chosen = {canonicalize_name(Requirement(line).name) for line in cpu()}
    needed = {
        canonicalize_name(requirement.name)
        for requirement in REQUIREMENTS
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", "dev"))
    }
    assert chosen == needed - GPU_PACKAGES
    assert not [name for name in chosen if name.startswith(("nvidia-", "cuda-"))]
