"""Exports: equal to the library at every shape, as small as their weights, complete or absent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mote_fast
from mote_fast import VideoClassifier
from mote_fast.data import read_labels
from mote_fast.errors import BackendError, CheckpointError, ConfigError
from mote_fast.exports import graph_files, write
from mote_fast.exports.graphs import probabilities
from mote_fast.exports.parity import difference
from mote_fast.exports.record import RECORD_FILE
from mote_fast.head.scores import view_probabilities
from mote_fast.head.video_head import MAX_FRAMES
from mote_fast.runtime.environment import PRESETS
from tests.exports.exported import MODELS, PARITY, Exported, random_model

# Exports of whole models.
pytestmark = pytest.mark.heavy


@pytest.fixture(
    scope="module",
    params=["trained-onnx", "quick_gelu-pt2"]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("trained-pt2", "quick_gelu-onnx", "pooler-onnx", "pooler-pt2", "resnet-onnx", "resnet-pt2")
    ],
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    if request.param == "trained-onnx":
        return request.getfixturevalue("trained")
    kind, _, file_format = request.param.partition("-")
    model, folder = MODELS[kind](), tmp_path_factory.mktemp("export") / "out"
    mote_fast.export(model, folder, file_format)
    return Exported(model, folder)


def drawn(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(images=st.integers(1, 12), seed=st.integers(0, 2**31))
def test_towers_agree(exported: Exported, images: int, seed: int) -> None:
    """Any number of images, by one export."""
    size = exported.record.preprocessing.size
    assert exported.worst("tower", drawn((images, 3, size, size), seed)) <= PARITY


# Few classes are the ones with fewer rows than modulation takes.
@given(
    views=st.integers(1, 12),
    frames=st.integers(1, MAX_FRAMES),
    classes=st.integers(1, 8) | st.integers(1, 10_000),
    seed=st.integers(0, 2**31),
)
def test_heads_agree(exported: Exported, views: int, frames: int, classes: int, seed: int) -> None:
    """Any number of views, of frames up to the head's positions, and of classes."""
    features, class_features = drawn((views, frames, 64), seed), drawn((classes, 64), seed + 1)
    assert exported.worst("head", features, class_features) <= PARITY


@pytest.mark.parametrize("file_format", [pytest.param("onnx", marks=pytest.mark.slow), "pt2"])
def test_one_call_agrees(tmp_path: Path, file_format: Any) -> None:
    """The whole graph, with one of everything, and with several."""
    model = random_model()
    mote_fast.export(model, tmp_path / "out", file_format, "whole")
    exported = Exported(model, tmp_path / "out")
    assert [*exported.record.graphs] == ["whole"]
    for views, frames, classes in [(1, 1, 1), (3, 2, 5), (2, 3, 50)]:
        pixels = drawn((views, frames, 3, 64, 64), views)
        assert exported.worst("whole", pixels, drawn((classes, 64), 7)) <= PARITY


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_compiled_graphs_agree(tmp_path: Path, kind: str) -> None:
    """AOTInductor, for the machine that compiles it."""
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler")
    model = MODELS[kind]()
    mote_fast.export(model, tmp_path / "out", "aoti")
    exported = Exported(model, tmp_path / "out")
    assert exported.record.machine
    assert exported.record.instruction_set
    size = exported.record.preprocessing.size
    for views, frames, classes in [(1, 1, 1), (3, 8, 5), (1, MAX_FRAMES, 10_000), (12, 2, 400)]:
        assert exported.worst("head", drawn((views, frames, 64), views), drawn((classes, 64), 7)) <= PARITY
        assert exported.worst("tower", drawn((views, 3, size, size), views)) <= PARITY


@given(views=st.integers(1, 12), classes=st.integers(1, 1000), seed=st.integers(0, 2**31))
def test_probabilities_in_float32(views: int, classes: int, seed: int) -> None:
    """The graph's scores are float32, with a trained logit scale of 100 as near as those in float64."""
    cosines = 2 * torch.rand((views, classes), generator=torch.Generator().manual_seed(seed)) - 1
    exact = view_probabilities(cosines, views, 100.0).squeeze(0)
    assert difference("head", probabilities(cosines, 100.0), exact) <= PARITY


@pytest.mark.parametrize("file_format", [pytest.param("onnx", marks=pytest.mark.slow), "pt2"])
def test_files_hold_the_weights_once(tmp_path: Path, file_format: Any) -> None:
    """No text tower, no sample, no second copy of a weight, nothing about the machine that wrote them."""
    # Wider than the other models: a graph takes some tens of kilobytes a layer, whatever the width.
    model = random_model({"width": 256}, dim=256)
    mote_fast.export(model, tmp_path / "out", file_format)
    record = Exported(model, tmp_path / "out").record
    tower = sum(value.nbytes for value in model.clip.image_state().values())
    head = sum(value.nbytes for value in model.head.fold().state_dict().values())
    for name, numbers in (("tower", tower), ("head", head)):
        graph = record.graphs[name]
        content = (tmp_path / "out" / graph.file).read_bytes()
        assert graph.parameter_bytes == numbers
        assert len(content) <= 1.05 * numbers
        assert str(Path(mote_fast.__file__).parent).encode() not in content


