"""The journal: no partial records after any interruption."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mote_fast.errors import ConfigError
from mote_fast.prepare.journal import Journal
from tests.full_disk import files_of_at_most


def test_records_survive(tmp_path: Path) -> None:
    """A later process reads the records of an earlier one; the last record of a name counts."""
    with Journal(tmp_path / "new" / "journal.jsonl") as journal:
        journal.append("a", size=1)
        journal.append("b\udcff", size=2)
        journal.append("a", size=3)
    with Journal(tmp_path / "new" / "journal.jsonl") as journal:
        assert journal.records == {"a": {"name": "a", "size": 3}, "b\udcff": {"name": "b\udcff", "size": 2}}


def test_a_line_cut_off_by_a_crash_is_dropped(tmp_path: Path) -> None:
    """The next record must not be appended to a truncated line."""
    path = tmp_path / "journal.jsonl"
    path.write_text('{"name": "a"}\n{"name": "b", "si')
    with Journal(path) as journal:
        assert list(journal.records) == ["a"]
        journal.append("c")
    with Journal(path) as journal:
        assert list(journal.records) == ["a", "c"]


def test_two_processes_cannot_share_one(tmp_path: Path) -> None:
    """Two processes would write the same files; the second is told who is first, and the lock's file goes."""
    with Journal(tmp_path / "journal.jsonl"), pytest.raises(ConfigError, match=f"in use by process {os.getpid()} "):
        Journal(tmp_path / "journal.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["journal.jsonl"]


def test_another_file_is_refused(tmp_path: Path) -> None:
    """A file that is not a journal is named with its line, and kept."""
    path = tmp_path / "journal.jsonl"
    path.write_text('{"name": "a"}\n[1]\n')
    with pytest.raises(ConfigError, match=r"journal\.jsonl:2"):
        Journal(path)


def test_a_full_disk_names_the_journal(tmp_path: Path) -> None:
    """What was recorded is read again; the record that did not fit is not there."""
    with Journal(tmp_path / "j") as journal:
        journal.append("a")
        with files_of_at_most(20), pytest.raises(ConfigError, match="j: cannot be written"):
            journal.append("b", note="long" * 9)
    with Journal(tmp_path / "j") as journal:
        assert journal.records.keys() == {"a"}
