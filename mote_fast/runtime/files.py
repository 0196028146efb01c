"""Atomic writes: files and folders appear complete or not at all."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from mote_fast.errors import ConfigError, MoteError
from mote_fast.runtime.parts import complete, discard, flush, flush_names, new_part, remove_abandoned, umask, writing
from mote_fast.runtime.reading import read_small

# Bytes written to find out whether a disk is full: one block.
_PROBE = 4096

# From Linux's fcntl.h and fs.h.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def staged(target: Path, error: type[MoteError] = ConfigError) -> Iterator[Path]:
    """Yield a path to write to; what is written there atomically becomes ``target`` if the block succeeds.

    The content is on disk before the rename. Threads and processes may write the same file at once: each writes to its
    own path, and the last one stays. The remains of killed processes are removed, see ``remove_abandoned``.

    Args:
        target: path of the file; its folder is created if missing.
        error: error to raise if writing fails, with the target's name.
    """
    with writing(target, error):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target.parent, target.name)
        with new_part(target) as part:
            yield part
            complete(part, target)


@contextmanager
def staged_folder(target: Path, error: type[MoteError] = ConfigError) -> Iterator[Path]:
    """Yield a new folder to write to; it atomically replaces ``target`` if the block succeeds, as in ``staged``.

    Args:
        target: path of the folder; an existing one is removed.
        error: error to raise if writing fails, with the target's name.
    """
    with writing(target, error):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target.parent, target.name)
        with new_part(target) as part:
            part.mkdir()
            yield part
            # Some writers make private files; these get the default permissions.
            mode = ~umask()
            part.chmod(0o777 & mode)
            for entry in part.rglob("*"):
                if entry.is_dir():
                    entry.chmod(0o777 & mode)
                    flush_names(entry)
                else:
                    entry.chmod(0o666 & mode)
                    flush(entry)
            flush_names(part)
            _swap_in(part, target)
            flush_names(target.parent)
            discard(part)


def write_all(file: FileIO, content: bytes) -> None:
    """Write ``content`` to an unbuffered file.

    Raises:
        OSError: not all of it could be written. Nothing is left in a buffer that closing the file would try again.
    """
    while content:
        content = content[file.write(content) :]


def write_bytes(target: Path, content: bytes) -> None:
    """Write ``content`` to ``target`` atomically.

    Raises:
        ConfigError: ``target`` cannot be written.
    """
    with staged(target) as part:
        part.write_bytes(content)


def write_text(target: Path, text: str) -> None:
    """Write ``text`` to ``target`` atomically, as UTF-8 with its line ends unchanged.

    Raises:
        ConfigError: ``target`` cannot be written.
    """
    with staged(target) as part:
        part.write_text(text, encoding="utf-8", newline="")


def write_texts(folder: Path, texts: Mapping[str, str], force: bool = False) -> None:
    """Write files of the given names into ``folder``, which is created if missing; each is replaced atomically.

    Files that have the text already, as an interrupted call leaves them, stay as they are.

    Raises:
        ConfigError: a file has another text and ``force`` is not set (nothing is written), or cannot be written.
    """
    contents = {name: text.encode() for name, text in texts.items()}
    missing = [name for name, content in contents.items() if not _holds(folder / name, content)]
    check_writable(folder, missing, force)
    for name in missing:
        write_bytes(folder / name, contents[name])


def _holds(path: Path, content: bytes) -> bool:
    """Whether a file exists and has this content."""
    try:
        return path.stat().st_size == len(content) and read_small(path, len(content)) == content
    except OSError:
        return False


def check_writable(folder: Path, names: Iterable[str], force: bool) -> None:
    """Check, before any work is done, that no file exists yet.

    Raises:
        ConfigError: a file exists and ``force`` is not set, or ``folder`` is not a folder.
    """
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ConfigError(f"{folder}: is not a folder; give another --output")
    for name in names:
        if not force and os.path.exists(folder / name):
            raise ConfigError(f"{folder / name}: exists; give --force to replace it, or another --output")


def make_folder(folder: Path, option: str = "--output", names: Iterable[str] = ()) -> None:
    """Create the folder of the results, before any work is done.

    Args:
        folder: path of the folder; its parents are created too.
        option: the option that named the folder, for the message.
        names: files to be written there, which may exist.

    Raises:
        ConfigError: the folder cannot be created or written to, or a folder has the name of a file.
    """
    _prepare(folder, names, f"{option} {folder}")


def check_file(path: Path, option: str = "--output") -> None:
    """Check, before any work is done, that a file can be written; its folder is created.

    Raises:
        ConfigError: the folder cannot be created or written to, or the path names something else than a file.
    """
    _prepare(path.parent, (path.name,), f"{option} {path}")


def _prepare(folder: Path, names: Iterable[str], what: str) -> None:
    try:
        if os.path.exists(folder) and not os.path.isdir(folder):
            raise NotADirectoryError(f"{folder} is not a folder")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            # A full disk still makes empty files.
            write_all(probe, bytes(_PROBE))
        for name in names:
            path = folder / name
            # A rename would fail at a folder, and replace a device.
            if os.path.exists(path) and not os.path.isfile(path):
                raise OSError(f"{path} is {'a folder' if os.path.isdir(path) else 'no regular file'}")
    except OSError as error:
        raise ConfigError(f"{what}: cannot be written ({error})") from error


def _swap_in(part: Path, folder: Path) -> None:
    """Replace ``folder`` by ``part``; an existing folder moves to the path of ``part``."""
    if not folder.exists():
        part.rename(folder)
    elif not _exchange(part, folder):
        # Without an atomic exchange the folder is briefly absent; `aside` then holds the earlier one.
        aside = folder.with_name(f"{part.parent.name}.earlier")
        folder.rename(aside)
        part.rename(folder)
        aside.rename(part)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two paths atomically (Linux's renameat2); return False if the system or file system does not support it."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if renameat2 is None:
        return False
    return renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0
