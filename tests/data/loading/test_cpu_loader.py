"""The CPU loader: the same batches for any workers, and every intact video once, in spite of lost workers."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from mote_fast.data.dataset import VideoDataset
from mote_fast.data.items import VideoItem
from mote_fast.data.loading.batch import Batch
from mote_fast.data.loading.cpu_loader import CpuLoader
from mote_fast.data.loading.faults import CRASH, TIMEOUT
from mote_fast.data.loading.order import Replica, evaluation_batches, training_batches
from mote_fast.data.loading.video_loader import LoaderOptions
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import Preprocessing, normalize
from mote_fast.data.views import Views
from mote_fast.errors import ConfigError, ListError
from tests.data.hostile_files import HOSTILE, write_hostile
from tests.data.unkind import UnkindDataset
from tests.tolerances import assert_close

# Worker processes.
pytestmark = pytest.mark.heavy

if TYPE_CHECKING:
    from tests.data.conftest import NumberedVideos

TRAIN = ClipRecipe(frames=2, preprocessing=Preprocessing(16), augmentation="kinetics")
EVAL = ClipRecipe(frames=2, preprocessing=Preprocessing(16), views=Views(2, 3))


@pytest.fixture(scope="module")
def videos(numbered_videos: NumberedVideos) -> list[Path]:
    """Three files of different codecs."""
    return [
        numbered_videos.write("loader.mp4"),
        numbered_videos.write("loader.avi", codec="mjpeg", pix_fmt="yuvj420p"),
        numbered_videos.write("loader.webm", codec="libvpx-vp9", g=8),
    ]


def dataset_of(videos: Sequence[Path], count: int, recipe: ClipRecipe, missing: Sequence[int] = ()) -> VideoDataset:
    """``count`` items in turn over the files, with ten times the index as their label."""
    paths = [str(videos[index % len(videos)]) for index in range(count)]
    items = [VideoItem(f"{path}.gone" if index in missing else path, 10 * index) for index, path in enumerate(paths)]
    return VideoDataset(items, recipe, seed=3)


def assert_same(batches: Sequence[Batch], others: Sequence[Batch]) -> None:
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert torch.equal(batch.pixels, other.pixels)
        assert torch.equal(batch.labels, other.labels)
        assert torch.equal(batch.indices, other.indices)
        assert list(batch.failures) == list(other.failures)


def seen(batches: Sequence[Batch]) -> list[int]:
    return [index for batch in batches for index in batch.indices.tolist()]


@pytest.mark.parametrize(("recipe", "training"), [(TRAIN, True), (EVAL, False)])
def test_batches_are_those_of_the_order(videos: list[Path], recipe: ClipRecipe, training: bool) -> None:
    """Each row is the data set's clip, normalised; the views of a video are adjacent."""
    dataset = dataset_of(videos, 7, recipe)
    loader = CpuLoader(dataset, LoaderOptions(3, training=training))
    order = training_batches(7, 3, seed=3, epoch=1) if training else evaluation_batches(7, 3)
    batches = list(loader.epoch(1))
    assert loader.batches_per_epoch == len(batches) == len(order)
    for batch, slots in zip(batches, order, strict=True):
        assert batch.indices.tolist() == slots.indices
        assert batch.labels.tolist() == [10 * index for index in slots.indices]
        clips = torch.cat([dataset.load(index, 1).pixels for index in slots.indices])
        assert batch.pixels.shape == (len(slots.indices) * recipe.views_per_video, 2, 3, 16, 16)
        assert_close(batch.pixels, normalize(clips), "exact")
        assert batch.indices.dtype == batch.labels.dtype == torch.int64


@pytest.mark.parametrize(("recipe", "training"), [(TRAIN, True), (EVAL, False)])
def test_workers_change_nothing(videos: list[Path], recipe: ClipRecipe, training: bool) -> None:
    """Batches are bit-identical, with failures too, over two epochs with the same workers."""
    dataset = dataset_of(videos, 11, recipe, missing=[2, 7])
    loaders = [CpuLoader(dataset, LoaderOptions(4, training=training, workers=workers)) for workers in (0, 1, 3)]
    try:
        for epoch in (0, 1):
            reference = list(loaders[0].epoch(epoch))
            for loader in loaders[1:]:
                assert_same(list(loader.epoch(epoch)), reference)
        assert [loader.faults.failures for loader in loaders[1:]] == [loaders[0].faults.failures] * 2
    finally:
        for loader in loaders:
            loader.close()


def test_an_epoch_resumes_at_any_batch(videos: list[Path]) -> None:
    """A new process yields the same batches from batch s on as the old one, stand-ins included."""
    dataset = dataset_of(videos, 12, TRAIN, missing=[0, 5, 6])
    whole = list(CpuLoader(dataset, LoaderOptions(2, training=True)).epoch(2))
    assert sum(len(batch.failures) for batch in whole) >= 3
    for start in range(len(whole) + 1):
        loader = CpuLoader(dataset, LoaderOptions(2, training=True))
        assert loader.batches_per_epoch == 6
        assert_same(list(loader.epoch(2, start)), whole[start:])


