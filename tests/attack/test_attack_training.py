"""Runs that survive everything: kills at any instant, damaged checkpoints, full disks, two runs in one folder."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import runpy
import shutil
import signal
import struct
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from mote_fast.errors import CheckpointError
from mote_fast.model.checkpoint import create_model
from mote_fast.runtime.parts import PART_SUFFIX
from mote_fast.training.state import DataPosition, list_checkpoints, newest_checkpoint, read_checkpoint, save_checkpoint
from tests.attack.conftest import Attack
from tests.full_disk import files_of_at_most
from tests.training.conftest import ROOT, VideoFolder, assert_same_run, write_data_set

# Whole runs.
pytestmark = pytest.mark.heavy

# Files and folders that a complete run leaves, and a killed one may.
COMPLETE = {"config.yaml", "metrics.jsonl", "checkpoints", "best", "model", "faults"}
# Seconds after which a run that was asked to stop is taken to hang; this machine may be busy.
STOP_LIMIT = 120.0


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoFolder:
    """12 videos to train on, 6 to validate."""
    return write_data_set(tmp_path_factory.mktemp("videos"), train=2, val=1)


class Ended(NamedTuple):
    """How a run ended: its exit status, negative for a signal, and what it wrote to stderr."""

    status: int
    text: str


class Program:
    """train.py in a process forked from a server that has imported it: a fresh program, started in a moment."""

    def __init__(self, config: Path, log: Path, file_limit: int | None = None) -> None:
        context: Any = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["mote_fast.training.loop"])
        self.log = log
        self.process = context.Process(target=run_program, args=(str(config), str(log), file_limit))
        self.process.start()

    def signal(self, number: int) -> None:
        """Send a signal, if the program still runs."""
        if self.process.is_alive():
            os.kill(self.process.pid, number)

    def end(self, limit: float | None = None) -> Ended:
        """Wait for the end, at most ``limit`` seconds."""
        self.process.join(limit)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise AssertionError(f"did not end within {limit:g} s:\n{self.log.read_text()}")
        return Ended(self.process.exitcode, self.log.read_text() if self.log.exists() else "")


def run_program(config: str, log: str, file_limit: int | None) -> None:
    """Run train.py in this process, as the command line does."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
    sys.argv = ["train.py", "--config", config]
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


def assert_whole(output: Path, killed: bool) -> None:
    """Every checkpoint can be read, and only a run that was ended from outside leaves unfinished files and its lock."""
    for _, path in list_checkpoints(output / "checkpoints"):
        read_checkpoint(path)
    left = {path.name for path in output.glob("**/*") if path.name.startswith(".") or path.name == "run.lock"}
    assert killed or not left, left


def attacked(path: Path, output: Path, draws: random.Random) -> str:
    """Start the run, do one thing to it at a random instant, and check what it leaves; return what was done."""
    kinds = ("SIGKILL", "SIGTERM", "SIGTERM twice", "SIGINT", "SIGTERM then SIGKILL", "full disk")
    kind, before = draws.choice(kinds), newest_step(output)
    log = output.with_suffix(".log")
    if kind == "full disk":
        ended = Program(path, log, file_limit=draws.randrange(20_000, 3_000_000)).end()
        assert ended.status in (0, 2), ended
        assert ended.status == 0 or ended.text.splitlines()[-1].startswith("train.py: "), ended.text
    else:
        program = Program(path, log)
        # A random instant: while it starts, in a step, a save, a validation, or after the end.
        program.process.join(draws.uniform(0.0, 3.0))
        for name in kind.replace(" twice", " SIGTERM").replace("then ", "").split():
            program.signal(getattr(signal, name))
            program.process.join(draws.uniform(0.0, 0.05))
        ended = program.end(STOP_LIMIT)
        # Before the first step a signal ends the program as usual, SIGINT with 1.
        allowed = {0, *(-getattr(signal, name) for name in kind.split() if name.startswith("SIG"))}
        assert ended.status in allowed or (kind == "SIGINT" and ended.status == 1), ended
    assert newest_step(output) >= before, f"{kind} lost a checkpoint"
    # An interrupt may come between the making of the lock and the block that ends it.
    assert_whole(output, killed=ended.status not in (0, 2))
    return kind


def newest_step(output: Path) -> int:
    return max((step for step, _ in list_checkpoints(output / "checkpoints")), default=0)


def test_nothing_that_ends_a_run_changes_its_result(attack: Attack, videos: VideoFolder, tmp_path: Path) -> None:
    """Killed, asked to stop once or twice, or out of disk, at any instant: what was saved stays, and the end is equal.

    Weights and metrics to the last bit, without a file of the interrupted runs.
    """
    options = {"run__save_every": 1, "run__eval_every": 2, "optim__epochs": 4, "data__batch_size": 3}
    straight = tmp_path / "straight"
    assert Program(videos.write_config(straight, **options), tmp_path / "log").end().status == 0
    draws = random.Random(5)
    for number in range(attack.size(1, 12)):
        output = tmp_path / f"broken{number}"
        path = videos.write_config(output, **options)
        for blow in range(attack.size(2, 6)):
            with attack.attempt((number, blow)):
                attacked(path, output, draws)
        with attack.attempt((number, "finished")):
            ended = Program(path, output.with_suffix(".log")).end()
            assert ended.status == 0, ended.text
            assert_same_run(straight, output)
            assert_whole(output, killed=False)
            assert {entry.name for entry in output.iterdir()} <= COMPLETE


