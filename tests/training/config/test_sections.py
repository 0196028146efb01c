"""The sections of a configuration: their own checks and complete documentation."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from mote_fast.data.decoding.decode import BACKENDS
from mote_fast.errors import ConfigError
from mote_fast.training.config.train_config import OPTIONS, DataConfig, OptimConfig, RunConfig, TrainConfig, to_dict
from mote_fast.training.config.values import describe, show


def test_sections_can_be_made_in_python() -> None:
    """The dataclasses make the checks, so that they apply to code and files alike."""
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        DataConfig(batch_size=0)
    with pytest.raises(ConfigError, match=r"optim\.precision 'fp16' needs a GPU"):
        TrainConfig(optim=OptimConfig(precision="fp16"), run=RunConfig(device="cpu"))


def documented(cls: type) -> dict[str, str]:
    """Return the description of each field in the "Attributes:" parts of a class and its bases, on one line."""
    found = {}
    for each in filter(is_dataclass, reversed(cls.__mro__)):
        part = re.search(r"^Attributes:\n((?:    .*\n|\n)*)", (inspect.getdoc(each) or "") + "\n", re.MULTILINE)
        assert part, f"{each.__name__} documents no attributes"
        entries = re.findall(r"^    (\w+): ((?:.*\n)(?:^     +.*\n)*)", part[1], re.MULTILINE)
        found |= {name: " ".join(meaning.split()) for name, meaning in entries}
    return found


def schema_rows() -> dict[str, str]:
    """The rows that the table of options in the manual must have, by key."""
    rows = {}
    for section, cls in get_type_hints(TrainConfig).items():
        values, meanings = to_dict(TrainConfig())[section], documented(cls)
        for each in fields(cls):
            key = f"{section}.{each.name}"
            kind = describe(OPTIONS[key]).replace("'", "`")
            meaning = meanings[each.name].replace("``", "`")
            value = values[each.name]
            default = f"`{value if isinstance(value, str) else show(value)}`" if value != "" else ""
            rows[key] = f"| `{key}` | {kind} | {default} | {meaning} |"
    return rows


def test_decoders_are_those_that_exist() -> None:
    """A configuration accepts exactly the decoders of the library."""
    assert set(get_args(OPTIONS["data.decode"])) == {"auto", *BACKENDS}


def test_every_field_is_documented() -> None:
    """Every field has a description, and every description a field."""
    for cls in get_type_hints(TrainConfig).values():
        assert set(documented(cls)) == {each.name for each in fields(cls)}


def test_manual_has_the_options() -> None:
    """The manual's table equals the dataclasses' documentation, row by row."""
    manual = Path(__file__).parents[3] / "docs" / "training.md"
    options = manual.read_text(encoding="utf-8").partition("\n## Options\n")[2]
    found = {row.split("`")[1]: row for row in options.splitlines() if row.startswith("| `")}
    assert found == schema_rows()


def test_replace_checks_again() -> None:
    """A changed copy passes the same checks."""
    with pytest.raises(ConfigError, match="epochs must be at least 1"):
        replace(TrainConfig().optim, epochs=0)
