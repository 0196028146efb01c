"""Preparations that survive kills at any instant, two runs in one output, full disks, odd names and links."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from mote_fast.data.decoding.decode import probe, read_frames
from mote_fast.data.decoding.video_writer import write_video
from mote_fast.data.items import read_list
from mote_fast.data.shards.shard_index import read_shard_index
from mote_fast.runtime.parts import PART_SUFFIX
from mote_fast.training.config.train_config import DataConfig, ModelSection, RunConfig, TrainConfig, to_yaml
from tests.attack.conftest import Attack
from tests.attack.programs import Ended, Program, Programs, ends_within

# Whole programs.
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for processes of others, as Linux can"),
]

# The commands and their exit status on the videos of `work`, of which one is missing, one dangling and one damaged.
STATUS = {"scan": 0, "reencode": 3, "shards": 3, "features": 3}
# Files that grow while a command runs; all others appear complete.
GROWING = {"scan.jsonl", ".reencode.jsonl", "journal.jsonl"}
# Seconds within which the workers of a killed program end; this machine may be busy.
WORKER_LIMIT = 120.0


class Work(NamedTuple):
    """Videos, a list of them, and of each command what it leaves if nobody disturbs it, and how long it takes."""

    folder: Path
    root: Path
    listed: Path
    whole: dict[str, dict[str, Any]]
    seconds: dict[str, float]

    def arguments(self, command: str, output: Path) -> list[object]:
        """The command line."""
        given: dict[str, list[object]] = {
            "scan": ["folder", "--root", self.root, "--output", output, "--scan", "--drop-bad"],
            "reencode": ["reencode", self.root, output, "--list", self.listed],
            "shards": ["shards", self.listed, output, "--root", self.root, "--samples", 3],
            "features": ["features", "--config", self.listed.with_suffix(".yaml"), "--output", output],
        }
        workers = ["data.workers=2"] if command == "features" else ["--workers", 2]
        return ["prepare", *given[command], *workers]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where there is one: the attacks wait for no disk."""
    memory = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else tmp_path_factory.mktemp("prepare")))
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def programs(folder: Path) -> Iterator[Programs]:
    """Starts commands."""
    (folder / "logs").mkdir()
    programs = Programs(folder / "logs")
    yield programs
    programs.close()


@pytest.fixture(scope="module")
def work(folder: Path, programs: Programs) -> Work:
    """Ten videos of two classes, a damaged, a missing and a dangling one."""
    root, listed = folder / "videos", folder / "list.txt"
    names = [f"{'ab'[at % 2]}/{at}.avi" for at in range(10)]
    for at, name in enumerate(names):
        draw(root / name, at)
    (root / "a" / "damaged.avi").write_bytes((root / names[0]).read_bytes()[:300])
    (root / "b" / "dangling.avi").symlink_to("nowhere.avi")
    names[3:3] = ["a/damaged.avi", "b/dangling.avi", "b/missing.avi"]
    listed.write_text("".join(f"{name} {at % 2}\n" for at, name in enumerate(names)))
    listed.with_suffix(".yaml").write_text(to_yaml(training_on(root, listed)))
    work = Work(folder, root, listed, {}, {})
    for command, status in STATUS.items():
        started = time.monotonic()
        ended = programs.run(work.arguments(command, folder / command))
        work.seconds[command] = time.monotonic() - started
        assert ended.status == status, ended.text
        work.whole[command] = contents(folder / command)
    assert len(work.whole["reencode"]) == 10 + len((".reencode.jsonl", "faults.jsonl", "list.txt"))
    return work


def training_on(root: Path, listed: Path) -> TrainConfig:
    """The smallest training on a list, and validation on it."""
    labels = listed.with_name("labels.txt")
    labels.write_text("up\ndown\n")
    lists = {"train_list": str(listed), "val_list": str(listed), "train_root": str(root), "val_root": str(root)}
    return TrainConfig(
        DataConfig(labels=str(labels), frames=2, batch_size=4, **lists),
        ModelSection(arch="ViT-test", clip_pretrained=None),
        run=RunConfig(device="cpu"),
    )


