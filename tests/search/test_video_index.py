"""The index: what is added is found, exactly and in a stable order; changes are whole; other models are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

import mote_fast
from mote_fast.errors import ConfigError, ListError, MoteError, NotFiniteError
from mote_fast.search import exact, index_folder
from mote_fast.search.index_folder import LOCK_FILE
from mote_fast.search.index_record import RECORD_FILE
from mote_fast.search.rows import IndexRow
from mote_fast.search.video_index import Index
from tests.tolerances import assert_close

# Numbers of a vector, of the model that is built for tests.
WIDTH = 64


@pytest.fixture(scope="module")
def clf() -> mote_fast.VideoClassifier:
    return mote_fast.load("tiny")


@pytest.fixture
def index(tmp_path: Path, clf: mote_fast.VideoClassifier) -> Index:
    return Index.create(tmp_path / "index", clf, name="tiny")


def vectors(count: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)), dim=-1)


def names(count: int, prefix: str = "v") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def files(index: Index) -> set[str]:
    return {entry.name for entry in index.folder.iterdir()}


def test_search_equals_torch(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores and order are those of one product over all rows, for any number of files and blocks."""
    monkeypatch.setattr(exact, "BLOCK", 50)
    rows = vectors(333)
    for start, end in ((0, 200), (200, 320), (320, 333)):
        index.add(names(333)[start:end], rows[start:end])
    query = vectors(1, seed=1)[0]
    expected = rows.half().float() @ query
    for topk in (1, 7, 333, 1000):
        hits = index.search(query, topk=topk)
        best = expected.argsort(descending=True, stable=True)[:topk]
        assert [hit.id for hit in hits] == [f"v{number}" for number in best.tolist()]
        assert_close(torch.tensor([hit.score for hit in hits]), expected[best], "float32")


def test_equal_rows_stay_in_order(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of one video tie exactly, wherever they lie, and the one that was added first comes first."""
    monkeypatch.setattr(exact, "BLOCK", 16)
    rows = vectors(3).repeat(27, 1)
    index.add(names(70), rows[:70])
    index.add(names(11, "w"), rows[70:])
    hits = index.search(rows[1], topk=20)
    assert [hit.id for hit in hits] == [f"v{number}" for number in range(1, 61, 3)]
    assert len({hit.score for hit in hits}) == 1


def test_rows_keep_what_they_say(index: Index) -> None:
    """Ids in any script, file names that are not UTF-8, and time spans come back."""
    rows = [
        IndexRow("日本語", "/videos/a.mp4"),
        IndexRow("raw", "/videos/\udcff.mp4"),
        IndexRow("match.mp4#1", "match.mp4", 12.25, 17.5),
        IndexRow("bare"),
    ]
    index.add(rows, vectors(4))
    assert list(Index(index.folder).rows()) == rows
    hit = index.search(vectors(4)[2], topk=1)[0]
    assert (hit.id, hit.path, hit.start, hit.end) == ("match.mp4#1", "match.mp4", 12.25, 17.5)
    assert json.dumps(hit.to_dict())


def test_existing_ids(index: Index) -> None:
    """An id that is there is refused, kept or replaced, as asked; a refusal adds nothing."""
    index.add(["a", "b"], vectors(2))
    with pytest.raises(ConfigError, match="has the id 'b' already"):
        index.add(["c", "b"], vectors(2))
    assert len(index) == 2
    assert index.add(["c", "b"], vectors(2, seed=1), existing="skip") == 1
    assert index.search(vectors(2)[1], topk=1)[0].id == "b"
    index.add(["b"], vectors(1, seed=2), existing="replace")
    assert [row.id for row in index.rows()] == ["a", "c", "b"]
    assert index.search(vectors(1, seed=2)[0], topk=1)[0].id == "b"
    assert len(index) == 3


def test_delete(index: Index) -> None:
    """What is deleted is not found, also by another object; a missing id deletes nothing."""
    index.add(names(40), vectors(40))
    with pytest.raises(ConfigError, match="no row with the id 'nowhere'"):
        index.delete(["v3", "nowhere"])
    assert index.delete(["v3", "v4"]) == 2
    for each in (index, Index(index.folder)):
        assert len(each) == 38
        assert "v3" not in each
        assert {"v3", "v4"}.isdisjoint(hit.id for hit in each.search(vectors(40)[3], topk=40))
    # Most of the file's rows: it is written anew.
    index.delete([f"v{number}" for number in range(5, 40)])
    assert [row.id for row in index.rows()] == ["v0", "v1", "v2"]
    assert index.record.segments[0].deleted is None
    index.delete(["v0", "v1", "v2"])
    assert len(index) == 0
    assert index.search(vectors(1)[0]) == []
    assert files(index) == {RECORD_FILE}


def test_files_stay_few(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small additions are joined, up to the largest file; rows keep their order."""
    monkeypatch.setattr(index_folder, "SEGMENT_ROWS", 40)
    rows = vectors(150)
    for start in range(0, 100, 4):
        index.add(names(150)[start : start + 4], rows[start : start + 4])
    index.add(names(150)[100:], rows[100:])
    assert [row.id for row in index.rows()] == names(150)
    assert len(index.record.segments) <= 8
    assert max(each.count for each in index.record.segments) <= 40
    assert files(index) == {RECORD_FILE, *index.record.files}


def test_a_reader_keeps_its_state(index: Index) -> None:
    """A reader answers from what it has opened while another process changes all of it, until it looks again."""
    index.add(names(10), vectors(10))
    reader = Index(index.folder)
    index.delete(names(9))
    index.add(["new"], vectors(1, seed=3))
    assert [hit.id for hit in reader.search(vectors(10)[0], topk=1)] == ["v0"]
    reader.refresh()
    assert {row.id for row in reader.rows()} == {"v9", "new"}


def test_text_video_and_vector(tmp_path: Path, clf: mote_fast.VideoClassifier, moving_video: Path) -> None:
    """All three kinds of query find a video; its own file does so with a cosine of 1."""
    index = Index.create(tmp_path / "index", clf)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"none")
    failed = index.add_videos(clf, [moving_video, bad, moving_video], workers=1)
    assert [each.video for each in failed] == [str(bad)]
    assert [row.id for row in index.rows()] == [str(moving_video)]
    with pytest.raises(ConfigError, match="one video"):
        index.search(like=[moving_video], clf=clf)  # pyright: ignore[reportArgumentType]
    hit = index.search(like=moving_video, clf=clf)[0]
    assert hit.score == pytest.approx(1, abs=1e-3)
    words = index.search("plain blue square", clf)[0].score
    assert words == pytest.approx(float(clf.embed_text(["plain blue square"])[0] @ clf.embed(moving_video)), abs=1e-3)
    other = index.search("square", clf.fold(), templates=["a {}.", "the {}."])[0].score
    assert other == pytest.approx(
        float(clf.embed_text(["square"], ["a {}.", "the {}."])[0] @ clf.embed(moving_video)), abs=1e-3
    )


