"""Exported folders of strangers: read as data, or refused in bounded time and memory, whatever their hashes say."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch

import mote_fast
from mote_fast.exports.record import CLASSES_FILE, RECORD_FILE
from mote_fast.runtime.transfer import sha256_of
from tests.attack.bounded import Bounded, check_refused_or_read
from tests.attack.conftest import Attack
from tests.attack.test_attack_weights import NUMBERS, changed, garbled

# In this process, so that those of the attempts find it loaded.
assert onnxruntime.__version__

HEAD = "head.onnx"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model's head, with class features."""
    folder = tmp_path_factory.mktemp("export") / "out"
    model = mote_fast.load("tiny")
    model.head.set_inference(modulation=True)
    mote_fast.export(model, folder, part="head", labels=["a red ball", "a cat"])
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "export"))


def open_and_run(path: str) -> None:
    loaded = mote_fast.load_exported(path)
    loaded._graphs["head"](torch.ones(1, 2, 64), torch.ones(3, 64))


def put(folder: Path, name: str, content: bytes) -> None:
    """Replace a file, and its size and hash in the record."""
    (folder / name).write_bytes(content)
    record = json.loads((folder / RECORD_FILE).read_text())
    record["files"][name] = {"size": len(content), "sha256": sha256_of(folder / name)}
    (folder / RECORD_FILE).write_text(json.dumps(record))


def test_records(attack: Attack, folder: Path) -> None:
    """Any value in any place of export.json."""
    dice = random.Random("records")
    record = json.loads((folder / RECORD_FILE).read_text())
    with Bounded(open_and_run) as load:
        for number in range(attack.size(40, 800)):
            text = json.dumps(changed(record, dice)).encode()
            (folder / RECORD_FILE).write_bytes(garbled(text, dice) if number % 8 == 7 else text)
            with attack.attempt(text[:2000]):
                check_refused_or_read(load(folder), "export")


@pytest.mark.parametrize("name", [HEAD, CLASSES_FILE])
def test_garbled_files(attack: Attack, folder: Path, name: str) -> None:
    """Bytes that are flipped, cut off, moved and repeated, with the hash of the result."""
    dice = random.Random(name)
    content = (folder / name).read_bytes()
    # Most of a graph are weights, any of which is as good as another: its structure lies at both ends.
    head, middle, tail = content[:4000], content[4000:-4000], content[-4000:]
    with Bounded(open_and_run) as load:
        for number in range(attack.size(20, 500)):
            damaged = garbled(head, dice) + middle + tail if number % 2 else head + middle + garbled(tail, dice)
            put(folder, name, damaged if len(content) > 8000 else garbled(content, dice))
            with attack.attempt(number):
                check_refused_or_read(load(folder), name)


def test_graphs_that_lie(attack: Attack, folder: Path) -> None:
    """Sizes, attributes, operators and names of an ONNX graph that do not fit together."""
    dice = random.Random("graphs")
    content = (folder / HEAD).read_bytes()
    kinds = ("Expand", "Tile", "ConstantOfShape", "Range", "Reshape", "Gather", "Loop", "Resize", "Pad", "Split", "x")
    with Bounded(open_and_run) as load:
        for number in range(attack.size(40, 800)):
            model: Any = onnx.load_model_from_string(content)
            weights = [each for each in model.graph.initializer if each.dims]
            node, weight = dice.choice(model.graph.node), dice.choice(weights)
            match number % 8:
                case 0:
                    weight.dims[dice.randrange(len(weight.dims))] = dice.choice([n for n in NUMBERS if n < 2**62])
                case 1:
                    weight.data_type = dice.randrange(30)
                case 2:
                    weight.raw_data = weight.raw_data[: dice.randrange(9)]
                case 3:
                    node.op_type = dice.choice(kinds)
                case 4:
                    node.input[:] = [dice.choice(weights).name for _ in node.input]
                case 5:
                    node.output[:] = dice.choice(model.graph.node).output
                case 6:
                    node.attribute.append(onnx.helper.make_attribute(dice.choice(("axis", "to", "alpha")), 2**31))
                case _:
                    small = [each for each in weights if each.data_type == onnx.TensorProto.INT64]
                    if small:
                        one = dice.choice(small)
                        sizes = [dice.choice([n for n in NUMBERS if n < 2**31]) for _ in range(max(1, one.dims[0]))]
                        one.CopyFrom(onnx.helper.make_tensor(one.name, one.data_type, one.dims, sizes))
            put(folder, HEAD, model.SerializeToString())
            with attack.attempt(number):
                check_refused_or_read(load(folder), HEAD)
