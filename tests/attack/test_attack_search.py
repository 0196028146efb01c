"""Indexes of videos: kills at any instant, readers while another process writes, damaged files, full disks."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from mote_fast.errors import ConfigError, MoteError
from mote_fast.search.index_folder import IndexFolder
from mote_fast.search.index_record import RECORD_FILE, Embedding, IndexRecord
from mote_fast.search.rows import IndexRow
from mote_fast.search.video_index import Index
from tests.attack.conftest import Attack
from tests.full_disk import files_of_at_most

pytestmark = pytest.mark.heavy

# Seconds after which the program is taken to hang; this machine may be busy.
HANG = 900

# Forks children before any thread exists. A child makes the changes of CHANGES in their order, says after each that it
# is done, and kills itself at a given call of any function; the index must then be as before or after the next change.
KILLED = """
import json, os, shutil, signal, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from mote_fast.search import index_folder
from mote_fast.search.video_index import Index
from tests.attack.test_attack_search import change, CHANGES, state_of
index_folder.SEGMENT_ROWS = 12
source, folder, trials, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
import random
dice = random.Random(seed)

def child(pipe, limit):
    index, calls = Index(folder), 0
    def count(frame, event, what):
        nonlocal calls
        calls += 1
        if calls == limit:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.setprofile(count)
    for number in range(CHANGES):
        change(index, number)
        os.write(pipe, b".")
    sys.setprofile(None)
    os.write(pipe, str(calls).encode())
    os._exit(0)

def run(limit):
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            child(write, limit)
        finally:
            os._exit(1)
    os.close(write)
    said = b""
    while more := os.read(read, 4096):
        said += more
    os.close(read)
    return said, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

said, status = run(-1)
assert status == 0
calls, states = int(said.strip(b".")), [state_of(Index(source))]
shutil.rmtree(folder)
shutil.copytree(source, folder)
index = Index(folder)
for number in range(CHANGES):
    change(index, number)
    states.append(state_of(index))
found = []
for _ in range(trials):
    limit = dice.randrange(1, calls)
    said, status = run(limit)
    done = said.count(b".")
    now = state_of(Index(folder))
    # The next change removes what the killed one left.
    change(index := Index(folder), CHANGES)
    left = {*os.listdir(folder)} - {"index.json", *index.record.files}
    found.append([limit, status, now in states[done : done + 2], sorted(left)])
print(json.dumps([calls, found]))
"""

# A process makes changes while two others look again and again; each must see whole states, in their order.
READ = """
import json, os, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from mote_fast.search.video_index import Index
from tests.attack.test_attack_search import vectors
folder, times = Path(sys.argv[1]), int(sys.argv[2])
readers = []
for _ in range(2):
    read, write = os.pipe()
    if os.fork() == 0:
        index, last, looks = Index(folder), -1, 0
        while last < times - 1:
            index.refresh()
            looks += 1
            numbers = {row.id.split("-")[0] for row in index.rows()}
            hits = index.search(vectors(1)[0], topk=99)
            assert len(numbers) == 1 and len(hits) == 20, (numbers, len(hits))
            now = int(numbers.pop())
            assert now >= last
            last = now
        os.write(write, json.dumps(looks).encode())
        os._exit(0)
    os.close(write)
    readers.append(read)
index = Index(folder)
for number in range(times):
    rows = [f"{number}-{at}" for at in range(20)]
    with index._folder.writing():
        old = [row.id for row in index.rows()]
        from mote_fast.search.rows import IndexRow
        index._folder.commit(old, [IndexRow(row) for row in rows], vectors(20, number).half())
