"""The threads that feed DALI: they keep the order, can be replaced, and do not block the exit."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from mote_fast.data.dali.threads import DaemonThreads


def test_results_errors_and_cancelled_tasks() -> None:
    """Each future gets its task's result; a cancelled task is skipped, and the next one runs."""
    threads, gate, done = DaemonThreads(1), threading.Event(), []
    waiting = threads.submit(gate.wait)
    cancelled = threads.submit(lambda: done.append("cancelled"))
    failing = threads.submit(lambda: 1 // 0)
    last = threads.submit(lambda: done.append("last"))
    assert cancelled.cancel()
    gate.set()
    assert waiting.result() is True
    with pytest.raises(ZeroDivisionError):
        failing.result()
    last.result()
    assert done == ["last"]
    threads.close()


def test_a_thread_that_hangs_is_replaced() -> None:
    """Another thread runs the tasks that the hanging thread blocks."""
    threads, gate = DaemonThreads(1), threading.Event()
    hanging, next_one = threads.submit(gate.wait), threads.submit(lambda: "done")
    threads.add()
    assert next_one.result() == "done"
    assert not hanging.done()
    gate.set()
    threads.close()


@pytest.mark.heavy
def test_a_thread_that_hangs_does_not_keep_the_process() -> None:
    """Threads of concurrent.futures would block the exit. Importing the loader does not import DALI."""
    code = (
        "import sys, threading; import mote_fast.data.dali.dali_loader; "
        "from mote_fast.data.dali.threads import DaemonThreads; "
        "DaemonThreads(1).submit(threading.Event().wait); "
        "sys.exit('nvidia.dali' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
