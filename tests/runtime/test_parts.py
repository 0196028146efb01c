"""Unfinished outputs: those of killed processes go, those of living ones stay; errors blame the right file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mote_fast.errors import ConfigError, MissingVideoError
from mote_fast.runtime.files import staged
from mote_fast.runtime.parts import complete, discard, new_part, remove_abandoned, writing

WRITER = """
import signal, sys, pathlib
from mote_fast.runtime.parts import new_part
with new_part(pathlib.Path(sys.argv[1])) as part:
    part.write_text("half")
    print(part, flush=True)
    signal.pause()
"""


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_a_part_becomes_its_target(tmp_path: Path) -> None:
    """One process may write a part and another complete it; what fails, and what is discarded, leaves nothing."""
    target = tmp_path / "file"
    with new_part(target) as part:
        part.write_text("whole")
    assert len(names(tmp_path)) == 1
    complete(part, target)
    assert names(tmp_path) == {"file"}
    assert target.read_text() == "whole"

    def fail_half_way() -> None:
        with new_part(target) as part:
            part.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    with new_part(target) as part:
        part.write_text("half")
    discard(part)
    assert names(tmp_path) == {"file"}
    assert target.read_text() == "whole"


@pytest.mark.heavy
def test_a_killed_writer_leaves_nothing_for_long(tmp_path: Path) -> None:
    """The next write to the same target removes what a killed process left, and not what another is writing now."""
    target, others = tmp_path / "best", {".best.original", ".best.12345678.part.old", ".best.12345678.parts"}
    for other in others:
        (tmp_path / other).mkdir()
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    parts = [Path(writer.stdout.readline().strip()) for writer in writers if writer.stdout is not None]
    writers[0].kill()
    writers[0].wait()
    assert all(part.is_file() for part in parts)
    with staged(target) as part:
        part.write_text("whole")
    assert [part.parent.exists() for part in parts] == [False, True]
    assert parts[1].read_text() == "half"
    writers[1].kill()
    writers[1].wait()
    remove_abandoned(tmp_path, "other")
    assert parts[1].exists()
    remove_abandoned(tmp_path)
    assert names(tmp_path) == {"best", *others}
    assert target.read_text() == "whole"


def test_a_part_whose_lock_was_never_made_is_abandoned(tmp_path: Path) -> None:
    """A process can be killed between the two; a link of such a name is not followed."""
    (tmp_path / "mine").mkdir()
    (tmp_path / ".a.12345678.part").mkdir()
    (tmp_path / ".b.12345678.part").symlink_to(tmp_path / "mine")
    remove_abandoned(tmp_path)
    assert names(tmp_path) == {"mine", ".b.12345678.part"}
    remove_abandoned(tmp_path / "none")


def test_writers_do_not_meet(tmp_path: Path) -> None:
    """Two that write the same file at once have a path each; the last one stays, and nothing else."""
    with staged(tmp_path / "file") as first, staged(tmp_path / "file") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "file").read_text() == "first"
    assert names(tmp_path) == {"file"}


def test_errors_blame_the_right_file(tmp_path: Path) -> None:
    """An error of the target, its folder or its part is the target's; one of another file keeps its own message."""
    target = tmp_path / "out" / "file"
    part = target.with_name(".file.12345678.part") / "content"
    for name in (None, target, target.parent, part, os.fsencode(target), f"file:{part}"):
        with pytest.raises(ConfigError, match="file: cannot be written"), writing(target):
            raise OSError(5, "broken", name)
    for name in (tmp_path / "out" / "video.mp4", tmp_path / "video.mp4", tmp_path / "out" / ".other.12345678.part"):
        with pytest.raises(OSError, match="broken") as error, writing(target):
            raise OSError(5, "broken", name)
        assert not isinstance(error.value, ConfigError)
    with pytest.raises(MissingVideoError, match=r"v\.mp4"), writing(target):
        raise MissingVideoError("v.mp4", "no such file")
