"""``mote-fast prepare features``, and training on what it writes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from mote_fast.cli import main
from mote_fast.errors import CheckpointError, ConfigError, ListError
from mote_fast.prepare import write_features
from mote_fast.runtime.lock import FileLock
from mote_fast.training.config.train_config import TrainConfig, load_config
from mote_fast.training.loop import train
from mote_fast.training.step import LOSSES
from tests.training.conftest import VideoFolder, final_weights, metrics_of, write_data_set

# Whole runs.
pytestmark = pytest.mark.heavy

FROZEN = {"model__train_clip": False, "data__augmentation": "none", "run__eval_every": 1}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoFolder:
    """12 videos to train on, 6 to validate; one of each list is missing."""
    folder = write_data_set(tmp_path_factory.mktemp("videos"), train=2, val=1)
    for split in ("train", "val"):
        path = folder.folder / f"{split}.txt"
        first, *others = path.read_text().splitlines()
        path.write_text("\n".join([*others, first.replace(".mp4", "_gone.mp4")]))
    return folder


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several files of a short list."""
    monkeypatch.setattr(write_features, "VIDEOS_PER_FILE", 5)


def prepare(config: Path, output: Path, *settings: str) -> int:
    """Run the command."""
    return main(["prepare", "features", "--config", str(config), "--output", str(output), *settings])


