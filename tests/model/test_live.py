from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import mote_fast
from mote_fast.data import write_video
from mote_fast.data.live.live_source import Interruption
from mote_fast.errors import ConfigError
from mote_fast.timeline.live_window import LiveWindow
from tests.live_server import live_server, transport_stream
from tests.tolerances import assert_close

LABELS = ["ring", "star", "a square"]
PLAN = {"fps": 10.0, "window": 0.8, "hop": 0.4}

# Of thirty frames that come at once, as many are kept as a window spans: no gap is too long for it.
BURST, LIVE_PLAN = 30, {"fps": 10.0, "window": 1.6, "hop": 1.6}


@pytest.fixture(scope="module")
def model() -> mote_fast.VideoClassifier:
    torch.manual_seed(0)
    found = mote_fast.create_model("ViT-test", frames=4, layers=1, experts=2)
    found.head.set_train_class_features(torch.randn(6, found.head.embed_dim))
    return found


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), np.uint8)


def windows(found: list[LiveWindow | Interruption]) -> list[LiveWindow]:
    return [each for each in found if isinstance(each, LiveWindow)]


def scores(found: list[LiveWindow | Interruption]) -> Tensor:
    return torch.stack([each.scores for each in windows(found)])


def test_frames_as_they_come_score_as_a_timeline(model: mote_fast.VideoClassifier, frames: np.ndarray) -> None:
    """The windows of frames that come one after another are those of the same frames in one piece."""
    whole = model.timeline(frames, LABELS, frame_rate=10, **PLAN)
    found = list(model.stream(iter(frames), LABELS, frame_rate=10, **PLAN))
    assert_close(scores(found), whole.scores, "equivalent")
    assert [each.start + 0.35 for each in windows(found)] == pytest.approx(whole.times)
    assert [each.label for each in windows(found)] == [LABELS[row] for row in whole.scores.argmax(1)]
    timed = list(model.stream(((100 + at / 10, frame) for at, frame in enumerate(frames)), LABELS, **PLAN))
    assert_close(scores(timed), whole.scores, "equivalent")


def test_a_file_streams_as_its_timeline(model: mote_fast.VideoClassifier, frames: np.ndarray, tmp_path: Path) -> None:
    """A path is read as timeline reads it, to its end."""
    path = write_video(tmp_path / "noise.mp4", frames, fps=10)
    whole = model.timeline(path, LABELS, **PLAN)
    assert_close(scores(list(model.stream(path, LABELS, **PLAN))), whole.scores, "equivalent")


def test_a_frame_stands_in_for_those_that_are_missing(model: mote_fast.VideoClassifier, frames: np.ndarray) -> None:
    """A dropped frame costs nothing: the one before it is shown longer, and is not encoded again."""
    kept = [0, 1, 2, 5, 6, 7, 10, 13]
    shown = [max(each for each in kept if each <= tick) for tick in range(14)]
    whole = model.timeline(frames[shown], LABELS, frame_rate=10, **PLAN)
    before = model.frame_counts.encoded
    found = list(model.stream(((at / 10, frames[at]) for at in kept), LABELS, **PLAN))
    assert_close(scores(found), whole.scores, "equivalent")
    assert model.frame_counts.encoded - before == len(kept)


def test_no_window_sees_both_sides_of_a_long_gap(model: mote_fast.VideoClassifier, frames: np.ndarray) -> None:
    """Frames that are further apart than a window begin windows of their own."""
    times = [at / 10 for at in range(8)] + [100 + at / 10 for at in range(8)]
    found = list(model.stream(zip(times, frames[:16], strict=True), LABELS, **PLAN))
    first, second = windows(found)
    assert (first.start, second.start) == pytest.approx((0, 100))
    alone = model.timeline(frames[8:16], LABELS, frame_rate=10, **PLAN)
    assert_close(second.scores[None], alone.scores, "equivalent")


def test_an_interrupted_stream_goes_on(model: mote_fast.VideoClassifier, frames: np.ndarray) -> None:
    """Windows, one event, and windows of the frames after it."""
    kinds: list[str] = []
    with live_server(transport_stream(frames[:BURST], 10)) as server:
        for found in model.stream(server.url, LABELS, retry_seconds=60, **LIVE_PLAN):
            kinds.append(type(found).__name__)
            if isinstance(found, Interruption):
                server.start()
            elif server.connections == 1 and kinds == ["LiveWindow"]:
                server.cut()
            elif "Interruption" in kinds:
                assert found.delay >= 0
                break
    assert kinds.count("Interruption") == 1
    assert kinds[0] == kinds[-1] == "LiveWindow"


def test_a_model_that_is_slower_drops_frames(model: mote_fast.VideoClassifier, frames: np.ndarray) -> None:
    """Between two results all frames of the stream come: those that would be late are dropped and counted."""
    with live_server(transport_stream(frames[:BURST], 10), closes=True) as server:
        found = model.stream(server.url, LABELS, retry_seconds=0, **LIVE_PLAN)
        first = next(found)
        assert isinstance(first, LiveWindow)
        assert server.sent.wait(60)
        rest: list[LiveWindow | Interruption] = []
        with pytest.raises(mote_fast.errors.VideoError):
            rest.extend(found)
    last = windows([first, *rest])[-1]
    assert last.end <= 3.2


def test_rejected_windows_have_no_label(model: mote_fast.VideoClassifier, frames: np.ndarray) -> None:
    """A least cosine of 1 rejects every window; the best label's index and score are still told."""
    found = windows(list(model.stream(iter(frames), LABELS, frame_rate=10, background=1.0, **PLAN)))
    assert {each.label for each in found} == {None}
    assert all(each.score == float(each.scores[each.index]) for each in found)


@pytest.mark.parametrize(
    "options",
    [{"background": "auto"}, {"retry_seconds": -1}, {"retry_seconds": float("nan")}, {"frame_rate": 0}, {"hop": 9}],
    ids=["auto", "retry", "nan", "rate", "hop"],
)
def test_bad_arguments_are_errors_at_once(model: mote_fast.VideoClassifier, options: dict[str, float]) -> None:
    """They are told before anything is opened."""
    with pytest.raises(ConfigError):
        model.stream("http://127.0.0.1:1/x", LABELS, **options)
