"""Trials: a run whose driver and workers are killed at random instants, against an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mote_fast import batch

ROOT = Path(__file__).parents[2]

# Seconds after which a driver is taken to hang.
HANG = 900.0
# Seconds between two looks at how far a driver is.
LOOK = 0.005


@dataclass
class Found:
    """What a trial saw.

    Attributes:
        losses: for each killed driver, how many videos were judged in vain, and how many actors were killed beside it,
            whose blocks are judged again.
        workers: processes killed, by what they were.
        drivers: drivers killed.
        rows: the rows of the disturbed run, and of the undisturbed one.
    """

    losses: list[tuple[int, int]] = field(default_factory=list)
    workers: Counter[str] = field(default_factory=Counter)
    drivers: int = 0
    rows: Any = None
    expected: Any = None

    def check(self, injected: dict[str, int], videos: int, block: int, actors: int) -> None:
        """Assert what a run guarantees."""
        ids = self.rows.column("id").to_pylist()
        assert len(ids) == len(set(ids)) == videos
        assert content(self.rows) == content(self.expected)
        kinds = Counter(kind for kind in self.rows.column("error_kind").to_pylist() if kind is not None)
        assert kinds == injected
        assert all(lost <= block * (actors + others) for lost, others in self.losses)

    def __str__(self) -> str:
        return (
            f"{self.drivers} drivers and {dict(self.workers)} killed; videos judged in vain at each, and actors killed "
            f"beside it: {sorted(self.losses)}, in all {sum(lost for lost, _ in self.losses)}"
        )


def make_videos(folder: Path, sound: Sequence[Path], count: int) -> dict[str, int]:
    """Fill a folder: one of 20 is damaged, one of 100 crashes its decoder; return the numbers of faults by kind."""
    folder.mkdir()
    dice = random.Random(5)
    damaged, crashing = count // 20, count // 100 or 1
    for number in range(count):
        source = sound[number % len(sound)]
        if number < damaged:
            data = source.read_bytes()
            start = dice.randrange(len(data) // 8)
            (folder / f"damaged-{number}.mp4").write_bytes(data[:start])
        elif number < damaged + crashing:
            os.link(source, folder / f"crash-{number}.mp4")
        else:
            os.link(source, folder / f"sound-{number}.mp4")
    return {"undecodable": damaged, "crashed": crashing}


def disturb(
    videos: Path, folder: Path, engine: str, count: int, block: int, actors: int, drivers: int, workers: int, seed: int
) -> Found:
    """Run once undisturbed, and once with so many drivers and workers killed."""
    dice, found = random.Random(seed), Found()
    judged, expected, output = folder / "judged", folder / "expected", folder / "output"

    def start(output: Path) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-m", "tests.batch.trial_program", str(videos), str(output), str(judged)]
        return subprocess.Popen([*program, engine, str(block), str(actors)], cwd=ROOT, start_new_session=True)

    assert start(expected).wait(HANG) == 0
    while True:
        left = drivers - found.drivers
        before, durable, killed_before = size(judged), rows_in(output), found.workers["actor"]
        driver = start(output)
        # Workers are killed in every call, and the rest of them in the last one.
        share = max(2, count // (drivers + 2))
        remaining = workers - sum(found.workers.values())
        ends = [before + dice.randrange(1, share)] if left else []
        span, some = (share, -(-workers // (drivers + 1))) if left else (max(2, (count - durable) * 3 // 4), remaining)
        kills = sorted(before + dice.randrange(1, span) for _ in range(min(some, remaining)))
        waiting = threading.Event()
        while driver.poll() is None:
            waiting.wait(LOOK)
            now = size(judged)
            if kills and now >= kills[0]:
                waiting.wait(dice.uniform(0, 0.05))
                if (killed := kill_a_worker(driver.pid, dice)) is not None:
                    kills.pop(0)
                    found.workers[killed] += 1
            if ends and now >= ends[0]:
                waiting.wait(dice.uniform(0, 0.05))
                driver.kill()
                driver.wait()
                kill_session(driver.pid)
                found.drivers += 1
                lost = size(judged) - before - (rows_in(output) - durable)
                found.losses.append((lost, found.workers["actor"] - killed_before))
                break
        else:
            assert driver.returncode == 0
            break
    found.rows, found.expected = (pq.read_table(each).sort_by("id") for each in (output, expected))
    assert batch.status(output).done == count
    return found


def size(judged: Path) -> int:
    """The number of rows that any process has made so far."""
    return judged.stat().st_size if judged.exists() else 0


def rows_in(output: Path) -> int:
    """The number of rows on disk."""
    return sum(pq.read_metadata(path).num_rows for path in output.glob("part-*")) if output.is_dir() else 0


def content(table: Any) -> bytes:
    """The bytes of a table's values."""
    sink = pa.BufferOutputStream()
    whole = table.combine_chunks()
    with pa.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(whole)
    return sink.getvalue().to_pybytes()


def kill_a_worker(driver: int, dice: random.Random) -> str | None:
    """Kill a process that decodes, or one that holds a model; return what it was."""
    parents, names = processes()
    below = descendants(driver, parents)
    found = [(pid, "actor") for pid in below if "ray::Judge" in names[pid]]
    found += [(pid, "worker") for pid in below if "forkserver" in names.get(parents[pid], "")]
    if not found:
        return None
    pid, kind = dice.choice(found)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return kind


def kill_session(driver: int) -> None:
    """End what a killed driver has left, as a machine that fails would: the processes of Ray outlive it for a while."""
    with suppress(ProcessLookupError):
        os.killpg(driver, signal.SIGKILL)


def processes() -> tuple[dict[int, int], dict[int, str]]:
    """The parents and the command lines of all processes."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError, IndexError):
                status = Path(f"/proc/{entry}/stat").read_text(encoding="utf-8", errors="replace")
                command = Path(f"/proc/{entry}/cmdline").read_bytes().decode("utf-8", "replace").replace("\0", " ")
                parents[int(entry)], names[int(entry)] = int(status.rpartition(")")[2].split()[1]), command
    return parents, names


def descendants(ancestor: int, parents: dict[int, int]) -> list[int]:
    """The processes below one."""
    found = []
    for pid in parents:
        above = pid
        while above in parents and above != ancestor:
            above = parents[above]
        if above == ancestor and pid != ancestor:
            found.append(pid)
    return sorted(found)
