"""Files from the web: they appear whole and checked or not at all, and an interrupted transfer is continued."""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from mote_fast.errors import CheckpointError, ConfigError, one_line
from mote_fast.runtime.files import staged, write_all, write_text
from mote_fast.runtime.json_text import from_json, to_json
from mote_fast.runtime.lock import FileLock
from mote_fast.runtime.parts import remove_abandoned

log = logging.getLogger(__name__)

# Called with the bytes that lie on the disk so far and the size of the whole file.
TransferProgress = Callable[[int, int], object]

# Bytes of a file whose size is not known beforehand.
MAX_FILE_BYTES = 2**34
# Seconds without any byte after which a connection counts as lost.
TIMEOUT = 60.0
# Suffix of the file beside a fetched one that holds its SHA-256, in the form of `sha256sum`.
HASH_SUFFIX = ".sha256"
# Suffix of the bytes received so far, in a hidden file.
PARTIAL_SUFFIX = ".partial"

_CHUNK = 2**20
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_HASH = re.compile(r"[0-9a-f]{64}")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class _Version(NamedTuple):
    """What tells one version of a remote file from another: its size, and the server's mark for If-Range."""

    size: int
    mark: str | None


class _ConnectionLostError(Exception):
    """The network failed; the text says how."""


class _ChangedError(Exception):
    """The remote file is another one than that of the bytes received earlier."""


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    progress: TransferProgress | None = None,
) -> Path:
    """Return ``target``, fetched from ``url`` if it does not exist, and checked against its SHA-256.

    A hash that is not given is recorded beside the file the first time, and checked ever after. Bytes received before
    an interruption, even by the kill of the process, are used if the server still offers the same version. Of several
    processes one fetches and the others wait for it.

    Args:
        url: an https address; http is accepted from this machine alone. Redirects must lead to https.
        target: path of the file; its folder is created.
        sha256: the published hash, hexadecimal; None if there is none.
        size: the published size, bytes; None accepts up to ``MAX_FILE_BYTES``.
        progress: called after each piece, and once before the first.

    Raises:
        CheckpointError: the file cannot be fetched or written, or it is not the expected one; the message says what to
            do. Of a file that is not the expected one, or does not fit on the disk, nothing is kept.
    """
    record = target.with_name(target.name + HASH_SUFFIX)
    lock_file = target.with_name(f".{target.name}.lock")
    # A lock that a killed process left has remains to be removed beside it.
    if target.is_file() and not lock_file.exists() and (expected := sha256 or _recorded(record)):
        _check_existing(target, expected, "published" if sha256 else f"recorded in {record}")
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_file, str(target), wait=True)
    except (OSError, ConfigError) as error:
        raise CheckpointError(f"{target}: cannot be written ({one_line(error)})") from error
    with lock:
        expected = sha256 or _recorded(record)
        transfer = _Transfer(url, target, size, may_mix=expected is not None, progress=progress)
        if not target.is_file():
            transfer.run(expected)
        else:
            transfer.discard()
            for path in (target, record):
                remove_abandoned(path.parent, path.name)
            if expected is not None:
                _check_existing(target, expected, "published" if sha256 else f"recorded in {record}")
        if expected is None:
            digest = sha256_of(target)
            write_text(record, f"{digest}  {target.name}\n")
            log.warning(
                "%s: no checksum is published; its SHA-256 %s is recorded and checked from now on", target, digest
            )
    return target


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while content := file.read(_CHUNK):
            digest.update(content)
    return digest.hexdigest()


