"""A file server on this machine, with the faults that servers and networks have."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_RANGE = re.compile(r"bytes=(\d+)-")


@dataclass
class Site:
    """What the server offers, and what it was asked. All of it may be changed while it runs.

    Attributes:
        content: the file, under every path.
        ranges: answer requests for a part of it.
        etag: the mark of its version; None sends none, and no date either.
        drop_after: cut each connection after so many bytes of the body.
        pace: bytes at a time, each after ``gate`` is open; None sends all at once.
        status: answer with this status alone.
        location: redirect to this address.
        length: send Content-Length.
        claimed: the length to claim, instead of the true one.
        requests: the Range header of each request, None without one.
        url: address of the file.
    """

    content: bytes
    ranges: bool = True
    etag: str | None = '"first"'
    drop_after: int | None = None
    status: int | None = None
    location: str | None = None
    length: bool = True
    claimed: int | None = None
    pace: int | None = None
    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    requests: list[str | None] = field(default_factory=list)
    url: str = ""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@contextmanager
def serve(content: bytes, **options: Any) -> Iterator[Site]:
    """Serve a file on a free port of this machine."""
    site = Site(content, **options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            site.requests.append(asked)
            if site.location is not None or site.status is not None:
                self.send_response(site.status or 302)
                if site.location is not None:
                    self.send_header("Location", site.location)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = 0
            unchanged = self.headers.get("If-Range") in (None, site.etag)
            if asked is not None and site.ranges and unchanged:
                match = _RANGE.fullmatch(asked)
                assert match is not None
                start = int(match[1])
            if start and start >= len(site.content):
                self.send_error(416)
                return
            body = site.content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
            if site.length:
                self.send_header("Content-Length", str(len(body) if site.claimed is None else site.claimed))
            if site.etag is not None:
                self.send_header("ETag", site.etag)
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            self._send(body)

        do_HEAD = do_GET

        def _send(self, body: bytes) -> None:
            cut = len(body) if site.drop_after is None else site.drop_after
            step = site.pace or max(1, cut)
            try:
                for at in range(0, min(cut, len(body)), step):
                    if site.pace is not None:
                        site.gate.acquire()
                    self.wfile.write(body[at : min(at + step, cut)])
            except OSError:
                return

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_port}/weights.bin"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def left_in(folder: Path) -> set[str]:
    """The names of all files in a folder, hidden ones too."""
    return {path.name for path in folder.rglob("*")} if folder.is_dir() else set()
