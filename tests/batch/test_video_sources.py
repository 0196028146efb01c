"""What names the videos of a run: every form gives the same videos, and errors name the file and the row."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from mote_fast.batch import video_sources
from mote_fast.batch.id_digests import id_of_path
from mote_fast.batch.video_sources import Columns, Item, read_source
from mote_fast.errors import BackendError, ConfigError, ListError, MoteError

NAMES = ["a.mp4", "b c.mp4", "ü.mkv"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in NAMES:
        (folder / name).touch()
    return folder


def items(source: Any, *columns: Any) -> list[Item]:
    return [item for piece in read_source(source, Columns(*columns)) for item in piece]


def test_every_form_names_the_same_videos(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, a pattern, a list, tables and Python's own; relative paths become absolute."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(video_sources, "PIECE", 2)
    expected = [Item(id_of_path(str(folder / name)), str(folder / name)) for name in NAMES]
    Path("list.txt").write_bytes("\ufeffvideos/a.mp4\r\n\n videos/b c.mp4\nvideos/ü.mkv".encode())
    table = pa.table({"path": NAMES, "number": [1, 2, 3], "name": ["x", "y", "z"]})
    pq.write_table(table, "list.parquet")
    pa.csv.write_csv(table, "list.csv")
    assert items("videos") == items(folder) == items("videos/*.m*") == items("list.txt") == expected
    assert items([f"videos/{name}" for name in NAMES]) == items(folder / name for name in NAMES) == expected
    assert items("list.parquet", "path", None, "videos") == items("list.csv", "path", None, folder) == expected
    named = [Item(name, item.path) for name, item in zip("xyz", expected, strict=True)]
    assert items("list.parquet", "path", "name", "videos") == items("list.csv", "path", "name", "videos") == named
    assert items({item.id: item.path for item in named}) == named
    assert [each.id for each in items("list.parquet", "path", "number", "videos")] == ["1", "2", "3"]


def test_addresses_are_those_of_fsspec(folder: Path) -> None:
    """A list, a folder and a pattern may lie elsewhere, and paths may be addresses, which stay as they are."""
    pytest.importorskip("fsspec")
    expected = [f"file://{folder / name}" for name in NAMES]
    (folder / "list.txt").write_text("\n".join(expected), encoding="utf-8")
    assert [each.path for each in items(f"file://{folder}/*.m*")] == expected
    assert [each.path for each in items(f"file://{folder}")] == expected
    assert [each.path for each in items(f"file://{folder}/list.txt")] == expected
    with pytest.raises(BackendError, match="nosuch://"):
        items(["nosuch://bucket/a.mp4"])
    with pytest.raises(ConfigError, match="not one address"):
        items(["zip://a.mp4::file:///b.zip"])


@pytest.mark.parametrize(
    ("content", "name", "columns", "message"),
    [
        (None, "none.txt", (), "cannot be read"),
        (b"", "empty.txt", (), "names no videos"),
        (b"\n\n", "blank.txt", (), "names no videos"),
        (b"\0\0\0 ftyp", "video.txt", (), "no list of paths"),
        (b"x" * 2**17, "long.txt", (), "a line of over"),
        (b"paths\na.mp4\n", "other.csv", (), "lacks a column"),
        (b"path,id\na.mp4,\n", "id.csv", ("path", "id"), "not empty"),
        (b"path,id\n,1\n", "path.csv", ("path", "id"), "empty"),
        (b"path\na,b\n", "wide.csv", (), "damaged"),
        (b"PAR1 and so on", "bad.parquet", (), "damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_bad_lists_are_refused(
    content: bytes | None, name: str, columns: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    """Each says which file it is; none is taken for an empty collection."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ListError, match=message):
        items(tmp_path / name, *columns)


def test_bad_tables_and_arguments_are_refused(tmp_path: Path) -> None:
    """A missing value, a missing column, a folder without videos, and what is no source at all."""
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"path": ["a", None]}), path)
    with pytest.raises(ListError, match="row 2 has no path"):
        items(path)
    with pytest.raises(ListError, match="lacks the column 'id'"):
        items(path, "path", "id")
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", f"{tmp_path}/*.avi", [], {}):
        with pytest.raises(ListError, match="names no videos"):
            items(source)
    wrong: list[Any] = [5, [5], [b"a"], {"": "a"}, {5: "a"}, {"\udcff": "a"}, [""]]
    for source in wrong[:2] + wrong[3:]:
        with pytest.raises(MoteError):
            items(source)


def test_names_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    """The name of a file is bytes."""
    name = os.fsdecode(b"\xff.mp4")
    (tmp_path / "list.txt").write_bytes(b"\xff.mp4\n")
    assert items(tmp_path / "list.txt", "path", None, "/x") == [Item(id_of_path(f"/x/{name}"), f"/x/{name}")]
