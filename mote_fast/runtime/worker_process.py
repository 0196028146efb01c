"""A process that does not import the program's main script, unless what it runs is defined there.

``multiprocessing`` imports the script in every process that it starts by "forkserver" or "spawn", so a script without
the guard ``if __name__ == "__main__":`` would run again in each. A function of this library needs no script.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import Any

# What tells a new process to import the main script.
_MAIN_KEYS = ("init_main_from_name", "init_main_from_path")


def make_process(target: Callable[..., None], arguments: tuple[Any, ...], name: str, *, needs_main: bool) -> Any:
    """Return a daemon process, not yet started.

    Args:
        target: a module-level function.
        arguments: of the target.
        name: of the process.
        needs_main: whether the arguments refer to the main script. Without it the script is imported elsewhere than on
            Linux alone.
    """
    make = context().Process
    if sys.platform == "linux" and not needs_main:
        make = _WithoutMain
    return make(target=target, args=arguments, name=name, daemon=True)


def context() -> Any:
    """The way in which processes start; other platforms' system libraries are not fork-safe."""
    return multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")


if sys.platform == "linux":
    import multiprocessing.context as contexts
    from multiprocessing import forkserver, popen_forkserver, spawn, util
    from multiprocessing.reduction import dump

    class _Launch(popen_forkserver.Popen):
        """As the base class, which offers no other place to leave the script out."""

        def _launch(self, process_obj: Any) -> None:
            data = spawn.get_preparation_data(process_obj.name)
            content = io.BytesIO()
            contexts.set_spawning_popen(self)
            try:
                dump({key: value for key, value in data.items() if key not in _MAIN_KEYS}, content)
                dump(process_obj, content)
            finally:
                contexts.set_spawning_popen(None)
            self.sentinel, pipe = forkserver.connect_to_new_process(self._fds)  # pyright: ignore[reportAttributeAccessIssue]
            # Open as long as this process lives: its end tells the other that the parent has ended.
            alive = os.dup(pipe)
            close = util.close_fds  # pyright: ignore[reportAttributeAccessIssue]
            self.finalizer = util.Finalize(self, close, (alive, self.sentinel))
            with open(pipe, "wb") as file:
                file.write(content.getbuffer())
            self.pid = forkserver.read_signed(self.sentinel)

    class _WithoutMain(contexts.ForkServerProcess):
        @staticmethod
        def _Popen(process_obj: Any) -> Any:
            return _Launch(process_obj)
