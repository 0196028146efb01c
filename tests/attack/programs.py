"""Commands in processes forked from one that has imported the library: fresh programs, started in a moment."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Seconds after which a program is taken to hang; this machine may be busy.
END_LIMIT = 300.0

# Forks a child for each line of its input, or waits for one. The workers of all children are forked from one server
# that has imported the library too; a child must not look after that server, which is not its own child.
_SERVER = """
import gc, json, os, resource, sys
from multiprocessing import forkserver
# The command line imports the modules of a command when it is run.
from mote_fast.cli import main, prepare, prepare_features, prepare_reencode, prepare_shards
from mote_fast.runtime import workers
forkserver.set_forkserver_preload(["mote_fast.cli.prepare_features", "tests.attack.patient_forkserver"])
forkserver.ensure_running()
# From here on workers start in a moment.
server = forkserver._forkserver
list(workers.run_each(abs, [1], 1, 300.0))
server.ensure_running = lambda: None
# Otherwise each child copies all that its first collection of garbage touches.
gc.freeze()
print(json.dumps(server._forkserver_pid), flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        _, status = os.waitpid(order["wait"], 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)
        continue
    child = os.fork()
    if child == 0:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        if order["file_limit"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"], resource.RLIM_INFINITY))
        sys.exit(main(order["arguments"]))
    print(json.dumps(child), flush=True)
"""


class Ended(NamedTuple):
    """How a program ended: its exit status, negative for a signal, and what it printed."""

    status: int
    text: str


class Programs:
    """Starts commands; a context manager that ends the server, and with it what still runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started = 0
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.worker_server: int = self._answer()

    def start(self, arguments: Sequence[object], file_limit: int | None = None) -> Program:
        """Start ``mote-fast`` with these arguments; no file of its main process may exceed ``file_limit`` bytes."""
        self._started += 1
        log = self._folder / f"{self._started}.log"
        pid = self.order(arguments=list(map(str, arguments)), log=str(log), file_limit=file_limit)
        return Program(self, pid, log)

    def run(self, arguments: Sequence[object], file_limit: int | None = None) -> Ended:
        """Run a command to its end."""
        return self.start(arguments, file_limit).end()

    def order(self, **order: Any) -> Any:
        """Send an order to the server, and return its answer."""
        assert self._server.stdin is not None
        print(json.dumps(order), file=self._server.stdin, flush=True)
        return self._answer()

    def workers(self) -> list[int]:
        """The worker processes of all programs that live."""
        children = Path(f"/proc/{self.worker_server}/task/{self.worker_server}/children").read_text().split()
        return [int(child) for child in children]

    def close(self) -> None:
        """End the server and its workers."""
        self._server.kill()
        self._server.communicate()

    def _answer(self) -> Any:
        assert self._server.stdout is not None
        return json.loads(self._server.stdout.readline())


class Program:
    """A command that runs."""

    def __init__(self, programs: Programs, pid: int, log: Path) -> None:
        self._programs = programs
        self.pid = pid
        self.log = log

    def runs_for(self, seconds: float) -> bool:
        """Wait for its end at most so long; return whether it still runs."""
        return not ends_within(self.pid, seconds)

    def kill(self) -> bool:
        """Kill its main process at this instant; return whether it ran until then."""
        os.kill(self.pid, signal.SIGKILL)
        return self.end().status == -signal.SIGKILL

    def end(self) -> Ended:
        """Wait for the end.

        Raises:
            AssertionError: it hangs.
        """
        hangs = self.runs_for(END_LIMIT)
        if hangs:
            os.kill(self.pid, signal.SIGKILL)
        status = self._programs.order(wait=self.pid)
        assert not hangs, f"did not end within {END_LIMIT:g} s:\n{self.log.read_text()}"
        return Ended(status, self.log.read_text(errors="backslashreplace"))


def ends_within(pid: int, seconds: float) -> bool:
    """Wait at most so long for the end of a process, also of another's child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)
