"""Exported folders that are read back: the library's answers without open_clip, and strangers' folders refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import mote_fast
from mote_fast.data import read_frames
from mote_fast.errors import BackendError, CheckpointError, ConfigError, LabelError
from mote_fast.exports.record import CLASSES_FILE, RECORD_FILE
from mote_fast.runtime.environment import PRESETS
from mote_fast.runtime.transfer import sha256_of
from tests.exports.exported import PARITY, Exported

# Exports of whole models.
pytestmark = pytest.mark.heavy

CLIPS = sorted((PRESETS / "demo").glob("*/*.mp4"))


@pytest.fixture
def folder(trained: Exported, tmp_path: Path) -> Path:
    """A copy of the export, to be damaged."""
    return Path(shutil.copytree(trained.folder, tmp_path / "export"))


def edit(folder: Path, change: Callable[[Any], object]) -> None:
    """Change the record."""
    record = json.loads((folder / RECORD_FILE).read_text())
    change(record)
    (folder / RECORD_FILE).write_text(json.dumps(record))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Give a file another content, and the record its size and hash: a stranger makes both."""
    (folder / name).write_bytes(content)
    edit(folder, lambda r: r["files"].update({name: {"size": len(content), "sha256": sha256_of(folder / name)}}))


@pytest.mark.parametrize("views", ["1x1", "3x1", "2x3"])
def test_answers_are_those_of_the_library(trained: Exported, views: str) -> None:
    """Files, bytes and decoded frames; the folder's own class features."""
    assert len(CLIPS) >= 3
    loaded, labels = mote_fast.load_exported(trained.folder), trained.record.labels
    assert loaded.classes == labels
    for clip in CLIPS:
        ranked = loaded.classify(clip, views=views, topk=100)
        own = trained.model.classify(clip, labels, views=views, topk=100)
        assert [each.label for each in ranked] == [each.label for each in own]
        assert max(abs(a.score - b.score) for a, b in zip(ranked, own, strict=True)) <= PARITY
    frames = read_frames(CLIPS[0], range(12))
    assert loaded.classify([frames, frames.numpy()], views=views) == [loaded.classify(frames, views=views)] * 2
    assert loaded.classify(CLIPS[0].read_bytes(), views=views) == loaded.classify(CLIPS[0], views=views)


def test_one_graph_answers_alone(trained: Exported, tmp_path: Path) -> None:
    """The whole graph in PyTorch's format, which has to be trusted."""
    mote_fast.export(trained.model, tmp_path / "out", "pt2", "whole", labels=trained.record.labels)
    loaded = mote_fast.load_exported(tmp_path / "out", trust=True)
    own = trained.model.classify(CLIPS[0], trained.record.labels, topk=100)
    for a, b in zip(loaded.classify(CLIPS[0], topk=100), own, strict=True):
        assert (a.label, abs(a.score - b.score) <= PARITY) == (b.label, True)


def test_labels_and_features_of_ones_own(trained: Exported) -> None:
    """Some of the stored classes in any order, or features that are given; one class too."""
    loaded, model = mote_fast.load_exported(trained.folder), trained.model
    labels = [loaded.classes[2], loaded.classes[0], loaded.classes[2]]
    expected = model.scores(CLIPS[0], model.class_features(labels))
    by_label = {each.index: each.score for each in loaded.classify(CLIPS[0], labels)}
    assert max(abs(by_label[at] - float(expected[at])) for at in range(3)) <= PARITY
    given = model.class_features(["a red ball"])
    for features in (given, given.numpy()):
        assert loaded.classify(CLIPS[0], ["a red ball"], class_features=features)[0].label == "a red ball"
        assert loaded.scores(CLIPS[0], features).tolist() == [1.0]


def test_requests_that_cannot_be_answered(trained: Exported, tmp_path: Path) -> None:
    """Each names the argument."""
    loaded = mote_fast.load_exported(trained.folder)
    with pytest.raises(LabelError, match="'a zebra' is none of"):
        loaded.classify(CLIPS[0], ["a zebra"])
    for wrong in (torch.ones(2, 3), torch.ones(64), torch.empty(0, 64)):
        with pytest.raises(ConfigError, match="class_features"):
            loaded.classify(CLIPS[0], ["a", "b"], class_features=wrong)
    with pytest.raises(ConfigError, match="rows"):
        loaded.classify(CLIPS[0], ["a"], class_features=torch.ones(2, 64))
    with pytest.raises(ConfigError, match="topk"):
        loaded.classify(CLIPS[0], topk=0)
    loaded.frames = 78
    with pytest.raises(ConfigError, match="frames"):
        loaded.classify(CLIPS[0])
    mote_fast.export(trained.model, tmp_path / "head", "pt2", "head")
    alone = mote_fast.load_exported(tmp_path / "head", trust=True)
    with pytest.raises(LabelError, match="labels="):
        alone.classify(CLIPS[0])
    with pytest.raises(ConfigError, match="alone"):
        alone.classify(CLIPS[0], ["a"], class_features=torch.ones(1, 64))


