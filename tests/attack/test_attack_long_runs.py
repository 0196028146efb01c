"""Long runs, threads, forks, interrupts: nothing grows, answers are those of one thread, no process lives on."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import multiprocessing.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import mote_fast
from mote_fast.data import available_backends, probe, read_frames, write_video
from mote_fast.data.decoding.decode import read_readable_frames
from mote_fast.errors import BackendError, MoteError
from tests.attack.conftest import Attack
from tests.tolerances import assert_close

LABELS = ["ring", "star", "a cross that slides", "a square"]
# Seconds after which a process that hangs is killed; nothing is asserted about the time itself.
PATIENCE = 120.0


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Intact files of several containers and codecs; one with damage inside, one cut short, one that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    frames = np.random.default_rng(0).integers(0, 256, (24, 48, 64, 3), np.uint8)
    paths = [folder / name for name in ("h264.mp4", "h264.mkv", "mpeg4.avi", "mjpeg.avi", "damaged.mp4")]
    for path in paths:
        codec = {"mpeg4": "mpeg4", "mjpeg": "mjpeg"}.get(path.stem, "libx264")
        write_video(path, frames, codec=codec, pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p", g=6)
    content = bytearray(paths[-1].read_bytes())
    # Pictures after a key frame in the middle are lost, and come back with the next one.
    for at in range(len(content) // 2, len(content) * 11 // 20, 1000):
        content[at : at + 400] = b"\xff" * 400
    paths[-1].write_bytes(content)
    (folder / "cut.avi").write_bytes(paths[2].read_bytes()[:6000])
    (folder / "page.mp4").write_text("<!DOCTYPE html>" * 100)
    return [*paths, folder / "cut.avi", folder / "page.mp4"]


@pytest.fixture(scope="module")
def model() -> mote_fast.VideoClassifier:
    return mote_fast.load("tiny")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def of_kind(model: mote_fast.VideoClassifier, kind: str) -> mote_fast.VideoClassifier:
    if kind == "plain":
        return model
    folded = model.fold()
    if kind == "watched":
        folded.decode_time_limit = 60.0
    if kind == "int8":
        pytest.importorskip("onnxruntime")
        folded.quantize()
    return folded


@pytest.fixture(params=["plain", "folded", "int8", "watched"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of model; the quick form has one."""
    return full_only(request, "folded")


def full_only(request: pytest.FixtureRequest, quick: str) -> str:
    if request.param not in quick.split() and not request.config.getoption("--attack"):
        pytest.skip("only in make attack")
    return request.param


