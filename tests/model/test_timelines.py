from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mote_fast
from mote_fast.data import write_video
from mote_fast.errors import ConfigError, LabelError
from tests.data.conftest import NumberedVideos
from tests.tolerances import assert_close

LABELS = ["ring", "star", "a cross that slides", "a square"]


@pytest.fixture(scope="module")
def model() -> mote_fast.VideoClassifier:
    torch.manual_seed(0)
    found = mote_fast.create_model("ViT-test", frames=4, layers=1, experts=2)
    found.head.set_train_class_features(torch.randn(6, found.head.embed_dim))
    return found


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of noise that changes with every frame."""
    frames = np.random.default_rng(0).integers(0, 256, (100, 32, 48, 3), np.uint8)
    return Path(write_video(tmp_path_factory.mktemp("video") / "noise.mp4", frames, fps=10))


def test_windows_score_as_their_frames_alone(model: mote_fast.VideoClassifier, video: Path) -> None:
    """What windows share changes no score: each is that of its four frames, decoded and encoded alone."""
    found = model.timeline(video, LABELS, fps=5, window=1.6, hop=0.4)
    classes = model.class_features(LABELS)
    assert found.scores.shape == (len(found.times), 4)
    for row, time in enumerate(found.times):
        first = round((time - 0.6) * 5 - 0.5)
        indices = [2 * tick + 1 for tick in range(first, first + 8, 2)]
        frames = mote_fast.data.read_frames(video, indices)
        pixels = mote_fast.data.evaluation_pixels(frames, model.clip.config.preprocessing)[:, 0]
        with torch.no_grad():
            alone = model.head(model.encode_frames(pixels)[None], classes)[0]
        assert_close(found.cosines[row], alone, "equivalent")


def test_each_frame_is_encoded_once(model: mote_fast.VideoClassifier, video: Path) -> None:
    """However many windows see a frame, and however often the clock ticks while it is shown."""
    for fps in (10, 25):
        before = model.frame_counts.encoded
        model.timeline(video, LABELS, fps=fps, hop=1 / fps)
        assert model.frame_counts.encoded - before == 100


def read_number(pixels: Tensor, **_: bool) -> Tensor:
    """The class of numbered frames, [N, d]: frames 0 to 12, 13 to 24, 25 and more."""
    squares = torch.nn.functional.interpolate(pixels.mean(1, keepdim=True), (64, 64))[:, 0] > 0
    bits = torch.stack([squares[:, row + 8, column + 8] for row in (0, 16) for column in (0, 16, 32, 48)], 1)
    numbers = (bits.long() << torch.arange(8)).sum(1)
    return torch.nn.functional.one_hot((numbers >= 13).long() + (numbers >= 25).long(), 64).float()


@pytest.mark.parametrize("rate", ["constant", "variable"])
def test_segments_are_exact_to_one_step(rate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are those at which frames are shown: a segment begins within a step of the clock of its first frame."""
    gaps = np.array([40] * 40 if rate == "constant" else [10, 90, 40, 200] * 10)
    stamps = [0, *np.cumsum(gaps)[:39].tolist()]
    path = NumberedVideos.encode_timed(tmp_path / "numbers.mkv", NumberedVideos.draw(40, 64, 64), stamps)
    reader: Any = mote_fast.create_model("ViT-test", frames=4, header="mean", heads=1)
    monkeypatch.setattr(reader, "encode_frames", read_number)
    for fps in (10, 25, 30):
        found = reader.timeline(
            path, ["a", "b", "c"], class_features=torch.eye(3, 64), fps=fps, hop=1 / fps, smooth=0, min_seconds=0
        )
        assert [each.label for each in found.segments] == ["a", "b", "c"]
        starts = [each.start for each in found.segments]
        for start, frame in zip(starts, (0, 13, 25), strict=True):
            assert abs(start - stamps[frame] / 1000) <= 1 / fps
        assert [each.end for each in found.segments] == [*starts[1:], found.duration]


def test_frames_pushed_one_by_one(model: mote_fast.VideoClassifier) -> None:
    """A live source gives the windows that a file of the same frames gives."""
    frames = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (20, 32, 48, 3), np.uint8))
    whole = model.timeline(frames, LABELS, fps=5, frame_rate=5)
    scorer = model.window_scorer(LABELS, fps=5)
    pushed = [scorer.push(frame[None], [(at + 0.5) / 5]) for at, frame in enumerate(frames)]
    found = [each for each in [*pushed, scorer.finish()] if each is not None]
    assert [time for each in found for time in each.times] == pytest.approx(whole.times)
    assert_close(torch.cat([each.cosines for each in found]), whole.cosines, "equivalent")


