"""Many videos in one call: order, faults as values, bounded memory, processes that end."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mote_fast import VideoClassifier
from mote_fast.data import loaders, read_frames
from mote_fast.data.gpu import decoder_choice, gpu_reader
from mote_fast.data.gpu.gpu_reader import GpuReader
from mote_fast.data.loading import view_frames
from mote_fast.errors import (
    BackendError,
    ConfigError,
    LabelError,
    MissingVideoError,
    MoteError,
    UndecodableVideoError,
    VideoError,
)
from mote_fast.model import streaming, video_model
from tests.data.gpu.stand_in import StandIn, decoder_of, missing
from tests.tolerances import assert_close

LABELS = ["archery", "juggling balls", "playing the cello"]
ROOT = Path(__file__).parents[2]


def workers() -> list[Any]:
    """The worker processes of this one."""
    return [child for child in multiprocessing.active_children() if child.name == "mote-fast-worker"]


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    """A stream ends its processes, however it ends."""
    yield
    assert workers() == []


@pytest.fixture
def ball(moving_video: Path) -> Path:
    return Path(moving_video)


def read_or_die(task: tuple[str | bytes, Any, str | None]) -> Any:
    """Read a video as a worker does; some names make it crash, hang or fail."""
    name = Path(task[0]).name if isinstance(task[0], str) else ""
    if name == "crash.mp4":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "hang.mp4":
        signal.pause()
    if name == "odd.mp4":
        raise KeyError("an error that no one foresaw")
    return view_frames.read_crops(task)


@pytest.mark.heavy
def test_results_are_those_of_single_calls_in_order(
    tiny: VideoClassifier, ball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of input gives what it gives alone; each kind of fault is a value, and costs its video only."""
    pool = view_frames.WorkerPool
    monkeypatch.setattr(view_frames, "WorkerPool", lambda _, *rest, **options: pool(read_or_die, *rest, **options))
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    frames = read_frames(ball, range(10))
    data = ball.read_bytes()
    monkeypatch.chdir(ball.parent)
    good: list[Any] = [str(ball), ball.name, data, ball, frames, frames.numpy()]
    bad: dict[Any, str] = {
        str(tmp_path / "damaged.mp4"): "damaged",
        tmp_path / "none.mp4": "no such file",
        tmp_path / "crash.mp4": "SIGSEGV",
        tmp_path / "hang.mp4": "took over",
        tmp_path / "odd.mp4": "decoding it failed: KeyError: 'an error that no one foresaw'",
        7: "not int",
        b"": "no data",
    }
    videos = [each for pair in itertools.zip_longest(bad, good) for each in pair if each is not None]
    tiny.decode_time_limit = 8.0
    found = list(tiny.stream_results(videos, LABELS, workers=2))
    assert [each.index for each in found] == list(range(len(videos)))
    tiny.decode_time_limit = None
    for video, result in zip(videos, found, strict=True):
        reason = bad.get(video) if isinstance(video, str | bytes | Path | int) else None
        if reason is not None:
            assert isinstance(result.error, ConfigError if video == 7 else VideoError)
            assert reason in str(result.error)
            assert result.predictions == []
        else:
            assert result.error is None
            assert result.predictions == tiny.classify(video, LABELS)
    assert [each.video for each in found if each.error is None][:4] == [
        *(str(ball), ball.name, "<bytes>"),
        str(ball),
    ]
    embedded = list(tiny.stream_embeddings([videos[0], *good], views="3x1", workers=1))
    assert isinstance(embedded[0].error, UndecodableVideoError)
    assert embedded[0].embedding is None
    for video, vector in zip(good, embedded[1:], strict=True):
        assert vector.embedding is not None
        assert_close(vector.embedding, tiny.embed(video, views="3x1"), "equivalent")


