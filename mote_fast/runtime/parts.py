"""Unfinished outputs: each lies in a locked folder beside its target, until it is complete or its process has ended."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mote_fast.errors import ConfigError, MoteError
from mote_fast.runtime.lock import lock_descriptor, still_names

# The longest file name of the usual file systems, bytes.
MAX_NAME_BYTES = 255

PART_SUFFIX = ".part"

# Bytes that the folder's name adds to its target's: two dots, mkdtemp's eight letters and the suffix.
_ROOM = 10 + len(PART_SUFFIX)

# The name of any such folder.
_ANY = re.compile(rf"\..+\.\w{{8}}{re.escape(PART_SUFFIX)}", re.DOTALL)

# What such a folder holds.
_LOCK = "lock"
_CONTENT = "content"


@contextmanager
def new_part(target: Path) -> Iterator[Path]:
    """Yield a path to write to, which does not exist yet, in a new private folder beside ``target``.

    The folder is locked until the block ends, so that ``remove_abandoned`` of another process keeps it. If the block
    fails, the folder is removed. Otherwise it stays for ``complete``.

    Raises:
        OSError: the folder cannot be made.
    """
    folder, lock = _new_locked_folder(target)
    try:
        yield folder / _CONTENT
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        if lock is not None:
            os.close(lock)


def complete(part: Path, target: Path) -> None:
    """Give a part that is written its final name, atomically; its content is on disk before, and its name after.

    Args:
        part: path of a file, from ``new_part``.
        target: path of the file, which is replaced if it exists.

    Raises:
        OSError: the content cannot be written to the disk, or the file not renamed.
    """
    # safetensors makes private files; an output is as readable as what any other program writes.
    part.chmod(0o666 & ~umask())
    flush(part)
    part.replace(target)
    flush_names(target.parent)
    discard(part)


def discard(part: Path) -> None:
    """Remove a part and its folder."""
    shutil.rmtree(part.parent, ignore_errors=True)


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left in ``folder`` of writing the file or folder ``name``; None for any name.

    Parts of processes that live are locked, and stay. Where the file system has no locks, all stay.
    """
    wanted = _ANY if name is None else re.compile(rf"{re.escape(_prefix(name))}\w{{8}}{re.escape(PART_SUFFIX)}")
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            if wanted.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    _remove_unlocked(folder / entry.name)


@contextmanager
def writing(target: Path, error: type[MoteError] = ConfigError) -> Iterator[None]:
    """Turn an ``OSError`` about writing ``target`` into ``error``, with the target's name.

    An error of the library, and one that names another file than the target, a part of it or a folder above it, is not
    about the target, and passes unchanged.
    """
    try:
        yield
    except OSError as cause:
        if isinstance(cause, MoteError) or not _is_about(cause, target):
            raise
        raise error(f"{target}: cannot be written ({cause})") from cause


def flush(path: Path) -> None:
    """Have the content of a file on disk.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())


def flush_names(folder: Path) -> None:
    """Make a rename within ``folder`` survive a power cut; Windows cannot open a folder, and needs no flush."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def umask() -> int:
    """The permissions that new files of this process do not get."""
    # Elsewhere than on Linux the only way to read it is to set it, which other threads' files would show.
    with suppress(OSError, StopIteration), open("/proc/self/status", "rb") as status:
        return int(next(line for line in status if line.startswith(b"Umask:")).split()[1], 8)
    current = os.umask(0)
    os.umask(current)
    return current


def _new_locked_folder(target: Path) -> tuple[Path, int | None]:
    """Make a folder for a part; return it and the descriptor that holds its lock, None if there are no locks."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(target.name), suffix=PART_SUFFIX, dir=target.parent))
        # Until it is locked, another process takes the folder for abandoned, and may lock and remove it.
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except (FileExistsError, FileNotFoundError):
            continue
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        try:
            lock_descriptor(lock)
        except BlockingIOError:
            os.close(lock)
            continue
        except OSError:
            # No process removes what is not its own.
            os.close(lock)
            return folder, None
        if still_names(folder / _LOCK, lock):
            return folder, lock
        os.close(lock)


def _remove_unlocked(folder: Path) -> None:
    """Remove a part's folder; raise ``OSError`` if its process lives, or if there are no locks that would say so."""
    # A process that was killed before it made the lock left none.
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        lock_descriptor(lock)
        shutil.rmtree(folder)
    finally:
        os.close(lock)


def _prefix(name: str) -> str:
    """How the names of a target's parts begin: with its own, or something short in place of one that is too long."""
    if len(os.fsencode(name)) + _ROOM > MAX_NAME_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return f".{name}."


def _is_about(error: OSError, target: Path) -> bool:
    """Whether an error names no file, as that of a write, or the target, a part of it, or a folder above it."""
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return True
    named = os.path.abspath(os.fsdecode(error.filename).removeprefix("file:"))
    target = Path(os.path.abspath(target))
    return Path(named) in (target, *target.parents) or named.startswith(str(target.with_name(_prefix(target.name))))
