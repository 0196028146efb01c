"""Prints the changes of a version from CHANGELOG.md, for the page of its release.

    python tools/release_notes.py 0.1.0

Exits with 1 where the version is another than the package's, or the changelog has no dated entry of it.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from runpy import run_path

ROOT = Path(__file__).parents[1]


def notes(changelog: str, version: str) -> str:
    """The text below ``## VERSION (DATE)``, up to the next version."""
    entry = re.search(rf"^## {re.escape(version)} \(([^)\n]+)\)\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if entry is None:
        raise SystemExit(f"CHANGELOG.md: has no entry of {version}")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", entry[1]):
        raise SystemExit(f"CHANGELOG.md: {version} is {entry[1]}; give it the day of its release")
    return entry[2].strip()


def main() -> None:
    """Print the notes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="the version, without a v")
    version = parser.parse_args().version
    package = run_path(str(ROOT / "mote_fast" / "version.py"))["__version__"]
    if version != package:
        raise SystemExit(f"mote_fast/version.py: says {package}, and the tag {version}")
    print(notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version))


if __name__ == "__main__":
    main()
