"""Attempts in a process of their own: bounded in time and memory, and watched for what no reading does."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from mote_fast.errors import MoteError

# Events of Python's audit hooks that reading a file has no reason for.
_FORBIDDEN = frozenset(
    {
        *("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.remove", "os.rename", "os.mkdir", "os.chmod"),
        *("subprocess.Popen", "socket.connect", "socket.getaddrinfo", "ctypes.dlopen", "pickle.find_class"),
    }
)


class Outcome(NamedTuple):
    """What became of an attempt.

    Attributes:
        kind: "read", "refused" (by an error of the library), "untyped" (another error), "acted" (a forbidden event),
            "hung" or "died".
        message: of the error or event.
    """

    kind: str
    message: str


class Bounded:
    """Calls a function in another process; a context manager.

    Args:
        function: reads something; it is forked into the process, and its result is dropped.
        seconds: for one call.
        memory: bytes that the process may take beyond what it has at its start.
    """

    def __init__(self, function: Callable[..., object], seconds: float = 60.0, memory: int = 2**31) -> None:
        self._function = function
        self._seconds = seconds
        self._memory = memory
        self._context: Any = multiprocessing.get_context("fork")
        self._start()

    def __call__(self, *arguments: object) -> Outcome:
        self._pipe.send(arguments)
        try:
            if self._pipe.poll(self._seconds):
                return Outcome(*self._pipe.recv())
            outcome = Outcome("hung", f"over {self._seconds} s")
        except (EOFError, OSError):
            outcome = Outcome("died", "")
        self._stop()
        self._start()
        return outcome

    def __enter__(self) -> Bounded:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs, self._function, self._memory), daemon=True)
        self._process.start()
        theirs.close()

    def _stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def check_refused_or_read(outcome: Outcome, name: str = "") -> None:
    """Check that a hostile file was read as data or refused in one short line that names it."""
    assert outcome.kind in ("read", "refused"), outcome
    if outcome.kind == "refused":
        assert "\n" not in outcome.message, outcome
        assert len(outcome.message) < 1000, outcome
        assert name in outcome.message, outcome


def _serve(pipe: Any, function: Callable[..., object], memory: int) -> None:
    # A fork has one thread of the parent's, and its pool of threads would be waited for.
    torch.set_num_threads(1)
    with open("/proc/self/statm", encoding="ascii") as file:
        own = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own + memory, own + memory))
    acted: list[str] = []
    sys.addaudithook(lambda event, arguments: _watch(event, arguments, acted))
    while True:
        try:
            arguments = pipe.recv()
        except EOFError:
            return
        acted.clear()
        try:
            function(*arguments)
            outcome = ("read", "")
        except MoteError as error:
            outcome = ("refused", str(error))
        # The attempt's outcome, whatever it is.
        except BaseException as error:
            outcome = ("untyped", f"{type(error).__name__}: {str(error)[:500]}")
        pipe.send(("acted", acted[0]) if acted else outcome)


def _watch(event: str, arguments: tuple[Any, ...], acted: list[str]) -> None:
    # Python's own cache of compiled modules is written where a module is imported late.
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if (event in _FORBIDDEN or writes) and "__pycache__" not in str(arguments):
        acted.append(f"{event} {str(arguments)[:200]}")
