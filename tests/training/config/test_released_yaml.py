"""The official code's YAML schema, read into ours."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mote_fast.errors import ConfigError
from mote_fast.training.config import released_yaml
from mote_fast.training.config.train_config import OPTIONS, TrainConfig, load_config

RELEASED = Path(__file__).parents[3] / "configs" / "released_k400_vit_b_16.yaml"


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    (tmp_path / "train.txt").write_text("a.mp4 0\n")
    (tmp_path / "labels.csv").write_text("id,name\n0,archery\n")
    return tmp_path


@pytest.fixture
def document(lists: Path) -> dict[str, Any]:
    """The official example with nothing edited but its paths."""
    content = yaml.safe_load(RELEASED.read_text())
    paths = {"train_list": "train.txt", "val_list": "train.txt", "label_list": "labels.csv"}
    content["data"] |= {key: str(lists / name) for key, name in paths.items()}
    return content


def write(folder: Path, document: dict[str, Any]) -> Path:
    path = folder / "released.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_released_recipe_is_ours(lists: Path, document: dict[str, Any]) -> None:
    """The official ViT-B/16 file says what our defaults say, in every option but the paths and sizes it names."""
    config = load_config(write(lists, document))
    ours = TrainConfig()
    # The official code always recomputes the image tower.
    assert config.optim == replace(ours.optim, grad_checkpointing=True)
    assert config.method == ours.method
    assert (config.model.arch, config.model.layers, config.model.experts) == ("ViT-B-16", 4, 4)
    assert (config.model.header, config.model.clip_pretrained, config.model.train_clip) == ("mote", "openai", True)
    assert (config.data.frames, config.data.size, config.data.batch_size, config.data.workers) == (8, 224, 64, 8)
    assert (config.data.augmentation, config.data.views) == ("kinetics", "1x1")
    assert (config.run.seed, config.run.log_every, config.run.eval_every) == (1024, 10, 1)
    assert (config.run.resume, config.model.checkpoint) == ("auto", None)
    assert config.model.interpolate == 0.99


def test_paths_stay_as_given(lists: Path, document: dict[str, Any]) -> None:
    """Paths keep their meaning; each data set and architecture has its own output folder, as in the official code."""
    document["data"] |= {"train_root": "some/videos", "output_path": "exps"}
    config = load_config(write(lists, document))
    assert (config.data.train_root, config.data.train_list) == ("some/videos", str(lists / "train.txt"))
    assert config.run.output == "exps/k400/ViT-B-16"


def test_unused_keys_are_named_once(lists: Path, document: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Keys that never had an effect are accepted, and one warning lists them all."""
    document["data"]["randaug"] = {"N": 2, "M": 9}
    path = write(lists, document)
    with caplog.at_level(logging.WARNING):
        load_config(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: these keys have no effect here, nor had they in the official code: data.num_classes, data.randaug, "
        "data.seg_length, network.drop, network.fix_text, solver.epoch_offset"
    ]