class Usage:
    """What this process holds: resident bytes, open files, threads, temporary files."""

    def __init__(self) -> None:
        own = Path("/proc/self")
        self.bytes = int((own / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        self.files = len(list((own / "fd").iterdir()))
        self.threads = len(list((own / "task").iterdir()))
        self.temporary = sorted(os.listdir(tempfile.gettempdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_long_run_holds_no_more_at_its_end(
    kind: str,
    model: mote_fast.VideoClassifier,
    videos: list[Path],
    attack: Attack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Memory, files, threads and temporary files are those after the first calls, bad videos and new labels included.

    The cyclic garbage collector is off: memory that waits for it grows with the videos, not with time.
    """
    calls, first = attack.size(150, 2000), attack.size(50, 100)
    if attack.full and request.config.getoption("--clips"):
        videos = [*videos, *sorted(Path(request.config.getoption("--clips")).iterdir())]
    (tmp_path / "temporary").mkdir()
    # multiprocessing makes its folder once, and its sockets there have short names: not in the test's folder.
    multiprocessing.util.get_temp_dir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    used = of_kind(model, kind)
    peak, start = 0, None
    gc.collect()
    gc.disable()
    try:
        for call in range(calls):
            path = videos[call % len(videos)]
            try:
                if call % 3 == 0:
                    used.embed(path)
                else:
                    labels = [*LABELS, f"thing {call % 200}"]
                    used.classify(path if call % 3 == 1 else path.read_bytes(), labels, views="1x1")
            except MoteError:
                assert path.name in ("page.mp4", "cut.avi", "damaged.mp4") or path.parent != videos[0].parent
            if call < first:
                peak = max(peak, Usage().bytes)
            if call == first - 1:
                start = Usage()
    finally:
        gc.enable()
    end = Usage()
    assert start is not None
    with attack.attempt("memory"):
        # The allocator may keep another part of what was held at once before.
        assert end.bytes < peak + 8 * 2**20, f"{end.bytes >> 20} MiB after {calls} calls, {peak >> 20} after {first}"
    with attack.attempt("open files"):
        assert end.files <= start.files
    with attack.attempt("threads"):
        assert end.threads <= start.threads
    with attack.attempt("temporary files"):
        # multiprocessing keeps one private folder for the sockets of a process.
        assert end.temporary == start.temporary
        assert [name for name in end.temporary if not name.startswith("pymp-")] == []


def test_no_call_leaves_memory_to_the_cyclic_collector(
    model: mote_fast.VideoClassifier, videos: list[Path], attack: Attack, request: pytest.FixtureRequest
) -> None:
    """Frames, tensors, decoders and tracebacks are freed when a call returns or raises."""
    # Collecting then looks at new objects alone.
    gc.collect()
    gc.freeze()
    request.addfinalizer(gc.unfreeze)
    backends = [name for name, reason in available_backends().items() if reason is None]

    def calls(video: str | bytes) -> Iterator[tuple[str, Callable[[], object]]]:
        yield "classify", lambda: model.classify(video, LABELS)
        yield "embed", lambda: model.embed(video)
        yield "probe", lambda: probe(video)
        for backend in backends:
            yield f"read {backend}", partial(read_frames, video, [0, 5, 17], backend)
            yield f"readable {backend}", partial(read_readable_frames, video, [0, 5, 17], backend)

    for path in videos:
        for form, video in (("path", str(path)), ("bytes", path.read_bytes())):
            for name, call in calls(video):
                with attack.attempt(f"{path.name}, {form}, {name}"):
                    # The first call of a kind imports and fills caches.
                    assert_no_remains(call, first=True)
                    assert_no_remains(call)


def assert_no_remains(call: Callable[[], object], first: bool = False) -> None:
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        with suppress(MoteError):
            call()
        gc.collect()
        found = [
            f"{type(each).__module__}.{type(each).__name__}"
            for each in gc.garbage
            if isinstance(each, (Tensor, np.ndarray, FrameType, TracebackType, BaseException))
            or type(each).__module__.partition(".")[0] in ("av", "torchcodec")
        ]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert first or not found, f"left to the collector: {sorted(set(found))}, {len(found)} objects"


def test_eight_threads_get_the_answers_of_one(
    kind: str, model: mote_fast.VideoClassifier, videos: list[Path], attack: Attack
) -> None:
    """Threads that share a model, its caches and its first use get what one thread gets."""
    tasks = [(path, [*LABELS, f"thing {at % 5}"]) for at in range(attack.size(6, 40)) for path in videos]
    # A copy has computed nothing: its hashes and session are made by eight threads at once.
    shared, alone = copy.deepcopy(of_kind(model, kind)), copy.deepcopy(of_kind(model, kind))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda task: answer(shared, *task), tasks))
    for (path, labels), found in zip(tasks, answers, strict=True):
        with attack.attempt(path.name):
            assert_same(found, answer(alone, path, labels))
    with attack.attempt("replaced frames"):
        assert shared.replaced_frames == alone.replaced_frames > 0


def answer(model: mote_fast.VideoClassifier, path: Path, labels: list[str]) -> list[float] | str:
    """The scores in the order of the labels, or the error."""
    try:
        ranked = model.classify(path, labels, topk=len(labels), views="1x1")
    except MoteError as error:
        return f"{type(error).__name__}: {error}"
    return [each.score for each in sorted(ranked, key=lambda each: each.index)]


def assert_same(found: list[float] | str, wanted: list[float] | str) -> None:
    """Equal errors, or scores that differ by the order of sums: class features may come from another label set."""
    if isinstance(found, str) or isinstance(wanted, str):
        assert found == wanted
    else:
        assert_close(torch.tensor(found), torch.tensor(wanted))


def test_four_processes_at_once(
    model: mote_fast.VideoClassifier, videos: list[Path], attack: Attack, two_threads: None
) -> None:
    """Forks with one thread of PyTorch, and new processes, give the answers of this process."""
    wanted = [answer(model, path, LABELS) for path in videos]
    for method, threads in (("fork", 1), ("spawn", 2), ("spawn", 1)) if attack.full else (("fork", 1),):
        for process, found in enumerate(in_processes(method, 4, model, threads, videos)):
            for path, one, other in zip(videos, wanted, found, strict=True):
                with attack.attempt(f"{method} {process}, {path.name}"):
                    assert_same(other, one)


def test_a_fork_without_its_threads_is_refused(
    model: mote_fast.VideoClassifier, videos: list[Path], attack: Attack, two_threads: None
) -> None:
    """A fork has none of the threads that PyTorch and ONNX Runtime would wait for: a typed error, not a hang."""
    for kind, threads in (("plain", 2), ("folded", 2), ("int8", 2), ("int8", 1))[: attack.size(2, 4)]:
        # The threads of PyTorch and of the session have run in this process.
        used = of_kind(model, kind)
        answer(used, videos[0], LABELS)
        for process, (found, *_) in enumerate(in_processes("fork", 4, used, threads, videos[:1])):
            with attack.attempt(f"{kind}, {threads} threads, {process}"):
                assert isinstance(found, str)
                assert found.startswith(BackendError.__name__)


def in_processes(
    method: str, count: int, model: mote_fast.VideoClassifier, threads: int, videos: list[Path]
) -> list[list[Any]]:
    """The answers of each process; one that does not answer is killed, and fails the test."""
    context: Any = multiprocessing.get_context(method)
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    processes = [context.Process(target=answer_all, args=(write, model, threads, videos)) for _, write in pipes]
    for process in processes:
        process.start()
    try:
        return [
            read.recv() if read.poll(PATIENCE) else pytest.fail(f"a process of {method} hangs") for read, _ in pipes
        ]
    finally:
        for process in processes:
            process.kill()
            process.join()


def answer_all(pipe: Connection, model: mote_fast.VideoClassifier, threads: int, videos: list[Path]) -> None:
    """Runs in each process."""
    torch.set_num_threads(threads)
    pipe.send([answer(model, path, LABELS) for path in videos])


# Ctrl-C arrives while worker processes decode; the loader is not closed by the script.
_LOADER = """
import signal, sys
from mote_fast.data import ClipRecipe, LoaderOptions, VideoDataset, VideoItem, Views, make_loader
from mote_fast.clip.towers import ClipTowers
import mote_fast

if __name__ == "__main__":
    preprocessing = mote_fast.create_model("ViT-test").clip.config.preprocessing
    recipe = ClipRecipe(frames=8, preprocessing=preprocessing, views=Views.parse("1x1"))
    dataset = VideoDataset([VideoItem(sys.argv[1], 0)] * 64, recipe)
    for batch in make_loader(dataset, LoaderOptions(2, training=False, workers=2)):
        signal.raise_signal(signal.SIGINT)
"""

_COMMAND = """
import signal, sys
import tqdm
from mote_fast.cli import inputs, main
from mote_fast.cli import videos as each_video

class Interrupting(tqdm.tqdm):
    def update(self, n=1):
        signal.raise_signal(signal.SIGINT)

    def __iter__(self):
        for each in super().__iter__():
            yield each
            signal.raise_signal(signal.SIGINT)

if __name__ == "__main__":
    # A program that was started in the background may ignore the signal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    inputs.tqdm = each_video.tqdm = Interrupting
    sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(params=["loader", "eval", "classify", "embed"])
def what(request: pytest.FixtureRequest) -> str:
    """What is interrupted."""
    return full_only(request, "loader eval")


def test_an_interrupt_leaves_no_process_behind(what: str, videos: list[Path], attack: Attack, tmp_path: Path) -> None:
    """After Ctrl-C every process of the program has ended: each holds the pipe of the output, which must close."""
    script = tmp_path / "script.py"
    script.write_text(_LOADER if what == "loader" else _COMMAND)
    (tmp_path / "names.csv").write_text("id,name\n0,ring\n")
    (tmp_path / "list.txt").write_text(f"{videos[0]} 0\n" * 32)
    arguments = {
        "loader": [str(videos[0])],
        "eval": [
            *("eval", "--protocol", "closeset", "--list", str(tmp_path / "list.txt"), "--workers", "2"),
            *("--labels-file", str(tmp_path / "names.csv"), "--dataset", "drawn", "--no-cache", "--batch-size", "2"),
            *("--model", "tiny"),
        ],
        "classify": ["classify", *map(str, videos), "--model", "tiny", "--labels", "ring,star", "--no-cache"],
        "embed": ["embed", *map(str, videos), "--model", "tiny", "--output", str(tmp_path / "vectors.safetensors")],
    }[what]
    for _ in range(attack.size(1, 3)):
        with attack.attempt(what):
            process = subprocess.Popen(
                [sys.executable, str(script), *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            try:
                output, _ = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                pytest.fail(f"a process lives on after an interrupt of {what}: {process.communicate()[0][-2000:]}")
            assert "nterrupt" in output, output
            assert process.returncode in (130, -2, 1), output
            assert not list(tmp_path.glob("*.part"))
            # What was done is kept, whole.
            assert what != "embed" or len(load_file(tmp_path / "vectors.safetensors")) == 1
