"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mote_fast.errors import ConfigError, MoteError

# Of the name that a file has until it is whole.
PART_SUFFIX = ".part"

# From Linux's fcntl.h and fs.h.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def staged(target: Path, error: type[MoteError] = ConfigError, *, shared: bool = False) -> Iterator[Path]:
    """Give a path beside ``target`` to write to, which becomes ``target`` in one step where the block succeeds.

    The content is on disk before the name is, and what an interrupted earlier attempt left is overwritten.

    Args:
        target: its folder is made if missing.
        error: what a failure to write raises, with the target's name.
        shared: other processes may write the same file now. Each then writes under a name of its own, and what an
            interrupted process left stays.
    """
    part = target.with_name(f".{target.name}{f'.{os.getpid()}' if shared else ''}{PART_SUFFIX}")
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
    """Give a new folder beside ``target``, whose files take the place of ``target`` in one step, as ``staged`` does.

    Args:
        target: what is there already is removed.
        error: what a failure to write raises, with the target's name.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield part
            # mkdtemp and some writers make private files; these are to be shared like any others.
            mode = ~_umask()
            part.chmod(0o777 & mode)
            for file in part.iterdir():
                file.chmod(0o666 & mode)
                _flush(file)
            _swap_in(part, target)
            _flush_names(target.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as cause:
        raise error(f"{target}: cannot be written ({cause})") from cause


def write_bytes(target: Path, content: bytes) -> None:
    """Write ``content`` to ``target``, whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    with staged(target) as part:
        part.write_bytes(content)


def write_text(target: Path, text: str) -> None:
    """Write ``text`` to ``target`` as UTF-8 with its own line ends, whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    with staged(target) as part:
        part.write_text(text, encoding="utf-8", newline="")


def write_texts(folder: Path, texts: Mapping[str, str], force: bool = False) -> None:
    """Write files of the given names into ``folder``, which is made if missing; each is replaced in one step.

    Raises:
        ConfigError: a file exists, and ``force`` is not set, and then nothing is written; or one cannot be written.
    """
    check_writable(folder, texts, force)
    for name, text in texts.items():
        write_text(folder / name, text)


def check_writable(folder: Path, names: Iterable[str], force: bool) -> None:
    """Check, before any work is done, that none of the files is there yet.

    Raises:
        ConfigError: one is, and ``force`` is not set; or ``folder`` is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder; give another --output")
    for name in names:
        if not force and (folder / name).exists():
            raise ConfigError(f"{folder / name}: exists; give --force to replace it, or another --output")


def make_folder(folder: Path, option: str = "--output") -> None:
    """Make the folder that results go to, before any work is done for them.

    Args:
        folder: its parents are made too.
        option: what the user named it by.

    Raises:
        ConfigError: it cannot be made, or not be written to.
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
    """Make a renaming within ``folder`` survive a power cut; Windows cannot open a folder and does so by itself."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap_in(part: Path, folder: Path) -> None:
    """Put ``part`` in the place of ``folder``; what was there, if anything, ends up where ``part`` was."""
    if not folder.exists():
        part.rename(folder)
    elif not _exchange(part, folder):
        # Without an atomic exchange there is an instant with no folder; the earlier one is then in `aside`.
        aside = part.with_name(part.name + ".earlier")
        folder.rename(aside)
        part.rename(folder)
        aside.rename(part)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two paths in one step (Linux's renameat2); False where the system or file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if renameat2 is None:
        return False
    return renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0


def _umask() -> int:
    # The only way to read the umask is to set it.
    current = os.umask(0)
    os.umask(current)
    return current
