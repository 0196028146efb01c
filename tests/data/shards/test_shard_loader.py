"""The loader of tar shards: each sample once, the same pixels as from video files, resumed and damaged."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mote_fast.data.dataset import VideoDataset, load_clip
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.data.items import VideoItem
from mote_fast.data.loading.batch import Batch
from mote_fast.data.loading.faults import Failure
from mote_fast.data.loading.order import Replica
from mote_fast.data.loading.video_loader import LoaderOptions
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.shards import batches as shard_batches
from mote_fast.data.shards.batches import SampleDecoder
from mote_fast.data.shards.shard_index import ShardIndex, TarShard, key_of, read_shard_index
from mote_fast.data.shards.shard_loader import ShardLoader
from mote_fast.data.shards.shard_stream import ShardStream, read_stream, streams_of
from mote_fast.data.transforms import Preprocessing, normalize
from mote_fast.errors import ConfigError, ListError
from mote_fast.prepare.write_shards import write_shards
from tests.data.conftest import NumberedVideos
from tests.tolerances import assert_close

# Worker processes, and videos written for them.
pytestmark = pytest.mark.heavy

VIDEOS, PER_SHARD, BATCH = 23, 5, 4
EVALUATION = ClipRecipe(frames=4, preprocessing=Preprocessing(32))
TRAINING = ClipRecipe(frames=4, preprocessing=Preprocessing(32), augmentation="kinetics", flip_labels={0: 1})

Make = Callable[..., ShardLoader]


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> list[VideoItem]:
    """23 short videos, all different; three classes."""
    folder = tmp_path_factory.mktemp("loose")
    frames = NumberedVideos.draw(60)
    paths = [folder / f"{index}.mp4" for index in range(VIDEOS)]
    for index, path in enumerate(paths):
        write_video(path, frames[index : index + 6 + index % 4], g=5)
    return [VideoItem(str(path), index % 3) for index, path in enumerate(paths)]


@pytest.fixture(scope="module")
def shards(loose: list[VideoItem], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(loose, folder, max_samples=PER_SHARD)
    return folder


@pytest.fixture
def make(shards: Path) -> Iterator[Make]:
    loaders: list[ShardLoader] = []

    def make_loader(training: bool = False, folder: Path = shards, batch: int = BATCH, **options: Any) -> ShardLoader:
        recipe = TRAINING if training else EVALUATION
        chosen = LoaderOptions(batch, training, **options)
        loaders.append(ShardLoader(folder, recipe, chosen, classes=3, seed=3, decode_backend="pyav", shuffle_buffer=6))
        return loaders[-1]

    yield make_loader
    for loader in loaders:
        loader.close()


def copy_of(shards: Path, target: Path) -> Path:
    return Path(shutil.copytree(shards, target / "copy"))


def indices_of(batches: list[Batch]) -> list[int]:
    return [index for batch in batches for index in batch.indices.tolist()]


def assert_equal(actual: list[Batch], expected: list[Batch]) -> None:
    assert [batch.indices.tolist() for batch in actual] == [batch.indices.tolist() for batch in expected]
    for one, other in zip(actual, expected, strict=True):
        assert_close(one.pixels, other.pixels, "exact")
        assert one.labels.tolist() == other.labels.tolist()
        assert one.failures == other.failures


def spoil(folder: Path, index: int) -> None:
    """Overwrite the video of a sample within its shard, leaving the tar intact."""
    for path in sorted(folder.glob("*.tar")):
        data = bytearray(path.read_bytes())
        name = f"{key_of(index)}.mp4".encode()
        if name in data:
            start = data.index(name) + 512
            data[start : start + 400] = bytes(400)
            path.write_bytes(data)


# Workers are lanes of a rank's shards: one is as none, and three ranks of two divide the most finely.
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 0), (3, 0), (1, 1), (3, 2)])
def test_evaluation_delivers_each_sample_once(make: Make, ranks: int, workers: int) -> None:
    """Nothing is padded, dropped or repeated, for any number of ranks and workers."""
    seen: list[int] = []
    for rank in range(ranks):
        loader = make(replica=Replica(rank, ranks), workers=workers)
        batches = list(loader.epoch(0))
        assert len(batches) == loader.batches_per_epoch
        seen += indices_of(batches)
    assert sorted(seen) == list(range(VIDEOS))


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    batch=st.integers(1, 5),
    ranks=st.integers(1, 5),
    lanes=st.integers(1, 5),
    training=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_lanes_divide_an_epoch(
    sizes: list[int], batch: int, ranks: int, lanes: int, training: bool, epoch: int
) -> None:
    """Any shards, however uneven, give equal ranks of full batches in training, and each sample once in evaluation."""
    starts = [sum(sizes[:at]) for at in range(len(sizes) + 1)]
    index = ShardIndex(
        Path(),
        tuple(TarShard(str(at), 0, tuple(range(starts[at], starts[at + 1]))) for at in range(len(sizes))),
    )

    def divide(rank: int) -> list[Any]:
        replica = Replica(rank, ranks)
        return streams_of(index, batch, training=training, seed=1, epoch=epoch, replica=replica, streams=lanes)

    if training and starts[-1] < batch * ranks:
        with pytest.raises(ConfigError, match="smaller batch"):
            divide(0)
        return
    seen: list[int] = []
    counts = set()
    for rank in range(ranks):
        mine = divide(rank)
        for lane in mine:
            samples = [index for part in lane.parts for index in part.indices]
            assert len(samples) == sum(lane.batch_sizes)
            seen += samples
        # Streams take turns, so their numbers of batches differ by one at most, longer ones first.
        lengths = [len(lane.batch_sizes) for lane in mine]
        assert lengths == sorted(lengths, reverse=True)
        assert lengths[0] - lengths[-1] <= 1
        counts.add(sum(lengths))
        if training:
            assert all(size == batch for lane in mine for size in lane.batch_sizes)
    assert len(set(seen)) == len(seen)
    if training:
        assert counts == {starts[-1] // (batch * ranks)}
    else:
        assert len(seen) == starts[-1]


@pytest.mark.parametrize("training", [False, True])
def test_pixels_equal_those_of_loose_files(make: Make, loose: list[VideoItem], training: bool) -> None:
    """Packing a data set into shards in the middle of a project changes no pixels."""
    dataset = VideoDataset(loose, TRAINING if training else EVALUATION, seed=3, decode_backend="pyav")
    for batch in make(training).epoch(5):
        clips = [dataset.load(index, 5) for index in batch.indices.tolist()]
        assert_close(batch.pixels, normalize(torch.cat([clip.pixels for clip in clips])), "exact")
        assert batch.labels.tolist() == [clip.label for clip in clips]


def test_training_shuffles_by_epoch(make: Make) -> None:
    """Epochs differ in order, a repeated epoch does not; no sample comes twice."""
    loader = make(training=True)
    first, second, again = (indices_of(list(loader.epoch(epoch))) for epoch in (0, 1, 0))
    assert first == again
    assert first != second
    assert len(set(first)) == len(first) == VIDEOS // BATCH * BATCH


@pytest.mark.parametrize(("training", "workers"), [(True, 0), (True, 2), (False, 2)])
def test_resumes_at_a_batch(make: Make, training: bool, workers: int, tmp_path: Path, shards: Path) -> None:
    """A resumed run sees the batches of an uninterrupted one, with a damaged sample before the start too."""
    folder = copy_of(shards, tmp_path)
    whole = list(make(training, folder, workers=workers).epoch(2))
    spoil(folder, whole[0].indices[1].item())
    whole = list(make(training, folder, workers=workers).epoch(2))
    assert whole[0].failures
    for start in (1, 2, len(whole)):
        assert_equal(list(make(training, folder, workers=workers).epoch(2, start)), whole[start:])


def test_resuming_decodes_nothing_before(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resuming late in a long epoch must not decode the earlier batches again."""
    decoded: list[int] = []

    def counted(*arguments: Any, index: int, **options: Any) -> Any:
        decoded.append(index)
        return load_clip(*arguments, index=index, **options)

    monkeypatch.setattr(shard_batches, "load_clip", counted)
    batches = list(make(training=True).epoch(0, 3))
    assert decoded == indices_of(batches)