def test_videos_that_are_in_are_skipped(
    index: Index, clf: mote_fast.VideoClassifier, moving_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run goes on where an earlier one ended; with ``replace`` it embeds them again."""
    seen: list[str] = []
    for replace, count in ((False, 1), (False, 1), (True, 2)):
        index.add_videos(clf, [moving_video], replace=replace, workers=1, progress=lambda each: seen.append(each.video))
        assert len(seen) == count
        assert len(index) == 1


def test_what_is_done_is_kept(index: Index, clf: mote_fast.VideoClassifier, moving_video: Path) -> None:
    """Ctrl-C between two videos keeps those that are done."""

    def stop(found: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.add_videos(clf, [moving_video, "nowhere.mp4"], workers=1, progress=stop)
    assert [row.id for row in index.rows()] == [str(moving_video)]


def test_another_model_is_refused_by_name(index: Index, moving_video: Path) -> None:
    """Other weights, or a setting that embeds otherwise, would rank by chance."""
    other = mote_fast.create_model("ViT-test")
    with pytest.raises(ConfigError, match=r"belongs to the model 'tiny' .* this one, .*, has other weights"):
        index.search("words", other)
    with pytest.raises(ConfigError, match="belongs to the model 'tiny'"):
        index.add_videos(other, [moving_video])
    same = mote_fast.load("tiny")
    same.frames = 4
    with pytest.raises(ConfigError, match="embedded with frames=8, this model has 4"):
        index.search(like=moving_video, clf=same)


def test_a_changed_head_is_another_model(index: Index) -> None:
    """Each part that decides embeddings counts; folding alone changes none."""
    model = mote_fast.load("tiny")
    assert index.search("words", model.fold()) == []
    with torch.no_grad():
        model.head.frame_positions.add_(1)
    with pytest.raises(ConfigError, match="belongs to the model"):
        index.search("words", model)


@pytest.mark.parametrize(
    ("rows", "given", "error"),
    [
        (["a", "a"], vectors(2), ConfigError),
        (["a"], vectors(2), ConfigError),
        (["a"], torch.ones(1, WIDTH + 1), ConfigError),
        (["a"], torch.ones(1, WIDTH, dtype=torch.long), ConfigError),
        ([""], vectors(1), ConfigError),
        (["\ud800"], vectors(1), ConfigError),
        ([3], vectors(1), ConfigError),
        (["a"], torch.full((1, WIDTH), float("nan")), NotFiniteError),
        (["a"], torch.zeros(1, WIDTH), NotFiniteError),
    ],
)
def test_bad_rows_are_refused(index: Index, rows: list[str], given: Tensor, error: type[MoteError]) -> None:
    """Nothing is added."""
    with pytest.raises(error):
        index.add(rows, given)
    assert len(index) == 0


@pytest.mark.parametrize(
    ("start", "end"),
    [(1, None), (None, 1), (2, 1), (-1, 1), (0, float("inf")), (0, float("nan")), (0, 10**400), ("0", "1")],
)
def test_bad_spans_are_refused(start: object, end: object) -> None:
    """A part has two finite ends, in order."""
    with pytest.raises(ConfigError):
        IndexRow("a", None, start, end)  # pyright: ignore[reportArgumentType]


def test_bad_queries_are_refused(index: Index, clf: mote_fast.VideoClassifier) -> None:
    """Each names what is wrong."""
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "one query"),
        ({"query": "a", "like": "b"}, "one query"),
        ({"query": "a"}, "give clf"),
        ({"query": vectors(1)}, "vectors must be"),
        ({"query": vectors(1)[0], "topk": 0}, "topk"),
        ({"query": object()}, "like=VIDEO"),
        ({"query": Path("a.mp4")}, "like=VIDEO"),
        ({"query": 1.0}, "vectors must be"),
        ({"query": vectors(1)[0], "templates": ["{}"]}, "templates"),
    ]
    for given, message in wrong:
        with pytest.raises(ConfigError, match=message):
            index.search(**given)
    with pytest.raises(ConfigError, match="list of ids"):
        index.delete("a")
    with pytest.raises(ConfigError, match="list of rows"):
        index.add("a", vectors(1))
    for videos in ("a.mp4", Path("a.mp4"), [b"bytes"], [torch.zeros(1, 8, 8, 3)]):
        with pytest.raises(ConfigError, match="paths"):
            index.add_videos(clf, videos)  # pyright: ignore[reportArgumentType]


def test_a_folder_in_use_is_not_made_an_index(tmp_path: Path, clf: mote_fast.VideoClassifier, index: Index) -> None:
    """Neither an index nor other files are overwritten."""
    with pytest.raises(ConfigError, match="holds an index already"):
        Index.create(index.folder, clf)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(ConfigError, match="holds other files"):
        Index.create(tmp_path / "other", clf)
    with pytest.raises(ListError, match=r"no index\.json"):
        Index(tmp_path / "other")
    assert files(index) == {RECORD_FILE}
    assert LOCK_FILE not in files(index)


def changed(folder: Path, **values: object) -> None:
    path = folder / RECORD_FILE
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


@pytest.mark.parametrize(
    "values",
    [
        {"format": 2},
        {"dimension": WIDTH + 1},
        {"dimension": 2**40},
        {"fingerprint": "x"},
        {"model": 3},
        {"segments": [{"rows": "../rows-0.safetensors", "count": 1}]},
        {"segments": [{"rows": f"rows-{'0' * 32}.safetensors", "count": 2}]},
        {"segments": 7},
        {"embedding": {}},
        {"further": 1},
    ],
)
def test_damaged_records_are_refused(index: Index, values: dict[str, object]) -> None:
    """Each by a ``ListError`` that names the folder."""
    index.add(["a"], vectors(1))
    changed(index.folder, **values)
    with pytest.raises(ListError, match="index"):
        Index(index.folder)


def test_damaged_rows_are_refused(index: Index, tmp_path: Path) -> None:
    """Files of rows that are cut off, of another kind, contradictory, missing, or links to elsewhere."""
    index.add(names(5), vectors(5))
    path = index.folder / index.record.segments[0].rows
    sound = path.read_bytes()
    tensors = load_file(path)
    for key, value in (
        ("vectors", tensors["vectors"].float()),
        ("vectors", tensors["vectors"][:4].clone()),
        ("id_ends", tensors["id_ends"].flip(0).contiguous()),
        ("id_ends", tensors["id_ends"] + 1),
        ("spans", tensors["spans"][:, :1].contiguous()),
        ("more", torch.zeros(1)),
    ):
        save_file({**tensors, key: value}, path)
        with pytest.raises(ListError, match="build the index again"):
            Index(index.folder)
    for length in (0, 7, 100, len(sound) - 1):
        path.write_bytes(sound[:length])
        with pytest.raises(ListError):
            Index(index.folder)
    shutil.move(path, tmp_path / "elsewhere")
    with pytest.raises(ListError, match="missing"):
        Index(index.folder)
    (tmp_path / "elsewhere").write_bytes(sound)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ListError, match="leads out"):
        Index(index.folder)


def test_damaged_vectors_are_refused(index: Index) -> None:
    """Vectors that are no embeddings would rank anything."""
    index.add(names(5), vectors(5))
    path = index.folder / index.record.segments[0].rows
    tensors = load_file(path)
    for value in (float("nan"), float("inf"), 60000.0):
        tensors["vectors"][3, 7] = value
        save_file(tensors, path)
        with pytest.raises(ListError, match="not of unit length"):
            Index(index.folder).search(vectors(1, seed=1)[0])
