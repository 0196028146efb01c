"""Runs the application until a signal, after which what runs is finished and nothing new is taken."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn

from mote_fast.errors import ConfigError
from mote_fast.serve.limits import MAX_CONNECTIONS

# Seconds that requests may take after the signal; then they are cut off.
DRAIN_SECONDS = 120


class Server(uvicorn.Server):
    """uvicorn, which after a signal ends in the ordinary way, not by that signal."""

    def __init__(self, app: Any) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                loop="asyncio",
                http="h11",
                ws="none",
                # The program's own log.
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_graceful_shutdown=DRAIN_SECONDS,
            )
        )
        self.interrupted = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain at SIGTERM and Ctrl-C; a second Ctrl-C waits for nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """See ``uvicorn.Server``."""
        self.interrupted |= sig == signal.SIGINT
        super().handle_exit(sig, frame)


def listen(host: str, port: int) -> socket.socket:
    """Open the socket of a server; connections wait in it until the server runs.

    Args:
        host: an address of this machine, or a name of it.
        port: 0 takes a free one.

    Raises:
        ConfigError: there is no such address, or the port is taken.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}, port {port} ({error.strerror or error})") from error


def run_server(app: Any, listening: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C, and finish what runs then.

    Raises:
        KeyboardInterrupt: it was Ctrl-C.
    """
    server = Server(app)
    asyncio.run(server.serve([listening]))
    if server.interrupted:
        raise KeyboardInterrupt
