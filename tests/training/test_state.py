"""Checkpoints: written atomically, skipped if damaged, restored completely."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mote_fast.errors import CheckpointError, ConfigError
from mote_fast.runtime.distributed import ProcessGroup
from mote_fast.training.build import build_optimizer
from mote_fast.training.config.sections import OptimConfig, RunConfig
from mote_fast.training.config.train_config import DataConfig, TrainConfig
from mote_fast.training.state import (
    CHECKPOINT_FOLDER,
    DataPosition,
    RunProgress,
    TrainState,
    find_checkpoint,
    list_checkpoints,
    newest_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from mote_fast.training.step import Arithmetic, Objective, train_step
from tests.full_disk import files_of_at_most
from tests.training.test_step import METHOD, batches, routes, trainable

ALONE = ProcessGroup(0, 1, torch.device("cpu"))
CONFIG = TrainConfig(data=DataConfig(train_list="a", labels="b"))
ORDER = DataPosition(10, 2, ["x", "y"], content="digest")


def small(step: int) -> dict[str, Any]:
    """A snapshot without a model."""
    return {
        "format_version": 1,
        "progress": {"step": step},
        "model": {"weight": torch.arange(1000.0) + step},
        "optimizer": {"state": {}, "param_groups": []},
        "scaler": {},
        "random": [],
        "order": asdict(ORDER),
        "config": {},
    }


def trained_state(seed: int, steps: int) -> TrainState:
    model = trainable(seed)
    optimizer, arithmetic = (
        build_optimizer(model, OptimConfig(lr=1e-3, clip_ratio=1.0)),
        Arithmetic("fp16", ALONE.device),
    )
    for step in range(steps):
        train_step(Objective(model, METHOD), optimizer, iter(batches(1)), routes(model, 1, step), arithmetic)
    return TrainState(model, optimizer, arithmetic.scaler, RunProgress(1, 2, steps, 50.0, 0, 77))


@pytest.mark.heavy
def test_everything_comes_back(tmp_path: Path) -> None:
    """Weights, moments, loss scale, position, best metric and random state, through a file."""
    state = trained_state(0, steps=12)
    torch.manual_seed(5)
    path = save_checkpoint(tmp_path, state.snapshot(CONFIG, ORDER, ALONE), keep_last=1)
    expected = torch.rand(3)
    other = trained_state(1, steps=1)
    other.restore(read_checkpoint(path), CONFIG, ORDER, ALONE, path)
    assert torch.equal(torch.rand(3), expected)
    assert other.progress == state.progress
    assert other.scaler.state_dict() == state.scaler.state_dict()
    for name, value in state.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], value), name
    before, after = state.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]
    assert before.keys() == after.keys()
    assert before
    for key, moments in before.items():
        assert all(torch.equal(after[key][name], value) for name, value in moments.items())


@pytest.mark.heavy
def test_settings_are_the_configurations_and_changes_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Resuming with another weight decay uses the new one, and logs it."""
    state = trained_state(0, steps=1)
    path = save_checkpoint(tmp_path, state.snapshot(CONFIG, ORDER, ALONE), keep_last=1)
    model = trainable()
    changed = replace(CONFIG, optim=OptimConfig(weight_decay=0.01), run=RunConfig(seed=7, log_every=3))
    other = TrainState(model, build_optimizer(model, changed.optim), state.scaler, RunProgress())
    other.restore(read_checkpoint(path), changed, ORDER, ALONE, path)
    assert [group["weight_decay"] for group in other.optimizer.param_groups] == [0.01, 0.01]
    assert "optim.weight_decay: 0.2 -> 0.01" in caplog.text
    # The seed affects training; the logging interval does not.
    assert "run.seed: 1024 -> 7" in caplog.text
    assert "log_every" not in caplog.text


@pytest.mark.parametrize(
    ("order", "named"),
    [
        (replace(ORDER, videos=11), "10 training videos"),
        (replace(ORDER, clips_per_step=4), "2 clips a step"),
        (replace(ORDER, classes=["x", "z"]), "data.labels"),
        (replace(ORDER, content="other"), "data.train_list"),
    ],
)
def test_another_order_is_refused(tmp_path: Path, order: DataPosition, named: str) -> None:
    """A run cannot resume if its steps would take other videos, or labels would mean other classes."""
    state = trained_state(0, steps=0)
    path = save_checkpoint(tmp_path, state.snapshot(CONFIG, ORDER, ALONE), keep_last=1)
    with pytest.raises(ConfigError, match=named):
        state.restore(read_checkpoint(path), CONFIG, order, ALONE, path)


