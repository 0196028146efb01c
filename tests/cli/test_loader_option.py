"""``--loader``: every command that reads many videos hands it on, and its results say what decoded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mote_fast.batch.run_record import read_record
from mote_fast.cli import main
from mote_fast.data import loaders
from mote_fast.data.gpu import decoder_choice, gpu_reader
from mote_fast.data.gpu.gpu_reader import GpuReader
from tests.data.gpu.stand_in import StandIn, decoder_of

pytestmark = pytest.mark.heavy

MODEL = ["--model", "tiny", "--device", "cpu", "--views", "1x1"]


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> list[GpuReader]:
    """The readers that commands make; "dali" is a decoder that gives the CPU's pixels."""
    made: list[GpuReader] = []

    def reader(*arguments: Any) -> GpuReader:
        made.append(GpuReader(*arguments))
        return made[-1]

    for module in (decoder_choice, loaders):
        monkeypatch.setattr(module, "gpu_decoder", lambda name: decoder_of(StandIn))
    monkeypatch.setattr(gpu_reader, "GpuReader", reader)
    return made


@pytest.mark.parametrize("command", ["classify", "embed"])
@pytest.mark.parametrize("count", [1, 2])
def test_videos_are_read_by_it(
    command: str, count: int, moving_video: Path, readers: list[GpuReader], capsys: pytest.CaptureFixture[str]
) -> None:
    """One video or several: the same results as on the CPU, and both name what decoded."""
    told = {}
    labels = ["--labels", "ring,star"] if command == "classify" else []
    for loader in ("cpu", "dali"):
        videos = [str(moving_video)] * count
        assert main([command, *videos, *labels, "--json", "--loader", loader, *MODEL]) == 0
        told[loader] = json.loads(capsys.readouterr().out)
        assert told[loader].pop("loader") == loader
    loaders.close_shared_readers()
    assert told["cpu"] == told["dali"]
    assert [reader.decoded for reader in readers] == [count]


@pytest.mark.parametrize("task", [["classify", "--labels", "ring,star"], ["embed"]], ids=["classify", "embed"])
def test_a_collection_is_read_by_it(
    task: list[str], moving_video: Path, readers: list[GpuReader], tmp_path: Path
) -> None:
    """The rows are those of the CPU; a run does not go on with another decoder."""
    (tmp_path / "list.txt").write_text(f"{moving_video}\n")
    rows, run = {}, ["batch", task[0], str(tmp_path / "list.txt")]
    for loader in ("cpu", "dali"):
        output = tmp_path / loader
        assert main([*run, str(output), *task[1:], "--loader", loader, *MODEL]) == 0
        assert read_record(output).facts["loader"] == loader
        rows[loader] = [{**row, "fingerprint": ""} for row in pq.read_table(output).to_pylist()]
    assert rows["cpu"] == rows["dali"]
    assert [reader.decoded for reader in readers] == [1]
    assert main([*run, str(tmp_path / "dali"), *task[1:], "--loader", "cpu", *MODEL]) == 2


def test_an_index_is_made_by_it(moving_video: Path, readers: list[GpuReader], tmp_path: Path) -> None:
    """The videos of an index are read as others are."""
    index = str(tmp_path / "index")
    assert main(["index", "build", index, str(moving_video), "--loader", "dali", *MODEL]) == 0
    assert [reader.decoded for reader in readers] == [1]