print(json.dumps([json.loads(os.read(reader, 99) or b"null") for reader in readers]))
"""

CHANGES = 8
WIDTH = 32


def vectors(count: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)), dim=-1)


def change(index: Index, number: int) -> None:
    """Add, replace or delete: of every kind that joins, splits, marks or rewrites files."""
    if number % 4 == 3:
        index.delete([f"{number - 1}-{at}" for at in range(5)])
    elif number % 4 == 2:
        index.add([f"{number}-{at}" for at in range(9)], vectors(9, number))
    else:
        index.add(["shared", f"{number}-0", f"{number}-1"], vectors(3, number), existing="replace")
    if number % 4 == 1:
        add_graph(index)


def add_graph(index: Index) -> None:
    """Make ready for approximate search, where its package is installed."""
    if importlib.util.find_spec("usearch") is not None:
        index.add_approximate()


def state_of(index: Index) -> list[list[object]]:
    """All that an index says: its rows, and their cosines with one query."""
    scores = {hit.id: round(hit.score, 4) for hit in index.search(vectors(1, 99)[0], topk=1000)}
    return [[row.id, scores[row.id]] for row in index.rows()]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """An index with rows of every kind, in several files."""
    record = IndexRecord("model", "0" * 64, WIDTH, Embedding("temporal", "1x1", 8, "ignore", "width"))
    IndexFolder.create(tmp_path / "index", record)
    index = Index(tmp_path / "index")
    rows = [IndexRow(f"r{at}", f"/videos/{at}.mp4", float(at), at + 1.5) for at in range(40)]
    index.add(rows, vectors(40))
    index.add(["日本語", "y"], vectors(2, 1))
    index.delete(["r3", "r4"])
    add_graph(index)
    return index


def program(text: str, *words: object) -> object:
    command = [sys.executable, "-c", text, *map(str, words)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANG)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return json.loads(finished.stdout)


def test_kills_at_any_instant(attack: Attack, index: Index, tmp_path: Path) -> None:
    """The index is as before or after the change that was under way, and the next one removes what is left over."""
    found = program(KILLED, index.folder, tmp_path / "copy", attack.size(40, 1000), attack.size(0, 1))
    assert isinstance(found, list)
    calls, trials = found
    assert calls > 1000
    for limit, status, whole, left in trials:
        with attack.attempt(f"killed at call {limit}"):
            # Few runs make fewer calls than the first.
            assert status in (-9, 0)
            assert whole
            assert left == []


def test_readers_see_whole_states(attack: Attack, index: Index) -> None:
    """Each reader sees the rows of one change at a time, never an earlier one after a later, and no error."""
    index.delete([row.id for row in index.rows()])
    index.add([f"0-{at}" for at in range(20)], vectors(20))
    found = program(READ, index.folder, attack.size(30, 600))
    assert isinstance(found, list)
    for looks in found:
        with attack.attempt("reader"):
            assert looks


def test_damaged_files(attack: Attack, index: Index, tmp_path: Path) -> None:
    """Each damaged index is refused by a typed error, or answers; nothing else happens."""
    dice = random.Random(attack.size(0, 1))
    copy = tmp_path / "copy"
    for number in range(attack.size(300, 6000)):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(index.folder, copy)
        path = copy / dice.choice([RECORD_FILE, *index.record.files])
        content = bytearray(path.read_bytes())
        match dice.randrange(4):
            case 0:
                for _ in range(dice.choice((1, 3, 30))):
                    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
            case 1:
                del content[dice.randrange(len(content)) :]
            case 2:
                at = dice.randrange(min(len(content), 400))
                content[at : at + dice.choice((1, 4, 40))] = dice.randbytes(dice.choice((1, 4, 40)))
            case _:
                # Files of another index, in each other's place.
                content = bytearray((copy / dice.choice([RECORD_FILE, *index.record.files])).read_bytes())
        path.write_bytes(content)
        with attack.attempt(f"{number} {path.name}"):
            refused = str(copy)
            try:
                found = Index(copy)
                for approximate in {False, found.record.graph is not None}:
                    hits = found.search(vectors(1)[0], topk=50, approximate=approximate)
                    assert all(isinstance(hit.id, str) for hit in hits)
                found.add(["new"], vectors(1, 5))
                found.delete(["new"])
            except MoteError as error:
                refused = str(error)
            assert str(copy) in refused


def test_full_disks(attack: Attack, index: Index) -> None:
    """A change that does not fit is refused, and the index stays as it is, without remains."""
    before = state_of(index)
    for size in (0, 100, 1000, 4000, 20000):
        with attack.attempt(size):
            with files_of_at_most(size), pytest.raises(ConfigError, match="cannot be written"):
                index.add([f"n{at}" for at in range(400)], vectors(400, 3))
            assert state_of(Index(index.folder)) == before
    index.add(["more"], vectors(1, 3))
    assert {path.name for path in index.folder.iterdir()} == {RECORD_FILE, *index.record.files}
