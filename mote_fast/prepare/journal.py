"""A journal of finished work, so that an interrupted preparation can continue."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from mote_fast.errors import ConfigError
from mote_fast.runtime.files import write_all
from mote_fast.runtime.json_text import from_json, to_json
from mote_fast.runtime.lock import FileLock

# Seconds between two flushes to the disk: one for each of a million small videos would take longer than the work.
_FLUSH_EVERY = 1.0


class Journal:
    """An append-only file of records, one JSON object per line; a context manager that holds a lock beside the file.

    A last line truncated by a crash is dropped. If several records have the same name, the last one counts.

    Args:
        path: path of the file, created if missing.

    Raises:
        ConfigError: the file cannot be written, another process has locked it, or a line is not a record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, dict[str, Any]] = {}
        self._exits = ExitStack()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._exits.enter_context(FileLock(path.with_name(f"{path.name}.lock"), str(path)))
            self._file = self._exits.enter_context(path.open("a+b", buffering=0))
            self._load()
            self._flushed = time.monotonic()
        except OSError as error:
            self._exits.close()
            raise ConfigError(f"{path}: cannot be read or written ({error})") from error
        except BaseException:
            self._exits.close()
            raise

    def _load(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        self._file.truncate(whole)
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                record = from_json(line.decode())
                self.records[record["name"]] = record
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{self.path}:{number}: not a record of this program; remove the file") from error

    def append(self, name: str, **content: Any) -> None:
        """Record that ``name`` is finished; a kill of the process does not lose it, a power cut within a second may.

        Raises:
            ConfigError: the file cannot be written.
        """
        record = {"name": name, **content}
        try:
            write_all(self._file, to_json(record).encode() + b"\n")
            if time.monotonic() - self._flushed > _FLUSH_EVERY:
                os.fsync(self._file.fileno())
                self._flushed = time.monotonic()
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written ({error})") from error
        self.records[name] = record

    def clear(self) -> None:
        """Forget all records.

        Raises:
            ConfigError: the file cannot be written.
        """
        try:
            self._file.truncate(0)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written ({error})") from error
        self.records.clear()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What cannot be flushed is done again after a power cut.
        with suppress(OSError):
            os.fsync(self._file.fileno())
        self._exits.close()


def file_state(file: Path) -> dict[str, int]:
    """Return the size and modification time of a file, by which a record recognises it; empty if it cannot be seen.

    No recorded state equals an empty one, so such a file is read again, and the error reported.
    """
    try:
        status = file.stat()
    except OSError:
        return {}
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