@pytest.mark.heavy
def test_lists_are_classified_as_one_at_a_time(tiny: VideoClassifier, ball: Path, tmp_path: Path) -> None:
    """classify and embed take lists and generators; errors are raised, or stand in the list."""
    expected, vector = tiny.classify(ball, LABELS), tiny.embed(ball)
    missing = tmp_path / "none.mp4"
    assert tiny.classify((each for each in [ball] * 3), LABELS) == [expected] * 3
    assert_close(tiny.embed([ball] * 2), torch.stack([vector] * 2), "equivalent")
    for several in ([missing], [ball, missing]):
        with pytest.raises(MissingVideoError, match=r"none\.mp4"):
            tiny.classify(several, LABELS)
        with pytest.raises(MissingVideoError, match=r"none\.mp4"):
            tiny.embed(several)
        assert isinstance(tiny.classify(several, LABELS, errors="return")[-1], MissingVideoError)
        assert isinstance(tiny.embed(several, errors="return")[-1], MissingVideoError)
    assert isinstance(tiny.classify(missing, LABELS, errors="return"), MoteError)
    assert tiny.embed([]).shape == (0, tiny.clip.embed_dim)
    with pytest.raises(ConfigError, match="errors"):
        tiny.classify(ball, LABELS, errors="ignore")  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_one_video_needs_no_process(tiny: VideoClassifier, ball: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of one costs what the video costs, and decoded frames need none either."""
    monkeypatch.setattr(view_frames, "run_watched", None)
    assert tiny.classify([ball], LABELS) == [tiny.classify(ball, LABELS)]
    frames = read_frames(ball, range(9))
    assert tiny.classify([frames] * 3, LABELS) == [tiny.classify(frames, LABELS)] * 3


def test_an_endless_source_is_read_a_little_ahead(
    tiny: VideoClassifier, ball: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded, and closing the generator ends the processes."""
    monkeypatch.setattr(streaming, "MAX_WAITING", 5)
    taken: list[int] = []

    def endless() -> Iterator[Path]:
        for number in itertools.count():
            taken.append(number)
            yield ball

    with contextlib.closing(tiny.stream_results(endless(), LABELS, workers=2)) as results:
        for result in itertools.islice(results, 6):
            assert len(taken) - result.index <= 5
        assert workers()


def test_results_that_wait_for_a_slow_video_are_bounded(
    tiny: VideoClassifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """While the first video hangs, the next ones are done, up to a limit; then all come in order."""
    pool = view_frames.WorkerPool
    monkeypatch.setattr(view_frames, "WorkerPool", lambda _, *rest, **options: pool(read_or_die, *rest, **options))
    monkeypatch.setattr(streaming, "MAX_WAITING", 5)
    tiny.decode_time_limit = 5.0
    frames = torch.zeros(8, 32, 32, 3, dtype=torch.uint8)
    taken: list[int] = []
    source = (taken.append(at) or (tmp_path / "hang.mp4" if at == 0 else frames) for at in range(12))
    found = tiny.stream_results(source, LABELS, workers=2)
    assert isinstance(next(found).error, UndecodableVideoError)
    assert len(taken) == 5
    assert [result.index for result in found] == list(range(1, 12))


def test_an_error_of_the_source_comes_after_the_results(tiny: VideoClassifier) -> None:
    """The videos before it are not lost."""

    def source() -> Iterator[torch.Tensor]:
        for _ in range(3):
            yield torch.zeros(8, 32, 32, 3, dtype=torch.uint8)
        raise OSError("the list ends here")

    found = tiny.stream_results(source(), LABELS)
    assert [next(found).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the list ends here"):
        next(found)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_a_pass_holds_crops_of_several_videos(
    tiny: VideoClassifier, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    """The size of a pass is bounded and used; scores are those of single videos but for rounding."""
    videos = [torch.randint(256, (count, 40, 32, 3), dtype=torch.uint8) for count in (1, 9, 8, 3, 30)]
    classes = tiny.class_features(LABELS)
    expected = torch.stack([tiny.scores(video, classes, "2x3") for video in videos])
    sizes: list[int] = []
    encode = tiny.clip.encode_frames
    monkeypatch.setattr(tiny.clip, "encode_frames", lambda pixels, **_: sizes.append(len(pixels)) or encode(pixels))
    options: dict[str, Any] = {"views": "2x3", "class_features": classes, "batch_size": batch_size}
    found = list(tiny.stream_results(videos, LABELS, workers=9, **options))
    assert max(sizes) <= batch_size
    assert len(sizes) <= sum(sizes) / batch_size + len(videos)
    scores = torch.stack([torch.tensor([p.score for p in sorted(r.predictions, key=lambda p: p.index)]) for r in found])
    assert_close(scores, expected)


def test_no_video_is_mixed_with_others_by_default(tiny: VideoClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU every pass holds frames of one video, so that a score never depends on the neighbors."""
    sizes: list[int] = []
    encode = tiny.clip.encode_frames
    monkeypatch.setattr(tiny.clip, "encode_frames", lambda pixels, **_: sizes.append(len(pixels)) or encode(pixels))
    videos = [torch.randint(256, (count, 32, 32, 3), dtype=torch.uint8) for count in (3, 8, 2)]
    list(tiny.stream_embeddings(videos))
    assert sizes == [3, 8, 2]
    assert video_model.FRAMES_PER_BATCH_ON_CPU == 8


def test_scores_that_are_no_numbers_are_an_error_of_their_video(tiny: VideoClassifier) -> None:
    """NaN ranks nothing."""
    with torch.no_grad():
        tiny.clip.model.logit_scale.fill_(float("nan"))
    frames = torch.zeros(8, 32, 32, 3, dtype=torch.uint8)
    assert all("not finite" in str(each.error) for each in tiny.stream_results([frames] * 2, LABELS))


def test_bad_requests_are_named_before_a_video_is_read(tiny: VideoClassifier) -> None:
    """The call raises, and not the first result."""

    def never() -> Iterator[str]:
        raise AssertionError
        yield ""

    with pytest.raises(LabelError, match="no labels"):
        tiny.stream_results(never(), [])
    wrong: list[tuple[str, Any]] = [("views", "0x1"), ("topk", 0), ("workers", 0), ("batch_size", 0), ("workers", 1.5)]
    for option, value in wrong:
        with pytest.raises(ConfigError, match=option):
            tiny.stream_results(never(), LABELS, **{option: value})


SCRIPT = """
import itertools, sys
import mote_fast
print("once", flush=True)
clf = mote_fast.load("tiny")
video, labels = sys.argv[1], ["a", "b"]
assert len(clf.classify([video] * 3, labels)) == 3
for result in clf.stream_results(itertools.repeat(video), labels):
    print(result.index, flush=True)
"""


@pytest.mark.heavy
def test_a_script_without_a_guard_and_ctrl_c(ball: Path, tmp_path: Path) -> None:
    """The main script is not run again in the workers; Ctrl-C ends them with it, and results so far are there."""
    script = tmp_path / "script.py"
    script.write_text("import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + SCRIPT)
    program = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(script), str(ball)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    assert [program.stdout.readline().strip() for _ in range(3)] == ["once", "0", "1"]
    os.killpg(program.pid, signal.SIGINT)
    # The workers have the same output: it ends once all have ended.
    rest, _ = program.communicate(timeout=300)
    assert program.returncode == -signal.SIGINT
    assert rest.count("Traceback") == 1
    assert rest.rstrip().endswith("KeyboardInterrupt")


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> list[GpuReader]:
    """What is called "dali" is a decoder that gives the CPU's pixels; the readers that are made."""
    made: list[GpuReader] = []

    def reader(*arguments: Any) -> GpuReader:
        made.append(GpuReader(*arguments))
        return made[-1]

    monkeypatch.setattr(decoder_choice, "gpu_decoder", lambda name: decoder_of(StandIn))
    monkeypatch.setattr(loaders, "gpu_decoder", lambda name: decoder_of(StandIn))
    monkeypatch.setattr(gpu_reader, "GpuReader", reader)
    return made


@pytest.mark.heavy
def test_the_chosen_decoder_serves_all_ways_in(
    tiny: VideoClassifier, ball: Path, tmp_path: Path, on_gpu: list[GpuReader]
) -> None:
    """A list, a stream, a video alone and embeddings: the CPU's results, from the decoder that is named."""
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    frames = read_frames(ball, range(10))
    videos: list[Any] = [ball, ball.read_bytes(), frames, tmp_path / "damaged.mp4", str(ball)]

    def all_ways() -> list[Any]:
        listed = tiny.classify(videos, LABELS, errors="return")
        streamed = [result.predictions for result in tiny.stream_results(videos, LABELS, workers=1)]
        alone = tiny.classify(ball, LABELS)
        embedded = tiny.embed([ball, ball]), tiny.embed(ball), tiny.embed(frames)
        errors = [str(each) for each in listed if isinstance(each, Exception)]
        return [[each for each in listed if not isinstance(each, Exception)], streamed, alone, errors, *embedded]

    expected = all_ways()
    assert on_gpu == []
    tiny.loader = "dali"
    found = all_ways()
    loaders.close_shared_readers()
    # The list, the stream, the embeddings, and one that is kept for videos alone.
    assert [reader.decoded for reader in on_gpu] == [3, 3, 2, 2]
    assert [dict(reader.on_cpu) for reader in on_gpu] == [{}] * 4
    assert found[:4] == expected[:4]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found[4:], expected[4:], strict=True))
    assert tiny.fold().loader == "dali"


def test_a_decoder_that_is_missing_is_told_at_once(
    tiny: VideoClassifier, ball: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was asked for by name: nothing else serves in its place."""
    decoder = replace(decoder_of(StandIn), why_unavailable=missing)
    monkeypatch.setattr(decoder_choice, "gpu_decoder", lambda name: decoder)
    tiny.loader = "dali"
    for call in (lambda: tiny.classify(ball, LABELS), lambda: tiny.embed([ball, ball])):
        with pytest.raises(BackendError, match="'dali' cannot serve: no cpu; install it"):
            call()
