"""One batch slot: stand-ins for unreadable videos, and the memory of failures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mote_fast.data.dataset import Clip, VideoDataset
from mote_fast.data.items import VideoItem
from mote_fast.data.loading.faults import CRASH, TIMEOUT, Failure, FaultLog
from mote_fast.data.loading.order import replacement
from mote_fast.data.loading.samples import MAX_STAND_INS, SampleReader, load_row
from mote_fast.data.plan import ClipRecipe
from mote_fast.data.transforms import Preprocessing
from mote_fast.errors import BackendError, ListError, UndecodableVideoError

if TYPE_CHECKING:
    from tests.data.conftest import NumberedVideos

RECIPE = ClipRecipe(frames=2, preprocessing=Preprocessing(16))
ROW = torch.empty(1, 2, 3, 16, 16, dtype=torch.uint8)


class Script:
    """Replaces a decoder: videos in ``broken`` fail, each label is ten times the index; counts the tries."""

    def __init__(self, videos: int, broken: set[int], lasting: bool) -> None:
        self.dataset = VideoDataset([VideoItem(f"{index}.mp4", 10 * index) for index in range(videos)], RECIPE, seed=4)
        self._broken = broken
        self._lasting = lasting
        self.tried: list[int] = []

    def load(self, index: int, epoch: int, row: Tensor) -> int | Failure:
        self.tried.append(index)
        if index in self._broken:
            return Failure(index, f"{index}.mp4", "UndecodableVideoError", "broken", self._lasting)
        return 10 * index

    def reader(self, training: bool, faults: FaultLog | None = None) -> SampleReader:
        return SampleReader(self.dataset, training, self.load, faults or FaultLog())


@given(
    broken=st.sets(st.integers(0, 11), max_size=9),
    epoch=st.integers(0, 3),
    position=st.integers(0, 11),
    index=st.integers(0, 11),
)
def test_the_first_sound_stand_in_takes_the_place(broken: set[int], epoch: int, position: int, index: int) -> None:
    """It keeps its own label; the failed ones before it are named in order; earlier reads do not matter."""
    candidates = [index] + [
        replacement(12, seed=4, epoch=epoch, position=position, attempt=attempt)
        for attempt in range(1, MAX_STAND_INS + 1)
    ]
    sound = next(at for at, candidate in enumerate(candidates) if candidate not in broken)
    script = Script(12, broken, lasting=False)
    reader = script.reader(training=True)
    for _ in range(2):
        script.tried.clear()
        sample = reader.read(epoch, position, index, ROW)
        assert script.tried == candidates[: sound + 1]
        assert (sample.index, sample.label) == (candidates[sound], 10 * candidates[sound])
        assert [failure.index for failure in sample.failures] == candidates[:sound]


def test_evaluation_replaces_nothing() -> None:
    """A failed video stays failed each time it is requested."""
    reader = Script(4, {2}, lasting=True).reader(training=False)
    for _ in range(2):
        sample = reader.read(0, 2, 2, ROW)
        assert (sample.index, sample.label) == (2, None)
        assert [failure.index for failure in sample.failures] == [2]
    assert reader.read(0, 1, 1, ROW).label == 10


def test_a_lasting_failure_is_not_tried_again() -> None:
    """Other slots do not try it as a stand-in either; the result is the same as if they did."""
    remembering, trying = Script(3, {0, 1}, lasting=True), Script(3, {0, 1}, lasting=False)
    first, second = remembering.reader(training=True), trying.reader(training=True)
    for position in range(20):
        assert first.read(0, position, position % 3, ROW).index == second.read(0, position, position % 3, ROW).index
    assert remembering.tried.count(0) == remembering.tried.count(1) == 1
    assert trying.tried.count(0) > 5


def test_nothing_but_broken_videos_ends_in_an_error() -> None:
    """A wrong data root must not search forever; the message names the last try and its reason."""
    script = Script(5, set(range(5)), lasting=True)
    with pytest.raises(ListError, match=rf"^3\.mp4 .* {MAX_STAND_INS} .*\d\.mp4: broken.*data root"):
        script.reader(training=True).read(0, 0, 3, ROW)
    assert sorted(script.tried) == list(range(5))


@pytest.mark.parametrize("kind", [CRASH, TIMEOUT])
def test_what_stopped_an_earlier_run_is_not_tried_again(kind: str) -> None:
    """Each try costs up to two time limits; but a file that was missing then may exist now."""
    faults = FaultLog()
    faults.record(Failure(1, "1.mp4", kind, "tried twice", lasting=True))
    faults.record(Failure(2, "2.mp4", "MissingVideoError", "no such file", lasting=True))
    faults.record(Failure(0, "another.mp4", kind, "of a list edited since", lasting=True))
    faults.record(Failure(99, "99.mp4", kind, "of a longer list", lasting=True))
    script = Script(3, set(), lasting=False)
    reader = script.reader(False, faults)
    assert [reader.read(0, index, index, ROW).label for index in range(3)] == [0, None, 20]


def test_row_of_a_sound_video(numbered_videos: NumberedVideos) -> None:
    """The pixels of ``VideoDataset.load``, and the label."""
    dataset = VideoDataset([VideoItem(str(numbered_videos.write("samples.mp4")), 5)], RECIPE)
    row = torch.zeros_like(ROW)
    assert load_row(dataset, 0, 0, row) == 5
    assert torch.equal(row, dataset.load(0, 0).pixels)


class RaisingDataset(VideoDataset):
    """Raises what it is given."""

    def __init__(self, error: Exception, path: str = "odd.mp4") -> None:
        super().__init__([VideoItem(path, 0)], RECIPE)
        self._error = error

    def load(self, index: int, epoch: int = 0) -> Clip:
        raise self._error


@pytest.mark.parametrize("error", [OSError("stale file handle"), MemoryError(), RuntimeError("odd")])
def test_an_unknown_error_counts_against_its_video(error: Exception) -> None:
    """One odd file in a million must neither end the run nor be hidden: the kind is the error's class."""
    failure = load_row(RaisingDataset(error), 0, 0, ROW)
    assert isinstance(failure, Failure)
    assert (failure.path, failure.kind) == ("odd.mp4", type(error).__name__)
    assert failure.reason


def test_an_error_of_the_set_up_is_raised() -> None:
    """An unavailable backend fails for every video, so the run must end."""
    with pytest.raises(BackendError):
        load_row(RaisingDataset(BackendError("no decoder")), 0, 0, ROW)


def test_a_file_that_no_epoch_can_read_fails_for_good(numbered_videos: NumberedVideos) -> None:
    """A file without video fails for good; a damaged frame only in this epoch, as another may draw other frames."""
    error = UndecodableVideoError("x", "a frame cannot be decoded")
    failures = [
        load_row(RaisingDataset(error, path), 0, 3, ROW) for path in (str(numbered_videos.write("samples.mp4")), "x")
    ]
    assert [isinstance(failure, Failure) and failure.lasting for failure in failures] == [False, True]
