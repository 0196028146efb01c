"""The plan of a run: blocks hold each video once, new videos are told from known ones, memory stays small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.batch import run_plan
from mote_fast.batch.id_digests import IdSet, digests_of
from mote_fast.batch.run_plan import PlanPart, block_size, blocks_of, write_part
from mote_fast.batch.video_sources import Item
from mote_fast.errors import ListError


def items(*names: object) -> list[Item]:
    return [Item(str(name), f"/videos/{name}.mp4") for name in names]


@given(st.lists(st.integers(0, 30)), st.lists(st.integers(0, 30)))
def test_sets_know_what_was_added(added: list[int], asked: list[int]) -> None:
    """As Python's own sets do, and also which ids are asked for again."""
    known = IdSet()
    for name in added:
        known.add(digests_of([str(name)]))
    assert bool(known.repeated()) == (len(set(added)) < len(added))
    found, again = known.known(digests_of(map(str, asked)))
    assert found.tolist() == [name in added for name in asked]
    assert again.tolist() == [name in added and name in asked[:at] for at, name in enumerate(asked)]


@pytest.mark.parametrize("block", [1, 3, 4, 10, 11])
def test_blocks_hold_each_video_once(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is done already, and however the file is divided."""
    monkeypatch.setattr(run_plan, "_GROUP", 4)
    part = write_part(tmp_path, 0, [items(*range(6)), items(*range(6, 10))], [], block)
    assert part == PlanPart(0, 10, block)
    whole = list(blocks_of(tmp_path, part, ()))
    assert [item for each in whole for item in each.items] == items(*range(10))
    assert [len(each.items) for each in whole] == [part.size(at) for at in range(part.blocks)]
    done = {whole[0].name, whole[-1].name}
    assert list(blocks_of(tmp_path, part, done)) == [each for each in whole if each.name not in done]


def test_only_new_videos_are_planned(tmp_path: Path) -> None:
    """A list that has grown adds its new videos; one that has not adds nothing, and leaves nothing."""
    first = write_part(tmp_path, 0, [items("a", "b")], [], None)
    assert first is not None
    assert write_part(tmp_path, 1, [items("b", "a")], [first], None) is None
    assert [path.name for path in tmp_path.iterdir()] == [first.file]
    second = write_part(tmp_path, 1, [items("a", "c"), items("d")], [first], 2)
    assert second is not None
    assert [each.items for each in blocks_of(tmp_path, second, ())] == [items("c", "d")]


@pytest.mark.parametrize(
    "pieces", [[items("x", "a", "x")], [items("x"), items("x")], [items("a"), items("a")]], ids=["one", "two", "known"]
)
def test_an_id_that_is_given_twice_is_named(pieces: list[list[Item]], tmp_path: Path) -> None:
    """Whether it is new or known; nothing is left."""
    first = write_part(tmp_path, 0, [items("a")], [], None)
    assert first is not None
    with pytest.raises(ListError, match=r"the id '[xa]' is given twice .*/videos/[xa]\.mp4"):
        write_part(tmp_path, 1, pieces, [first], None)
    assert [path.name for path in tmp_path.iterdir()] == [first.file]


def test_a_damaged_plan_is_refused(tmp_path: Path) -> None:
    """One that is cut off, and one of other videos."""
    part = write_part(tmp_path, 0, [items("a", "b", "c")], [], 2)
    assert part is not None
    for other in (PlanPart(0, 4, 2), PlanPart(0, 2, 2), PlanPart(0, 1, 2)):
        with pytest.raises(ListError, match="damaged"):
            list(blocks_of(tmp_path, other, ()))
    path = tmp_path / part.file
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ListError, match="cannot be read"):
        list(blocks_of(tmp_path, part, ()))


def test_blocks_grow_with_the_list() -> None:
    """So that a hundred million videos have few files, and a thousand lose little."""
    assert [block_size(count) for count in (1, 10**3, 10**6, 10**7, 10**8)] == [64, 64, 245, 2442, 4096]


# Plans ten million videos, reads them all back, and plans them again; prints how much its memory grew at most, in MiB.
MILLIONS = """
import resource, sys
from pathlib import Path
import pyarrow.parquet
from mote_fast.batch.run_plan import blocks_of, write_part
from mote_fast.batch.video_sources import Item
count, folder = int(sys.argv[1]), Path(sys.argv[2])

def pieces():
    for start in range(0, count, 2**16):
        numbers = range(start, min(count, start + 2**16))
        yield [Item(f"video-{n:012d}", f"/videos/{n % 997}/{n:012d}.mp4") for n in numbers]

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

write_part(folder, 0, [next(pieces())], [], None)
before = peak()
part = write_part(folder, 0, pieces(), [], None)
assert sum(len(block.items) for block in blocks_of(folder, part, ())) == count
assert write_part(folder, 1, pieces(), [part], None) is None
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's count in KiB")
def test_ten_million_ids_take_little_memory(tmp_path: Path) -> None:
    """The process that drives a run grows by less than 200 MiB."""
    found = subprocess.run(
        [sys.executable, "-c", MILLIONS, str(10**7), str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(found.stdout) < 200


def test_the_program_of_millions_runs(tmp_path: Path) -> None:
    """With a few."""
    subprocess.run([sys.executable, "-c", MILLIONS, "1000", str(tmp_path)], check=True, stdout=subprocess.DEVNULL)
    assert pq.read_metadata(tmp_path / "_plan-0000.parquet").num_rows == 1000