def test_evaluation_marks_a_damaged_sample(make: Make, shards: Path, tmp_path: Path) -> None:
    """The sample is not replaced, and its report names shard and sample."""
    folder = copy_of(shards, tmp_path)
    spoil(folder, 7)
    loader = make(folder=folder, fault_file=tmp_path / "faults.jsonl")
    batches = list(loader.epoch(0))
    assert sorted(indices_of(batches)) == [index for index in range(VIDEOS) if index != 7]
    (failure,) = [failure for batch in batches for failure in batch.failures]
    assert failure.index == 7
    assert failure.kind == "UndecodableVideoError"
    assert ".tar/0000000007.mp4" in failure.path
    assert loader.faults.failures == [failure]
    assert failure.path in (tmp_path / "faults.jsonl").read_text()


def test_training_takes_the_next_sound_sample(make: Make, shards: Path, tmp_path: Path) -> None:
    """Batches stay full: a failed slot gets the next sample, across batches and past the end."""
    folder = copy_of(shards, tmp_path)
    order = indices_of(list(make(training=True, folder=folder).epoch(0)))
    bad = {order[1], order[2], order[7], order[-1]}
    for index in bad:
        spoil(folder, index)
    loader = make(training=True, folder=folder)
    batches = list(loader.epoch(0))
    assert all(len(batch.indices) == BATCH for batch in batches)
    following = [next(index for index in (order[at:] + order) if index not in bad) for at in range(len(order))]
    assert indices_of(batches) == following
    assert {failure.index for failure in loader.faults.failures} == bad