# Each process costs its start; that they change nothing is the subject of another test.
@pytest.mark.parametrize(("world_size", "workers"), [(1, 0), (2, 0), (3, 0), (3, 2)])
def test_evaluation_sees_every_video_once(videos: list[Path], world_size: int, workers: int) -> None:
    """Over all ranks, for any number of ranks and workers; a failed video is named once instead."""
    dataset = dataset_of(videos, 8, EVAL, missing=[3])
    batches: list[Batch] = []
    for rank in range(world_size):
        loader = CpuLoader(
            dataset, LoaderOptions(2, training=False, replica=Replica(rank, world_size), workers=workers)
        )
        mine = list(loader.epoch(0))
        loader.close()
        assert len(mine) == loader.batches_per_epoch
        batches += mine
    assert sorted(seen(batches)) == [0, 1, 2, 4, 5, 6, 7]
    assert [failure.index for batch in batches for failure in batch.failures] == [3]


def test_two_ranks_step_like_one(videos: list[Path]) -> None:
    """The pixels are the same, so results do not depend on the number of processes."""
    dataset = dataset_of(videos, 9, TRAIN, missing=[1])
    whole = list(CpuLoader(dataset, LoaderOptions(4, training=True)).epoch(0))
    ranks = [
        list(CpuLoader(dataset, LoaderOptions(2, training=True, replica=Replica(rank, 2))).epoch(0)) for rank in (0, 1)
    ]
    for step, batch in enumerate(whole):
        parts = [batches[step] for batches in ranks]
        assert torch.equal(torch.cat([part.pixels for part in parts]), batch.pixels)
        assert torch.cat([part.indices for part in parts]).equal(batch.indices)


def test_a_batch_of_nothing_but_failures(videos: list[Path]) -> None:
    """The batch is yielded, empty, with its failures."""
    (batch,) = CpuLoader(dataset_of(videos, 2, EVAL, missing=[0, 1]), LoaderOptions(2, training=False)).epoch(0)
    assert batch.pixels.shape == (0, 2, 3, 16, 16)
    assert batch.labels.shape == batch.indices.shape == (0,)
    assert [failure.index for failure in batch.failures] == [0, 1]


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_broken_videos_ends_training(videos: list[Path], workers: int) -> None:
    """Training ends with an error that names the remedy, not with an endless search."""
    loader = CpuLoader(dataset_of(videos, 4, TRAIN, missing=range(4)), LoaderOptions(2, training=True, workers=workers))
    with pytest.raises(ListError, match="data root"):
        next(iter(loader.epoch(0)))
    loader.close()


def test_the_end_of_an_epoch_sums_up(videos: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    """The log of a long run has one summary line, after the lines of the videos."""
    loader = CpuLoader(dataset_of(videos, 6, EVAL, missing=[1, 4]), LoaderOptions(2, training=False))
    for _ in range(2):
        assert len(list(loader.epoch(0))) == 3
    assert caplog.messages[2:] == ["2 videos could not be read (2 MissingVideoError)"]


def test_dtype(videos: list[Path]) -> None:
    """Pixels are normalised in float32 and rounded once."""
    dataset = dataset_of(videos, 2, EVAL)
    (full,) = CpuLoader(dataset, LoaderOptions(2, training=False)).epoch(0)
    (half,) = CpuLoader(dataset, LoaderOptions(2, training=False, dtype=torch.bfloat16)).epoch(0)
    assert torch.equal(half.pixels, full.pixels.to(torch.bfloat16))


def children() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.name == "mote-fast-worker" and child.pid}


@pytest.fixture
def before() -> set[int]:
    """The processes that existed before this test."""
    return children()


@pytest.mark.parametrize("training", [True, False])
def test_killed_workers_cost_nothing(videos: list[Path], training: bool, before: set[int]) -> None:
    """SIGKILL to a worker, twice in mid-epoch: the same batches, no failure, no duplicate."""
    dataset = dataset_of(videos, 16, TRAIN if training else EVAL)
    reference = list(CpuLoader(dataset, LoaderOptions(2, training=training)).epoch(0))
    loader = CpuLoader(dataset, LoaderOptions(2, training=training, workers=2))
    batches = []
    for number, batch in enumerate(loader.epoch(0)):
        if number in (0, 4):
            # One at a time: a video whose second worker is killed too is given up, as intended.
            os.kill(min(children() - before), signal.SIGKILL)
        batches.append(batch)
    loader.close()
    assert_same(batches, reference)
    assert loader.faults.failures == []


def test_crashes_and_hangs_cost_their_own_video(videos: list[Path], tmp_path: Path) -> None:
    """Evaluation names the videos and delivers the others once; the next epoch does not try them again."""
    behaviors = ["sound", "crash", "sound", "hang", "missing", "crash once", "sound"]
    dataset = UnkindDataset(videos[0], behaviors, tmp_path, EVAL)
    loader = CpuLoader(dataset, LoaderOptions(3, training=False, workers=2, time_limit=1.0))
    first, second = list(loader.epoch(0)), list(loader.epoch(1))
    loader.close()
    assert seen(first) == seen(second) == [0, 2, 5, 6]
    kinds = {failure.index: failure.kind for failure in loader.faults.failures}
    assert kinds == {1: CRASH, 3: TIMEOUT, 4: "MissingVideoError"}
    for batches in (first, second):
        assert [failure.index for batch in batches for failure in batch.failures] == [1, 3, 4]