def test_no_clip_is_needed(trained: Exported) -> None:
    """A process where open_clip and what comes with it cannot be imported."""
    program = (
        "import sys\n"
        "for name in ('open_clip', 'timm', 'transformers', 'onnxscript'): sys.modules[name] = None\n"
        "import mote_fast\n"
        "print(mote_fast.load_exported(sys.argv[1]).classify(sys.argv[2])[0].label)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, trained.folder, CLIPS[0]]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == trained.model.classify(CLIPS[0], trained.record.labels)[0].label


def test_code_runs_on_request_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's formats hold pickles and machine code: without trust the file is not even read."""
    for name, opener in (("export", "load"), ("_inductor", "aoti_load_package")):
        monkeypatch.setattr(getattr(torch, name), opener, lambda *_: pytest.fail("opened"))
    for kind in ("pt2", "aoti"):
        edit(folder, lambda record, kind=kind: as_format(record, kind))
        with pytest.raises(CheckpointError, match="trust=True"):
            mote_fast.load_exported(folder)


def as_format(record: Any, kind: str) -> None:
    record["format"] = kind
    record["files"] = {name.replace(".onnx", ".pt2"): value for name, value in record["files"].items()}
    for graph in record["graphs"].values():
        graph["file"] = graph["file"].replace(".onnx", ".pt2")


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"machine": "another"}, "processor"), ({"versions": {"torch": "1.0"}}, "PyTorch")],
)
def test_compiled_graphs_stay_on_their_machine(folder: Path, change: dict[str, Any], reason: str) -> None:
    """Machine code for other instructions would end the process."""
    for name in ("tower", "head"):
        shutil.copy(folder / f"{name}.onnx", folder / f"{name}.pt2")
    edit(folder, lambda record: as_format(record, "aoti"))
    edit(folder, lambda record: record["versions"].update(torch=torch.__version__))
    edit(folder, lambda record: record.update(change))
    with pytest.raises(BackendError, match=reason):
        mote_fast.load_exported(folder, trust=True)


@pytest.mark.parametrize("name", ["tower.onnx", "head.onnx", CLASSES_FILE])
def test_damaged_files(folder: Path, name: str) -> None:
    """Cut off, changed by a bit, missing, no file, or a link that leads out."""
    content = (folder / name).read_bytes()
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    for damaged in (content[:-1], content + b"\0", b"", bytes(changed)):
        (folder / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=name):
            mote_fast.load_exported(folder)
    outside = folder.parent / "outside"
    outside.write_bytes(content)
    for make in (lambda: None, lambda: os.mkfifo(folder / name), lambda: (folder / name).symlink_to(outside)):
        (folder / name).unlink()
        make()
        with pytest.raises(CheckpointError, match=name):
            mote_fast.load_exported(folder)
        (folder / name).touch()


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.clear(),
        lambda r: r.update(format_version=2),
        lambda r: r.update(format="tf"),
        lambda r: r.update(frames=10**9),
        lambda r: r.update(frames="8"),
        lambda r: r.update(embed_dim=10**12),
        lambda r: r.update(extra=1),
        lambda r: r.update(labels=[["a"]]),
        lambda r: r.update(labels="abc"),
        lambda r: r.update(labels=r["labels"] * 1000),
        lambda r: r.update(caution=5),
        lambda r: r["preprocessing"].update(size=10**9),
        lambda r: r["preprocessing"].update(mean=[1]),
        lambda r: r["graphs"].clear(),
        lambda r: r["graphs"].update(tail=r["graphs"]["head"]),
        lambda r: r["graphs"]["head"].update(file="../head.onnx"),
        lambda r: r["graphs"]["head"].update(inputs={}),
        lambda r: r["graphs"]["head"].update(file=["head.onnx"]),
        lambda r: r["files"].pop("head.onnx"),
        lambda r: r["files"].update({"../x": r["files"]["head.onnx"]}),
        lambda r: r["files"]["head.onnx"].update(size=-1),
        lambda r: r["files"]["head.onnx"].update(sha256="0"),
        lambda r: r.update(files=[]),
    ],
)
def test_records_that_no_export_has(folder: Path, change: Callable[[Any], object]) -> None:
    """Refused by name, in a short message, before a graph is opened."""
    edit(folder, change)
    with pytest.raises(CheckpointError, match="export") as error:
        mote_fast.load_exported(folder)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("content", ["[1]", "null", "[" * 99_999, "", "\0", '{"a": NaN}'])
def test_records_that_are_none(folder: Path, content: str) -> None:
    """Other JSON, and no JSON."""
    (folder / RECORD_FILE).write_text(content)
    with pytest.raises(CheckpointError, match=RECORD_FILE):
        mote_fast.load_exported(folder)


def test_folders_that_are_none(tmp_path: Path) -> None:
    """Nothing, and a model folder."""
    for folder in (tmp_path / "none", PRESETS / "tiny"):
        with pytest.raises(CheckpointError, match=r"mote_fast\.export"):
            mote_fast.load_exported(folder)


