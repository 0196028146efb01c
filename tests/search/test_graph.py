"""Approximate search: it finds what exact search finds, is asked for, and never searches a graph of other rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mote_fast.cli import main
from mote_fast.errors import BackendError, ConfigError, ListError
from mote_fast.search import index_folder
from mote_fast.search.index_folder import IndexFolder
from mote_fast.search.index_record import RECORD_FILE, Embedding, IndexRecord
from mote_fast.search.video_index import Index
from tests.full_disk import files_of_at_most

WIDTH = 64


def vectors(count: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Rows in two files, some of them deleted."""
    record = IndexRecord("m", "0" * 64, WIDTH, Embedding("temporal", "1x1", 8, "ignore", "width"))
    IndexFolder.create(tmp_path / "index", record)
    index = Index(tmp_path / "index")
    index.add([f"v{number}" for number in range(700)], vectors(700))
    index.add([f"w{number}" for number in range(300)], vectors(300, 1))
    index.delete(["v3", "w299"])
    return index


@pytest.fixture
def built(index: Index) -> Index:
    """The same with a graph."""
    pytest.importorskip("usearch.index", reason="approximate search needs usearch")
    assert index.add_approximate() >= 0.99
    return index


def files(index: Index) -> set[str]:
    return {entry.name for entry in index.folder.iterdir()}


def test_finds_what_exact_search_finds(built: Index) -> None:
    """The same rows with the same scores, but for 1 % at most; also by another object, and all rows if asked for."""
    reader, same = Index(built.folder), 0
    for query in vectors(100, 2):
        exact = built.search(query)
        found = reader.search(query, approximate=True)
        scores = {hit.id: hit.score for hit in exact}
        same += sum(hit.id in scores for hit in found)
        assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
        assert all(hit.score == pytest.approx(scores.get(hit.id, hit.score), abs=1e-5) for hit in found)
    assert same >= 990
    everything = reader.search(vectors(1)[0], topk=5000, approximate=True)
    assert len({hit.id for hit in everything}) == len(everything) <= 998
    assert {"v3", "w299"}.isdisjoint(hit.id for hit in everything)


def test_a_change_of_rows_removes_the_graph(built: Index) -> None:
    """A stale graph is never searched: it is refused until it is built again; a reader keeps its state."""
    reader = Index(built.folder)
    assert reader.search(vectors(1)[0], approximate=True)[0].id == "v0"
    for change in (lambda: built.add(["new"], vectors(1, 7)), lambda: built.delete(["new"])):
        change()
        assert built.record.graph is None
        assert files(built) == {RECORD_FILE, *built.record.files}
        with pytest.raises(ConfigError, match="no graph of its present rows"):
            built.search(vectors(1)[0], approximate=True)
        built.add_approximate()
        assert built.search(vectors(1)[0], approximate=True)[0].id == "v0"
    assert reader.search(vectors(1)[0], approximate=True)[0].id == "v0"
    reader.refresh()
    assert reader.search(vectors(1)[0], approximate=True)[0].id == "v0"


def test_a_graph_is_whole_or_absent(built: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stops between the two writes leaves the old state; the next change removes the file. Full disks are told."""
    built.add(["new"], vectors(1, 7))
    before = Index(built.folder).record

    def stop(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(index_folder, "write_text", stop)
        with pytest.raises(KeyboardInterrupt):
            built.add_approximate()
    with files_of_at_most(20_000), pytest.raises(ConfigError, match="cannot be written"):
        built.add_approximate()
    assert Index(built.folder).record == before
    built.add_approximate()
    assert files(built) == {RECORD_FILE, *built.record.files}


def test_damaged_graphs_are_refused(built: Index) -> None:
    """No other bytes than the recorded ones reach usearch; exact search goes on, and building again mends it."""
    graph = built.record.graph
    assert graph is not None
    path = built.folder / graph.file
    sound = path.read_bytes()
    for content in (b"", sound[:1000], sound[:-1], sound + b"0", sound[:5000] + b"\xff" * 8 + sound[5008:]):
        path.write_bytes(content)
        damaged = Index(built.folder)
        with pytest.raises(ListError, match="damaged"):
            damaged.search(vectors(1)[0], approximate=True)
        assert damaged.search(vectors(1)[0])[0].id == "v0"
    path.unlink()
    with pytest.raises(ListError, match="gone"):
        Index(built.folder).search(vectors(1)[0], approximate=True)
    path.symlink_to("/etc/passwd")
    with pytest.raises(ListError, match="leads out"):
        Index(built.folder).search(vectors(1)[0], approximate=True)
    mended = Index(built.folder)
    mended.add_approximate()
    assert mended.search(vectors(1)[0], approximate=True)[0].id == "v0"
    # A graph of another index, recorded as if it were this one's.
    record = json.loads((built.folder / RECORD_FILE).read_text(encoding="utf-8"))
    record["segments"].pop()
    (built.folder / RECORD_FILE).write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ListError, match="998 rows"):
        Index(built.folder).search(vectors(1)[0], approximate=True)


@pytest.mark.parametrize(
    "values", [{"file": "../graph"}, {"bytes": 0}, {"sha256": "x"}, {"recall": 2}, {"recall": None}, {"more": 1}]
)
def test_damaged_records_are_refused(index: Index, values: dict[str, object]) -> None:
    """What index.json says of a graph is checked when the index is opened, also without usearch."""
    path = index.folder / RECORD_FILE
    graph = {"file": f"graph-{'0' * 32}.usearch", "bytes": 1, "sha256": "0" * 64, "sample": 1, "recall": 1.0}
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**record, "graph": graph}), encoding="utf-8")
    assert Index(index.folder).record.graph is not None
    path.write_text(json.dumps({**record, "graph": {**graph, **values}}), encoding="utf-8")
    with pytest.raises(ListError, match="damaged"):
        Index(index.folder)


def test_an_index_without_rows_has_no_graph(built: Index) -> None:
    """It is refused by name."""
    built.delete([row.id for row in built.rows()])
    with pytest.raises(ConfigError, match="no rows"):
        built.add_approximate()


def test_usearch_absent(index: Index, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the extra, and the command says it before it reads a video."""
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(BackendError, match=r"needs usearch .*mote_fast\[search\]"):
        index.add_approximate()
    assert main(["index", "add", str(index.folder), "nowhere.mp4", "--approximate", "--model", "tiny"]) == 2
    assert "mote_fast[search]" in capsys.readouterr().err


@pytest.mark.heavy
def test_commands(
    tmp_path: Path, moving_video: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Building prints the recall, info repeats it, and search uses the graph where there is one."""
    pytest.importorskip("usearch.index", reason="approximate search needs usearch")
    monkeypatch.chdir(tmp_path)
    build = ["index", "build", "videos", str(moving_video), "--model", "tiny"]
    assert main(build) == 0
    search = ["search", "videos", "square", "--approximate", "--json", "--model", "tiny"]
    assert main(search) == 2
    assert "--approximate" in capsys.readouterr().err
    assert main([*build, "--approximate"]) == 0
    assert "approximate search finds 100.0 % of the 10 nearest rows" in capsys.readouterr().out
    assert main(["index", "info", "videos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recall"] == 1
    assert main(search) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["approximate"], [hit["path"] for hit in found["hits"]]) == (True, [str(moving_video)])
