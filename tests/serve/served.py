"""A server in this process, and a client that sends forms to it."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mote_fast.runtime.environment import PRESETS
from mote_fast.serve.app import Offer, make_app
from mote_fast.serve.engine import Engine
from mote_fast.serve.run import Server, listen

DEMO = sorted(PRESETS.glob("demo/*/*.mp4"))
BOUNDARY = "end-of-part"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


@dataclass
class Answer:
    """What the server answered."""

    status: int
    headers: Mapping[str, str]
    text: str
    document: Any = field(init=False)

    def __post_init__(self) -> None:
        self.document = json.loads(self.text) if self.headers.get("content-type") == "application/json" else None


@dataclass
class Served:
    """A running server."""

    engine: Engine
    port: int

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        with closing(self.connect()) as connection:
            # Refused while it was sent.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body, dict(headers or {}), encode_chunked=not isinstance(body, bytes))
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read().decode())

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, headers)

    def post(self, path: str, fields: Iterable[tuple[str, str | Path]], **headers: str) -> Answer:
        return self.ask("POST", path, form(fields), {**FORM, **headers})


def form(fields: Iterable[tuple[str, str | Path]]) -> bytes:
    """Write a form; a path stands for a file."""
    parts = [part_of(name, value) for name, value in fields]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def part_of(name: str, value: str | Path) -> bytes:
    file = f'; filename="{value.name}"' if isinstance(value, Path) else ""
    content = value.read_bytes() if isinstance(value, Path) else value.encode()
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"


def with_labels(video: Path, labels: Sequence[str], **further: str) -> list[tuple[str, str | Path]]:
    return [("video", video), ("labels", "\n".join(labels)), *further.items()]


@contextmanager
def running(engine: Engine, offer: Offer | None = None, **options: Any) -> Iterator[Served]:
    """Serve on a free port of this machine."""
    listening = listen("127.0.0.1", 0)
    server = Server(make_app(engine, offer or Offer("tiny"), **options))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    try:
        yield Served(engine, listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