def test_weights_beyond_protobuf_lie_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX file ends at 2 GB; the graph finds larger weights in its own folder."""
    monkeypatch.setattr(graph_files, "_MAX_INSIDE", 0)
    model = random_model()
    mote_fast.export(model, tmp_path / "out", part="tower")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {RECORD_FILE, "tower.onnx", "tower.onnx.data"}
    exported = Exported(model, tmp_path / "out")
    assert {*exported.record.files} == {"tower.onnx", "tower.onnx.data"}
    assert exported.worst("tower", drawn((2, 3, 64, 64), 0)) <= PARITY


def test_the_record_says_how_to_use_the_graphs(trained: Exported) -> None:
    """Preprocessing, frames, shapes, parity, versions; the ONNX files say the same of their ends."""
    model, folder = trained.model, trained.folder
    written = json.loads((folder / RECORD_FILE).read_text())
    assert written["preprocessing"]["size"] == 64
    assert (written["frames"], written["max_frames"], written["embed_dim"]) == (8, MAX_FRAMES, 64)
    labels = read_labels(PRESETS / "demo" / "actions.csv")
    assert written["labels"] == labels
    assert {"mote_fast", "torch", "onnxruntime"} <= {*written["versions"]}
    assert "drawn videos" in written["caution"]
    for name, graph in written["graphs"].items():
        assert 0 <= graph["parity"] <= PARITY
        ends = onnx.load(folder / f"{name}.onnx").graph
        for stated, found in ((graph["inputs"], ends.input), (graph["outputs"], ends.output)):
            shapes = {
                end.name: [each.dim_param or each.dim_value for each in end.type.tensor_type.shape.dim] for end in found
            }
            assert shapes == stated
    classes = np.load(folder / "classes.npy")
    assert torch.equal(torch.from_numpy(classes), model.class_features(labels))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: model.train(), "eval"),
        (lambda model: model.half(), "float32"),
        (lambda model: setattr(model, "int8", object()), "int8"),
        (lambda model: model.head.set_inference(aggregation="ensemble"), "ensemble"),
    ],
)
def test_models_that_have_no_export(tmp_path: Path, change: Callable[[Any], object], reason: str) -> None:
    """Refused before anything is written."""
    model = random_model()
    change(model)
    with pytest.raises(ConfigError, match=reason):
        mote_fast.export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [{"format": "tf"}, {"part": "tail"}])
def test_unknown_formats_and_parts(tmp_path: Path, tiny: VideoClassifier, wrong: dict[str, Any]) -> None:
    """The message names the choices."""
    with pytest.raises(ConfigError, match="must be"):
        mote_fast.export(tiny, tmp_path / "out", **wrong)


def test_other_folders_are_kept(tmp_path: Path, tiny: VideoClassifier) -> None:
    """A folder with something else is refused; an earlier export is replaced."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="something else"):
        mote_fast.export(tiny, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    for part in ("head", "tower"):
        mote_fast.export(tiny, tmp_path / "out", "pt2", part)
        assert {path.name for path in (tmp_path / "out").iterdir()} == {RECORD_FILE, f"{part}.pt2"}


def test_a_graph_that_differs_is_not_written(
    tmp_path: Path, tiny: VideoClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that gives NaN; the folder does not appear, and nothing is left beside it."""
    mote_fast.export(tiny, tmp_path / "out", "pt2", "head")
    earlier = (tmp_path / "out" / RECORD_FILE).read_text()
    for wrong in (1.0, float("nan")):
        monkeypatch.setattr(write, "open_graph", lambda *_, wrong=wrong: lambda *inputs: torch.full((1,), wrong))
        with pytest.raises(BackendError, match="differs"):
            mote_fast.export(tiny, tmp_path / "out", "pt2", "head")
    assert (tmp_path / "out" / RECORD_FILE).read_text() == earlier
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["out"]


def test_operators_that_cannot_be_exported(
    tmp_path: Path, tiny: VideoClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exporter's error is ours, with its text."""

    def refuse(*_: object) -> None:
        raise NotImplementedError("no such operator")

    monkeypatch.setitem(graph_files._WRITERS, "pt2", refuse)
    with pytest.raises(BackendError, match="no such operator"):
        mote_fast.export(tiny, tmp_path / "out", "pt2")
    assert not (tmp_path / "out").exists()
