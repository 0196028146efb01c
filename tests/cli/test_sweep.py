"""``mote-fast sweep``: from a checkpoint and two lists to table, plot and document, and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mote_fast
from tests.cli.test_analyse import is_png, read_csv
from tests.cli.test_analyse import videos as videos
from tests.cli.test_eval import Captured, run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model folder whose image tower was moved, and the file of the CLIP that it was tuned from."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    clf = mote_fast.create_model("ViT-test", frames=4)
    state: dict[str, Tensor] = {name: value.clone() for name, value in clf.clip.model.state_dict().items()}
    torch.save(state, folder / "clip.pt")
    with torch.no_grad():
        for name, value in clf.clip.model.state_dict().items():
            if name.startswith("visual."):
                value.add_(torch.randn_like(value), alpha=0.3)
        for parameter in clf.head.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    clf.save(folder / "tuned")
    return folder / "tuned", folder / "clip.pt"


def sweep(capsys: Captured, model: tuple[Path, Path], *arguments: object) -> tuple[int, str, str]:
    """Run the sweep in this process alone."""
    given = ("--checkpoint", model[0], "--clip", model[1], "--workers", 0, "--device", "cpu", "--views", "2x1")
    return run(capsys, "sweep", "interpolate", *given, *arguments)


@pytest.mark.heavy
def test_interpolate(capsys: Captured, videos: Path, model: tuple[Path, Path], tmp_path: Path) -> None:
    """The share 1 has the accuracy of the folder as ``eval`` gives it; files and standard output agree."""
    lists = ("--close-set", videos / "data", "--zero-shot", videos / "data", "--shares", 1, 0, 0.5)
    status, out, _ = sweep(capsys, model, *lists, "--output", tmp_path / "out", "--json")
    assert status == 0
    document = json.loads(out)
    assert json.loads((tmp_path / "out" / "interpolate.json").read_text()) == document
    assert document["files"] == [str(tmp_path / "out" / f"interpolate.{suffix}") for suffix in ("csv", "png", "json")]
    assert is_png(tmp_path / "out" / "interpolate.png")
    assert [each["share"] for each in document["shares"]] == [0.0, 0.5, 1.0]
    table = read_csv(tmp_path / "out" / "interpolate.csv")
    for entry, row in zip(document["shares"], table, strict=True):
        assert float(row["close_set_top1"]) == pytest.approx(entry["close_set"]["top1"], abs=1e-4)
        assert float(row["trade_off"]) == pytest.approx(entry["trade_off"], abs=1e-4)
    judged = ("--protocol", "zeroshot", "--list", videos / "data", "--views", "2x1", "--checkpoint", model[0])
    _, out, _ = run(capsys, "eval", *judged, "--workers", 0, "--device", "cpu", "--json")
    wanted = json.loads(out)["mean"]["running"]["readable"]
    for kind in ("close_set", "zero_shot"):
        assert document["shares"][2][kind] == {top: pytest.approx(wanted[top]["mean"]) for top in ("top1", "top5")}


@pytest.mark.heavy
def test_a_bad_video(capsys: Captured, videos: Path, model: tuple[Path, Path], tmp_path: Path) -> None:
    """It is named and left out, and the status is 3; the defaults are eleven shares."""
    names = videos / "names.txt"
    close = ("--close-set", videos / "broken.txt", "--close-set-labels-file", names, "--close-set-root", videos)
    status, out, err = sweep(capsys, model, *close, "--zero-shot", videos / "data", "--output", tmp_path)
    assert status == 3
    assert "1 videos could not be read" in err
    assert len(read_csv(tmp_path / "interpolate.csv")) == 11
    assert "share  close-set" in out


@pytest.mark.slow
def test_under_torchrun(capsys: Captured, videos: Path, model: tuple[Path, Path], tmp_path: Path) -> None:
    """Several processes give the result of one."""
    data = ["--close-set", videos / "data", "--zero-shot", videos / "data", "--shares", "0", "1", "--json"]
    alone = json.loads(sweep(capsys, model, *data, "--output", tmp_path / "one")[1])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "mote_fast.cli", "sweep", "interpolate", *map(str, data), "--output", str(tmp_path / "out")]
    command += ["--checkpoint", str(model[0]), "--clip", str(model[1]), "--views", "2x1"]
    finished = subprocess.run(
        [*command, "--device", "cpu", "--workers", "0"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["shares"] == alone["shares"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shares", "0.5"], "shares must be at least two"),
        (["--shares", "0", "2"], "--shares must be at most 1"),
        (["--close-set", "none.txt"], "give --close-set-labels-file"),
        (["--output", "FILE"], "--output"),
        (["--clip", "none.pt"], "none.pt"),
        (["--checkpoint", "none"], "none"),
        (["--views", "2x2"], "views"),
        (["--device", "tpu"], "tpu"),
    ],
)
def test_failures_are_one_clear_line(
    capsys: Captured, videos: Path, model: tuple[Path, Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    """The status is 2, and one line of error names the problem, before any decoding."""
    given = [str(videos / "names.txt") if argument == "FILE" else argument for argument in arguments]
    lists = ("--close-set", videos / "data", "--zero-shot", videos / "data", "--output", tmp_path)
    status, out, err = sweep(capsys, model, *lists, *given)
    assert (status, out) == (2, "")
    assert err.startswith("mote-fast: error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize("missing", ["--clip", "--checkpoint", "--output", "--zero-shot"])
def test_what_is_required(capsys: Captured, missing: str) -> None:
    """The original CLIP is never guessed."""
    given = dict.fromkeys(("--clip", "--checkpoint", "--output", "--close-set", "--zero-shot"), "x")
    del given[missing]
    with pytest.raises(SystemExit) as exit_info:
        run(capsys, "sweep", "interpolate", *(word for pair in given.items() for word in pair))
    assert exit_info.value.code == 2
    assert missing in capsys.readouterr().err