def draw(path: Path, seed: int) -> None:
    """Write a small video that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = torch.full((12, 32, 48, 3), 20 * seed % 200, dtype=torch.uint8)
    pixels[:, :: 2 + seed % 7, :: 2 + seed % 5] = 250
    write_video(path, pixels, codec="mpeg4", g=4)


def contents(output: Path) -> dict[str, Any]:
    """Every file below an output; of a journal the last record of each name."""
    found: dict[str, Any] = {}
    for at, folders, names in os.walk(output):
        assert not [name for name in folders if name.endswith(PART_SUFFIX)]
        for name in names:
            path = os.path.join(at, name)
            found[os.path.relpath(path, output)] = (
                records(Path(path).read_bytes()) if name in GROWING else content_of(path)
            )
    return found


def content_of(path: str) -> Any:
    """The bytes of a file; of a copy, whose bytes x264 does not repeat, the size and times of frames that decode."""
    if not path.endswith(".mp4"):
        return Path(path).read_bytes()
    info = probe(path)
    return read_frames(path, range(info.num_frames), info=info).shape, info.timeline.pts, info.key_frames


def records(content: bytes) -> dict[str, Any]:
    lines = map(json.loads, content.splitlines())
    return {record["name"]: {key: value for key, value in record.items() if key != "bytes"} for record in lines}


def assert_nothing_half(output: Path, whole: dict[str, Any]) -> None:
    """What a killed run left under its final name is what an undisturbed one would have left."""
    for at, _, names in os.walk(output):
        for name in names:
            path = os.path.relpath(os.path.join(at, name), output)
            if name not in GROWING and PART_SUFFIX not in path and not name.endswith(".lock"):
                assert content_of(os.path.join(at, name)) == whole[path], path


def assert_one_line(ended: Ended) -> None:
    """A refused or failed command says why in one error, and shows no traceback."""
    errors = [line for line in ended.text.splitlines() if line.startswith("mote-fast: error: ")]
    assert ended.status == 2, ended
    assert len(errors) == 1, ended.text
    assert "Traceback" not in ended.text


def assert_completed(programs: Programs, work: Work, command: str, output: Path) -> None:
    """The same command once more leaves exactly what an undisturbed one leaves."""
    ended = programs.run(work.arguments(command, output))
    assert ended.status == STATUS[command], ended.text
    assert "Traceback" not in ended.text
    assert contents(output) == work.whole[command]


@contextmanager
def new_output(work: Work, name: str) -> Iterator[Path]:
    output = work.folder / name
    try:
        yield output
    finally:
        shutil.rmtree(output, ignore_errors=True)


@pytest.mark.parametrize("command", STATUS)
def test_kills_at_random_instants(programs: Programs, work: Work, command: str, attack: Attack) -> None:
    """After one to three kills the same command completes the output: nothing half, nothing twice, nothing lost.

    No worker of a killed run lives on, so none can write beside the next.
    """
    draws = random.Random(command)
    wanted = attack.size(1, 20)
    killed, latest = 0, work.seconds[command]
    for number in range(10 + 4 * wanted):
        if killed >= wanted:
            break
        with attack.attempt((command, number)), new_output(work, "killed") as output:
            for _ in range(min(draws.randint(1, 3), wanted - killed)):
                program = programs.start(work.arguments(command, output))
                program.runs_for(draws.uniform(0.0, latest))
                if program.kill():
                    killed += 1
                else:
                    # The machine was busier when the time was taken.
                    latest /= 2
                assert_nothing_half(output, work.whole[command])
            for worker in programs.workers():
                assert ends_within(worker, WORKER_LIMIT), "a worker of a killed run lives on"
            assert_completed(programs, work, command, output)
    assert killed >= wanted


def test_two_runs_at_once(programs: Programs, work: Work, attack: Attack) -> None:
    """The second is refused with the first's process and time, or has nothing left to do; the result is the same."""
    draws = random.Random("two")
    for number in range(attack.size(1, 15)):
        command = list(STATUS)[number % len(STATUS)]
        with attack.attempt((command, number)), new_output(work, "shared") as output:
            runs: list[Program] = []
            for _ in range(2):
                runs.append(programs.start(work.arguments(command, output)))
                runs[0].runs_for(draws.uniform(0.0, work.seconds[command]))
            ended = [run.end() for run in runs]
            refused = [each for each in ended if "in use by" in each.text]
            assert len(refused) < 2
            for each in refused:
                assert_one_line(each)
                other = runs[1 - ended.index(each)]
                assert f"in use by process {other.pid} on " in each.text
            for each in ended:
                assert each in refused or each.status == STATUS[command], each.text
            assert contents(output) == work.whole[command]
            assert_completed(programs, work, command, output)


