"""Runs over a collection: a row for each video, faults with their kinds, resuming, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mote_fast import VideoClassifier, batch
from mote_fast.batch import Classifier
from mote_fast.batch.block_classifier import model_of
from mote_fast.batch.collection_runs import RunState
from mote_fast.batch.id_digests import id_of_path
from mote_fast.batch.run_folder import RunFolder
from mote_fast.errors import BackendError, ConfigError, LabelError, ListError, MoteError
from tests.batch.deadly import let_names_kill
from tests.full_disk import files_of_at_most
from tests.tolerances import assert_close

pytestmark = pytest.mark.heavy

LABELS = ["archery", "juggling balls", "playing the cello"]
FAULTS = {"crash.mp4": "crashed", "damaged.mp4": "undecodable", "gone.mp4": "missing"}


@pytest.fixture(autouse=True)
def deadly(monkeypatch: pytest.MonkeyPatch) -> None:
    let_names_kill(monkeypatch)


def rows_of(output: Path) -> list[dict[str, Any]]:
    """All rows as readers of Parquet folders see them, by id."""
    return sorted(pq.read_table(output).to_pylist(), key=lambda row: row["id"])


def test_each_video_has_one_row(tiny: VideoClassifier, collection: Path, tmp_path: Path) -> None:
    """With what ``classify`` says of it, or with the kind of its fault."""
    states: list[RunState] = []
    found = batch.classify(
        collection, tmp_path / "out", model=tiny, labels=LABELS, topk=2, durable_every=3, progress=states.append
    )
    assert found == (8, 8, {"crashed": 1, "missing": 1, "undecodable": 1})
    assert batch.status(tmp_path / "out") == found
    assert (states[0].planned, states[0].done, states[-1].judged, states[-1].done) == (8, 0, 8, 8)
    assert dict(sorted(states[-1].failed.items())) == found.failed
    rows = {os.path.basename(row["path"]): row for row in rows_of(tmp_path / "out")}
    assert set(rows) == {path.name for path in collection.iterdir()}
    folded = tiny.fold()
    for name, row in rows.items():
        assert row["id"] == id_of_path(str(collection / name))
        assert row["error_kind"] == FAULTS.get(name)
        if name in FAULTS:
            assert name in row["error"]
            assert row["labels"] is row["indices"] is row["scores"] is row["num_frames"] is None
            continue
        expected = folded.classify(collection / name, LABELS, topk=2)
        assert row["labels"] == [each.label for each in expected]
        assert row["indices"] == [each.index for each in expected]
        assert row["scores"] == [each.score for each in expected]
        assert (row["num_frames"], row["replaced_frames"], row["error"]) == (int(Path(name).stem), 0, None)
    assert len({row["fingerprint"] for row in rows.values()}) == 1


@pytest.mark.parametrize("numbers", ["float32", "float16"])
def test_embeddings_are_lists_of_fixed_size(
    tiny: VideoClassifier, collection: Path, tmp_path: Path, numbers: Any
) -> None:
    """Readers of Parquet get a matrix."""
    batch.embed(collection, tmp_path / "out", model=tiny, numbers=numbers)
    table = pq.read_table(tmp_path / "out")
    kind = {"float32": pa.float32(), "float16": pa.float16()}[numbers]
    assert table.schema.field("embedding").type == pa.list_(kind, tiny.clip.embed_dim)
    folded = tiny.fold()
    for row in table.to_pylist():
        if row["error_kind"] is None:
            vector = torch.from_numpy(np.array(row["embedding"], numbers)).float()
            assert_close(vector, folded.embed(row["path"]), "equivalent" if numbers == "float32" else "float16")
        else:
            assert row["embedding"] is None


def test_embeddings_are_searched(tiny: VideoClassifier, collection: Path, tmp_path: Path) -> None:
    """An index of a run finds each video by its embedding; it grows with the run, and is that of one model."""
    batch.embed(collection, tmp_path / "out", model=tiny, numbers="float16", durable_every=3)
    for _ in range(2):
        found = batch.index(tmp_path / "out", tmp_path / "index")
        assert len(found) == 5
    hit = found.search(like=collection / "9.mp4", clf=tiny, topk=1)[0]
    assert hit.path == str(collection / "9.mp4")
    assert hit.id == id_of_path(hit.path)
    (collection / "new.mp4").symlink_to(collection / "8.mp4")
    batch.embed(collection, tmp_path / "out", model=tiny, numbers="float16")
    assert len(batch.index(tmp_path / "out", tmp_path / "index")) == 6
    batch.embed(collection, tmp_path / "three", model=tiny, views="3x1")
    with pytest.raises(ConfigError, match="give another folder for the index"):
        batch.index(tmp_path / "three", tmp_path / "index")
    batch.classify(collection, tmp_path / "labels", model=tiny, labels=LABELS)
    with pytest.raises(ConfigError, match="has no embeddings"):
        batch.index(tmp_path / "labels", tmp_path / "index")


def test_a_run_goes_on_where_it_ended(tiny: VideoClassifier, collection: Path, tmp_path: Path) -> None:
    """Files that are there stay as they are, missing ones are made again, and new videos are added."""
    output = tmp_path / "out"
    batch.embed(collection, output, model=tiny, durable_every=3)
    expected, files = rows_of(output), sorted(output.glob("part-*"))
    times = {path: path.stat().st_mtime_ns for path in files}
    files[1].unlink()
    assert batch.status(output).done == len(rows_of(output)) == 5
    states: list[RunState] = []
    batch.embed(collection, output, model=tiny, progress=states.append)
    assert rows_of(output) == expected
    assert (states[0].done, states[-1].judged) == (5, 3)
    assert [path for path in files if path.stat().st_mtime_ns != times[path]] == [files[1]]
    (collection / "new.mp4").symlink_to(collection / "8.mp4")
    assert batch.embed(collection, output, model=tiny).done == 9
    assert [row for row in rows_of(output) if not row["path"].endswith("new.mp4")] == expected


def test_another_run_is_refused(tiny: VideoClassifier, collection: Path, tmp_path: Path) -> None:
    """What differs is named; rows of two models never mix."""
    output = tmp_path / "out"
    first = {"model": tiny, "labels": LABELS}
    batch.classify(collection, output, **first)
    expected = rows_of(output)
    torch.manual_seed(1)
    other = type(tiny)(tiny.clip, type(tiny.head)(tiny.head.config), tiny.frames)
    for name, changed in (
        ("views", {**first, "views": "1x1"}),
        ("topk", {**first, "topk": 1}),
        ("labels", {**first, "labels": LABELS[:2]}),
        ("weights", {**first, "model": other}),
    ):
        with pytest.raises(ConfigError, match=f"belongs to another run, of {name} "):
            batch.classify(collection, output, **changed)
    with pytest.raises(ConfigError, match="belongs to another run, of task 'classify'"):
        batch.embed(collection, output, model=tiny)
    with pytest.raises(ConfigError, match="belongs to another run, of weights"):
        batch.retry(output, model=other)
    assert rows_of(output) == expected


def test_faults_are_judged_again(tiny: VideoClassifier, collection: Path, tmp_path: Path) -> None:
    """Rows of the asked kinds are replaced, in their files; the others stay."""
    output = tmp_path / "out"
    batch.classify(collection, output, model=tiny, labels=LABELS, durable_every=4)
    before = rows_of(output)
    for name in ("crash.mp4", "gone.mp4"):
        (collection / name).unlink()
    (collection / "gone.mp4").symlink_to(collection / "9.mp4")
    assert batch.retry(output, model=tiny, only=["missing"]).failed == {"crashed": 1, "undecodable": 1}
    after = rows_of(output)
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert [os.path.basename(row["path"]) for row in changed] == ["gone.mp4"]
    assert changed[0]["labels"] is not None
    assert batch.retry(output, model=tiny).failed == {"missing": 1, "undecodable": 1}
    with pytest.raises(ConfigError, match="only"):
        batch.retry(output, model=tiny, only=["bad"])  # pyright: ignore[reportArgumentType]


def test_an_interrupt_loses_one_block(tiny: VideoClassifier, collection: Path, tmp_path: Path) -> None:
    """Ctrl-C arrives between two videos; what is on disk is whole."""

    def interrupt(state: RunState) -> None:
        if state.judged == 5:
            raise KeyboardInterrupt

    output = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        batch.embed(collection, output, model=tiny, durable_every=2, progress=interrupt)
    assert batch.status(output).done == 4
    assert batch.embed(collection, output, model=tiny).done == 8
    assert len({row["id"] for row in rows_of(output)}) == len(rows_of(output)) == 8


def test_what_cannot_be_written_is_refused(tiny: VideoClassifier, collection: Path, tmp_path: Path) -> None:
    """A file in place of the folder, a folder of others, one in use, a full disk; nothing is lost."""
    output = tmp_path / "out"
    batch.embed(collection, output, model=tiny, durable_every=4)
    expected = rows_of(output)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file: cannot be written"):
        batch.embed(collection, tmp_path / "file", model=tiny)
    with pytest.raises(ConfigError, match="holds other files"):
        batch.embed(collection, collection, model=tiny)
    folder = RunFolder(output)
    with folder.locked(), pytest.raises(ConfigError, match="in use"):
        batch.embed(collection, output, model=tiny)
    (output / "part-0000-00000001.parquet").unlink()
    # The probe of a folder takes a block, and the rows of four videos more.
    with files_of_at_most(4200), pytest.raises(ConfigError, match=r"cannot be written"):
        batch.embed(collection, output, model=tiny)
    assert len(rows_of(output)) == 4
    batch.embed(collection, output, model=tiny)
    assert rows_of(output) == expected


def test_ids_are_given_once(tiny: VideoClassifier, collection: Path, tmp_path: Path) -> None:
    """A list with duplicates begins nothing, and a run that exists is as it was."""
    twice = [collection / "8.mp4", collection / "8.mp4"]
    with pytest.raises(ListError, match="given twice"):
        batch.embed(twice, tmp_path / "out", model=tiny)
    with pytest.raises(ListError, match="no output"):
        batch.status(tmp_path / "out")
    batch.embed(twice[:1], tmp_path / "out", model=tiny)
    with pytest.raises(ListError, match="given twice"):
        batch.embed(twice, tmp_path / "out", model=tiny)
    assert batch.status(tmp_path / "out") == (1, 1, {})


def test_damaged_outputs_are_named(tiny: VideoClassifier, collection: Path, tmp_path: Path) -> None:
    """A damaged file of rows can be removed; a damaged record ends the run."""
    output = tmp_path / "out"
    batch.embed(collection, output, model=tiny)
    rows = output / "part-0000-00000000.parquet"
    rows.write_bytes(rows.read_bytes()[:100])
    with pytest.raises(ListError, match=r"part-0000-00000000\.parquet: damaged"):
        batch.status(output)
    rows.unlink()
    assert batch.embed(collection, output, model=tiny).done == 8
    for text in ("", "{}", '{"format": 2}', '{"format": 1, "facts": 1, "request": {}, "parts": []}'):
        (output / "_mote_run.json").write_text(text)
        with pytest.raises(ListError, match="damaged"):
            batch.status(output)


def test_addresses_are_opened_by_the_workers(tiny: VideoClassifier, collection: Path, tmp_path: Path) -> None:
    """As files are; what is missing there is missing, and what is damaged is named by its address."""
    names = ["8.mp4", "damaged.mp4", "gone.mp4"]
    batch.embed([f"file://{collection}/{name}" for name in names], tmp_path / "out", model=tiny)
    rows = {os.path.basename(row["path"]): row for row in rows_of(tmp_path / "out")}
    assert {name: row["error_kind"] for name, row in rows.items()} == {
        "8.mp4": None,
        "damaged.mp4": "undecodable",
        "gone.mp4": "missing",
    }
    assert rows["damaged.mp4"]["error"].startswith(f"file://{collection}/damaged.mp4: ")
    expected = tiny.fold().embed(collection / "8.mp4")
    assert_close(torch.tensor(rows["8.mp4"]["embedding"]), expected, "equivalent")


def test_blocks_of_other_programs(tiny: VideoClassifier, collection: Path) -> None:
    """A classifier takes columns, tables and data frames, keeps its processes, and gives a table."""
    classifier = Classifier(tiny, LABELS, views="1x1", topk=1, workers=1)
    paths = [str(collection / name) for name in ("8.mp4", "crash.mp4")]
    try:
        for block in ({"path": np.array(paths, object)}, pa.table({"path": paths, "more": [1, 2]})):
            found = classifier(block).to_pylist()
            assert [row["id"] for row in found] == paths
            assert [row["error_kind"] for row in found] == [None, "crashed"]
        assert classifier({"path": paths[:1], "id": [7]}).column("id").to_pylist() == ["7"]
        assert classifier({"path": []}).num_rows == 0
        with pytest.raises(ConfigError, match="needs the column 'path'"):
            classifier({"video": paths})
    finally:
        classifier.close()


def test_bad_arguments_are_refused(tiny: VideoClassifier, collection: Path, tmp_path: Path) -> None:
    """Before any video is read."""
    wrong: list[tuple[type[MoteError], dict[str, Any]]] = [
        (LabelError, {}),
        (LabelError, {"labels": []}),
        (ConfigError, {"labels": LABELS, "views": "3"}),
        (ConfigError, {"labels": LABELS, "topk": 0}),
        (ConfigError, {"labels": LABELS, "workers": 0}),
        (ConfigError, {"labels": LABELS, "batch_size": -1}),
        (ConfigError, {"labels": LABELS, "durable_every": 0}),
        (ConfigError, {"labels": LABELS, "engine": "spark"}),
        (ConfigError, {"labels": LABELS, "time_limit": 0}),
    ]
    for error, given in wrong:
        with pytest.raises(error):
            batch.classify(collection, tmp_path / "out", model=tiny, **given)
    with pytest.raises(ListError, match="no output"):
        batch.status(tmp_path / "out")
    with pytest.raises(ConfigError, match="model"):
        model_of(5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="labels are for"):
        Classifier(tiny, LABELS, task="embed")


def test_the_package_for_parquet_is_named(
    tiny: VideoClassifier, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an extra."""
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(BackendError, match=r"mote_fast\[batch\]"):
        batch.embed(collection, tmp_path / "out", model=tiny)


def test_faults_of_the_model_end_the_run(
    tiny: VideoClassifier, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are no video's: a million rows must not say the same."""

    def fail(*_: object) -> Iterator[Any]:
        raise BackendError("no processes here")
        yield

    monkeypatch.setattr("mote_fast.batch.block_classifier.embed_each", fail)
    with pytest.raises(BackendError, match="no processes here"):
        batch.embed(collection, tmp_path / "out", model=tiny)
