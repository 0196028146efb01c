"""``mote-fast eval --config``: files of the official schema and of ours in place of lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from mote_fast.cli import main

Captured = pytest.CaptureFixture[str]

# The sections of the official evaluation files; their network says nothing that the checkpoint does not.
NETWORK = {
    "arch": "ViT-L/14",
    "init": True,
    "drop_out": 0.0,
    "emb_dropout": 0.0,
    "sim_header": "Transf",
    "interaction": "DP",
    "temporal_layer": 6,
    "num_experts": 4,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four folders of five frames, two lists of them, and class names."""
    root = tmp_path_factory.mktemp("config")
    generator = torch.Generator().manual_seed(0)
    for number in range(4):
        (root / f"video{number}").mkdir()
        for at in range(5):
            pixels = torch.randint(0, 256, (40, 48, 3), dtype=torch.uint8, generator=generator)
            Image.fromarray(pixels.numpy()).save(root / f"video{number}" / f"image_{at + 1:04d}.jpg")
    lines = [f"video{number} 5 {number % 2}\n" for number in range(4)]
    (root / "split1.txt").write_text("".join(lines[:3]))
    (root / "split2.txt").write_text("".join(lines[1:]))
    (root / "names.csv").write_text("id,name\n0,waving\n1,jumping\n")
    return root


def official(data: Path, split: int, **options: Any) -> str:
    """Write an evaluation file as the official ones are; return its path."""
    section = {
        "dataset": "ucf101",
        "modality": "RGB",
        "num_segments": 4,
        "seg_length": 1,
        "batch_size": 2,
        "workers": 0,
        "num_classes": 2,
        "image_tmpl": "image_{:04d}.jpg",
        "val_root": str(data),
        "val_list": str(data / f"split{split}.txt"),
        "label_list": str(data / "names.csv"),
        "index_bias": 1,
        "input_size": 224,
        **options,
    }
    path = data / f"{'_'.join(map(str, options)) or 'official'}_{split}.yaml"
    logging = {"print_freq": 10, "eval_freq": 1}
    path.write_text(yaml.safe_dump({"seed": 1024, "data": section, "network": NETWORK, "logging": logging}))
    return str(path)


def evaluate(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    status = main(["eval", "--protocol", "zeroshot", "--device", "cpu", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_three_splits_of_the_official_code(capsys: Captured, data: Path) -> None:
    """Files of one data set are its splits; the result is that of the same options on the command line."""
    status, out, _ = evaluate(capsys, "--config", official(data, 1), official(data, 2), "--json")
    found = json.loads(out)
    lists = ("--list", data / "split1.txt", data / "split2.txt", "--labels-file", data / "names.csv", "--root", data)
    reading = ("--frames", 4, "--batch-size", 2, "--workers", 0, "--frame-template", "image_{:04d}.jpg")
    expected = json.loads(evaluate(capsys, *lists, *reading, "--json")[1])
    assert status == 0
    assert [split["name"] for split in found["splits"]] == ["split1", "split2"]
    assert (found["splits"], found["mean"]) == (expected["splits"], expected["mean"])


def test_the_command_line_comes_first(capsys: Captured, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also an option with its default value, and the folder that the official files leave open."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        "mote_fast.cli.inputs.whole_model", lambda arguments: seen.update(vars(arguments)) or pytest.fail("built")
    )
    config = official(data, 1, val_root="path/to/dataset")
    given = ("--config", config, "--root", data, "--frames", 8, "--workers", 4, "--labels-file", data / "names.csv")
    with pytest.raises(pytest.fail.Exception, match="built"):
        evaluate(capsys, *given)
    assert (seen["frames"], seen["workers"], seen["batch_size"], seen["root"]) == (8, 4, 2, str(data))


def test_files_of_ours(capsys: Captured, data: Path) -> None:
    """A training configuration says what its validation videos are."""
    reading = "  frames: 4\n  workers: 0\n  frame_template: 'image_{:04d}.jpg'\n"
    (data / "base.yaml").write_text(f"data:\n  labels: {data / 'names.csv'}\n  val_root: {data}\n{reading}")
    (data / "ours.yaml").write_text(f"base: base.yaml\ndata:\n  val_list: {data / 'split1.txt'}\n")
    status, out, _ = evaluate(capsys, "--config", data / "ours.yaml", "--json")
    assert (status, json.loads(out)["splits"][0]["videos"]) == (0, 3)


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({"val_root": "path/to/dataset"}, [], "give --root"),
        ({"val_list": None}, [], "data.val_list is missing"),
        ({"label_list": None}, [], "data.labels is missing"),
        ({"num_segments": "many"}, [], "data.frames"),
        ({"modality": "flow"}, [], "data.modality"),
        ({"speed": 3}, [], "data.speed"),
        ({}, ["--list", "LIST"], "either --list or --config"),
        ({}, ["--config", "none.yaml"], "none.yaml: no such configuration file"),
        ({}, ["--config", "OTHER"], "must agree on data.frames"),
    ],
)
def test_failures_are_one_clear_line(
    capsys: Captured, data: Path, options: dict[str, Any], arguments: list[str], message: str
) -> None:
    """The status is 2, and one line names the file and the key, before any model is built."""
    files = {"LIST": str(data / "split1.txt"), "OTHER": official(data, 2, num_segments=5)}
    given = [files.get(argument, argument) for argument in arguments]
    status, out, err = evaluate(capsys, "--config", official(data, 1, **options), *given)
    errors = [line for line in err.splitlines() if line.startswith("mote-fast: error: ")]
    assert (status, out, len(errors)) == (2, "", 1)
    assert message in errors[0]


def test_neither_list_nor_file(capsys: Captured) -> None:
    """As a missing option always is: status 2 and what to give."""
    status, _, err = evaluate(capsys)
    assert (status, err.count("\n")) == (2, 1)
    assert "either --list or --config" in err
