"""Locks on files, which end with the process that holds them."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType

from mote_fast.errors import ConfigError

log = logging.getLogger(__name__)

# What file systems without locks answer, such as some network disks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)


class FileLock:
    """A lock on the file ``path``, from its creation to ``release``, or until the process ends in whatever way.

    The text of the file names the owner: process, machine and time. ``release`` removes the file; a process that was
    killed leaves it, and the next one takes it over. A context manager. Where the file system has no locks there is a
    warning, and nothing is locked.

    Args:
        path: path of the file, created if missing; its folder exists.
        what: what the lock protects, for the message.
        wait: wait for another owner to end, which is logged.

    Raises:
        ConfigError: another process, or another part of this one, holds the lock; or the file cannot be written.
    """

    def __init__(self, path: Path, what: str, *, wait: bool = False) -> None:
        self.path = path
        try:
            self._descriptor = _locked(path, what, wait)
        except BlockingIOError as error:
            raise ConfigError(f"{what}: in use by {_owner(path)}; wait for it, or choose another folder") from error
        except OSError as error:
            raise ConfigError(f"{path}: cannot be locked or written ({error})") from error

    def release(self) -> None:
        """Remove the file and end the lock."""
        if self._descriptor is None:
            return
        # While the lock is held, so that the file of a later owner is not removed.
        with suppress(OSError):
            self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = None

    def __enter__(self) -> FileLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def lock_descriptor(descriptor: int, *, wait: bool = False) -> None:
    """Lock an open file or folder until it is closed, by this process or by its end.

    Raises:
        BlockingIOError: another open file holds the lock, and ``wait`` is not set.
        OSError: the system or the file system has no locks.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "no file locks on Windows")
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def still_names(path: Path, descriptor: int) -> bool:
    """Whether ``path`` still names the open file; another process may have removed it before it was locked."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _locked(path: Path, what: str, wait: bool) -> int | None:
    """Open and lock the file, and write the owner to it; None where the file system has no locks."""
    while True:
        # A link would have the file that it names overwritten.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            _lock_or_wait(descriptor, path, what, wait)
            if still_names(path, descriptor):
                # On a full disk the lock holds without its text.
                with suppress(OSError):
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"{_this_process()}\n".encode())
                return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise
            log.warning("%s: cannot be locked (%s); let no second process write there", what, str(error))
            return None
        os.close(descriptor)


def _lock_or_wait(descriptor: int, path: Path, what: str, wait: bool) -> None:
    try:
        lock_descriptor(descriptor)
    except BlockingIOError:
        if not wait:
            raise
        log.warning("%s: waiting for %s", what, _owner(path))
        lock_descriptor(descriptor, wait=True)


def _this_process() -> str:
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {since}"


def _owner(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
    except OSError:
        return "another process"
