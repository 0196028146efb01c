"""The base-to-novel protocol from lists to the table, and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mote_fast.cli import main
from mote_fast.data import write_video
from tests.cli.test_eval import Captured, evaluate, run


@pytest.mark.heavy
def test_from_lists_to_the_table(capsys: Captured, tmp_path: Path) -> None:
    """Three classes of two videos: the lists, the evaluation with its harmonic mean, and the table of two seeds."""
    generator = torch.Generator().manual_seed(0)
    lines: list[str] = []
    for label in range(3):
        for number in range(2 + (label > 0)):
            name = f"class{label}/{number}.mp4"
            (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
            frames = torch.randint(0, 256, (6, 48, 64, 3), dtype=torch.uint8, generator=generator)
            write_video(tmp_path / "videos" / name, frames)
            lines.append(f"{name} {label}")
    (tmp_path / "list.txt").write_text("\n".join(lines))
    (tmp_path / "names.txt").write_text("archery\njuggling\nplaying the cello\n")
    lists = tmp_path / "lists"
    own = (
        "--list",
        tmp_path / "list.txt",
        "--val-list",
        tmp_path / "list.txt",
        "--labels-file",
        tmp_path / "names.txt",
    )
    status, out, _ = run(capsys, "prepare", "base2novel", *own, "--shots", 2, "--output", lists, "--json")
    prepared = json.loads(out)
    assert (status, prepared["base_classes"], prepared["novel_classes"], prepared["missing"]) == (0, 2, 1, [])
    assert prepared["lists"]["fs_base_s3_train.txt"] == 4
    names = [lists / "base_labels.csv", lists / "novel_labels.csv"]
    ways = ("--base-labels", names[0], "--novel-labels", names[1], "--root", tmp_path / "videos")
    again = ("--published", lists, *ways, "--output", tmp_path / "again")
    assert run(capsys, "prepare", "base2novel", *again)[0] == 0
    assert (tmp_path / "again" / "base_val.txt").read_text() == (lists / "base_val.txt").read_text()
    given = (
        "--list",
        lists / "base_val.txt",
        lists / "novel_val.txt",
        "--root",
        tmp_path / "videos",
        "--model",
        "ViT-test",
    )
    for seed in (1, 2):
        command = ("--protocol", "base2novel", *given, "--labels-file", *names, "--dataset", "made up")
        status, out, _ = evaluate(capsys, *command, "--output", tmp_path / f"s{seed}")
        assert status == 0
        assert "| harmonic mean |" in out
        # As if another checkpoint had been given.
        path = tmp_path / f"s{seed}" / "result.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "checkpoint": f"s{seed}"}))
    status, out, _ = run(capsys, "base2novel", tmp_path / "s1", tmp_path / "s2", "--json")
    (row,) = json.loads(out)["data_sets"]
    assert (status, row["dataset"], row["seeds"], row["novel"]) == (0, "made up", 2, {"mean": 100.0, "deviation": 0.0})
    status, out, _ = run(capsys, "base2novel", tmp_path / "s1")
    assert (status, "made up " in out) == (0, True)
    for command, said in (
        (("eval", "--protocol", "base2novel", *given, "--labels-file", names[0]), "is among those of"),
        (("eval", "--protocol", "base2novel", *given[:2], "--labels-file", names[0]), "needs two lists"),
        (("base2novel", tmp_path / "s1", tmp_path / "s1"), "given twice"),
        (("base2novel", lists), "not a result of mote-fast eval"),
        (("prepare", "base2novel", *own, "--shots", 1, "--output", lists), "--force"),
        (("prepare", "base2novel", *own, *ways[:2], "--output", tmp_path / "x"), "give either"),
        (("prepare", "base2novel", *own, "--shots", 9, "--output", tmp_path / "x"), "fewer than 9"),
    ):
        status, _, err = run(capsys, *command)
        assert (status, err.count("\n")) == (2, 1), err
        assert said in err


def test_common_classes_are_refused(capsys: Captured, tmp_path: Path) -> None:
    """A class that was trained is not novel: both lists with all class names would give another protocol's numbers."""
    for name in ("base.txt", "novel.txt"):
        (tmp_path / name).write_text("a.mp4 0\n")
    (tmp_path / "names.txt").write_text("Archery\n")
    lists = ("--list", tmp_path / "base.txt", tmp_path / "novel.txt", "--labels-file", tmp_path / "names.txt")
    status = main([str(each) for each in ("eval", "--protocol", "base2novel", *lists)])
    assert (status, "'Archery' is among those of base and of novel" in capsys.readouterr().err) == (2, True)
