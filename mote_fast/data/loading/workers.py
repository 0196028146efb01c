"""Processes that decode videos, watched: one that crashes or hangs costs its video two tries and nothing else.

How the processes start, and what that asks of a script: ``mote_fast.runtime.processes``.

Each process has its own pipe, and gets one video at a time. A process that dies therefore takes no lock with it that
others wait for, and the video it died of is known. (``torch.utils.data.DataLoader`` gives up all its workers, and what
they had ready, when one dies, and does not say over what; its throughput is the same.)
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import pickle
import queue
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.decoding.decode import available_backends
from mote_fast.data.loading.faults import CRASH, TIMEOUT, Failure
from mote_fast.data.loading.samples import load_row
from mote_fast.errors import BackendError, ConfigError
from mote_fast.runtime.processes import worker_context

logger = logging.getLogger(__name__)

# Seconds that a process may take to start: imports over a network file system are slow.
START_LIMIT = 300.0

# A crash may come from without (a kill, memory taken by others), so a video gets a second try.
TRIES = 2


class WorkerLostError(Exception):
    """A process died or was stopped over a video. Internal: callers see a ``Failure``."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class WorkerPool:
    """Decodes videos in ``workers`` processes, each started when it is first needed and kept until ``close``.

    Args:
        dataset: sent to each process, pickled.
        workers: processes.
        clip_shape: (V, T, 3, S, S), of the pixels of one video.
        time_limit: seconds that one video may take.

    Raises:
        ConfigError: the data set cannot be pickled.
    """

    def __init__(self, dataset: VideoDataset, workers: int, clip_shape: Sequence[int], time_limit: float) -> None:
        try:
            pickled = pickle.dumps(dataset)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"worker processes need a data set that can be pickled ({error}); use workers=0"
            ) from error
        self._paths = [item.path for item in dataset.items]
        self._workers = [_Worker(pickled, clip_shape, time_limit) for _ in range(workers)]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._closed = False

    def load(self, index: int, epoch: int, row: Tensor) -> int | Failure:
        """Do as ``load_row`` does, in a process; may be called from as many threads as there are processes.

        Raises:
            BackendError: processes cannot be started here.
            MoteError: what ``load_row`` raises.
        """
        reasons = []
        kind = CRASH
        for _ in range(TRIES):
            worker = self._idle.get()
            try:
                return worker.load(index, epoch, row)
            except WorkerLostError as lost:
                if self._closed:
                    raise
                logger.warning("%s: %s; the worker is started again", self._paths[index], lost)
                kind = lost.kind
                reasons.append(str(lost))
            finally:
                # It may have started while the pool was being closed.
                if self._closed:
                    worker.kill()
                self._idle.put(worker)
        return Failure(index, self._paths[index], kind, "tried twice: " + ", then ".join(reasons), lasting=True)

    def close(self) -> None:
        """Stop the processes; a ``load`` that waits in another thread raises."""
        self._closed = True
        for worker in self._workers:
            worker.kill()


class _Worker:
    """One process, from this side of its pipe; started again after it was lost."""

    def __init__(self, pickled: bytes, clip_shape: Sequence[int], time_limit: float) -> None:
        self._pickled = pickled
        self._clip_shape = tuple(clip_shape)
        self._time_limit = time_limit
        self._process: Any = None

    def load(self, index: int, epoch: int, row: Tensor) -> int | Failure:
        if self._process is None:
            self._start()
        try:
            self._connection.send((index, epoch))
            if not self._connection.poll(self._time_limit):
                raise self._lost(TIMEOUT, f"took over {self._time_limit:g} s")
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._lost(CRASH, "the decoder's process died") from error
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(answer, Failure):
            row.copy_(self._pixels)
        return answer

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _start(self) -> None:
        context = worker_context(__name__)
        self._connection, theirs = context.Pipe()
        # Not shared with a process lost before, which may be stuck in the kernel and write when it wakes up.
        shared = context.RawArray("B", math.prod(self._clip_shape))
        self._pixels = torch.frombuffer(shared, dtype=torch.uint8).view(self._clip_shape)
        process = context.Process(
            target=_serve, args=(theirs, self._pickled, shared, self._clip_shape), name="mote-fast-decode", daemon=True
        )
        process.start()
        self._process = process
        theirs.close()
        try:
            ready = self._connection.poll(START_LIMIT) and self._connection.recv()
        except (EOFError, OSError):
            ready = False
        if not ready:
            lost = self._lost(CRASH, "the process did not start")
            raise BackendError(
                f"a worker process cannot start ({lost}), see its message above; a script needs the guard "
                "if __name__ == '__main__': around what makes a loader with workers, or use workers=0"
            )

    def _lost(self, kind: str, reason: str) -> WorkerLostError:
        process, self._process = self._process, None
        process.kill()
        # One that hangs in the kernel, on a dead network disk, does not end: it is left behind.
        process.join(5.0)
        self._connection.close()
        code = process.exitcode
        if kind == CRASH and code is not None:
            reason += f" ({signal.Signals(-code).name})" if code < 0 else f" (exit status {code})"
        return WorkerLostError(kind, reason)


def _serve(connection: Connection, pickled: bytes, shared: Any, clip_shape: Sequence[int]) -> None:
    """Answer one video after another until the pipe or the parent ends."""
    # Ctrl-C goes to every process of the terminal; the trainer decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    pixels = torch.frombuffer(shared, dtype=torch.uint8).view(tuple(clip_shape))
    dataset = pickle.loads(pickled)
    # The decoders' libraries take seconds to load, which are not the first video's.
    available_backends()
    connection.send(True)
    while True:
        try:
            index, epoch = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = load_row(dataset, index, epoch, pixels)
        except Exception as error:
            answer = error
        connection.send(answer)


def _end_with_parent() -> None:
    # The pipe tells it only between two videos.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