def test_one_of_two_runs_has_the_folder(attack: Attack, videos: VideoFolder, tmp_path: Path) -> None:
    """Started at once in one folder, one completes and the other is refused in one line, or comes after its end."""
    for number in range(attack.size(1, 8)):
        output = tmp_path / f"run{number}"
        path = videos.write_config(output, run__save_every=1, optim__epochs=1, data__batch_size=3)
        pair = [Program(path, tmp_path / f"log{number}{each}") for each in "ab"]
        with attack.attempt(number):
            ends = [program.end() for program in pair]
            refused = [ended for ended in ends if ended.status == 2]
            assert sorted(ended.status for ended in ends) in ([0, 2], [0, 0]), ends
            assert all("in use by process" in ended.text.splitlines()[-1] for ended in refused), ends
            lines = (output / "metrics.jsonl").read_text().splitlines()
            assert len(lines) == 4
            assert_whole(output, killed=False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints with the weights of a model."""
    folder, weights = tmp_path_factory.mktemp("saved"), create_model("ViT-test").state_dict()
    for step in (1, 2):
        content = {"format_version": 1, "progress": {"step": step}, "model": weights, "random": [], "scaler": {}}
        content |= {"optimizer": {"state": {}}, "config": {}, "order": asdict(DataPosition(1, 1, []))}
        save_checkpoint(folder, content, keep_last=2)
    return folder


def boundaries(content: bytes) -> list[int]:
    """The places in a ZIP archive where a record begins: members, their data, the directory and its end."""
    marks = (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08")
    found = {at for mark in marks for at in occurrences(content, mark)}
    for at in occurrences(content, b"PK\x03\x04"):
        name, extra = struct.unpack_from("<HH", content, at + 26)
        found.add(at + 30 + name + extra)
    return sorted(found | {0, len(content) - 1})


def occurrences(content: bytes, mark: bytes) -> Iterator[int]:
    at = content.find(mark)
    while at >= 0:
        yield at
        at = content.find(mark, at + 1)


def test_a_damaged_checkpoint_is_never_used(attack: Attack, saved: Path, tmp_path: Path) -> None:
    """Cut at every structural place, changed anywhere, missing, or something else: the one before is found.

    A change without effect, as in padding, may leave the file in use with all its values.
    """
    first, second = (path for _, path in list_checkpoints(saved))
    content, expected = second.read_bytes(), read_checkpoint(second)["model"]
    draws, folder = random.Random(7), tmp_path / "checkpoints"
    folder.mkdir()
    shutil.copy(first, folder)
    good, bad = folder / first.name, folder / second.name
    cuts = [max(0, at + off) for at in boundaries(content) for off in (-1, 0, 1, 4)]
    damages: list[tuple[str, Any]] = [("cut", at) for at in draws.sample(cuts, attack.size(8, len(cuts)))]
    damages += [("flip", draws.randrange(8 * len(content))) for _ in range(attack.size(20, 1500))]
    ends = range(len(content) - 1200, len(content))
    damages += [("byte", (at, draws.randrange(256))) for at in draws.sample(ends, attack.size(10, len(ends)))]
    damages += [("zeros", draws.randrange(len(content))) for _ in range(attack.size(2, 60))]
    damages += [(kind, None) for kind in ("missing", "folder", "dangling link", "FIFO", "text", "nothing")]
    for kind, value in damages:
        with attack.attempt((kind, value)):
            damage(bad, content, kind, value)
            found = newest_checkpoint(folder)
            assert found in (good, bad)
            if found == bad:
                state = read_checkpoint(bad)["model"]
                assert state.keys() == expected.keys()
                assert all(torch.equal(state[name], weight) for name, weight in expected.items())
        shutil.rmtree(bad) if bad.is_dir() else bad.unlink(missing_ok=True)


def damage(path: Path, content: bytes, kind: str, value: Any) -> None:
    """Write a damaged checkpoint to ``path``, which does not exist."""
    changed = bytearray(content)
    if kind == "cut":
        del changed[value:]
    elif kind == "flip":
        changed[value // 8] ^= 1 << value % 8
    elif kind == "byte":
        changed[value[0]] = value[1]
    elif kind == "zeros":
        # As a file system leaves a file whose last blocks were not written before a power cut.
        changed[value:] = bytes(len(changed) - value)
    elif kind == "folder":
        return path.mkdir()
    elif kind == "dangling link":
        return path.symlink_to("nowhere")
    elif kind == "FIFO":
        return os.mkfifo(path)
    elif kind == "missing":
        return None
    path.write_bytes({"text": b"no checkpoint\n", "nothing": b""}.get(kind, bytes(changed)))
    return None


def test_a_disk_that_fills_while_saving_loses_nothing(attack: Attack, saved: Path, tmp_path: Path) -> None:
    """At whatever byte the disk is full: a typed error that names the file, no partial file, the earlier one kept."""
    (_, first), (_, second) = list_checkpoints(saved)
    content, draws, model = read_checkpoint(second), random.Random(11), create_model("ViT-test")
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    shutil.copy(first, folder)
    earlier = (folder / first.name).read_bytes()
    model.save(tmp_path / "best")
    before = {path.name: path.read_bytes() for path in (tmp_path / "best").iterdir()}
    for _ in range(attack.size(4, 150)):
        size = draws.randrange(second.stat().st_size - 1)
        with attack.attempt(("checkpoint", size)):
            with files_of_at_most(size), pytest.raises(CheckpointError, match="cannot be written"):
                save_checkpoint(folder, content, keep_last=1)
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == {first.name: earlier}
        with attack.attempt(("model", size)):
            limit = size % (len(before["model.safetensors"]) - 1)
            with files_of_at_most(limit), pytest.raises(CheckpointError, match="cannot be written"):
                model.save(tmp_path / "best")
            assert {path.name: path.read_bytes() for path in (tmp_path / "best").iterdir()} == before
            assert not list(tmp_path.glob(f".*{PART_SUFFIX}"))
