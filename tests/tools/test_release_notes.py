"""The notes of a release."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.release_notes import notes

CHANGELOG = """# Changelog

## 0.2.0 (unreleased)

- Later.

## 0.1.0 (2026-12-01)

### Added

- First.

## 0.0.1 (2026-01-01)

- Earlier.
"""


def test_the_entry_of_the_version_alone() -> None:
    """Neither its heading nor another version's changes."""
    assert notes(CHANGELOG, "0.1.0") == "### Added\n\n- First."


@pytest.mark.parametrize(("version", "message"), [("0.1", "no entry of 0.1"), ("0.2.0", "0.2.0 is unreleased")])
def test_a_release_without_a_dated_entry_stops(version: str, message: str) -> None:
    """A page without notes would go unnoticed; a dot of the version is no wildcard."""
    with pytest.raises(SystemExit, match=message):
        notes(CHANGELOG, version)


def test_the_committed_changelog_has_an_entry_of_the_package() -> None:
    """With the day to be filled in, or filled in."""
    from mote_fast.version import __version__

    text = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
    dated = text.replace(f"## {__version__} (unreleased)", f"## {__version__} (2026-01-01)")
    assert "### Added" in notes(dated, __version__)
