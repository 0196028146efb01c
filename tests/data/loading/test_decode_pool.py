"""Worker processes that die: their video is retried, then named, and no other video is lost."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.items import VideoItem
from mote_fast.data.loading.cpu_loader import DatasetDecoder
from mote_fast.data.loading.decode_pool import DecodePool
from mote_fast.data.loading.faults import CRASH, TIMEOUT, Failure
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import Preprocessing
from mote_fast.errors import BackendError, ConfigError
from tests.data.unkind import UnkindDataset

# Worker processes.
pytestmark = pytest.mark.heavy

if TYPE_CHECKING:
    from tests.data.conftest import NumberedVideos

RECIPE = ClipRecipe(frames=2, preprocessing=Preprocessing(16))
SHAPE = (1, 2, 3, 16, 16)

Make = Callable[..., "DatasetPool"]


class DatasetPool(DecodePool):
    """Decodes videos of a data set, as ``CpuLoader`` does."""

    def __init__(self, dataset: VideoDataset, workers: int, time_limit: float) -> None:
        super().__init__(DatasetDecoder(dataset), RECIPE, workers, time_limit)
        self.paths = [item.path for item in dataset.items]

    def video(self, index: int, epoch: int, row: Tensor) -> int | Failure:
        return self.load(index, self.paths[index], (index, epoch), row)


def new_row() -> Tensor:
    return torch.zeros(SHAPE, dtype=torch.uint8)


@pytest.fixture
def make(numbered_videos: NumberedVideos, tmp_path: Path) -> Iterator[Make]:
    """Makes a pool over videos of the given behaviors."""
    pools: list[DatasetPool] = []

    def make(*behaviors: str, workers: int = 1, time_limit: float = 60.0) -> DatasetPool:
        dataset = UnkindDataset(numbered_videos.write("workers.mp4"), behaviors, tmp_path, RECIPE)
        pools.append(DatasetPool(dataset, workers, time_limit))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def children() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.name == "mote-fast-worker" and child.pid]


def test_a_worker_gives_what_this_process_would(make: Make, numbered_videos: NumberedVideos) -> None:
    """A worker returns the same pixels and label, and the same failure of an unreadable file."""
    pool, row = make("sound", "missing", "sound"), new_row()
    assert pool.video(2, 1, row) == 20
    expected = VideoDataset([VideoItem(str(numbered_videos.write("workers.mp4")), 0)] * 3, RECIPE).load(2, 1)
    assert torch.equal(row, expected.pixels)
    failure = pool.video(1, 0, row)
    assert isinstance(failure, Failure)
    assert (failure.index, failure.kind, failure.lasting) == (1, "MissingVideoError", True)


def test_a_worker_lives_on_between_videos(make: Make) -> None:
    """Starting costs far more than decoding."""
    pool = make("sound", "sound")
    before = set(children())
    found = []
    for index in (0, 1, 0):
        pool.video(index, 0, new_row())
        found.append(set(children()) - before)
    assert len(found[0]) == 1
    assert found == [found[0]] * 3


@pytest.mark.parametrize(("behavior", "reason"), [("crash", "SIGSEGV"), ("exit", "exit status 3")])
def test_a_video_that_crashes_twice_is_named(behavior: str, reason: str, make: Make) -> None:
    """The report has the signal that ended the process; the worker decodes the next video."""
    pool = make("sound", behavior)
    failure = pool.video(1, 0, new_row())
    assert isinstance(failure, Failure)
    assert (failure.index, failure.kind, failure.lasting) == (1, CRASH, True)
    assert failure.reason.startswith("tried twice")
    assert failure.reason.count(reason) == 2
    assert pool.video(0, 0, new_row()) == 0


def test_a_video_that_crashes_once_is_served(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """The cause of the crash may be external: lack of memory, or a kill. The log names the video."""
    row = new_row()
    assert make("sound", "crash once").video(1, 0, row) == 10
    assert row.any()
    assert "workers.mp4: its process died (SIGSEGV); the worker is started again" in caplog.text


@pytest.mark.parametrize("behavior", ["hang", "hang holding the GIL"])
def test_a_video_over_its_time_is_named(behavior: str, make: Make) -> None:
    """Also if the decoder blocks all other threads of its process."""
    pool = make("sound", behavior, time_limit=0.5)
    failure = pool.video(1, 0, new_row())
    assert isinstance(failure, Failure)
    assert (failure.index, failure.kind, failure.lasting) == (1, TIMEOUT, True)
    assert "0.5 s" in failure.reason
    assert pool.video(0, 0, new_row()) == 0


def test_a_worker_killed_while_idle(make: Make) -> None:
    """The next video finds a dead process, and gets a new one."""
    pool = make("sound", "sound")
    before = set(children())
    pool.video(0, 0, new_row())
    for pid in set(children()) - before:
        os.kill(pid, signal.SIGKILL)
    assert pool.video(1, 0, new_row()) == 10


def test_one_crash_leaves_the_other_workers_alone(make: Make) -> None:
    """Three threads on three processes, every third video crashing for good."""
    behaviors = ["sound", "crash", "sound"] * 4
    pool = make(*behaviors, workers=3)
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda index: pool.video(index, 0, new_row()), range(12)))
    for index, (behavior, result) in enumerate(zip(behaviors, found, strict=True)):
        if behavior == "sound":
            assert result == 10 * index
        else:
            assert isinstance(result, Failure)
            assert (result.index, result.kind) == (index, CRASH)


def test_closing_ends_the_processes_at_once(make: Make) -> None:
    """Also a process that hangs, long before its time limit; a waiting caller gets an error."""
    pool = make("sound", "hang", time_limit=3600.0)
    pool.video(0, 0, new_row())
    before = set(children())
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(Exception, match="closed"):
            pool.video(1, 0, new_row())
        ended.set()

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    pool.close()
    assert ended.wait(60.0)
    waiting.join()
    assert len(set(children()) & before) < len(before)


def test_an_error_of_the_set_up_is_raised_here(numbered_videos: NumberedVideos) -> None:
    """A missing decoder is not a video's fault."""
    items = [VideoItem(str(numbered_videos.write("workers.mp4")), 0)]
    pool = DatasetPool(VideoDataset(items, RECIPE, decode_backend="nonsense"), 1, 60.0)
    with pytest.raises(ConfigError, match="nonsense"):
        pool.video(0, 0, new_row())
    pool.close()