def test_isolation_without_workers(videos: list[Path], tmp_path: Path) -> None:
    """The batches of ``workers=0``, and a crash or hang costs its own video there too."""
    dataset = UnkindDataset(videos[0], ["sound", "crash", "hang", "sound"], tmp_path, EVAL)
    loader = CpuLoader(dataset, LoaderOptions(2, training=False, time_limit=1.0, isolate=True))
    assert seen(list(loader.epoch(0))) == [0, 3]
    assert {failure.index: failure.kind for failure in loader.faults.failures} == {1: CRASH, 2: TIMEOUT}
    loader.close()
    sound = dataset_of(videos, 5, TRAIN)
    loader = CpuLoader(sound, LoaderOptions(2, training=True, isolate=True))
    assert_same(list(loader.epoch(1)), list(CpuLoader(sound, LoaderOptions(2, training=True)).epoch(1)))
    loader.close()


def test_training_refills_what_crashed(videos: list[Path], tmp_path: Path) -> None:
    """Batches are full, with the stand-in's own label."""
    dataset = UnkindDataset(videos[0], ["sound", "crash", "sound", "sound"], tmp_path, TRAIN)
    loader = CpuLoader(dataset, LoaderOptions(4, training=True, workers=1, fault_file=tmp_path / "faults.jsonl"))
    (batch,) = loader.epoch(0)
    loader.close()
    assert batch.indices.shape == (4,)
    assert 1 not in batch.indices
    assert torch.equal(batch.labels, 10 * batch.indices)
    assert [failure.index for failure in batch.failures].count(1) >= 1
    resumed = CpuLoader(dataset, LoaderOptions(4, training=True, workers=1, fault_file=tmp_path / "faults.jsonl"))
    assert_same(list(resumed.epoch(0)), [batch])
    resumed.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_leaving_an_epoch_in_the_middle(videos: list[Path], workers: int) -> None:
    """The next epoch is complete, with the same workers; an unfinished earlier epoch does not disturb it."""
    dataset = dataset_of(videos, 12, TRAIN)
    reference = list(CpuLoader(dataset, LoaderOptions(2, training=True)).epoch(1))
    loader = CpuLoader(dataset, LoaderOptions(2, training=True, workers=workers))
    left = loader.epoch(0)
    next(left)
    assert_same(list(loader.epoch(1)), reference)
    assert sum(1 for _ in left) == loader.batches_per_epoch - 1
    loader.close()


def test_closing(videos: list[Path], before: set[int]) -> None:
    """Closing ends every process, in mid-epoch too, and may be repeated; a closed loader raises."""
    loader = CpuLoader(dataset_of(videos, 12, TRAIN), LoaderOptions(2, training=True, workers=2))
    next(iter(loader.epoch(0)))
    processes = [child for child in multiprocessing.active_children() if child.pid not in before]
    assert processes
    for _ in range(2):
        loader.close()
    for process in processes:
        process.join(60.0)
        assert process.exitcode is not None
    with pytest.raises(ConfigError, match="closed"):
        next(iter(loader.epoch(1)))


@pytest.mark.parametrize(
    "arguments",
    [{"workers": -1}, {"time_limit": 0.0}, {"batch_size": 0}, {"batch_size": 13}, {"replica": Replica(1, 1)}],
)
def test_impossible_arguments_are_refused(videos: list[Path], arguments: dict) -> None:
    """The constructor raises, not the first epoch."""
    with pytest.raises(ConfigError):
        CpuLoader(dataset_of(videos, 12, TRAIN), LoaderOptions(**{"batch_size": 2, "training": True, **arguments}))


@pytest.mark.parametrize("workers", [0, 1])
def test_hostile_files(numbered_videos: NumberedVideos, videos: list[Path], tmp_path: Path, workers: int) -> None:
    """Each file is named with its reason, and all intact videos are delivered."""
    hostile = [write_hostile(name, tmp_path, numbered_videos) for name in HOSTILE]
    paths = list(itertools.chain(*zip(hostile, itertools.cycle(videos))))
    dataset = VideoDataset([VideoItem(str(path), 0) for path in paths], EVAL)
    loader = CpuLoader(dataset, LoaderOptions(4, training=False, workers=workers, fault_file=tmp_path / "faults.jsonl"))
    batches = list(loader.epoch(0))
    loader.close()
    assert seen(batches) == list(range(1, len(paths), 2))
    assert [failure.path for failure in loader.faults.failures] == [str(path) for path in hostile]
    for (name, reason), failure in zip(HOSTILE.items(), loader.faults.failures, strict=True):
        assert reason in failure.reason, name