def weight_at(location: str) -> TensorProto:
    """A weight that lies in another file."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        weight.external_data.add(key=key, value=value)
    return weight


def head_of(nodes: list[onnx.NodeProto], weights: list[TensorProto]) -> onnx.ModelProto:
    """An ONNX graph with the ends of a head; these nodes compute "scores" from "sums" [C]."""
    ends = [("features", ["views", "frames", 64]), ("classes", ["classes", 64])]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends]
    output = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["classes"])
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    sums = helper.make_node("ReduceSum", ["classes", "axis"], ["sums"], keepdims=0)
    graph = helper.make_graph([sums, *nodes], "g", inputs, [output], [axis, *weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


ADD = helper.make_node("Add", ["sums", "w"], ["scores"])


def graph_that_names(location: str) -> bytes:
    return head_of([ADD], [weight_at(location)]).SerializeToString()


@pytest.mark.parametrize("location", ["secret", "../secret", "{folder}/secret", "classes.npy", "*/_ORT_MEM_ADDR_/*"])
def test_graphs_open_no_other_file(folder: Path, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of a graph lie in the file beside it, and neither elsewhere nor in the working directory."""
    for place in (folder, folder.parent):
        (place / "secret").write_bytes(b"\0\0\x80\x3f")
    monkeypatch.chdir(folder.parent)
    replace_file(folder, "head.onnx", graph_that_names(location.format(folder=folder.parent)))
    with pytest.raises(CheckpointError, match=r"head\.onnx"):
        mote_fast.load_exported(folder)


def test_graphs_inside_graphs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their weights would be looked for in the working directory, and loops need not end."""
    (folder / "secret").write_bytes(b"\0\0\x80\x3f")
    monkeypatch.chdir(folder)
    out = helper.make_tensor_value_info("w", TensorProto.FLOAT, [1])
    branch = helper.make_graph([helper.make_node("Constant", [], ["w"], value=weight_at("secret"))], "b", [], [out])
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    nodes = [helper.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch), ADD]
    function = helper.make_function("own", "F", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])], [])
    with_function = head_of([helper.make_node("Identity", ["sums"], ["scores"])], [])
    with_function.functions.append(function)
    foreign = head_of([helper.make_node("Gelu", ["sums"], ["scores"], domain="com.microsoft")], [])
    for model in (head_of(nodes, [condition]), with_function, foreign):
        replace_file(folder, "head.onnx", model.SerializeToString())
        with pytest.raises(CheckpointError, match="operators"):
            mote_fast.load_exported(folder)


def test_weights_beside_the_graph_are_the_file_s(folder: Path) -> None:
    """The one name that a graph may give; what it says of the size is compared with the file."""
    replace_file(folder, "head.onnx.data", b"\0\0\x80\x3f")
    replace_file(folder, "head.onnx", graph_that_names("head.onnx.data"))
    mote_fast.load_exported(folder)
    replace_file(folder, "head.onnx.data", b"\0")
    with pytest.raises(CheckpointError, match=r"head\.onnx"):
        mote_fast.load_exported(folder)


def test_other_graphs(folder: Path, trained: Exported) -> None:
    """A graph with other ends, one of another domain's operators, and no graph."""
    other = onnx.load(trained.folder / "head.onnx")
    other.graph.output[0].name = "other"
    for content in ((trained.folder / "tower.onnx").read_bytes(), other.SerializeToString(), b"\x08\x08", b"PK\3\4"):
        replace_file(folder, "head.onnx", content)
        with pytest.raises(CheckpointError, match=r"head\.onnx"):
            mote_fast.load_exported(folder)


def test_class_features_of_strangers(folder: Path, tmp_path: Path) -> None:
    """Other shapes and types, a pickle, an array that claims more than the file has, NaN."""
    good = np.load(folder / CLASSES_FILE)
    arrays = [good[:-1], good.astype(np.float64), good.T.copy(), np.asfortranarray(good), np.full_like(good, np.nan)]
    objects = np.empty(good.shape, object)
    for array in (*arrays, objects):
        np.save(tmp_path / "other.npy", array, allow_pickle=True)
        replace_file(folder, CLASSES_FILE, (tmp_path / "other.npy").read_bytes())
        with pytest.raises(CheckpointError, match=CLASSES_FILE):
            mote_fast.load_exported(folder)
    np.save(tmp_path / "good.npy", good)
    whole = (tmp_path / "good.npy").read_bytes()
    unclosed, nested = whole.replace(b"}", b" "), whole[:10] + b"(" * 118 + whole[128:]
    for content in (
        whole[:-4],
        whole + b"\0\0\0\0",
        whole[:20],
        b"",
        b"\x93NUMPY\xff\xff" + whole[8:],
        unclosed,
        nested,
    ):
        replace_file(folder, CLASSES_FILE, content or b"x")
        with pytest.raises(CheckpointError, match=CLASSES_FILE):
            mote_fast.load_exported(folder)