class _Transfer:
    """One file on its way: the bytes received so far, and a note beside them on the version that they belong to."""

    def __init__(
        self, url: str, target: Path, size: int | None, *, may_mix: bool, progress: TransferProgress | None
    ) -> None:
        _check_url(url)
        self.url = url
        self.target = target
        self.size = size
        # Without a hash to find it out, the pieces of two versions must not be joined.
        self.may_mix = may_mix
        self.progress = progress
        self.part = target.with_name(f".{target.name}{PARTIAL_SUFFIX}")
        self.note = target.with_name(f".{target.name}{PARTIAL_SUFFIX}.json")

    def run(self, sha256: str | None) -> None:
        """Receive the file, check it, and give it its name."""
        try:
            self._receive_all()
            if sha256 is not None and (found := sha256_of(self.part)) != sha256:
                self.discard()
                raise CheckpointError(
                    f"{self.url}: its SHA-256 is {found}, expected {sha256}: it is damaged or another file, and was "
                    "removed; try again, and trust no other copy"
                )
            with staged(self.target, CheckpointError) as whole:
                self.part.rename(whole)
            self.note.unlink(missing_ok=True)
        except (OSError, ConfigError) as error:
            # A full disk gets its space back.
            self.discard()
            raise CheckpointError(f"{self.target}: cannot be written ({one_line(error)})") from error

    def _receive_all(self) -> None:
        furthest = self._received()
        while True:
            try:
                return self._receive()
            except _ChangedError:
                self.discard()
            except _ConnectionLostError as error:
                received = self._received()
                # A connection that brought something is followed by another.
                if received > furthest:
                    furthest = received
                    continue
                kept = f"; {_megabytes(received)} are kept and need not be fetched again" if received else ""
                if not received:
                    self.discard()
                raise CheckpointError(
                    f"{self.url}: cannot be fetched ({error}){kept}; try again, or fetch it on another machine and put "
                    f"it at {self.target}"
                ) from error

    def _receive(self) -> None:
        """Receive what is missing over one connection."""
        version = self._noted()
        start = self._received() if version is not None else 0
        if version is not None and start == version.size:
            return
        headers = {"Accept-Encoding": "identity", "User-Agent": "mote_fast"}
        if start and version is not None:
            headers["Range"] = f"bytes={start}-"
            if version.mark is not None:
                headers["If-Range"] = version.mark
        with closing(self._open(headers, start)) as response:
            partial = response.status == HTTPStatus.PARTIAL_CONTENT
            if partial and not start:
                raise _ConnectionLostError("the server answers with a part, which was not asked for")
            found = self._version(response, start if partial else None)
            if partial and found != version:
                raise _ChangedError
            if not partial:
                start = 0
                self._begin(found)
            missing = found.size - start
            free = shutil.disk_usage(self.target.parent).free
            if missing > free:
                raise OSError(f"{_megabytes(missing)} are missing, and {_megabytes(free)} are free")
            self._copy(response, start, found.size)

    def _copy(self, response: http.client.HTTPResponse, start: int, size: int) -> None:
        with self.part.open("ab", buffering=0) as file:
            self._tell(start, size)
            while start < size:
                try:
                    content = response.read(min(_CHUNK, size - start))
                except (OSError, http.client.HTTPException) as error:
                    raise _ConnectionLostError(one_line(error)) from error
                if not content:
                    raise _ConnectionLostError(f"the connection ended after {start} of {size} bytes")
                write_all(file, content)
                start += len(content)
                self._tell(start, size)

    def _tell(self, done: int, size: int) -> None:
        if self.progress is not None:
            self.progress(done, size)

    def _open(self, headers: dict[str, str], start: int) -> http.client.HTTPResponse:
        # A proxy cannot reach this machine's own servers.
        direct = [ProxyHandler({})] if _is_loopback(self.url) else []
        try:
            response = build_opener(_SafeRedirects, *direct).open(Request(self.url, headers=headers), timeout=TIMEOUT)
        except HTTPError as error:
            error.close()
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                raise _ChangedError from error
            # The server's own words could say anything.
            words = http.client.responses.get(error.code, "")
            raise _ConnectionLostError(f"the server answers {error.code} {words}".rstrip()) from error
        except CheckpointError:
            raise
        except URLError as error:
            reason = error.reason if isinstance(error.reason, Exception) else error
            raise _ConnectionLostError(one_line(reason)) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _ConnectionLostError(one_line(error)) from error
        if response.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            response.close()
            raise _ConnectionLostError(f"the server answers {response.status}")
        return response

    def _version(self, response: http.client.HTTPResponse, start: int | None) -> _Version:
        """Read the version of the remote file from the answer's headers; ``start`` is that of the range asked for."""
        if start is not None:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != start:
                raise _ChangedError
            size = int(match[2])
        else:
            length = response.headers.get("Content-Length", "")
            if not length.isdecimal():
                raise CheckpointError(f"{self.url}: the server does not say how large the file is; nothing was fetched")
            size = int(length)
        if self.size is not None and size != self.size:
            self.discard()
            raise CheckpointError(f"{self.url}: has {size} bytes, expected {self.size}; nothing was kept")
        if size > MAX_FILE_BYTES:
            self.discard()
            raise CheckpointError(f"{self.url}: has {size} bytes, more than {MAX_FILE_BYTES}; nothing was kept")
        etag = response.headers.get("ETag", "")
        # A weak mark stands for versions that may differ in bytes.
        mark = etag if etag.startswith('"') else response.headers.get("Last-Modified")
        return _Version(size, mark)

    def _noted(self) -> _Version | None:
        """Return the version that the received bytes belong to, if they can be used."""
        try:
            values: Any = from_json(self.note.read_text(encoding="utf-8"))
            version = _Version(int(values["size"]), values["mark"])
            usable = values["url"] == self.url and (version.mark is not None or self.may_mix)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return version if usable and self._received() <= version.size else None

    def _received(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _begin(self, version: _Version) -> None:
        """Start anew with a version."""
        self.discard()
        write_text(self.note, to_json({"url": self.url, **version._asdict()}))

    def discard(self) -> None:
        """Remove what was received."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


class _SafeRedirects(HTTPRedirectHandler):
    """Follows redirects to https alone; from this machine's own servers also to themselves."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        if urlsplit(newurl).scheme != "https" and not (_is_loopback(req.full_url) and _is_loopback(newurl)):
            raise CheckpointError(f"{req.full_url}: redirects to {newurl!r}, which is not https; nothing was fetched")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_url(url: str) -> None:
    if urlsplit(url).scheme != "https" and not _is_loopback(url):
        raise CheckpointError(f"{url}: only https addresses are fetched")


def _is_loopback(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in _LOOPBACK


def _recorded(record: Path) -> str | None:
    """Return the recorded hash, or None if there is none.

    Raises:
        CheckpointError: the record is damaged.
    """
    try:
        digest = record.read_text(encoding="utf-8").split(" ", 1)[0]
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{record}: cannot be read ({one_line(error)})") from error
    if not _HASH.fullmatch(digest):
        raise CheckpointError(f"{record}: holds no SHA-256; delete it, and the next use records the hash anew")
    return digest


def _check_existing(target: Path, expected: str, origin: str) -> None:
    if (found := sha256_of(target)) != expected:
        raise CheckpointError(
            f"{target}: its SHA-256 is {found}, but {expected} is {origin}; delete it, and the next use "
            "fetches it again"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
