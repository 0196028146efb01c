"""Long trials: lists with half of the files damaged, and workers killed repeatedly (make data-faults)."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import resource
import signal
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.data.items import VideoItem
from mote_fast.data.loading.cpu_loader import CpuLoader
from mote_fast.data.loading.order import training_batches
from mote_fast.data.loading.video_loader import LoaderOptions
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import Preprocessing, normalize
from mote_fast.errors import VideoError
from tests.data.decoding.test_decode_damaged import SOURCES, damage

if TYPE_CHECKING:
    from tests.data.conftest import NumberedVideos

logger = logging.getLogger(__name__)

EACH = 1000
BATCH = 16
EVAL = ClipRecipe(frames=8, preprocessing=Preprocessing(32))
TRAIN = ClipRecipe(frames=8, preprocessing=Preprocessing(32), augmentation="kinetics")

# Limits of this process's growth, and of a worker with PyTorch (all but 60 MiB of it is shared with the others).
MEMORY_LIMIT_MIB = 2048

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, numbered_videos: NumberedVideos) -> list[Path]:
    """Intact videos of every codec and container."""
    folder = tmp_path_factory.mktemp("sound")
    return [
        Path(write_video(folder / name, numbered_videos.draw(20), codec=codec, **options))
        for name, (codec, options) in SOURCES.items()
        if codec in av.codecs_available
    ]


def write_list(sources: list[Path], folder: Path) -> list[VideoItem]:
    """Alternate intact and damaged files; an intact file's label is its source, a damaged file's is larger."""
    random = np.random.default_rng(7)
    items = []
    for number in range(EACH):
        source = sources[number % len(sources)]
        sound = folder / f"{number:04}_sound_{source.name}"
        os.link(source, sound)
        data = source.read_bytes()
        if number % 4 == 0:
            quarter = 1 + number // 4 % 3
            kind, damaged = f"quarter{quarter}", data[: len(data) * quarter // 4]
        else:
            kind, damaged = damage(data, sources[int(random.integers(len(sources)))].read_bytes(), random)
        path = folder / f"{number:04}_{kind}_{source.name}"
        path.write_bytes(damaged)
        items += [VideoItem(str(sound), number % len(sources)), VideoItem(str(path), len(sources))]
    return items


def readable(dataset: VideoDataset, index: int, epoch: int) -> Tensor | None:
    """Return the clip of a video read alone in this process, or None."""
    try:
        return dataset.load(index, epoch).pixels
    except VideoError:
        return None


def children() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.name == "mote-fast-worker" and child.pid]


def peak_mib(pid: int) -> int:
    match = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) // 1024


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand warnings would hide the figures."""
    caplog.set_level(logging.ERROR, "mote_fast")
    caplog.set_level(logging.INFO, __name__)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from Linux's /proc")
def test_damaged_files_among_sound_ones(sources: list[Path], tmp_path: Path, quiet: None) -> None:
    """Evaluation delivers each readable video once and names each other; training is refilled; memory is bounded.

    Some damage leaves a file readable, so the expected result comes from reading each file alone.
    """
    items = write_list(sources, tmp_path)
    evaluation, training = VideoDataset(items, EVAL), VideoDataset(items, TRAIN)
    truth = [readable(evaluation, index, 0) for index in range(len(items))]
    unreadable = {index for index, clip in enumerate(truth) if clip is None}
    kinds = Counter(Path(items[index].path).name.split("_")[1] for index in unreadable)
    assert "sound" not in kinds
    assert len(unreadable) > EACH // 5

    file, start = tmp_path / "faults.jsonl", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loader = CpuLoader(evaluation, LoaderOptions(BATCH, training=False, workers=2, time_limit=30.0, fault_file=file))
    began, seen = time.monotonic(), []
    for batch in loader.epoch(0):
        seen += batch.indices.tolist()
        clips = [clip for index in batch.indices.tolist() if (clip := truth[index]) is not None]
        assert torch.equal(batch.pixels, normalize(torch.cat(clips)))
        assert batch.labels.tolist() == [items[index].label for index in batch.indices.tolist()]
    seconds, peaks = time.monotonic() - began, [peak_mib(pid) for pid in children()]
    loader.close()
    assert seen == [index for index in range(len(items)) if index not in unreadable]
    named = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [entry["path"] for entry in named] == [items[index].path for index in sorted(unreadable)]
    assert all(entry["reason"] for entry in named)

    loader = CpuLoader(training, LoaderOptions(BATCH, training=True, workers=2, time_limit=30.0))
    slots = training_batches(len(items), BATCH, seed=0, epoch=1)
    for batch, wanted in zip(loader.epoch(1), slots, strict=True):
        failed = {failure.index for failure in batch.failures}
        kept = [index for index, want in zip(batch.indices.tolist(), wanted.indices, strict=True) if index == want]
        assert kept == [want for want in wanted.indices if want not in failed]
        assert batch.pixels.shape[0] == BATCH
        assert batch.labels.tolist() == [items[index].label for index in batch.indices.tolist()]
        assert not failed & set(range(0, len(items), 2))
    peaks += [peak_mib(pid) for pid in children()]
    loader.close()
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024
    logger.info(
        "%d files, %d unreadable (%s): evaluation took %.0f s; peak memory of a worker %d MiB, growth here %d MiB",
        *(len(items), len(unreadable), dict(kinds), seconds, max(peaks), growth),
    )
    assert max(peaks) < MEMORY_LIMIT_MIB
    assert growth < MEMORY_LIMIT_MIB


def test_workers_killed_all_the_time(sources: list[Path], quiet: None) -> None:
    """SIGKILL to one of three workers at every fourth batch: the batches are unchanged, no wait exceeds 30 s."""
    dataset = VideoDataset([VideoItem(str(sources[index % len(sources)]), index) for index in range(480)], TRAIN)
    reference = list(CpuLoader(dataset, LoaderOptions(4, training=True)).epoch(0))
    random = np.random.default_rng(0)
    loader = CpuLoader(dataset, LoaderOptions(4, training=True, workers=3))
    longest, kills, last = 0.0, 0, None
    for number, (batch, expected) in enumerate(zip(loader.epoch(0), reference, strict=True)):
        # The first batch waits for the processes to start.
        if last is not None:
            longest = max(longest, time.monotonic() - last)
        assert torch.equal(batch.indices, expected.indices)
        assert torch.equal(batch.pixels, expected.pixels)
        if number % 4 == 0:
            os.kill(random.choice(children()), signal.SIGKILL)
            kills += 1
        last = time.monotonic()
    loader.close()
    logger.info("%d workers killed in %d batches: longest wait for a batch %.1f s", kills, len(reference), longest)
    assert loader.faults.failures == []
    assert longest < 30.0
