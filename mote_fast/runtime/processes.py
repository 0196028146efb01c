"""How worker processes are started."""

from __future__ import annotations

import multiprocessing
import sys
from typing import Any


def worker_context(*modules: str) -> Any:
    """Return the ``multiprocessing`` context for worker processes.

    On Linux they are forked from a server that has imported ``modules`` and started no thread. Forking this process
    itself would copy locks that its threads hold and a CUDA context that a child cannot use, and starting each from
    nothing would import PyTorch once a process. A script that starts some needs the guard
    ``if __name__ == "__main__":``.
    """
    # Elsewhere the system's own libraries do not bear forking.
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *modules])
    return context
