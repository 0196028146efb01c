"""Atomic writes: files and folders appear complete or not at all."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from mote_fast.errors import ConfigError, MoteError

# Suffix of a file's name until the file is complete.
PART_SUFFIX = ".part"

# From Linux's fcntl.h and fs.h.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def staged(target: Path, error: type[MoteError] = ConfigError, *, shared: bool = False) -> Iterator[Path]:
    """Yield a path beside ``target`` to write to; it atomically becomes ``target`` if the block succeeds.

    The content is on disk before the rename. The remains of an interrupted earlier attempt are overwritten.

    Args:
        target: path of the file; its folder is created if missing.
        error: error to raise if writing fails, with the target's name.
        shared: other threads or processes may write the same file now. Each then writes under its own name, and the
            remains of an interrupted one are kept.
    """
    part = target.with_name(f".{target.name}{f'.{uuid4().hex}' if shared else ''}{PART_SUFFIX}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            _flush(part)
            part.replace(target)
            _flush_names(target.parent)
        finally:
            part.unlink(missing_ok=True)
    except OSError as cause:
        raise error(f"{target}: cannot be written ({cause})") from cause


@contextmanager
def staged_folder(target: Path, error: type[MoteError] = ConfigError) -> Iterator[Path]:
    """Yield a new folder beside ``target``; it atomically replaces ``target`` if the block succeeds, as in ``staged``.

    Args:
        target: path of the folder; an existing one is removed.
        error: error to raise if writing fails, with the target's name.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield part
            # mkdtemp and some writers make private files; these get the default permissions.
            mode = ~_umask()
            part.chmod(0o777 & mode)
            for entry in part.rglob("*"):
                if entry.is_dir():
                    entry.chmod(0o777 & mode)
                    _flush_names(entry)
                else:
                    entry.chmod(0o666 & mode)
                    _flush(entry)
            _swap_in(part, target)
            _flush_names(target.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as cause:
        raise error(f"{target}: cannot be written ({cause})") from cause


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

    Raises:
        ConfigError: a file exists and ``force`` is not set (nothing is written), or a file cannot be written.
    """
    check_writable(folder, texts, force)
    for name, text in texts.items():
        write_text(folder / name, text)


def check_writable(folder: Path, names: Iterable[str], force: bool) -> None:
    """Check, before any work is done, that no file exists yet.

    Raises:
        ConfigError: a file exists and ``force`` is not set, or ``folder`` is not a folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder; give another --output")
    for name in names:
        if not force and (folder / name).exists():
            raise ConfigError(f"{folder / name}: exists; give --force to replace it, or another --output")


def make_folder(folder: Path, option: str = "--output") -> None:
    """Create the folder of the results, before any work is done.

    Args:
        folder: path of the folder; its parents are created too.
        option: the option that named the folder, for the message.

    Raises:
        ConfigError: the folder cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{option} {folder}: cannot be written ({error})") from error


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _flush_names(folder: Path) -> None:
    """Make a rename within ``folder`` survive a power cut; Windows cannot open a folder, and needs no flush."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap_in(part: Path, folder: Path) -> None:
    """Replace ``folder`` by ``part``; an existing folder moves to the path of ``part``."""
    if not folder.exists():
        part.rename(folder)
    elif not _exchange(part, folder):
        # Without an atomic exchange the folder is briefly absent; `aside` then holds the earlier one.
        aside = part.with_name(part.name + ".earlier")
        folder.rename(aside)
        part.rename(folder)
        aside.rename(part)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two paths atomically (Linux's renameat2); return False if the system or file system does not support it."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if renameat2 is None:
        return False
    return renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0


def _umask() -> int:
    # The only way to read the umask is to set it.
    current = os.umask(0)
    os.umask(current)
    return current