@contextmanager
def disk(folder: Path, size: int) -> Iterator[bool]:
    """Make ``folder`` a disk of so many bytes; yield False where this user may not mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size >> 10}k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir() if mounted else shutil.rmtree(folder)


def test_full_disks(programs: Programs, work: Work, attack: Attack) -> None:
    """One line says what cannot be written; with more room the same command completes the output."""
    draws = random.Random("full")
    for number in range(attack.size(1, 24)):
        command = list(STATUS)[(number + 1) % len(STATUS)]
        size = sum(4096 * (path.stat().st_size // 4096 + 1) for path in (work.folder / command).rglob("*.*"))
        room = draws.randrange(8192, size)
        place = work.folder / "disk"
        with attack.attempt((command, number, room)), disk(place, room) as mounted:
            limit = None if mounted else room // 8
            ended = programs.run(work.arguments(command, place / "out"), limit)
            if "cannot be written" in ended.text:
                assert_one_line(ended)
            else:
                assert ended.status == STATUS[command], ended.text
            assert_nothing_half(place / "out", work.whole[command])
            if mounted:
                subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
            assert_completed(programs, work, command, place / "out")


@contextmanager
def read_only(root: Path) -> Iterator[None]:
    """Let nobody write below a folder: by a mount, or where this user may not, by permissions."""
    bind = [["mount", "--bind", str(root), str(root)], ["mount", "-o", "remount,ro,bind", str(root)]]
    mounted = 0
    try:
        for command in bind:
            mounted += subprocess.run(command, capture_output=True, check=False).returncode == 0
        if mounted < 2:
            subprocess.run(["chmod", "-R", "a-w", str(root)], check=True)
        yield
    finally:
        if mounted:
            subprocess.run(["umount", str(root)], check=True)
        if mounted < 2:
            subprocess.run(["chmod", "-R", "u+w", str(root)], check=True)


def test_a_source_that_is_only_read(programs: Programs, work: Work, attack: Attack) -> None:
    """Nothing below the source has to be writable, or is written."""
    with read_only(work.root):
        for command in STATUS:
            with attack.attempt(command), new_output(work, "only") as output:
                assert_completed(programs, work, command, output)


def test_names_and_links(programs: Programs, work: Work, attack: Attack) -> None:
    """Names of any bytes, of any length, hidden, as links in circles: each video once, and no name ends a run."""
    root = work.folder / "odd"
    names = [
        b"a/line\nbreak.avi",
        b"a/latin \xe9\xff.avi",
        b"a/%03d.avi",
        b"a/file:b.avi",
        b"a/\xc2\x85\x1b[2J.avi",
        b"b/" + b"n" * 251 + b".avi",
        b"b/ blank.avi ",
        b"b/deep/er/c.avi",
        b"b/-c.avi",
    ]
    for at, name in enumerate(names):
        draw(root / "video.avi", at)
        place = os.fsdecode(os.path.join(os.fsencode(root), name))
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.rename(root / "video.avi", place)
    (root / "b" / "up").symlink_to(root)
    (root / "c").symlink_to(root / "a")
    (root / "b" / "self.avi").symlink_to("self.avi")
    (root / "b" / "._hidden.avi").write_bytes(b"not a video")
    os.mkfifo(root / "b" / "fifo.avi")
    videos = {os.fsdecode(name) for name in names if name.endswith(b".avi")} | {"b/self.avi", "b/fifo.avi"}
    work = work._replace(root=root)
    with attack.attempt("scan"), new_output(work, "out") as output:
        ended = programs.run(work.arguments("scan", output))
        assert ended.status == 0, ended.text
        report = json.loads((output / "report.json").read_text())
        named = {problem["path"] for problem in report["problems"]}
        listed = [item.path for name in report["lists"] for item in read_list(output / name)]
        assert len(listed) == len(set(listed))
        assert {os.path.relpath(path, root) if os.path.isabs(path) else path for path in listed} | named == videos
        assert {"a/line\nbreak.avi", os.fsdecode(b"a/latin \xe9\xff.avi"), "b/self.avi", "b/fifo.avi"} == named
        before = contents(output)
        assert programs.run(work.arguments("scan", output)).status == 0
        assert contents(output) == before
    with attack.attempt("reencode"), new_output(work, "out") as output:
        arguments = ["prepare", "reencode", root, output, "--workers", 2]
        ended = programs.run(arguments)
        assert ended.status == 3, ended.text
        assert "2 of 10 videos are damaged or missing" in ended.text
        copies = {path for path in contents(output) if path.endswith(".mp4")}
        assert copies == {path.removesuffix(".avi") + ".mp4" for path in videos - {"b/self.avi", "b/fifo.avi"}}
        before = contents(output)
        assert "0 videos written, 8 were done before" in programs.run(arguments).text
        assert contents(output) == before
    with attack.attempt("shards"), new_output(work, "out") as output:
        listed_names = sorted(path for path in videos if path.isprintable())
        (work.folder / "odd.txt").write_text("".join(f"{name} 0\n" for name in listed_names))
        ended = programs.run(["prepare", "shards", work.folder / "odd.txt", output, "--root", root, "--workers", 2])
        assert ended.status == 3, ended.text
        index = read_shard_index(output)
        assert {failure.path for failure in index.left_out} == {"b/self.avi", "b/fifo.avi"}
        assert index.samples == len(listed_names) - 2


def test_very_many_small_videos(programs: Programs, work: Work, attack: Attack) -> None:
    """Killed once in a scan and once in shards, each of 20,000 videos is listed once and stored once."""
    count = attack.size(60, 20_000)
    root, output, shards = (work.folder / name for name in ("many", "many_lists", "many_shards"))
    for at in range(20):
        draw(root / f"{at:02d}" / "00000.avi", at)
    for at in range(20, count):
        os.link(root / f"{at % 20:02d}" / "00000.avi", root / f"{at % 20:02d}" / f"{at:05d}.avi")
    scan: list[object] = ["prepare", "folder", "--root", root, "--output", output, "--val-share", 0]
    scan += ["--scan", "--scan-frames", 0, "--workers", 2]
    store: list[object] = ["prepare", "shards", output / "trainlist.txt", shards, "--root", root]
    store += ["--samples", count // 8, "--workers", 2]
    for name, arguments, journal, seen in (
        ("scan", scan, output / "scan.jsonl", count // 3),
        ("shards", store, shards / "journal.jsonl", 3),
    ):
        with attack.attempt(name):
            program = programs.start(arguments)
            # Killed in the middle: the journal tells how far the run is.
            while program.runs_for(0.01) and (not journal.exists() or journal.read_bytes().count(b"\n") < seen):
                pass
            assert program.kill()
            ended = programs.run(arguments)
            assert ended.status == 0, ended.text
    with attack.attempt("lists"):
        items = read_list(output / "trainlist.txt")
        assert len({item.path for item in items}) == len(items) == count
        assert len(records((output / "scan.jsonl").read_bytes())) == count
        assert (output / "scan.jsonl").read_bytes().count(b"\n") == count
    with attack.attempt("shards"):
        index = read_shard_index(shards)
        assert sorted(at for shard in index.shards for at in shard.indices) == list(range(count))
        names = []
        for shard in index.shards:
            with tarfile.open(shards / shard.name) as tar:
                names += tar.getnames()
        assert len(names) == len(set(names)) == 2 * count
        assert {path.name for path in shards.iterdir()} == {
            "journal.jsonl",
            "shards.json",
            *(shard.name for shard in index.shards),
        }
