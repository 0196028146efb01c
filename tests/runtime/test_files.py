"""Staged files: whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from mote_fast.errors import ConfigError
from mote_fast.runtime.files import staged


def test_staged_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    """An error in between leaves the earlier file, and nothing beside it."""
    target = tmp_path / "below" / "file"
    with staged(target) as part:
        part.write_text("first")

    def fail_half_way() -> None:
        with staged(target) as part:
            part.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert target.read_text() == "first"
    assert list(target.parent.iterdir()) == [target]


def test_staging_names_what_cannot_be_written(tmp_path: Path) -> None:
    """A full disk or a file in the way ends in one line."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="below: cannot be written"), staged(tmp_path / "file" / "below"):
        pass