def test_training_without_a_sound_sample_stops(make: Make, shards: Path, tmp_path: Path) -> None:
    """The search for a stand-in ends if there is none."""
    folder = copy_of(shards, tmp_path)
    for index in range(VIDEOS):
        spoil(folder, index)
    with pytest.raises(ListError, match="not one video"):
        next(iter(make(training=True, folder=folder).epoch(0)))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_a_truncated_shard_costs_its_end(make: Make, shards: Path, tmp_path: Path, share: float) -> None:
    """Samples before the cut are delivered, those after it are named, and the other shards are complete."""
    folder = copy_of(shards, tmp_path)
    path = folder / "shard-000001.tar"
    # A tar ends in zeros.
    os.truncate(path, int(len(path.read_bytes().rstrip(b"\0")) * share))
    batches = list(make(folder=folder).epoch(0))
    failed = {failure.index for batch in batches for failure in batch.failures}
    assert sorted([*indices_of(batches), *failed]) == list(range(VIDEOS))
    assert 0 < len(failed) <= PER_SHARD
    assert all("shard-000001.tar" in failure.path for batch in batches for failure in batch.failures)


def test_a_missing_shard_is_named(make: Make, shards: Path, tmp_path: Path) -> None:
    """A lost file costs its samples, not the run."""
    folder = copy_of(shards, tmp_path)
    (folder / "shard-000002.tar").unlink()
    loader = make(folder=folder)
    batches = list(loader.epoch(0))
    assert len(indices_of(batches)) == VIDEOS - PER_SHARD
    assert all("shard-000002.tar" in failure.path for failure in loader.faults.failures)