def test_nothing_to_say_without_unused_keys(
    lists: Path, document: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A file without such keys gives no warning."""
    for key in released_yaml.IGNORED:
        section, _, name = key.partition(".")
        document[section].pop(name, None)
    load_config(write(lists, document))
    assert not caplog.records


def test_an_unknown_key_is_an_error(lists: Path, document: dict[str, Any]) -> None:
    """Unused keys of the schema are accepted, unknown keys are not."""
    document["solver"]["lr_warmup_steps"] = 5
    path = write(lists, document)
    assert refusal(path) == f"{path}: unknown key 'solver.lr_warmup_steps'; did you mean 'solver.lr_warmup_step'?"


@pytest.mark.parametrize(
    ("key", "value", "ours", "expected"),
    [
        ("network.arch", "ViT-L/14", "model.arch", "ViT-L-14"),
        ("network.arch", "ViT-L/14@336px", "model.arch", "ViT-L-14-336"),
        ("network.arch", "ViT-L/14-336px", "model.arch", "ViT-L-14-336"),
        ("network.arch", "ViT-B/32", "model.arch", "ViT-B-32"),
        ("network.sim_header", "None", "model.header", "mean"),
        ("network.sim_header", "Transf", "model.header", "mote"),
        ("network.temporal_layer", 6, "model.layers", 6),
        ("network.num_experts", 1, "model.experts", 1),
        ("network.num_experts", 0, "model.experts", 0),
        ("network.init", False, "model.clip_pretrained", None),
        ("network.fix_video", True, "model.train_clip", False),
        ("data.num_segments", 16, "data.frames", 16),
        ("data.input_size", 336, "data.size", 336),
        ("data.dense", True, "data.dense", True),
        ("data.modality", "RGB", "data.modality", None),
        ("data.image_tmpl", "image_{:06d}.jpg", "data.frame_template", "image_{:06d}.jpg"),
        ("solver.lr", "5e-6", "optim.lr", 5e-6),
        ("solver.lr_warmup_step", 2, "optim.warmup_epochs", 2.0),
        ("solver.clip_ratio", 0.06, "optim.clip_ratio", 0.06),
        ("solver.weight_decay", 0.1, "optim.weight_decay", 0.1),
        ("solver.grad_accumulation_steps", 2, "optim.accumulation", 2),
        ("solver.epochs", 20, "optim.epochs", 20),
        ("logging.print_freq", 50, "run.log_every", 50),
        ("logging.eval_freq", 5, "run.eval_every", 5),
        ("seed", 7, "run.seed", 7),
    ],
)
def test_keys_in_files_and_overrides(
    lists: Path, document: dict[str, Any], key: str, value: object, ours: str, expected: object
) -> None:
    """Each key means the same in the file, on the command line, and under our name."""
    by_override = load_config(write(lists, document), [f"{key}={yaml.safe_dump(value).splitlines()[0]}"])
    section, _, name = key.rpartition(".")
    (document[section] if section else document)[name] = value
    assert load_config(write(lists, document)) == by_override
    if ours in OPTIONS:
        section, _, name = ours.partition(".")
        assert getattr(getattr(by_override, section), name) == expected


def test_our_overrides_of_a_released_file(lists: Path, document: dict[str, Any]) -> None:
    """Options that the official schema lacks are set by our names, and ours take precedence over theirs."""
    path = write(lists, document)
    config = load_config(path, ["optim.precision=fp32", "optim.lr=1e-4", "solver.lr=1e-3", "network.arch=ViT-B/32"])
    assert (config.optim.precision, config.optim.lr, config.model.arch) == ("fp32", 1e-4, "ViT-B-32")


def test_released_names_belong_to_released_files(lists: Path) -> None:
    """With our schema the official names would be aliases, so they are unknown there."""
    path = lists / "ours.yaml"
    path.write_text(f"data: {{train_list: {lists / 'train.txt'}, labels: {lists / 'labels.csv'}}}")
    assert "unknown key 'solver.lr'; did you mean 'optim.lr'?" in refusal(path, "solver.lr=1e-3")


def test_a_base_may_be_released(lists: Path, document: dict[str, Any]) -> None:
    """One of our files can be its difference from a released one."""
    write(lists, document)
    path = lists / "ours.yaml"
    path.write_text("base: released.yaml\nmodel: {experts: 6}\n")
    assert (load_config(path).model.experts, load_config(path).model.layers) == (6, 4)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("network.joint_st", True, "network.joint_st must be false, got true: joint space-time attention"),
        ("network.tm", "tsm", "network.tm must be false, got 'tsm': temporal modules"),
        ("network.drop_out", 0.1, "network.drop_out must be 0, got 0.1: MoTE trains without dropout"),
        ("network.interaction", "VCS", "network.interaction must be 'DP', got 'VCS'"),
        ("network.sim_header", "LSTM", "network.sim_header must be 'Transf' or 'None', got 'LSTM'"),
        ("network.fix_video", 1, "network.fix_video must be true or false, got 1"),
        ("solver.loss_type", "NCE", "solver.loss_type must be 'CE', got 'NCE'"),
        ("solver.optim", "sgd", "solver.optim must be 'adamw', got 'sgd'"),
        (
            "solver.evaluate",
            True,
            "solver.evaluate must be false, got true: evaluate with the command 'mote-fast eval'",
        ),
        ("solver.start_epoch", 3, "solver.start_epoch must be 0, got 3: continue a run with run.resume"),
        ("solver.type", "monitor", "optim.schedule must be 'cosine' or 'multistep', got 'monitor'"),
        ("data.modality", "flow", "data.modality must be 'video' or 'RGB', got 'flow'"),
        ("data.random_shift", False, "data.random_shift must be true, got false"),
        ("data.dataset", "charades", "data.dataset: Charades"),
        ("data.dataset", "something-v2", "data.augmentation 'ssv2' swaps the labels of mirrored videos"),
    ],
)
def test_other_methods_are_refused(
    lists: Path, document: dict[str, Any], key: str, value: object, message: str
) -> None:
    """A switch that selects another method is an error, never silently ignored."""
    section, _, name = key.partition(".")
    document[section][name] = value
    path = write(lists, document)
    assert refusal(path).startswith(f"{path}: {message}")


@pytest.mark.parametrize("key", released_yaml.REQUIRED)
def test_an_ancestors_file_is_not_trained_as_mote(lists: Path, document: dict[str, Any], key: str) -> None:
    """Text4Vis has the same sections but no experts: a file without them is refused, not trained with four."""
    name = key.removeprefix("network.")
    del document["network"][name]
    path = write(lists, document)
    assert refusal(path).startswith(f"{path}: {key} is missing")
    assert getattr(load_config(path, [f"{key}=1"]).model, released_yaml.RENAMED[key].removeprefix("model.")) == 1
    document["network"]["sim_header"] = "None"
    assert load_config(write(lists, document)).model.header == "mean"


def test_something_something(lists: Path, document: dict[str, Any]) -> None:
    """The official code recognises the data set by its name; here its flips need the labels of mirrored videos."""
    document["data"]["dataset"] = "something-v2"
    (lists / "flip.csv").write_text("id,flipped\n")
    config = load_config(write(lists, document), [f"data.flip_labels={lists / 'flip.csv'}"])
    assert (config.data.augmentation, config.run.output) == ("ssv2", "runs/something-v2/ViT-B-16")


def test_multistep(lists: Path, document: dict[str, Any]) -> None:
    """Decay steps are a list of epochs, or one number that is repeated to the end."""
    document["solver"] |= {"type": "multistep", "lr_decay_step": [15, 25]}
    assert load_config(write(lists, document)).optim.milestones == (15, 25)
    document["solver"] |= {"lr_decay_step": 10}
    assert load_config(write(lists, document)).optim.milestones == (10, 20, 30)
    document["solver"] |= {"lr_decay_step": 0}
    assert "solver.lr_decay_step as one number must be at least 1" in refusal(write(lists, document))
    document["solver"] |= {"lr_decay_step": 1, "epochs": 10**15}
    assert "solver.lr_decay_step of 1 decays more than 1000 times" in refusal(write(lists, document))


def test_decay_steps_beside_a_cosine(lists: Path, document: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """The official code reads them for multistep alone, so a file may still hold them."""
    document["solver"] |= {"type": "cosine", "lr_decay_step": [15, 25]}
    assert load_config(write(lists, document)).optim.milestones == ()
    assert "solver.lr_decay_step" in caplog.text


def test_pretrain_and_resume(lists: Path, document: dict[str, Any]) -> None:
    """They name the weights to start from and the run to continue; a file that is missing is reported."""
    (lists / "weights.pt").touch()
    document |= {"pretrain": str(lists / "weights.pt"), "resume": str(lists / "weights.pt")}
    config = load_config(write(lists, document))
    assert config.model.checkpoint == config.run.resume == str(lists / "weights.pt")
    document["pretrain"] = "none.pt"
    assert "model.checkpoint names 'none.pt', which does not exist" in refusal(write(lists, document))


def test_every_rule_leads_to_an_option() -> None:
    """The tables name options that exist, and no key has two rules."""
    assert set(released_yaml.RENAMED.values()) <= set(OPTIONS)
    tables = [released_yaml.RENAMED, released_yaml.CONVERTED, released_yaml.ONLY, released_yaml.IGNORED]
    assert sum(len(table) for table in tables) == len(released_yaml.KEYS)


def test_shared_names_mean_the_same() -> None:
    """A key that both schemas have is read as ours on the command line, which must not change its meaning."""
    for key in released_yaml.KEYS & OPTIONS.keys():
        assert released_yaml.RENAMED[key] == key
