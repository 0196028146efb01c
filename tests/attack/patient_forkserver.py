"""Preloaded by a server of forks that programs share: one that is killed while it asks for a fork does not end it.

In use each program has a server of its own, which may end with it.
"""

from __future__ import annotations

import errno
import socket
from multiprocessing import reduction
from typing import Any

_receive: Any = reduction.recvfds


def _receive_or_pass_over(connection: socket.socket, size: int) -> list[int]:
    try:
        return _receive(connection, size)
    except EOFError as error:
        # The server passes over connections that were aborted.
        raise OSError(errno.ECONNABORTED, "the program was killed") from error


reduction.recvfds = _receive_or_pass_over