def test_what_a_resumed_run_does_not_repeat_exactly_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another number of processes for the same batch; a checkpoint from before lists were compared is accepted."""
    state = trained_state(0, steps=0)
    content = state.snapshot(CONFIG, ORDER, ALONE)
    del content["order"]["content"]
    content["random"] *= 2
    path = save_checkpoint(tmp_path, content, keep_last=1)
    state.restore(read_checkpoint(path), CONFIG, ORDER, ALONE, path)
    assert "resumed with another number of processes: 2 -> 1" in caplog.text


@pytest.mark.heavy
def test_another_model_is_refused(tmp_path: Path) -> None:
    """A checkpoint of a frozen tower has fewer moments than a trained tower needs."""
    state = trained_state(0, steps=1)
    path = save_checkpoint(tmp_path, state.snapshot(CONFIG, ORDER, ALONE), keep_last=1)
    model = trainable(train_clip=False)
    other = TrainState(model, build_optimizer(model, OptimConfig()), state.scaler, RunProgress())
    with pytest.raises(CheckpointError, match="optimiser"):
        other.restore(read_checkpoint(path), CONFIG, ORDER, ALONE, path)


def test_the_newest_are_kept(tmp_path: Path) -> None:
    """Of five saves the last two stay, and the newest is found."""
    for step in (1, 2, 9, 10, 100):
        save_checkpoint(tmp_path, small(step), keep_last=2)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [10, 100]
    assert newest_checkpoint(tmp_path) == tmp_path / "step-00000100.pt"


def test_an_interrupted_save_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends while writing loses no earlier checkpoint, even if it saves the same step again."""
    path = save_checkpoint(tmp_path, small(3), keep_last=1)

    def dies(content: object, file: Any) -> None:
        file.write(b"PK half a checkpoint")
        file.flush()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", dies)
        for step in (3, 4):
            with pytest.raises(KeyboardInterrupt):
                save_checkpoint(tmp_path, small(step), keep_last=1)
    assert newest_checkpoint(tmp_path) == path
    assert torch.equal(read_checkpoint(path)["model"]["weight"], small(3)["model"]["weight"])
    save_checkpoint(tmp_path, small(5), keep_last=1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000005.pt"]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """A system error becomes the library's error, with the path."""
    folder = tmp_path / "file"
    folder.write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(folder, small(1), keep_last=1)


@pytest.mark.heavy
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_passed_over(data: st.DataObject, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If the newest checkpoint is truncated or a byte is changed, it is named and the previous one is used."""
    for old in tmp_path.iterdir():
        old.unlink()
    good, bad = (save_checkpoint(tmp_path, small(step), keep_last=2) for step in (1, 2))
    content = bytearray(bad.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
    bad.write_bytes(content)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        found = newest_checkpoint(tmp_path)
    if found == good:
        assert "step-00000002.pt" in caplog.text
    else:
        # The changed byte has no effect: padding, a time stamp.
        assert found == bad
        assert torch.equal(read_checkpoint(bad)["model"]["weight"], small(2)["model"]["weight"])


def test_what_diverged_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Earlier releases saved it, and could never resume from it."""
    first = save_checkpoint(tmp_path, small(1), keep_last=3)
    nan, inf = torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("inf")])
    save_checkpoint(tmp_path, small(2) | {"model": {"weight": nan}}, keep_last=3)
    save_checkpoint(tmp_path, small(3) | {"optimizer": {"state": {0: {"exp_avg": inf}}}}, keep_last=3)
    assert newest_checkpoint(tmp_path) == first
    assert "weight holds NaN" in caplog.text
    assert "exp_avg of the optimiser holds NaN" in caplog.text


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_again(tmp_path: Path) -> None:
    """It would cut the metrics and replace the best model of the run that is there."""
    save_checkpoint(tmp_path / CHECKPOINT_FOLDER, small(1), keep_last=1).write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="not one of its checkpoints can be read"):
        find_checkpoint("auto", tmp_path)


