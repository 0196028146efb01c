"""Whole runs in this process: their outputs, and resuming."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import mote_fast
from mote_fast.cli import main
from mote_fast.data.loading.cpu_loader import CpuLoader
from mote_fast.errors import ConfigError, ListError, MoteError
from mote_fast.evaluation.predict import Predictions
from mote_fast.runtime.lock import FileLock
from mote_fast.training import loop, validation
from mote_fast.training.config.train_config import TrainConfig, load_config
from mote_fast.training.loop import train
from mote_fast.training.state import list_checkpoints, read_checkpoint, save_checkpoint
from mote_fast.training.stopping import StopRequest
from tests.training.conftest import COLOURS, VideoFolder, assert_same_run, final_weights, metrics_of

# Whole runs.
pytestmark = pytest.mark.heavy


class Straight(NamedTuple):
    """An uninterrupted run of two epochs, and its log."""

    output: Path
    options: dict[str, Any]
    config: TrainConfig
    log: str


@pytest.fixture(scope="module")
def straight(videos: VideoFolder, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    """Trained once; interrupted runs with the same options are compared with it."""
    output = tmp_path_factory.mktemp("straight") / "run"
    options = {"run__eval_every": 1, "run__keep_last": 1, "optim__clip_gradient": 1.0}
    config = videos.config(output, **options)
    written = io.StringIO()
    handler, logger = logging.StreamHandler(written), logging.getLogger("mote_fast")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        assert train(config)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return Straight(output, options, config, written.getvalue())


def test_a_run_leaves_what_it_should(straight: Straight) -> None:
    """Opening lines, metrics of every step, validations, checkpoints, the best and the final model."""
    output, text = straight.output, straight.log
    assert "1 process on CPU, fp32" in text
    assert "experts cpu" in text
    assert "effective batch 6 = 6 x 1 x 1" in text
    assert "ETA" in text
    records = metrics_of(output)
    assert [record["step"] for record in records] == list(range(1, 9))
    assert all(record["gradient_norm"] > 0 for record in records)
    assert [record["videos"] for record in metrics_of(output, "val")] == [12, 12]
    assert [step for step, _ in list_checkpoints(output / "checkpoints")] == [8]
    assert load_config(output / "config.yaml") == straight.config
    for name in ("model", "best"):
        model = mote_fast.load(output / name)
        assert model.frames == 4
        assert model.head.train_class_features is not None
        assert len(model.head.train_class_features) == 6
        assert model.classes == tuple(COLOURS)


def test_best_model_is_the_best_ones(videos: VideoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later, worse validation does not replace the best model; the final model is another."""
    given = iter((50.0, 25.0))

    def pretend(predictions: Predictions) -> Any:
        found = accuracies(predictions)
        return found._replace(running=found.running._replace(top1=next(given)))

    accuracies = validation.accuracies
    monkeypatch.setattr(validation, "accuracies", pretend)
    output = tmp_path / "run"
    train(videos.config(output, run__eval_every=1))
    content = read_checkpoint(list_checkpoints(output / "checkpoints")[0][1])
    best, final = mote_fast.load(output / "best"), mote_fast.load(output / "model")
    assert content["progress"]["best_accuracy"] == 50.0
    assert all(torch.equal(value, content["model"][name]) for name, value in best.state_dict().items())
    assert not all(torch.equal(a, b) for a, b in zip(best.parameters(), final.parameters(), strict=True))


