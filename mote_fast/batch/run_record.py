"""_mote_run.json: what the rows of an output are made of, and the plan of its videos."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mote_fast.batch.run_plan import PlanPart
from mote_fast.errors import ConfigError, ListError, one_line, quoted
from mote_fast.runtime.files import write_text
from mote_fast.runtime.json_text import from_json, to_json
from mote_fast.runtime.reading import check_inside, read_small

RECORD_FILE = "_mote_run.json"

# Raised when older code cannot read the new format.
FORMAT = 1

# Bytes of the file: class names are the largest part.
MAX_RECORD = 2**26


@dataclass(frozen=True)
class RunRecord:
    """What an output says of itself.

    Attributes:
        facts: what decides the rows, by name; JSON values. Two runs may share an output if these are equal.
        request: what else repeating a fault needs: the labels, and the options of a command that chose the model.
        parts: the plan.
    """

    facts: Mapping[str, Any]
    request: Mapping[str, Any]
    parts: tuple[PlanPart, ...] = ()

    def __post_init__(self) -> None:
        for name in ("facts", "request"):
            if not isinstance(getattr(self, name), Mapping):
                raise ConfigError(f"{name} must be an object, got {quoted(getattr(self, name))}")
        if [part.number for part in self.parts] != list(range(len(self.parts))):
            raise ConfigError("the parts of the plan are not numbered from 0")

    @property
    def fingerprint(self) -> str:
        """The hash of the facts, 64 hexadecimal digits."""
        return fingerprint_of(self.facts)

    @property
    def videos(self) -> int:
        """The number of planned videos."""
        return sum(part.videos for part in self.parts)


def fingerprint_of(facts: Mapping[str, Any]) -> str:
    """Return the hash of facts, 64 hexadecimal digits."""
    return hashlib.sha256(to_json(sorted(facts.items())).encode()).hexdigest()


def check_facts(folder: Path, recorded: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Check that a run's rows would be made as those of an output were.

    Raises:
        ConfigError: something differs; the message names it.
    """
    for name in {**facts, **recorded}:
        if recorded.get(name) != facts.get(name):
            raise ConfigError(
                f"{folder}: belongs to another run, of {name} {quoted(recorded.get(name))} and not "
                f"{quoted(facts.get(name))}; give what it was made with, or another folder"
            )


def write_record(folder: Path, record: RunRecord) -> None:
    """Write the file.

    Raises:
        ConfigError: it cannot be written.
    """
    write_text(folder / RECORD_FILE, to_json({"format": FORMAT, **asdict(record)}, indent=1) + "\n")


def read_record(folder: Path) -> RunRecord:
    """Read the file.

    Raises:
        ListError: it is missing, damaged, too large, from a newer release, or a link that leads out of the folder.
    """
    path = folder / RECORD_FILE
    try:
        check_inside(path, folder)
        values = from_json(read_small(path, MAX_RECORD).decode())
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ConfigError(f"not a run of this release (holds {quoted(values)})")
        parts = tuple(PlanPart(**each) for each in values.pop("parts"))
        return RunRecord(parts=parts, **values)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ListError(f"{folder}: no {RECORD_FILE}, so no output of `mote-fast batch`") from error
    except OSError as error:
        raise ListError(f"{path}: cannot be read ({error})") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ListError(f"{path}: damaged, or no run ({one_line(error)})") from error