@given(at=st.integers(0, 2**30), value=st.integers(1, 255), data=st.data())
def test_any_wrong_byte_loses_no_count(shards: Path, at: int, value: int, data: st.DataObject) -> None:
    """For any wrong byte in a shard, each sample is delivered once or named as failed."""
    part = read_shard_index(shards).shards[0]
    content = bytearray((shards / part.name).read_bytes())
    # Headers are few bytes among many, and matter most.
    if data.draw(st.booleans()):
        kinds = (f"{key_of(index)}.{kind}" for index in part.indices for kind in ("mp4", "json"))
        headers = [content.index(name.encode()) for name in kinds]
        at = headers[at % len(headers)] + at % 512
    content[at % len(content)] ^= value
    wrong = shards.parent / "wrong"
    wrong.mkdir(exist_ok=True)
    (wrong / part.name).write_bytes(content)
    samples = list(read_stream(wrong, ShardStream([part], [PER_SHARD]), shuffle_buffer=0, seed_parts=(), classes=3))
    assert [sample.index for sample in samples] == list(part.indices)
    assert sum(isinstance(sample, Failure) for sample in samples) <= PER_SHARD


@pytest.mark.parametrize("samples", [1, 5])
def test_left_out_videos_are_reported_in_evaluation(
    make: Make, loose: list[VideoItem], tmp_path: Path, samples: int
) -> None:
    """A video that was left out counts as failed, once over all ranks; also if some ranks have no samples."""
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    sound = loose[:samples]
    write_shards([*sound, VideoItem(str(bad), 0), VideoItem(str(tmp_path / "gone.mp4"), 0)], tmp_path / "out")
    failures = []
    for rank in range(2):
        loader = make(folder=tmp_path / "out", replica=Replica(rank, 2), batch=1)
        failures += [failure for batch in loader.epoch(0) for failure in batch.failures]
    assert Counter((failure.index, failure.kind) for failure in failures) == {
        (samples, "UndecodableVideoError"): 1,
        (samples + 1, "MissingVideoError"): 1,
    }


class DeadlyDecoder(SampleDecoder):
    """Decodes normally, but kills its process on one video."""

    def __call__(self, task: Any, row: Tensor) -> Any:
        if task[0].index == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(task, row)


class HangingDecoder(SampleDecoder):
    """Decodes normally, but hangs on one video."""

    def __call__(self, task: Any, row: Tensor) -> Any:
        if task[0].index == 7:
            signal.pause()
        return super().__call__(task, row)


@pytest.mark.parametrize(
    ("decoder", "kind", "limit"), [(DeadlyDecoder, "DecoderCrash", 60.0), (HangingDecoder, "DecoderTimeout", 0.5)]
)
def test_a_worker_that_dies_costs_one_video(
    make: Make, monkeypatch: pytest.MonkeyPatch, decoder: type[SampleDecoder], kind: str, limit: float
) -> None:
    """A video that kills or hangs its decoder is named, and every other video is delivered once."""
    monkeypatch.setattr("mote_fast.data.shards.shard_loader.SampleDecoder", decoder)
    loader = make(workers=2, time_limit=limit)
    batches = list(loader.epoch(0))
    assert sorted(indices_of(batches)) == [index for index in range(VIDEOS) if index != 7]
    (failure,) = loader.faults.failures
    assert (failure.index, failure.kind) == (7, kind)
    assert ".tar/0000000007.mp4" in failure.path
    # The video is not tried again, which would cost its time limit in every epoch.
    monkeypatch.setattr(loader, "_pool", None)
    again = list(loader.epoch(1))
    assert [failure.kind for batch in again for failure in batch.failures] == [kind]


def test_a_worker_killed_from_outside_costs_nothing(make: Make) -> None:
    """The kernel may choose a worker when memory runs out: its batches are read again."""
    loader = make(workers=2, batch=1)
    batches = loader.epoch(0)
    seen = indices_of([next(batches) for _ in range(3)])
    for process in multiprocessing.active_children():
        process.kill()
    seen += indices_of(list(batches))
    assert sorted(seen) == list(range(VIDEOS))
    assert not loader.faults.failures


def test_close_stops_the_workers(make: Make) -> None:
    """A loader closed in the middle of an epoch leaves no process behind."""
    loader = make(workers=2)
    next(loader.epoch(0))
    assert multiprocessing.active_children()
    loader.close()
    assert not multiprocessing.active_children()


