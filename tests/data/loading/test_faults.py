"""The log of videos that could not be read."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from mote_fast.data.loading.faults import CRASH, Failure, FaultLog
from mote_fast.errors import ConfigError

MISSING = Failure(3, "a/é.mp4", "MissingVideoError", "no such file", lasting=True)
DAMAGED = Failure(5, "b.mp4", "UndecodableVideoError", "a frame cannot be decoded")


def test_a_video_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In the log and the file, for any number of epochs, with path and reason; at once, not at the end."""
    file = tmp_path / "run" / "faults.jsonl"
    log = FaultLog(file)
    assert not file.exists()
    with caplog.at_level(logging.WARNING, "mote_fast.data.loading.faults"):
        for _ in range(3):
            log.record(MISSING)
        assert len(file.read_text(encoding="utf-8").splitlines()) == 1
        for _ in range(3):
            log.record(DAMAGED)
    assert log.failures == [MISSING, DAMAGED]
    assert [json.loads(line)["path"] for line in file.read_text(encoding="utf-8").splitlines()] == ["a/é.mp4", "b.mp4"]
    assert caplog.messages == ["a/é.mp4: no such file", "b.mp4: a frame cannot be decoded"]


def test_a_resumed_run_continues_the_file(tmp_path: Path) -> None:
    """Failures of an earlier run are known; in a list edited in between, an index may be another video's."""
    file = tmp_path / "faults.jsonl"
    FaultLog(file).record(MISSING)
    log = FaultLog(file)
    log.record(MISSING)
    log.record(DAMAGED)
    other = Failure(3, "c.mp4", CRASH, "tried twice")
    log.record(other)
    assert FaultLog(file).failures == [MISSING, DAMAGED, other]


@pytest.mark.parametrize("rest", ['{"index": 7, "pa', "\x00\x00", '{"index": 7}', "[]", '"x"'])
def test_a_line_cut_short_is_passed_over(rest: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A run that was killed while writing can be resumed, and its file stays readable."""
    file = tmp_path / "faults.jsonl"
    FaultLog(file).record(MISSING)
    file.write_text(file.read_text(encoding="utf-8") + rest, encoding="utf-8")
    with caplog.at_level(logging.WARNING, "mote_fast.data.loading.faults"):
        log = FaultLog(file)
    assert f"{file}:2" in caplog.text
    log.record(DAMAGED)
    assert FaultLog(file).failures == [MISSING, DAMAGED]


def test_summary(tmp_path: Path) -> None:
    """The summary has the number by kind and the file; it is empty if nothing failed."""
    log = FaultLog()
    assert log.summary() == ""
    log.record(MISSING)
    assert log.summary() == "1 video could not be read (1 MissingVideoError)"
    log = FaultLog(tmp_path / "faults.jsonl")
    for failure in (MISSING, DAMAGED, Failure(6, "c.mp4", "MissingVideoError", "no such file")):
        log.record(failure)
    assert log.summary() == (
        f"3 videos could not be read (2 MissingVideoError, 1 UndecodableVideoError); listed in {log.file}"
    )


def test_the_summary_comes_with_the_epoch_that_has_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The summary is not repeated in every epoch, nor for failures of an earlier run."""
    file = tmp_path / "faults.jsonl"
    FaultLog(file).record(MISSING)
    log = FaultLog(file)
    caplog.clear()
    for epoch in range(3):
        log.record(MISSING)
        if epoch == 1:
            log.record(DAMAGED)
        log.end_epoch()
    assert caplog.messages == [f"b.mp4: {DAMAGED.reason}", log.summary()]


def test_a_file_that_cannot_be_written_is_named_at_once(tmp_path: Path) -> None:
    """An error hours into a run would be too late."""
    with pytest.raises(ConfigError, match="folder: cannot be written"):
        FaultLog(_made(tmp_path / "folder"))


def test_a_disk_that_fills_up_does_not_end_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log still has every failure."""
    log = FaultLog(tmp_path / "faults.jsonl")
    _made(tmp_path / "faults.jsonl")
    log.record(Failure(0, "a.mp4", "UndecodableVideoError", "no frames"))
    assert "a.mp4: no frames" in caplog.text
    assert "faults.jsonl: cannot be written" in caplog.text
    assert len(log.failures) == 1


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
