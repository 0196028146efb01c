"""``mote-fast analyse``: from video files and lists to tables and plots, and how it fails."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import mote_fast
from mote_fast.cli import main
from mote_fast.data import write_video
from tests.cli.test_eval import Captured, run

# Class c has c + 1 videos: the accuracy of an untrained model with constant output then identifies its class.
CLASSES = 3
VARIANTS = ["merged", "expert 0", "expert 1", "expert 2", "expert 3"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of short videos for the classes, and a list of them with one file that is not a video."""
    root = tmp_path_factory.mktemp("analyse")
    generator = torch.Generator().manual_seed(0)
    for label in range(CLASSES):
        (root / "data" / f"class{label}").mkdir(parents=True)
        for number in range(label + 1):
            frames = torch.randint(0, 256, (6, 6, 8, 3), dtype=torch.uint8, generator=generator)
            coarse = frames.repeat_interleave(8, 1).repeat_interleave(8, 2)
            write_video(root / "data" / f"class{label}" / f"{number}.mp4", coarse)
    (root / "bad.mp4").write_bytes(b"not a video")
    lines = [f"data/class{label}/{number}.mp4 {label}\n" for label in range(CLASSES) for number in range(label + 1)]
    (root / "broken.txt").write_text("".join([*lines, "bad.mp4 1\n"]))
    (root / "names.txt").write_text("".join(f"class{label}\n" for label in range(CLASSES)))
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the smallest architecture, its experts different from each other, with fine-tuning classes."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    classifier = mote_fast.create_model("ViT-test", frames=4)
    for parameter in classifier.head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    classifier.head.set_train_class_features(torch.randn(6, classifier.clip.embed_dim))
    classifier.head.set_inference(modulation_gamma=5.0)
    classifier.save(folder)
    return folder