def index_of(**changes: Any) -> str:
    shard = {"name": "s.tar", "size": 1, "samples": 1, "indices": [0]}
    content = {"format": 1, "labels": [], "left_out": [], "shards": [shard | changes.pop("shard", {})]}
    return json.dumps(content | changes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("{", "damaged"),
        ('{"format": 99}', "format 99"),
        ('{"format": 1}', "damaged"),
        ("[" * 100_000, "too deep"),
        (index_of(labels="abc"), "'abc' in place of list"),
        (index_of(labels=[1]), "1 in place of str"),
        (index_of(left_out=[{"index": 0, "path": 5, "kind": "", "reason": ""}]), "5 in place of str"),
        (index_of(left_out=[{"index": 0, "of": 5}]), "damaged"),
        (index_of(shard={"indices": [0, 0]}), "twice"),
        (index_of(shard={"indices": [-1]}), "out of range"),
        (index_of(shard={"indices": [10**10]}), "out of range"),
        (index_of(shard={"indices": [True]}), "True in place of int"),
        (index_of(shard={"indices": [0.5]}), "0.5 in place of int"),
        *(
            (index_of(shard={"name": name}), "no name of a file")
            for name in ("", ".", "..", "../s.tar", "/s.tar", "a/b", "\0")
        ),
    ],
)
def test_a_bad_index_is_refused(make: Make, tmp_path: Path, content: str | None, message: str) -> None:
    """The error names the file, and the command that writes it; a shard lies in the folder of its index."""
    if content is not None:
        (tmp_path / "shards.json").write_text(content)
    with pytest.raises(ListError, match=message) as caught:
        make(folder=tmp_path)
    assert str(tmp_path / "shards.json") in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_pipe_as_index_is_refused(make: Make, tmp_path: Path) -> None:
    """A reader would wait for a writer for ever."""
    os.mkfifo(tmp_path / "shards.json")
    with pytest.raises(ListError, match="not a regular file"):
        make(folder=tmp_path)


def test_labels_must_have_a_class(make: Make, shards: Path, tmp_path: Path) -> None:
    """A label of which there is no name is a failure that names shard and member; training goes on without it."""
    folder = copy_of(shards, tmp_path)
    for path in folder.glob("*.tar"):
        path.write_bytes(path.read_bytes().replace(b'"index": 7, "label": 1', b'"index": 7, "label": 3'))
    batches = list(make(folder=folder).epoch(0))
    (failure,) = [failure for batch in batches for failure in batch.failures]
    assert (failure.index, failure.kind) == (7, "ListError")
    assert ".tar/0000000007.mp4" in failure.path
    assert "label is 3, but there are 3 class names" in failure.reason
    assert all(len(batch.indices) == BATCH for batch in make(training=True, folder=folder).epoch(0))


@pytest.mark.parametrize("at", [0, -1])
def test_the_search_for_stand_ins_is_short(make: Make, shards: Path, tmp_path: Path, at: int) -> None:
    """With one sound sample, first or last, no other is decoded more than twice in an epoch."""
    folder = copy_of(shards, tmp_path)
    sound = indices_of(list(make(training=True, folder=folder).epoch(0)))[at]
    for index in range(VIDEOS):
        if index != sound:
            spoil(folder, index)
    decoded: list[int] = []
    loader = make(training=True, folder=folder)

    def counted(epoch: int, sample: Any, row: Tensor) -> Any:
        decoded.append(sample.index)
        return load(epoch, sample, row)

    load, loader._load = loader._load, counted
    assert set(indices_of(list(loader.epoch(0)))) == {sound}
    assert max(count for index, count in Counter(decoded).items() if index != sound) <= 2


def test_too_few_samples_for_a_step_are_refused(make: Make) -> None:
    """An epoch without batches would silently end a training run."""
    with pytest.raises(ConfigError, match="smaller batch"):
        make(training=True, batch=8, replica=Replica(0, 3))
