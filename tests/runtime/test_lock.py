"""Locks: one owner at a time, named to the others, and none that outlives its process."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mote_fast.errors import ConfigError
from mote_fast.runtime import lock
from mote_fast.runtime.lock import FileLock
from tests.full_disk import files_of_at_most

HOLDER = """
import signal, sys, pathlib
from mote_fast.runtime.lock import FileLock
with FileLock(pathlib.Path(sys.argv[1]), "a folder"):
    print("held", flush=True)
    signal.pause()
"""


def held_elsewhere(path: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_refused_and_told_who_was_first(tmp_path: Path) -> None:
    """Within a process too; after the release the next one has it, and no file stays."""
    path = tmp_path / "run.lock"
    with FileLock(path, "run.output x"):
        with pytest.raises(ConfigError, match=rf"run\.output x: in use by process {os.getpid()} on .* since 20"):
            FileLock(path, "run.output x")
        assert path.exists()
    assert list(tmp_path.iterdir()) == []
    with FileLock(path, "x"):
        pass


@pytest.mark.heavy
def test_a_killed_owner_does_not_lock_others_out(tmp_path: Path) -> None:
    """The file of a process that was killed stays and is taken over; one that lives keeps its lock."""
    path = tmp_path / "run.lock"
    owner = held_elsewhere(path)
    with pytest.raises(ConfigError, match=f"in use by process {owner.pid} "):
        FileLock(path, "x")
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert f"process {owner.pid} " in path.read_text()
    with FileLock(path, "x"):
        assert f"process {os.getpid()} " in path.read_text()


def test_a_file_removed_by_hand_is_no_lock_for_two(tmp_path: Path) -> None:
    """A file that is removed between opening and locking is opened again, so that both name the same file."""
    path, real, calls = tmp_path / "run.lock", lock.lock_descriptor, []

    def removed_first(descriptor: int) -> None:
        real(descriptor)
        calls.append(descriptor)
        if len(calls) == 1:
            path.unlink()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "lock_descriptor", removed_first)
        held = FileLock(path, "x")
    assert len(calls) == 2
    with held, pytest.raises(ConfigError, match="in use"):
        FileLock(path, "x")


def test_file_systems_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some network disks have none: the work goes on, with a warning. Another error is one."""

    def fails_with(code: int) -> None:
        def fails(descriptor: int) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(lock, "lock_descriptor", fails)

    fails_with(errno.ENOSYS)
    with FileLock(tmp_path / "run.lock", "run.output x"):
        pass
    assert "run.output x: cannot be locked" in caplog.text
    fails_with(errno.EIO)
    with pytest.raises(ConfigError, match="cannot be locked or written"):
        FileLock(tmp_path / "run.lock", "x")


def test_what_is_no_file_of_ours_is_kept(tmp_path: Path) -> None:
    """A link in the place of the lock would have another file overwritten; a folder cannot be locked."""
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "run.lock").symlink_to(tmp_path / "precious")
    (tmp_path / "folder").mkdir()
    for name in ("run.lock", "folder", "missing/run.lock"):
        with pytest.raises(ConfigError, match="cannot be locked or written"):
            FileLock(tmp_path / name, "x")
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_full_disk_locks_without_a_text(tmp_path: Path) -> None:
    """The lock holds; only the owner is not known."""
    with (
        files_of_at_most(0),
        FileLock(tmp_path / "run.lock", "x"),
        pytest.raises(ConfigError, match="in use by another process"),
    ):
        FileLock(tmp_path / "run.lock", "x")
