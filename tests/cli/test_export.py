"""``mote-fast export``: the model and class names that the options name; errors on one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mote_fast.cli import main
from mote_fast.exports.record import RECORD_FILE

# Exports of whole models.
pytestmark = pytest.mark.heavy


def test_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One graph of the shipped model, with its class features."""
    folder = tmp_path / "out"
    command = ["export", "tiny", str(folder), "--format", "pt2", "--part", "head", "--labels", "a red ball, a cat"]
    assert main(command) == 0
    assert str(folder) in capsys.readouterr().out
    record = json.loads((folder / RECORD_FILE).read_text())
    assert (record["format"], [*record["graphs"]]) == ("pt2", ["head"])
    assert record["labels"] == ["a red ball", "a cat"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["tiny", "FULL"], "something else"), (["none", "out"], "none"), (["tiny", "out", "--labels", ","], "labels")],
)
def test_errors(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    reason: str,
) -> None:
    """Exit status 2, one line that names the cause, and no folder."""
    monkeypatch.chdir(tmp_path)
    Path("FULL").mkdir()
    Path("FULL/mine").touch()
    assert main(["export", *arguments]) == 2
    assert reason in capsys.readouterr().err
    assert not Path("out").exists()
