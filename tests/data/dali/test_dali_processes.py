"""The processes of the DALI loader end with the program that started them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.conftest import NumberedVideos

SCRIPT = """
import multiprocessing, sys
from mote_fast.data.dataset import VideoDataset
from mote_fast.data.items import VideoItem
from mote_fast.data.loaders import make_loader
from mote_fast.data.loading.video_loader import LoaderOptions
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import Preprocessing

def main():
    dataset = VideoDataset([VideoItem(sys.argv[1], 0)] * 8, ClipRecipe(preprocessing=Preprocessing(32)))
    loader = make_loader(dataset, LoaderOptions(1, training=True, workers=1), "dali")
    for epoch in range(1_000_000):
        for _ in loader.epoch(epoch):
            if epoch == 0:
                print(*(process.pid for process in multiprocessing.active_children()), flush=True)

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.usefixtures("needs_dali")
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux's process descriptors")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_process_is_left(number: signal.Signals, numbered_videos: NumberedVideos, tmp_path: Path) -> None:
    """Whatever ends the program, in the middle of an epoch: the worker, and DALI's two processes."""
    video = numbered_videos.write("processes.avi", "mjpeg", pix_fmt="yuvj420p", qmax=4)
    (tmp_path / "program.py").write_text(SCRIPT)
    program = subprocess.Popen(
        [sys.executable, tmp_path / "program.py", video], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert program.stdout is not None
    processes = [os.pidfd_open(int(pid)) for pid in program.stdout.readline().split()]
    assert len(processes) == 3
    program.send_signal(number)
    program.communicate(timeout=60.0)
    for process in processes:
        # A process descriptor is ready to read once the process has ended.
        assert select.select([process], [], [], 60.0)[0]
        os.close(process)