def test_what_resume_asks_for(tmp_path: Path) -> None:
    """auto, none and a path; two runs cannot share one folder."""
    folder = tmp_path / CHECKPOINT_FOLDER
    assert find_checkpoint("auto", tmp_path) is None
    assert find_checkpoint("none", tmp_path) is None
    first, second = (save_checkpoint(folder, small(step), keep_last=2) for step in (1, 2))
    assert find_checkpoint("auto", tmp_path) == second
    assert find_checkpoint(str(second), tmp_path) == second
    assert find_checkpoint(str(first), tmp_path / "elsewhere") == first
    with pytest.raises(ConfigError, match="holds checkpoints"):
        find_checkpoint("none", tmp_path)
    with pytest.raises(ConfigError, match="older"):
        find_checkpoint(str(first), tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        find_checkpoint(str(tmp_path / "missing.pt"), tmp_path)


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    """A model's weights are refused with a hint at the option that takes them, and so are unsafe pickles."""
    torch.save({"model_state_dict": {}}, tmp_path / "released.pt")
    with pytest.raises(CheckpointError, match=r"model\.checkpoint"):
        read_checkpoint(tmp_path / "released.pt")
    torch.save({"format_version": Path}, tmp_path / "unsafe.pt")
    with pytest.raises(CheckpointError, match="refused"):
        read_checkpoint(tmp_path / "unsafe.pt")


def test_a_full_disk_keeps_the_earlier_checkpoint(tmp_path: Path) -> None:
    """A checkpoint that does not fit is a typed error, and its part is removed."""
    earlier = save_checkpoint(tmp_path, small(1), keep_last=2)
    with files_of_at_most(2_000), pytest.raises(CheckpointError, match=r"step-00000002\.pt: cannot be written"):
        save_checkpoint(tmp_path, small(2), keep_last=2)
    assert list(tmp_path.iterdir()) == [earlier]


def test_weights_that_are_no_numbers_are_not_resumed(tmp_path: Path) -> None:
    """The error names the checkpoint and the tensor."""
    state = trained_state(0, 1)
    content = state.snapshot(CONFIG, ORDER, ALONE)
    name = next(name for name in content["model"] if name.startswith("head."))
    content["model"] = content["model"] | {name: torch.full_like(content["model"][name], float("nan"))}
    path = save_checkpoint(tmp_path, content, keep_last=1)
    with pytest.raises(CheckpointError, match=rf"step-00000001\.pt: {name} holds NaN"):
        trained_state(1, 0).restore(read_checkpoint(path), CONFIG, ORDER, ALONE, path)


@pytest.mark.parametrize(
    "change",
    [
        {"progress": [1]},
        {"progress": {"step": "1"}},
        {"progress": {"steps": 1}},
        {"progress": {"metrics_bytes": -1}},
        {"progress": {"best_accuracy": [1]}},
        {"order": {}},
        {"model": {"weight": 1}},
        {"model": [1]},
        {"optimizer": {}},
        {"optimizer": {"state": {0: {"step": "1"}}}},
        {"optimizer": {"state": {0: 1}}},
        {"random": 1},
        {"products": "MKL"},
        {"config": {"run": 1}},
    ],
)
def test_a_layout_that_is_none_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    """Every part of a stranger's checkpoint may be of another type."""
    torch.save(small(1) | change, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"c\.pt: not laid out as a checkpoint"):
        read_checkpoint(tmp_path / "c.pt")


@pytest.mark.heavy
def test_moments_of_other_shapes_are_refused(tmp_path: Path) -> None:
    """They would be broadcast, or end the first step."""
    state = trained_state(0, steps=12)
    content = state.snapshot(CONFIG, ORDER, ALONE)
    next(iter(content["optimizer"]["state"].values()))["exp_avg"] = torch.zeros(3)
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"c\.pt: its optimiser trained other parameters"):
        state.restore(read_checkpoint(tmp_path / "c.pt"), CONFIG, ORDER, ALONE, tmp_path / "c.pt")
    torch.save(content | {"random": [{}]}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"c\.pt: its (random|optimiser)"):
        state.restore(read_checkpoint(tmp_path / "c.pt"), CONFIG, ORDER, ALONE, tmp_path / "c.pt")
