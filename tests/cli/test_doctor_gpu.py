"""``mote-fast doctor --gpu``: the quick sections of the device check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from mote_fast.cli import doctor, main
from mote_fast.device_check import run_sections
from mote_fast.device_check.check import Check
from mote_fast.device_check.device_report import SectionResult


def test_without_a_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says so before anything is surveyed."""
    monkeypatch.setattr(doctor, "best_device", lambda: "cpu")
    assert main(["doctor", "--gpu"]) == 2
    assert capsys.readouterr().err.startswith("mote-fast: error: --gpu checks a GPU")


@pytest.mark.heavy
def test_what_fails_is_the_exit_status(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks are shown as they come, those that fail also as errors; with --json they are in the document."""
    found = [SectionResult(2, "values", [Check("pair", "fail", 0.5, 1e-5), Check("merge", "pass", 1e-7, 1e-5)])]

    def run(sections: Sequence[Any], command: Sequence[str], *_: Any, show: Any, quick: bool, **others: Any) -> Any:
        assert quick
        assert [section.number for section in sections] == [0, 1, 2]
        for check in found[0].checks:
            show(check.line())
        return found

    monkeypatch.setattr(doctor, "best_device", lambda: "cuda")
    monkeypatch.setattr(run_sections, "run_sections", run)
    assert main(["doctor", "--gpu"]) == 2
    out, err = capsys.readouterr()
    assert "pass   merge" in out
    assert "the GPU: fail   pair; error 5.00e-01; bound 1e-05" in err
    assert main(["doctor", "--gpu", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["gpu"]["sections"][0]["checks"][0]["verdict"] == "fail"