def curve(output: Path) -> list[list[float]]:
    """The losses of every step."""
    return [[record[name] for name in LOSSES] for record in metrics_of(output)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_on_features_is_training_on_the_videos(
    videos: VideoFolder, tmp_path: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same losses, validations and stand-ins for a missing video; the printed command trains."""
    options = {**FROZEN, "optim__precision": precision, "data__views": "2x3", "data__batch_size": 4}
    assert prepare(videos.write_config(tmp_path / "features", **options), tmp_path / "cached") == 3
    captured = capsys.readouterr()
    assert "cached/train: features of 11 videos" in captured.out
    assert captured.err.endswith("2 videos could not be read\n")
    train(videos.config(tmp_path / "files", **options))
    words = shlex.split(captured.out.splitlines()[-1])
    assert words[:2] == ["mote-fast", "train"]
    train(load_config(words[3], [*words[4:], f"run.output={tmp_path / 'run'}"]))
    assert torch.allclose(*(torch.tensor(curve(tmp_path / name)) for name in ("files", "run")), rtol=0, atol=1e-5)
    ours, theirs = (metrics_of(tmp_path / name, "val") for name in ("run", "files"))
    assert ours == theirs
    assert [record["failed"] for record in ours] == [1, 1]
    a, b = (final_weights(tmp_path / name) for name in ("files", "run"))
    assert all(torch.allclose(value, b[name], rtol=0, atol=1e-4) for name, value in a.items())


def test_an_interrupted_call_goes_on(
    videos: VideoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files written before are kept, the others are those of an undisturbed call, bit for bit; none trains before."""
    config = videos.write_config(tmp_path / "run", **FROZEN, data__batch_size=2)
    prepare(config, tmp_path / "whole")
    save, calls = write_features.save_tensors, []

    def interrupts(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(write_features, "save_tensors", interrupts)
        assert prepare(config, tmp_path / "halves") == 130
    with pytest.raises(ListError, match=r"features\.json: no such file; .* interrupted"):
        train(videos.config(tmp_path / "early", **FROZEN, data__features=str(tmp_path / "halves")))
    kept = (tmp_path / "halves" / "train" / "features-000000.safetensors").stat().st_mtime_ns
    prepare(config, tmp_path / "halves")
    capsys.readouterr()
    assert (tmp_path / "halves" / "train" / "features-000000.safetensors").stat().st_mtime_ns == kept
    names = [path.relative_to(tmp_path / "whole") for path in sorted((tmp_path / "whole").rglob("features*"))]
    assert len(names) == 5
    for name in names:
        assert (tmp_path / "halves" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model__train_clip": True}, r"model\.train_clip is True; set model\.train_clip=false"),
        ({"data__augmentation": "kinetics"}, r"data\.augmentation is 'kinetics'; set data\.augmentation=none"),
        ({"data__frames": 3}, r"data\.frames was 4, is now 3"),
        ({"data__dense": True}, r"data\.dense was False, is now True"),
        ({"optim__precision": "bf16"}, r"optim\.precision was 'fp32', is now 'bf16'"),
        ({"data__views": "2x1"}, r"val: data\.views was '1x1', is now '2x1'"),
        ({"run__seed": 7}, "the image tower differs"),
        ({"data__val_list": "train"}, "val: the paths of the list differs"),
    ],
)
def test_features_of_something_else_are_refused(
    features: Path, videos: VideoFolder, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    """Whatever changes them is named; only what does not is free: batches, rates, epochs, the videos' folder."""
    if "data__val_list" in changes:
        changes = {"data__val_list": str(videos.folder / "train.txt")}
    with pytest.raises(ConfigError, match=named):
        train(videos.config(tmp_path / "run", **{**FROZEN, "data__features": str(features), **changes}))


@pytest.fixture(scope="module")
def features(videos: VideoFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The features of both lists."""
    folder = tmp_path_factory.mktemp("features")
    prepare(videos.write_config(folder / "run", **FROZEN), folder / "cached")
    return folder / "cached"


def test_damaged_features_are_named(features: Path, videos: VideoFolder, tmp_path: Path) -> None:
    """A truncated file, another tensor in its place, an index that is none."""
    config = videos.config(tmp_path / "run", **FROZEN, data__features=str(features))
    file, index = features / "train" / "features-000000.safetensors", features / "train" / "features.json"
    sound, document = file.read_bytes(), index.read_text()
    try:
        file.write_bytes(sound[:-100])
        with pytest.raises(CheckpointError, match=r"features-000000\.safetensors"):
            train(config)
        file.write_bytes(sound)
        for old, new in (
            ('"format": 1', '"format": 2'),
            ("features-000000", "../features"),
            ('"dtype": "float32"', '"dtype": 1'),
        ):
            assert old in document
            index.write_text(document.replace(old, new))
            with pytest.raises(ListError, match=r"features\.json: damaged"):
                train(config)
        index.write_text(json.dumps({**json.loads(document), "shape": [1, 4, 7]}))
        with pytest.raises(ListError, match=r"holds no float32 features \[11, 1, 4, 7\]"):
            train(config)
    finally:
        file.write_bytes(sound)
        index.write_text(document)


def test_two_at_once_and_other_folders(
    features: Path, videos: VideoFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One lock; a folder of other features, or of videos that have changed, is refused."""
    config = videos.write_config(tmp_path / "run", **FROZEN)
    with FileLock(features / "train" / "journal.jsonl.lock", "x"):
        assert prepare(config, features) == 2
    assert "in use by process" in capsys.readouterr().err
    assert prepare(config, features, "data.frames=2") == 2
    assert "train: data.frames was 4, is now 2" in capsys.readouterr().err
    video = next(videos.folder.glob("train_green*.mp4"))
    content = video.read_bytes()
    video.write_bytes(content + b"\0")
    try:
        assert prepare(config, features) == 2
        assert "the sizes or times of the videos differs" in capsys.readouterr().err
    finally:
        video.write_bytes(content)
    shards = tmp_path / "shards"
    shards.mkdir()
    assert prepare(config, tmp_path / "new", f"data.train_list={shards}") == 2
    assert "a folder of shards" in capsys.readouterr().err


def test_a_call_that_wrote_nothing_is_forgotten(
    videos: VideoFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the wrong root no video is found; the right one then needs no other folder."""
    config = videos.write_config(tmp_path / "run", **FROZEN, data__val_list=None)
    lost = tmp_path / "lost.txt"
    lost.write_text("".join(f"{at}.mp4 0\n" for at in range(12)))
    assert prepare(config, tmp_path / "features", f"data.train_list={lost}") == 2
    assert "not one of 12 videos can be read" in capsys.readouterr().err
    assert prepare(config, tmp_path / "features") == 3
    assert capsys.readouterr().err.endswith("1 videos could not be read\n")


def test_settings_that_need_more_than_features(videos: VideoFolder, tmp_path: Path) -> None:
    """The configuration alone tells, before anything is loaded."""
    features = tmp_path / "features"
    features.mkdir()
    config = videos.config(tmp_path / "run", **FROZEN, data__features=str(features))
    assert isinstance(config, TrainConfig)
    with pytest.raises(ConfigError, match=r"data\.features names .*which does not exist"):
        videos.config(tmp_path / "run", **FROZEN, data__features=str(tmp_path / "none"))