def test_the_later_of_equal_models_is_the_best(
    videos: VideoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On few videos many validations are equal, and the first of them knows least."""
    monkeypatch.setattr(loop, "measure", lambda *_: validation.Validation({"top1": 50.0}, 12, 0, 6))
    output = tmp_path / "run"
    train(videos.config(output, run__eval_every=1))
    best, final = (mote_fast.load(output / name).state_dict() for name in ("best", "model"))
    assert all(torch.equal(value, final[name]) for name, value in best.items())


def test_resuming_changes_nothing(videos: VideoFolder, tmp_path: Path) -> None:
    """Three runs to steps 3 and 5 and to the end, in the middle of epochs and of accumulation, equal one run."""
    options: dict[str, Any] = {"run__eval_every": 1, "data__batch_size": 2, "optim__accumulation": 5}
    straight, parts = tmp_path / "straight", tmp_path / "parts"
    train(videos.config(straight, **options))
    for max_steps in (1, 4, None):
        train(videos.config(parts, run__max_steps=max_steps, **options))
    assert len(metrics_of(parts)) == 6
    assert_same_run(straight, parts)
    # Training a complete run again changes nothing.
    train(videos.config(parts, **options))
    assert_same_run(straight, parts)


def test_a_request_to_stop_comes_before_validation(
    videos: VideoFolder, straight: Straight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is asked to stop in the last step of an epoch saves, and validates after resuming."""
    stopped = tmp_path / "stopped"
    take, requests = loop.train_step, []

    class Recorded(StopRequest):
        def __init__(self) -> None:
            super().__init__()
            requests.append(self)

    def asks(*arguments: Any, **options: Any) -> Any:
        result = take(*arguments, **options)
        requests[-1].asked = len(metrics_of(stopped)) == 3
        return result

    monkeypatch.setattr(loop, "StopRequest", Recorded)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", asks)
        assert not train(videos.config(stopped, **straight.options))
    assert not metrics_of(stopped, "val")
    assert [step for step, _ in list_checkpoints(stopped / "checkpoints")] == [4]
    assert train(videos.config(stopped, **straight.options))
    assert_same_run(straight.output, stopped)


def test_a_request_to_stop_ends_a_wait_for_videos(
    videos: VideoFolder, straight: Straight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that hangs keeps the run from its next step; the last whole step is saved, once, and resumed from."""
    stopped, deliver, calls, saves = tmp_path / "stopped", CpuLoader._finish, [], []

    def hangs(self: CpuLoader, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGTERM)).start()
            threading.Event().wait()
        return deliver(self, *arguments)

    def counts(*arguments: Any) -> Any:
        saves.append(1)
        return save_checkpoint(*arguments)

    monkeypatch.setattr(loop, "save_checkpoint", counts)
    for save_every, saved in ((0, 1), (1, 2)):
        calls.clear()
        saves.clear()
        with monkeypatch.context() as patch:
            patch.setattr(CpuLoader, "_finish", hangs)
            output = tmp_path / f"stopped{save_every}"
            assert not train(videos.config(output, **straight.options, run__save_every=save_every))
        assert [step for step, _ in list_checkpoints(output / "checkpoints")] == [2]
        assert len(saves) == saved
        stopped = output
    assert train(videos.config(stopped, **straight.options))
    assert_same_run(straight.output, stopped)


def test_a_request_to_stop_ends_a_validation(
    videos: VideoFolder, straight: Straight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take longer than a scheduler waits. The epoch before it is saved; resuming repeats the validation."""
    stopped, predict = tmp_path / "stopped", loop.predict

    def asked(*arguments: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return predict(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "predict", asked)
        assert not train(videos.config(stopped, **straight.options))
    assert not metrics_of(stopped, "val")
    assert [step for step, _ in list_checkpoints(stopped / "checkpoints")] == [4]
    assert train(videos.config(stopped, **straight.options))
    assert_same_run(straight.output, stopped)


def test_damaged_checkpoints_cost_the_steps_since_the_one_before(
    videos: VideoFolder, straight: Straight, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """If the newest file is truncated, the run continues from the previous one with the same result."""
    damaged = tmp_path / "damaged"
    options = straight.options | {"run__keep_last": 2}
    train(videos.config(damaged, **options, run__save_every=1, run__max_steps=6))
    *_, (_, newest) = list_checkpoints(damaged / "checkpoints")
    newest.write_bytes(newest.read_bytes()[:-100])
    train(videos.config(damaged, **options))
    assert "passed over" in caplog.text
    assert_same_run(straight.output, damaged)


def test_unreadable_videos_are_listed_and_counted(videos: VideoFolder, tmp_path: Path) -> None:
    """Missing and damaged files in both lists: the run completes, and names each once with its reason."""
    output, junk = tmp_path / "run", tmp_path / "junk.mp4"
    junk.write_bytes(b"no video at all")
    lists = {}
    for split in ("train", "val"):
        lines = (videos.folder / f"{split}.txt").read_text().splitlines()
        lines[3], lines[7] = f"{tmp_path}/missing_{split}.mp4 0", f"{junk} 1"
        lists[f"data__{split}_list"] = str(tmp_path / f"{split}.txt")
        (tmp_path / f"{split}.txt").write_text("\n".join(lines) + "\n")
    train(videos.config(output, run__eval_every=1, **lists))
    faults = [json.loads(line) for line in (output / "faults.jsonl").read_text().splitlines()]
    assert [(fault["list"], fault["index"]) for fault in faults] == [("train", 3), ("train", 7), ("val", 3), ("val", 7)]
    assert [fault["kind"] for fault in faults] == ["MissingVideoError", "UndecodableVideoError"] * 2
    assert all(fault["reason"] for fault in faults)
    counts = metrics_of(output, "faults")[-1]
    assert (counts["train"], counts["val"]) == (2, 2)
    assert [(record["videos"], record["failed"]) for record in metrics_of(output, "val")] == [(12, 2)] * 2
    assert len(metrics_of(output)) == 8


def test_fine_tuning_from_a_folder(videos: VideoFolder, tmp_path: Path) -> None:
    """A run can start from a model folder; frozen towers do not change."""
    first, second = tmp_path / "first", tmp_path / "second"
    train(videos.config(first, run__max_steps=2))
    train(videos.config(second, model__checkpoint=str(first / "model"), model__train_clip=False, run__max_steps=2))
    before, after = final_weights(first), final_weights(second)
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed
    assert all(name.startswith("head.") for name in changed)


def test_fine_tuning_a_model_by_its_name(videos: VideoFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The shipped model, whose size of frames is taken from it."""
    caplog.set_level(logging.INFO)
    train(videos.config(tmp_path / "run", model__checkpoint="tiny", data__size=None, run__max_steps=1))
    assert "model: tiny" in caplog.text
    assert "4 frames of 64 pixels" in caplog.text
    found, start = (mote_fast.load(name).head.config for name in (tmp_path / "run" / "model", "tiny"))
    assert found == start


def test_fine_tuning_from_a_released_file(
    videos: VideoFolder, tmp_path: Path, clip_file: Path, clip_state: dict[str, torch.Tensor], released_head: Any
) -> None:
    """A released .pt with the CLIP that it was tuned from starts a run, weights as tuned."""
    released = tmp_path / "released.pt"
    visual = {name: value for name, value in clip_state.items() if name.startswith(("visual.", "logit_scale"))}
    torch.save({"epoch": 3, "model_state_dict": visual, "fusion_model_state_dict": released_head}, released)
    output = tmp_path / "run"
    options = {"model__checkpoint": str(released), "model__clip_pretrained": str(clip_file), "data__size": None}
    train(videos.config(output, run__max_steps=1, optim__warmup_epochs=1, **options))
    # The first step of a warm-up has rate zero.
    found = final_weights(output)
    assert torch.equal(found["clip.model.visual.conv1.weight"], clip_state["visual.conv1.weight"].float())


def test_a_loss_that_is_no_number_ends_the_run(
    videos: VideoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is named, and no checkpoint of lost weights is written."""
    take = loop.train_step

    def diverges(*arguments: Any, **options: Any) -> Any:
        result = take(*arguments, **options)
        result.losses[0] = float("nan")
        return result

    output = tmp_path / "run"
    monkeypatch.setattr(loop, "train_step", diverges)
    for save_every, step in ((1, 1), (0, 4)):
        # Without saves in between, the end of the epoch is where it shows.
        with pytest.raises(MoteError, match=f"loss is nan at step {step}"):
            train(videos.config(output, run__log_every=100, run__save_every=save_every))
        assert not list_checkpoints(output / "checkpoints")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data__size": 32}, r"data\.size is 32"),
        ({"model__header": "mean", "model__train_clip": False}, "nothing to train"),
        ({"data__batch_size": 100}, "100 videos"),
    ],
)
def test_impossible_runs_are_refused(videos: VideoFolder, tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    """Errors that need the model and the lists are raised before the first step, with the key."""
    with pytest.raises(ConfigError, match=named):
        train(videos.config(tmp_path / "run", **changes))


def test_float16_without_a_gpu_is_refused(videos: VideoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the device is "auto" and the machine has only a CPU."""
    monkeypatch.setattr("mote_fast.runtime.distributed.best_device", lambda: "cpu")
    with pytest.raises(ConfigError, match=r"'fp16' needs a GPU"):
        train(videos.config(tmp_path / "run", optim__precision="fp16", run__device="auto"))


def test_a_folder_that_cannot_be_made_is_named(videos: VideoFolder, tmp_path: Path) -> None:
    """One line with the key, before anything is built."""
    (tmp_path / "file").touch()
    config = videos.config(tmp_path / "run")
    for output in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match=rf"run\.output {output}: cannot be written"):
            train(replace(config, run=replace(config.run, output=str(output))))


def test_a_gradient_that_is_no_number_ends_the_run(
    videos: VideoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can occur with a finite loss; the step has destroyed the weights, so they are not saved."""
    take = loop.train_step

    def diverges(*arguments: Any, **options: Any) -> Any:
        return replace(take(*arguments, **options), gradient_norm=torch.tensor(float("inf")))

    monkeypatch.setattr(loop, "train_step", diverges)
    with pytest.raises(MoteError, match="the norm of the gradient is inf at step 1"):
        train(videos.config(tmp_path / "run", run__save_every=1, optim__clip_gradient=1.0))
    assert not list_checkpoints(tmp_path / "run" / "checkpoints")


def test_weights_that_are_no_numbers_are_not_saved(
    videos: VideoFolder, straight: Straight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of finite loss can leave them; the error names one, and the run resumes from the step before."""
    output, take, spoiled = tmp_path / "run", loop.train_step, [""]

    def diverges(objective: Any, optimizer: Any, *arguments: Any, **options: Any) -> Any:
        result = take(objective, optimizer, *arguments, **options)
        if len(metrics_of(output)) == 2:
            weight = objective.head.temporal_blocks()[0].ln_2.weight
            with torch.no_grad():
                (optimizer.state[weight][spoiled[0]] if spoiled[0] else weight)[3] = float("inf")
        return result

    for spoiled[0] in ("", "exp_avg_sq"):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "train_step", diverges)
            with pytest.raises(MoteError, match=r"ln_2\.weight holds NaN or infinity after step 3"):
                train(videos.config(output, **straight.options, run__save_every=1))
        assert [step for step, _ in list_checkpoints(output / "checkpoints")] == [2]
    assert train(videos.config(output, **straight.options))
    assert_same_run(straight.output, output)


def test_a_folder_of_another_run_is_refused(videos: VideoFolder, tmp_path: Path) -> None:
    """Two runs would cut each other's metrics and checkpoints; the second is told who writes there."""
    config = videos.config(tmp_path / "run", run__max_steps=1)
    (tmp_path / "run").mkdir()
    with (
        FileLock(tmp_path / "run" / "run.lock", "x"),
        pytest.raises(ConfigError, match=rf"run\.output .*run: in use by process {os.getpid()} "),
    ):
        train(config)
    assert train(config)
    assert not (tmp_path / "run" / "run.lock").exists()


def test_an_edited_list_is_not_resumed(videos: VideoFolder, tmp_path: Path) -> None:
    """Other labels, another order, other videos of the same number; the same below another root are resumed."""
    output, edited = tmp_path / "run", tmp_path / "edited.txt"
    lines = [line.removeprefix(f"{videos.folder}/") for line in (videos.folder / "train.txt").read_text().splitlines()]
    edited.write_text("\n".join(lines))
    config = videos.config(output, data__train_list=str(edited), data__train_root=str(videos.folder), run__max_steps=1)
    train(config)
    shifted = [f"{line[:-1]}{(int(line[-1]) + 1) % 6}" for line in lines]
    for other in (shifted, lines[::-1], lines[:1] * len(lines)):
        edited.write_text("\n".join(other))
        with pytest.raises(ConfigError, match="other paths, labels or another order"):
            train(config)
    edited.write_text("\n".join(lines))
    (tmp_path / "moved").symlink_to(videos.folder)
    train(replace(config, data=replace(config.data, train_root=f"{tmp_path}/moved/")))


def test_several_labels_train(videos: VideoFolder, tmp_path: Path) -> None:
    """Binary cross-entropy over every label of a list, mAP in place of accuracies; resumed like any run."""
    lists: dict[str, str] = {}
    for name in ("train", "val"):
        lines = (videos.folder / f"{name}.txt").read_text().splitlines()
        changed = [f"{line},{(int(line.split()[-1]) + 1) % 2}" if at % 3 else line for at, line in enumerate(lines)]
        (tmp_path / f"{name}.txt").write_text("\n".join(changed))
        lists[f"data__{name}_list"] = str(tmp_path / f"{name}.txt")
    options = {**lists, "method__loss": "bce", "run__eval_every": 1}
    assert train(videos.config(tmp_path / "run", **options))
    last = metrics_of(tmp_path / "run", "val")[-1]
    assert 0 < last["map"] <= 100
    assert "top1" not in last
    assert train(videos.config(tmp_path / "halves", **options, run__max_steps=1))
    assert train(videos.config(tmp_path / "halves", **options))
    ours, theirs = (final_weights(tmp_path / name) for name in ("run", "halves"))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    with pytest.raises(ListError, match=r"has 2 labels; set method\.loss=bce"):
        train(videos.config(tmp_path / "other", **lists))


@pytest.mark.parametrize("header", ["plain", "mean"])
def test_baselines_train(videos: VideoFolder, tmp_path: Path, header: str) -> None:
    """The plain transformer and CLIP-Mean run through the same loop."""
    output = tmp_path / "run"
    train(videos.config(output, model__header=header, run__max_steps=1))
    assert mote_fast.load(output / "model").head.config.header == header


def test_tar_shards_train_like_files(videos: VideoFolder, tmp_path: Path) -> None:
    """A folder of shards in place of the list: a whole run, resumed in the middle, and validated on every video."""
    shards = tmp_path / "shards"
    for name in ("train", "val"):
        arguments = ["prepare", "shards", str(videos.folder / f"{name}.txt"), str(shards / name), "--samples", "7"]
        assert main([*arguments, "--labels-file", str(videos.folder / "labels.txt")]) == 0
    lists = {"data__train_list": str(shards / "train"), "data__val_list": str(shards / "val"), "run__eval_every": 1}
    straight, parts = tmp_path / "straight", tmp_path / "parts"
    assert train(videos.config(straight, **lists))
    for max_steps in (3, None):
        train(videos.config(parts, run__max_steps=max_steps, **lists))
    assert_same_run(straight, parts)
    assert [record["videos"] for record in metrics_of(parts, "val")] == [12, 12]


def test_shards_resume_in_the_same_streams_only(videos: VideoFolder, tmp_path: Path) -> None:
    """Their batches depend on how many workers share them, so another number would repeat and lose videos."""
    shards = tmp_path / "shards"
    assert main(["prepare", "shards", str(videos.folder / "train.txt"), str(shards), "--samples", "7"]) == 0
    output = tmp_path / "run"
    lists = {"data__train_list": str(shards), "data__val_list": None}
    train(videos.config(output, run__max_steps=1, **lists))
    with pytest.raises(ConfigError, match=r"data\.workers"):
        train(videos.config(output, data__workers=2, **lists))
    # Other shards of as many videos are another list.
    assert main(["prepare", "shards", str(videos.folder / "train.txt"), f"{shards}2", "--samples", "8"]) == 0
    with pytest.raises(ConfigError, match="another order in the training list"):
        train(videos.config(output, **lists | {"data__train_list": f"{shards}2"}))
