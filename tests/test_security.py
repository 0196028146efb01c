"""SECURITY.md states the limits that the code has."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from mote_fast.data.decoding import video_info

ROOT = Path(__file__).parents[1]
_ROW = re.compile(r"^\| [^|]+ \| ([^|]+) \| `([\w.]+)\.([A-Z_]+)` \|$", re.MULTILINE)
_NUMBER = re.compile(r"(?:(\d+) \* )?(\d+)(?:\^(\d+))?")

ROWS = _ROW.findall((ROOT / "SECURITY.md").read_text(encoding="utf-8"))


def test_limits_are_listed() -> None:
    """The pattern finds the rows of the table."""
    assert len(ROWS) >= 10


@pytest.mark.parametrize(("stated", "module", "name"), ROWS, ids=[name for *_, name in ROWS])
def test_limits_are_those_of_the_code(stated: str, module: str, name: str) -> None:
    """A limit that is changed in the code alone, renamed or removed fails here."""
    number = _NUMBER.fullmatch(stated)
    assert number is not None
    factor, base, power = number.groups()
    assert int(factor or 1) * int(base) ** int(power or 1) == getattr(importlib.import_module(module), name)


def test_every_limit_of_decoding_is_listed() -> None:
    """A new limit of a video's decoding is stated too."""
    limits = {name for name in vars(video_info) if name.startswith("MAX_")}
    assert limits <= {name for *_, name in ROWS}
