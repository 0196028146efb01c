"""The command that checks a device; ``make device-dry`` runs its sections without one."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import device_check
import pytest


def test_sections_are_there_and_have_numbers_of_their_own() -> None:
    """A section that cannot be imported would be found on a rented machine only; budgets fit the stated minutes."""
    numbers = [section.number for section in device_check.SECTIONS]
    assert numbers == sorted(set(numbers))
    assert all(callable(importlib.import_module(section.module).checks) for section in device_check.SECTIONS)
    assert sum(section.seconds for section in device_check.SECTIONS) <= 600


def test_a_processor_is_only_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing that a CPU computes may pass for a device's report."""
    for options in (["--device", "cpu"], ["--dry"], ["--minutes", "0"]):
        monkeypatch.setattr(sys, "argv", ["device_check.py", "--out", str(tmp_path / "out"), *options])
        with pytest.raises(SystemExit) as ended:
            device_check.main()
        assert ended.value.code == 2
    assert not (tmp_path / "out").exists()
