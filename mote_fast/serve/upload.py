"""A request's form, streamed: the video into a file without a name, which is gone when it is closed, however that is.

Nothing of a video is held in memory, and a body that is too large is refused before, or where, it becomes so.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from mote_fast.errors import quoted
from mote_fast.serve.limits import MAX_FIELD_BYTES, MAX_SILENT_SECONDS, MAX_UPLOAD_SECONDS, Limits, RefusedError

# The field that holds the video.
VIDEO = "video"
# Bytes of a video that are written at a time.
_WRITTEN_AT_ONCE = 2**20


class Form:
    """The fields of a request and its video.

    Attributes:
        fields: the values of each field, in their order.
        video: the file, empty where no video was sent.
        video_name: what the sender calls the file; None where no video was sent.
        size: bytes of the video.
    """

    def __init__(self, video: IO[bytes]) -> None:
        self.fields: dict[str, list[str]] = {}
        self.video = video
        self.video_name: str | None = None
        self.size = 0

    @property
    def path(self) -> str:
        """A path of the video for this process and those that it starts."""
        # On Linux the file has no name; the kernel names it for whoever may look into this process: its user alone.
        return f"/proc/{os.getpid()}/fd/{self.video.fileno()}" if sys.platform == "linux" else self.video.name

    def one(self, name: str, default: str) -> str:
        """Return the value of a field that is given at most once.

        Raises:
            RefusedError: it is given several times.
        """
        values = self.fields.get(name, [default])
        if len(values) > 1:
            raise RefusedError(400, f"the field {name} is given {len(values)} times; give it once")
        return values[0]


@asynccontextmanager
async def received(request: Request, limits: Limits, known: Collection[str]) -> AsyncIterator[Form]:
    """Receive a form; its video is there as long as the context is open.

    Args:
        request: its body is multipart/form-data.
        limits: of the video's size.
        known: names of the fields that the request may have.

    Raises:
        RefusedError: the body is too large, too slow, malformed, or has other fields.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise RefusedError(415, "send a form, multipart/form-data, with the fields " + ", ".join(known))
    declared = request.headers.get("content-length", "0")
    # No number is the HTTP parser's to refuse.
    if declared.isdigit() and int(declared) > limits.upload_bytes + MAX_FIELD_BYTES:
        raise _too_large(limits)
    with tempfile.TemporaryFile() if sys.platform == "linux" else tempfile.NamedTemporaryFile() as video:
        form = Form(video)
        reader = _Reader(form, limits, known)
        try:
            parser = MultipartParser(options[b"boundary"], reader.callbacks())
            await asyncio.wait_for(_feed(request, parser, reader), MAX_UPLOAD_SECONDS)
        except FormParserError as error:
            raise RefusedError(400, f"the form is malformed: {error}") from error
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise RefusedError(408, "the upload takes too long") from error
        except OSError as error:
            raise RefusedError(507, f"the upload cannot be stored ({error.strerror})") from error
        yield form


async def _feed(request: Request, parser: MultipartParser, reader: _Reader) -> None:
    parts = request.stream()
    while True:
        try:
            part = await asyncio.wait_for(anext(parts), MAX_SILENT_SECONDS)
        except StopAsyncIteration:
            break
        parser.write(part)
        if len(reader.waiting) >= _WRITTEN_AT_ONCE:
            await reader.write()
    await reader.write()
    await run_in_threadpool(reader.form.video.flush)
    if not reader.ended:
        raise RefusedError(400, "the form ends too early")


def _too_large(limits: Limits) -> RefusedError:
    return RefusedError(413, f"the video is over the limit of {limits.upload_bytes / 1e6:g} MB; cut or re-encode it")


class _Reader:
    """What the parser calls: it sorts the parts of a body into the fields of a form and its video."""

    def __init__(self, form: Form, limits: Limits, known: Collection[str]) -> None:
        self.form = form
        self.waiting = bytearray()
        self.ended = False
        self._limits = limits
        self._known = known
        self._small = 0
        self._name = ""
        self._value = bytearray()
        self._header = [bytearray(), bytearray()]
        self._disposition = b""

    def callbacks(self) -> Any:
        """Return what the parser calls, by its names."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._name_part,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    async def write(self) -> None:
        """Write what has come of the video."""
        part, self.waiting = self.waiting, bytearray()
        if part:
            await run_in_threadpool(self.form.video.write, part)

    def _begin(self) -> None:
        self._name, self._value, self._disposition = "", bytearray(), b""

    def _end_header(self) -> None:
        name, value = (bytes(each) for each in self._header)
        self._header = [bytearray(), bytearray()]
        if name.lower() == b"content-disposition":
            self._disposition = value

    def _name_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name not in self._known:
            raise RefusedError(400, f"there is no field {quoted(self._name)}; the fields are {', '.join(self._known)}")
        if self._name == VIDEO:
            if self.form.video_name is not None:
                raise RefusedError(400, "there are several videos; send one")
            self.form.video_name = options.get(b"filename", b"").decode("utf-8", "replace") or VIDEO

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == VIDEO:
            self.form.size += end - start
            if self.form.size > self._limits.upload_bytes:
                raise _too_large(self._limits)
            self.waiting += data[start:end]
            return
        self._small += end - start
        if self._small > MAX_FIELD_BYTES:
            raise RefusedError(413, f"the fields beside the video are over {MAX_FIELD_BYTES} bytes")
        self._value += data[start:end]

    def _end(self) -> None:
        if self._name == VIDEO:
            return
        try:
            text = self._value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RefusedError(400, f"the field {self._name} is not UTF-8") from error
        self.form.fields.setdefault(self._name, []).append(text)

    def _finish(self) -> None:
        self.ended = True
