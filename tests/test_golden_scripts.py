"""``mote-fast eval`` prints what the official test scripts print: videos of every shape, and folders of frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from mote_fast.cli import main
from mote_fast.data import ClipRecipe, VideoDataset, read_list
from mote_fast.data.transforms import Preprocessing, normalize
from mote_fast.data.views import Views
from tests.conftest import GOLDEN
from tests.script_data import CLASSES, FRAME_TEMPLATE, VIDEOS, checkpoint, write_videos
from tests.tolerances import assert_close

VIEWS = ["1x1", "4x3", "2x3", "3x1"]


@pytest.fixture(scope="module")
def official() -> dict[str, Any]:
    """What the scripts printed."""
    return json.loads((GOLDEN / "scripts.json").read_text())


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """What the scripts computed on the way."""
    return load_file(GOLDEN / "scripts.safetensors")


@pytest.fixture(scope="module")
def data(
    tmp_path_factory: pytest.TempPathFactory,
    official: dict[str, Any],
    clip_state: dict[str, Tensor],
    released_head: dict[str, Tensor],
) -> Path:
    """The drawn videos, their lists, the class names, and the checkpoint."""
    root = tmp_path_factory.mktemp("scripts")
    names = write_videos(root)
    labelled = list(zip(names, VIDEOS, official["labels"], strict=True))
    (root / "files.txt").write_text("".join(f"{name}.mkv {label}\n" for name, _, label in labelled))
    (root / "folders.txt").write_text("".join(f"{name} {drawn.frames} {label}\n" for name, drawn, label in labelled))
    (root / "names.txt").write_text("\n".join(CLASSES))
    torch.save(checkpoint(clip_state, released_head), root / "released.pt")
    return root


def evaluate(data: Path, clip: Path, protocol: str, views: str, source: str, output: Path) -> dict[str, Any]:
    """Run ``eval`` on one of the two lists; return its result."""
    arguments = ["--protocol", protocol, "--views", views, "--list", data / f"{source}.txt", "--root", data]
    arguments += ["--labels-file", data / "names.txt", "--checkpoint", data / "released.pt", "--clip", clip]
    arguments += ["--frame-template", FRAME_TEMPLATE, "--workers", 0, "--device", "cpu", "--output", output]
    assert main(["eval", *map(str, arguments)]) == 0
    return json.loads((output / "result.json").read_text())


def printed(*percentages: float) -> list[str]:
    """Percentages as the scripts print them."""
    return [f"{each:.3f}" for each in percentages]


def log_view_means(scores: Tensor) -> Tensor:
    """Logarithms of the means over views, of which running scores are the softmax: [N, C], centred."""
    logarithms = scores.double().log()
    means = logarithms + (1 - logarithms.sum(-1, keepdim=True)) / logarithms.shape[-1]
    return means.log() - means.log().mean(-1, keepdim=True)


@pytest.mark.heavy
@pytest.mark.parametrize("source", ["files", "folders"])
@pytest.mark.parametrize("views", VIEWS)
def test_accuracies(
    views: str,
    source: str,
    data: Path,
    clip_file: Path,
    official: dict[str, Any],
    tensors: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    """To the last digit that the scripts print; the score of every class of every video within another bicubic's."""
    expected = official["runs"][views]
    protocol = "zeroshot" if "full-class" in expected else "closeset"
    (split,) = evaluate(data, clip_file, protocol, views, source, tmp_path / "out")["splits"]
    for score in ("running", "full-class"):
        if score in expected:
            assert printed(*split[score]["readable"].values()) == expected[score]
    found = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pydict()
    scores = torch.tensor(found["running_scores"])
    assert torch.equal(scores.argmax(-1), tensors[f"{views}.running"].argmax(-1))
    assert_close(log_view_means(scores), log_view_means(tensors[f"{views}.running"]), "pixels")
    if "full-class" in expected:
        assert_close(torch.tensor(found["full_class_scores"]), tensors[f"{views}.full_class"], "pixels")


@pytest.mark.heavy
@pytest.mark.parametrize("source", ["files", "folders"])
def test_half_class(source: str, data: Path, clip_file: Path, official: dict[str, Any], tmp_path: Path) -> None:
    """Each half's accuracies, their mean and deviation, to the last digit."""
    found = evaluate(data, clip_file, "halfclass", "3x1", source, tmp_path / "out")
    expected = official["runs"]["3x1"]
    spreads = found["mean"]["full-class"]["readable"].values()
    assert printed(*(each["mean"] for each in spreads)) == expected["half-class"]["mean"]
    assert printed(*(each["deviation"] for each in spreads)) == expected["half-class"]["std"]
    halves = [list(split["full-class"]["readable"].values()) for split in found["splits"]]
    assert halves == [pytest.approx(half, abs=1e-4) for half in expected["halves"]]
    assert printed(*found["whole"]["running"]["readable"].values()) == expected["running"]


@pytest.mark.heavy
@pytest.mark.parametrize("source", ["files", "folders"])
@pytest.mark.parametrize("views", VIEWS)
def test_frames_and_pixels(views: str, source: str, data: Path, tensors: dict[str, Tensor]) -> None:
    """Every view has the script's frames, and its mean colours in each quarter of the crop."""
    size = Views.parse(views)
    preprocessing = Preprocessing(size=32)
    recipe = ClipRecipe(frames=8, preprocessing=preprocessing, views=size)
    dataset = VideoDataset(read_list(data / f"{source}.txt", data), recipe, frame_template=FRAME_TEMPLATE)
    plans = [dataset.plan(at)[1].views for at in range(len(dataset))]
    frames = torch.stack([plan.frame_indices[plan.positions].flatten() for plan in plans])
    assert torch.equal(frames, tensors[f"{views}.frames"].long())
    pixels = torch.stack([dataset.load(at).pixels for at in range(len(dataset))])
    quarters = F.adaptive_avg_pool2d(normalize(pixels.flatten(0, 2), preprocessing), 2)
    # The scripts go through the crops first, then through the clips.
    expected = tensors[f"{views}.pixels"].float().unflatten(1, (size.crops, size.clips, 8)).transpose(1, 2)
    assert_close(quarters.view(expected.shape), expected, "pixels")