def test_background_words_leave_the_modulation_alone(model: mote_fast.VideoClassifier, video: Path) -> None:
    """The scores of the labels do not depend on the words."""
    plain = model.timeline(video, LABELS)
    words = model.timeline(video, LABELS, background=["an empty street", "a wall"])
    assert torch.equal(plain.cosines, words.cosines)
    assert not torch.equal(plain.levels, words.levels)
    assert words.threshold == 0


def test_an_example_of_the_background(model: mote_fast.VideoClassifier, video: Path) -> None:
    """What looks as the example does has no label; an embedding serves as an example from elsewhere."""
    found = model.timeline(video, LABELS, background=(0, 10))
    assert found.levels.amax() < 0
    assert not found.segments
    elsewhere = model.timeline(video, LABELS, background=model.embed(video))
    assert not elsewhere.segments


def test_a_threshold_for_each_video(model: mote_fast.VideoClassifier, video: Path) -> None:
    """Noise is of one kind: without a level of the model it has labels, and with one the level decides."""
    found = model.timeline(video, LABELS, background="auto")
    assert (found.threshold, found.rejection[:25]) == (None, "auto: one kind of windows")
    model.reject_level = 0.9
    found = model.timeline(video, LABELS, background="auto")
    model.reject_level = None
    assert (found.threshold, found.segments) == (0.9, [])


def test_progress_ends_with_the_video(model: mote_fast.VideoClassifier, video: Path) -> None:
    """The callback gets the seconds that are done, and the duration, with which they end."""
    seen: list[tuple[float, float]] = []
    model.timeline(video, LABELS, fps=8, progress=lambda done, duration: seen.append((done, duration)))
    assert seen == [(8.0, 10.0), (10.0, 10.0)]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"labels": None}, LabelError, "no labels"),
        ({"smooth": -1}, ConfigError, "smooth must be"),
        ({"min_seconds": float("inf")}, ConfigError, "min_seconds must be"),
        ({"background": "none"}, ConfigError, "background must be"),
        ({"background": 3}, ConfigError, "must lie in"),
        ({"background": []}, ConfigError, "background must be"),
        ({"background": (5, 2)}, ConfigError, "background must be"),
        ({"background": torch.zeros(2, 7)}, ConfigError, "background: embeddings must be"),
        ({"background": (50, 60)}, ConfigError, "no window has its middle"),
    ],
)
def test_bad_arguments(
    given: dict[str, Any], error: type[Exception], words: str, model: mote_fast.VideoClassifier, video: Path
) -> None:
    """Each is refused by name."""
    with pytest.raises(error, match=words):
        model.timeline(video, given.pop("labels", LABELS), **given)


def test_decoded_frames_need_a_rate(model: mote_fast.VideoClassifier) -> None:
    """Frames in memory have no times of their own."""
    with pytest.raises(ConfigError, match="frame_rate"):
        model.timeline(torch.zeros(10, 32, 32, 3, dtype=torch.uint8), LABELS)


@pytest.mark.parametrize("reject", [0.95, "auto", ["a wall"]])
def test_classify_rejects(reject: Any, model: mote_fast.VideoClassifier, video: Path) -> None:
    """A video below the level has no label, alone and among others; one above it has what it had."""
    model.reject_level = 0.95
    example = model.embed(video)
    try:
        assert model.classify(video, LABELS, reject=-1.0) == model.classify(video, LABELS)
        assert model.classify(video, LABELS, reject=example) == []
        alone = model.classify(video, LABELS, reject=reject)
        several = model.classify([video, video], LABELS, reject=reject)
        assert several == [alone, alone]
        if reject != ["a wall"]:
            assert alone == []
    finally:
        model.reject_level = None


def test_rejection_needs_a_level(model: mote_fast.VideoClassifier, video: Path) -> None:
    """Without a measured level "auto" is refused, and so is what is no rejection."""
    with pytest.raises(ConfigError, match="reject_level"):
        model.classify(video, LABELS, reject="auto")
    with pytest.raises(ConfigError, match="reject must be"):
        model.classify(video, LABELS, reject=(1.0, 2.0))
