"""Atomic writes: files and folders appear complete or not at all."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from uuid import uuid4

from mote_fast.errors import ConfigError, MoteError
from mote_fast.runtime.lock import lock_descriptor, still_names

# Suffix of a file's name until the file is complete.
PART_SUFFIX = ".part"

# The longest file name of the usual file systems, bytes.
MAX_NAME_BYTES = 255

# Bytes that a staging folder's name adds to its target's: mkdtemp's eight letters and the suffix.
_FOLDER_ROOM = 8 + len(PART_SUFFIX)

# Bytes written to find out whether a disk is full: one block.
_PROBE = 4096

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
    part = target.with_name(_part_name(target.name, f".{uuid4().hex}{PART_SUFFIX}" if shared else PART_SUFFIX))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            # safetensors makes private files; an output is as readable as what any other program writes.
            part.chmod(0o666 & ~_umask())
            _flush(part)
            part.replace(target)
            _flush_names(target.parent)
        finally:
            part.unlink(missing_ok=True)
    except OSError as cause:
        # The block may raise an error of the library, about what it reads.
        if isinstance(cause, MoteError):
            raise
        raise error(f"{target}: cannot be written ({cause})") from cause


@contextmanager
def staged_folder(target: Path, error: type[MoteError] = ConfigError) -> Iterator[Path]:
    """Yield a new folder beside ``target``; it atomically replaces ``target`` if the block succeeds, as in ``staged``.

    The remains of interrupted attempts are removed, see ``remove_abandoned``.

    Args:
        target: path of the folder; an existing one is removed.
        error: error to raise if writing fails, with the target's name.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target)
        part, descriptor = _new_locked_folder(target)
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
            if descriptor is not None:
                os.close(descriptor)
    except OSError as cause:
        raise error(f"{target}: cannot be written ({cause})") from cause


def remove_abandoned(target: Path) -> None:
    """Remove what killed processes left of writing the folder ``target``; that of a process that lives is locked."""
    name = re.compile(re.escape(_part_name(target.name, ".", room=_FOLDER_ROOM)) + r"\w{8}" + re.escape(PART_SUFFIX))
    for part in target.parent.iterdir() if target.parent.is_dir() else ():
        if not name.fullmatch(part.name) or part.is_symlink() or not part.is_dir():
            continue
        try:
            descriptor = os.open(part, os.O_RDONLY)
        except OSError:
            continue
        try:
            lock_descriptor(descriptor)
            shutil.rmtree(part, ignore_errors=True)
        except OSError:
            # Its owner lives, or the file system has no locks that would say so.
            continue
        finally:
            os.close(descriptor)


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


def _new_locked_folder(target: Path) -> tuple[Path, int | None]:
    """Make a staging folder beside ``target`` and lock it; the descriptor is None where folders cannot be locked."""
    while True:
        prefix = _part_name(target.name, ".", room=_FOLDER_ROOM)
        part = Path(tempfile.mkdtemp(prefix=prefix, suffix=PART_SUFFIX, dir=target.parent))
        if os.name != "posix":
            return part, None
        descriptor = os.open(part, os.O_RDONLY)
        try:
            lock_descriptor(descriptor)
        except BlockingIOError:
            # Another process takes it for abandoned.
            os.close(descriptor)
            continue
        except OSError:
            os.close(descriptor)
            return part, None
        if still_names(part, descriptor):
            return part, descriptor
        os.close(descriptor)


def _part_name(name: str, ending: str, room: int = 0) -> str:
    """Return the name of an unfinished file; a short one if the name, the ending and ``room`` bytes are too long."""
    if len(os.fsencode(name)) + len(ending) + 1 + room > MAX_NAME_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return f".{name}{ending}"


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
    # Elsewhere than on Linux the only way to read it is to set it, which other threads' files would show.
    with suppress(OSError, StopIteration), open("/proc/self/status", "rb") as status:
        return int(next(line for line in status if line.startswith(b"Umask:")).split()[1], 8)
    current = os.umask(0)
    os.umask(current)
    return current