def analyse(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    """Run an analysis of videos in this process alone."""
    return run(capsys, "analyse", *arguments, "--workers", 0, "--device", "cpu")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG")


@torch.no_grad()
def right(model: Path, videos: Path, views: str, modulated: bool = True) -> dict[str, list[list[bool]]]:
    """Whether each variant is right on each video of each class, computed with the classifier's parts."""
    classifier = mote_fast.load(model)
    classes = classifier.class_features([f"class{label}" for label in range(CLASSES)])
    classifier.head.set_inference(modulation=modulated)
    found: dict[str, list[list[bool]]] = {name: [[] for _ in range(CLASSES)] for name in [*VARIANTS, "tower alone"]}
    for label in range(CLASSES):
        for number in range(label + 1):
            frames = classifier.view_features(videos / "data" / f"class{label}" / f"{number}.mp4", views)
            features: dict[str, Tensor] = {"merged": classifier.head.features(frames, classes), "tower alone": frames}
            for expert in range(classifier.head.experts):
                features[f"expert {expert}"] = classifier.head.features(frames, classes, expert=expert)
            for name, each in features.items():
                cosines = F.cosine_similarity(each.mean(1)[:, None], classes[None], dim=-1)
                found[name][label].append(int(cosines.double().softmax(-1).mean(0).argmax()) == label)
    return found


def percent(hits: list[bool]) -> float:
    return 100.0 * sum(hits) / len(hits)


@pytest.mark.heavy
def test_experts(capsys: Captured, videos: Path, model: Path, tmp_path: Path) -> None:
    """Every variant's accuracy equals the direct one, in document and table, and merged equals eval's result."""
    data = videos / "data"
    lists = ("--close-set", data, "--zero-shot", data, "--views", "2x1", "--checkpoint", model)
    status, out, _ = analyse(capsys, "experts", *lists, "--output", tmp_path / "out", "--json")
    assert status == 0
    document = json.loads(out)
    expected = {
        name: percent([hit for of_class in hits for hit in of_class])
        for name, hits in right(model, videos, "2x1").items()
    }
    assert len(set(expected.values())) > 1
    for kind in ("close_set", "zero_shot"):
        assert {each["variant"]: each[kind]["top1"] for each in document["variants"]} == pytest.approx(expected)
    table = read_csv(tmp_path / "out" / "experts.csv")
    assert {row["variant"]: float(row["zero_shot_top1"]) for row in table} == pytest.approx(expected, abs=1e-4)
    assert is_png(tmp_path / "out" / "experts.png")
    assert document["files"] == [str(tmp_path / "out" / f"experts.{suffix}") for suffix in ("csv", "png")]
    judged = ("--protocol", "closeset", "--list", data, "--views", "2x1", "--checkpoint", model, "--frames", 4)
    _, out, _ = run(capsys, "eval", *judged, "--workers", 0, "--device", "cpu", "--json")
    assert json.loads(out)["mean"]["running"]["readable"]["top1"]["mean"] == pytest.approx(expected["merged"])


@pytest.mark.heavy
def test_classes(capsys: Captured, videos: Path, model: Path, tmp_path: Path) -> None:
    """The accuracies per class equal the direct ones, without modulation too; a bad video is not counted."""
    lists = ("--list", videos / "broken.txt", "--labels-file", videos / "names.txt", "--root", videos, "--views", "1x1")
    options = ("--no-modulation", "--checkpoint", model, "--output", tmp_path, "--shown", 2)
    status, out, err = analyse(capsys, "classes", *lists, *options, "--json")
    assert status == 3
    assert "1 videos could not be read" in err
    document = json.loads(out)
    expected = right(model, videos, "1x1", modulated=False)
    table = read_csv(tmp_path / "classes.csv")
    assert [row["name"] for row in table] == [f"class{label}" for label in range(CLASSES)]
    for label, (entry, row) in enumerate(zip(document["classes"], table, strict=True)):
        shares = {name: percent(expected[name][label]) for name in VARIANTS}
        assert entry["top1"] == pytest.approx(shares)
        assert {name: float(row[name]) for name in VARIANTS} == pytest.approx(shares)
        assert (entry["videos"], row["videos"]) == (label + 1, str(label + 1))
    assert len(document["shown"]) == 2
    assert is_png(tmp_path / "classes.png")


@pytest.mark.heavy
def test_similarity(capsys: Captured, videos: Path, model: Path, tmp_path: Path) -> None:
    """The similarity is the cosine of embeddings, averaged over videos spread over the list."""
    data = ("--list", videos / "data", "--count", 3, "--checkpoint", model, "--output", tmp_path)
    status, out, _ = analyse(capsys, "similarity", *data, "--json")
    assert status == 0
    document = json.loads(out)
    classifier = mote_fast.load(model)
    expected = torch.zeros(len(VARIANTS), len(VARIANTS))
    # Every second one of the six.
    taken = [videos / "data" / name for name in ("class0/0.mp4", "class1/1.mp4", "class2/1.mp4")]
    for path in taken:
        with torch.no_grad():
            frames = classifier.view_features(path)
            experts = [
                classifier.head.features(frames, expert=each).mean(1)[0] for each in range(classifier.head.experts)
            ]
        embedded = F.normalize(torch.stack([classifier.embed(path), *experts]), dim=-1)
        expected += embedded @ embedded.t() / len(taken)
    assert (document["variants"], document["videos"]) == (VARIANTS, len(taken))
    # The loader's frames may differ from the classifier's in rounding.
    assert torch.allclose(torch.tensor(document["output"]), expected, atol=1e-3)
    table = {(row["variant"], row["other"]): float(row["temporal"]) for row in read_csv(tmp_path / "similarity.csv")}
    assert table["expert 1", "merged"] == pytest.approx(document["temporal"][2][0], abs=1e-4)
    assert is_png(tmp_path / "similarity.png")


@pytest.mark.heavy
def test_other_models_beside(capsys: Captured, videos: Path, model: Path, tmp_path: Path) -> None:
    """Figure 3's baselines have their own towers: their accuracy is that of ``eval`` with that model."""
    torch.manual_seed(1)
    mote_fast.create_model("ViT-test", frames=4, header="mean").save(tmp_path / "mean")
    data = ("--views", "2x1", "--json")
    lists = ("--close-set", videos / "data", "--zero-shot", videos / "data", "--checkpoint", model)
    command = ("experts", *lists, *data, "--output", tmp_path / "out", "--beside")
    status, out, _ = analyse(capsys, *command, "CLIP-Mean", tmp_path / "mean", "--beside", "again", model)
    assert status == 0
    *_, found, again = json.loads(out)["variants"]
    alone = ("eval", "--protocol", "zeroshot", "--list", videos / "data", *data, "--checkpoint", tmp_path / "mean")
    expected = json.loads(run(capsys, *alone, "--workers", 0, "--device", "cpu")[1])["splits"][0]
    assert found["variant"] == "CLIP-Mean"
    assert found["close_set"] == found["zero_shot"] == expected["running"]["readable"]
    assert {**again, "variant": "merged"} == json.loads(out)["variants"][0]
    status, out, err = analyse(capsys, *command, "merged", model)
    assert (status, out) == (2, "")
    assert "--beside merged: another variant has this name" in err


@pytest.mark.heavy
def test_attention(capsys: Captured, videos: Path, model: Path, tmp_path: Path) -> None:
    """There is a map for each variant and frame, within the reported range; the text names the files."""
    video = videos / "data" / "class0" / "0.mp4"
    options = ("--checkpoint", model, "--device", "cpu", "--output", tmp_path)
    status, out, _ = run(capsys, "analyse", "attention", video, *options, "--json")
    assert status == 0
    document = json.loads(out)
    table = read_csv(tmp_path / "attention.csv")
    for entry in document["variants"]:
        values = [float(row["cosine"]) for row in table if row["variant"] == entry["variant"]]
        assert len(values) % 4 == 0
        assert (min(values), max(values)) == pytest.approx((entry["least"], entry["most"]), abs=1e-4)
    assert [entry["variant"] for entry in document["variants"]] == [*VARIANTS, "tower alone"]
    assert {row["frame"] for row in table} == set("0123")
    assert is_png(tmp_path / "attention.png")
    status, out, _ = run(capsys, "analyse", "attention", video, *options)
    assert (status, str(tmp_path / "attention.png") in out, "expert 3" in out) == (0, True, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["similarity", "--list", "LIST", "--count", "0"], "--count"),
        (["similarity", "--list", "none.txt"], "none.txt"),
        (["similarity", "--list", "BAD", "--workers", "0"], "none of the 1 videos"),
        (["similarity", "--list", "LIST", "--checkpoint", "FOLDED"], "experts cannot be compared"),
        (["similarity", "--list", "LIST", "--device", "tpu"], "tpu"),
        (["classes", "--list", "LIST"], "--labels-file"),
        (["classes", "--list", "LIST", "--labels-file", "NAMES", "--shown", "0"], "--shown"),
        (["classes", "--list", "BAD", "--labels-file", "NAMES", "--workers", "0"], "none of its videos"),
        (["experts", "--close-set", "LIST", "--zero-shot", "LIST"], "--close-set-labels-file"),
        (["attention", "none.mp4"], "none.mp4"),
        (["attention", "none.mp4", "--clip", "x.pt"], "records no original CLIP"),
        (["attention", "none.mp4", "--output", "LIST"], "--output"),
    ],
)
def test_failures_are_one_clear_line(
    capsys: Captured, videos: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    """Exit status 2 and one line of error that names what was wrong."""
    (tmp_path / "bad.txt").write_text(f"{videos / 'bad.mp4'} 0\n")
    files = {"LIST": videos / "broken.txt", "NAMES": videos / "names.txt", "BAD": tmp_path / "bad.txt"}
    if "FOLDED" in arguments:
        mote_fast.create_model("ViT-test").fold().save(tmp_path / "folded")
        files["FOLDED"] = tmp_path / "folded"
    given = [str(files.get(argument, argument)) for argument in arguments]
    output = [] if "--output" in given else ["--output", str(tmp_path / "out")]
    status, out, err = run(capsys, "analyse", *given, *output)
    errors = [line for line in err.splitlines() if line.startswith("mote-fast: error: ")]
    assert (status, out) == (2, "")
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.heavy
def test_without_matplotlib(capsys: Captured, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes before any video is read, and says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    data = ["--list", str(videos / "data"), "--output", str(tmp_path / "out")]
    assert main(["analyse", "similarity", *data]) == 2
    assert 'pip install "mote_fast[train]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