def test_a_data_set_that_cannot_be_sent_is_refused(numbered_videos: NumberedVideos) -> None:
    """The error comes before any process starts, and names the remedy."""

    class Local(VideoDataset):
        pass

    with pytest.raises(ConfigError, match="workers=0"):
        DatasetPool(Local([VideoItem("a.mp4", 0)], RECIPE), 1, 60.0)


SCRIPT = """
import multiprocessing, sys, threading, torch
from pathlib import Path
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.loading.cpu_loader import DatasetDecoder
from mote_fast.data.loading.decode_pool import DecodePool
from mote_fast.data.transforms import Preprocessing
from tests.data.unkind import UnkindDataset

def main():
    recipe = ClipRecipe(frames=2, preprocessing=Preprocessing(16))
    dataset = UnkindDataset(Path(sys.argv[1]), ["sound", "hang"], Path(sys.argv[2]), recipe)
    pool = DecodePool(DatasetDecoder(dataset), recipe, 1, 3600.0)
    row = torch.zeros(1, 2, 3, 16, 16, dtype=torch.uint8)
    pool.load(0, "sound", (0, 0), row)
    print(multiprocessing.active_children()[0].pid, flush=True)
    pool.load(1, "hangs", (1, 0), row)

{guard}
"""


def run_script(guard: str, video: Path, folder: Path) -> subprocess.Popen[str]:
    path = folder / "script.py"
    path.write_text(SCRIPT.format(guard=guard))
    return subprocess.Popen(
        [sys.executable, str(path), str(video), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux's process descriptors")
def test_workers_end_with_their_parent(numbered_videos: NumberedVideos, tmp_path: Path) -> None:
    """A trainer killed by SIGKILL leaves no process behind, not even one that hangs in a decoder."""
    script = run_script("if __name__ == '__main__': main()", numbered_videos.write("workers.mp4"), tmp_path)
    assert script.stdout is not None
    worker = os.pidfd_open(int(script.stdout.readline()))
    script.kill()
    script.communicate()
    # A process descriptor is ready to read once the process has ended.
    assert select.select([worker], [], [], 60.0)[0]
    os.close(worker)


@pytest.mark.slow
def test_a_script_without_guard_is_told(numbered_videos: NumberedVideos, tmp_path: Path) -> None:
    """A worker needs the script for a class of its own: the script ends, and the error names the missing line."""
    script = run_script(
        "class UnkindDataset(UnkindDataset): pass\nmain()", numbered_videos.write("workers.mp4"), tmp_path
    )
    _, message = script.communicate(timeout=120.0)
    assert script.returncode == 1
    last = message.strip().splitlines()[-1]
    assert BackendError.__name__ in last
    assert "__name__ == '__main__'" in last
