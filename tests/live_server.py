"""Live streams on this machine, over HTTP and RTSP, which can be cut off and come back at the same address."""

from __future__ import annotations

import io
import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import av
import numpy as np

# A transport stream in RTP packets, type 33.
_SDP = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=test
c=IN IP4 127.0.0.1
t=0 0
m=video 0 RTP/AVP 33
a=control:t
"""


def transport_stream(frames: np.ndarray, fps: int) -> bytes:
    """Frames, uint8 [N, H, W, 3], as an MPEG transport stream, each a key frame."""
    out = io.BytesIO()
    with av.open(out, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=fps, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


class LiveServer:
    """Sends the same bytes to each who connects, and then nothing more, until it is cut off.

    Attributes:
        url: address of the stream.
        connections: how many were answered.
        sent: set once the bytes have been sent to someone.
    """

    def __init__(self, content: bytes, scheme: str, closes: bool) -> None:
        self._content, self._scheme, self._closes = content, scheme, closes
        self.connections = 0
        self.sent = threading.Event()
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._port}/live"

    def start(self) -> None:
        """Listen, at the port of before."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def cut(self) -> None:
        """Close everything, and refuse who connects."""
        for each in (self._listener, *self._open):
            if each is not None:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self._open.append(connection)
                threading.Thread(target=self._answer, args=[connection], daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError):
            file = connection.makefile("rb")
            if self._scheme == "http":
                while file.readline().strip():
                    pass
                self.connections += 1
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n" + self._content)
                self.sent.set()
                if self._closes:
                    connection.shutdown(socket.SHUT_RDWR)
            else:
                self._speak_rtsp(connection, file)

    def _speak_rtsp(self, connection: socket.socket, file: io.BufferedReader) -> None:
        while line := file.readline().decode():
            fields = dict(self._fields(file))
            method, head, body = line.split()[0], f"CSeq: {fields['cseq']}\r\nSession: 1\r\n", ""
            if method == "DESCRIBE":
                body = _SDP
                head += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
            elif method == "SETUP":
                head += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
            connection.sendall(f"RTSP/1.0 200 OK\r\n{head}\r\n{body}".encode())
            if method == "PLAY":
                self.connections += 1
                size = 7 * 188
                for number, at in enumerate(range(0, len(self._content), size)):
                    part = self._content[at : at + size]
                    header = bytes([0x80, 33]) + number.to_bytes(2, "big") + bytes(8)
                    connection.sendall(b"$\0" + (len(part) + 12).to_bytes(2, "big") + header + part)
                self.sent.set()

    @staticmethod
    def _fields(file: io.BufferedReader) -> Iterator[tuple[str, str]]:
        for line in itertools.takewhile(bool, (line.strip().decode() for line in file)):
            name, _, value = line.partition(":")
            yield name.lower(), value.strip()


@contextmanager
def live_server(content: bytes, scheme: str = "http", *, closes: bool = False) -> Iterator[LiveServer]:
    """Serve a stream on a free port; ``closes`` ends each connection after the bytes."""
    server = LiveServer(content, scheme, closes)
    try:
        yield server
    finally:
        server.cut()
