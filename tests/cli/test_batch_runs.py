"""The command about collections: exit statuses, what it prints, and that its options reach the library."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mote_fast.cli import main
from tests.batch.conftest import collection, sound

pytestmark = pytest.mark.heavy

__all__ = ["collection", "sound"]

RUN = ["--model", "tiny", "--views", "1x1"]


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_collection_is_labelled(collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Faults give 3; status tells the same; retry takes the model and the labels of the run."""
    output = str(tmp_path / "out")
    run = ["batch", "classify", str(collection), output, "--labels", "ring,star", "--topk", "1", *RUN]
    (collection / "crash.mp4").unlink()
    assert main(run) == 3
    assert f"{output}: 7 of 7 videos; failed: 1 missing, 1 undecodable" in capsys.readouterr().out
    assert main(["batch", "status", output, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        **{"output": output, "planned": 7, "done": 7, "missing": 0},
        "failed": {"missing": 1, "undecodable": 1},
    }
    (collection / "nowhere").symlink_to(collection / "8.mp4")
    assert main(["batch", "retry", output, "--only", "missing", "--workers", "1"]) == 3
    assert "failed: 1 undecodable" in capsys.readouterr().out
    (collection / "damaged.mp4").write_bytes((collection / "9.mp4").read_bytes())
    assert main(["batch", "retry", output, "--json"]) == 0
    assert lines(capsys)[-1]["failed"] == {}
    assert all(len(row["labels"]) == 1 for row in pq.read_table(output).to_pylist())
    assert main([*run[:4], "--labels", "ring", *RUN]) == 2
    assert "belongs to another run" in capsys.readouterr().err


def test_a_collection_is_embedded(collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table with ids; each file is a line of JSON, with what is left."""
    table, output = tmp_path / "list.csv", str(tmp_path / "out")
    table.write_text("name,file\n" + "".join(f"v{number},{number}.mp4\n" for number in range(8, 13)))
    columns = ["--path-column", "file", "--id-column", "name", "--root", str(collection)]
    every = ["--durable-every", "2", "--numbers", "float16", "--json"]
    assert main(["batch", "embed", str(table), output, *columns, *every, *RUN]) == 0
    told = lines(capsys)
    assert told[0]["event"] == "written"
    assert {"planned", "done", "judged", "failed", "videos_per_second", "seconds_left"} <= set(told[0])
    assert told[-1] == {
        **{"event": "finished", "output": output, "planned": 5, "done": 5},
        **{"failed": {}, "missing": 0},
    }
    assert sorted(pq.read_table(output).column("id").to_pylist()) == ["v10", "v11", "v12", "v8", "v9"]

    assert main(["batch", "index", output, str(tmp_path / "index")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'index'}: 5 rows\n"


@pytest.mark.parametrize("case", ["twice", "none", "foreign", "file", "ray"])
def test_bad_usage_gives_two(
    case: str, collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says why."""
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "list.txt").write_text(f"{collection}/8.mp4\n" * 2)
    (tmp_path / "file").touch()
    source, output, message = {
        "twice": ("list.txt", "out", "given twice"),
        "none": ("none.txt", "out", "cannot be read"),
        "foreign": ("collection", "collection", "holds other files"),
        "file": ("collection", "file", "cannot be written"),
        "ray": ("collection", "out", "pip install 'mote_fast[ray]'"),
    }[case]
    engine = ["--engine", "ray"] if case == "ray" else []
    assert main(["batch", "embed", str(tmp_path / source), str(tmp_path / output), *engine, *RUN]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len([line for line in told if line.startswith("mote-fast: error: ")]) == 1
    assert message in told[-1]


def test_runs_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without a run, an unknown kind of fault, and options that are no numbers."""
    assert main(["batch", "status", str(tmp_path)]) == 2
    assert "no _mote_run.json" in capsys.readouterr().err
    assert main(["batch", "retry", str(tmp_path), "--only", "bad"]) == 2
    assert "no kind of fault 'bad'" in capsys.readouterr().err
    assert main(["batch", "embed", "a", "b", "--durable-every", "0"]) == 2
    assert "--durable-every must be at least 1" in capsys.readouterr().err
