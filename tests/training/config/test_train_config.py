"""Configurations of our schema: reading, refusals, and writing back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from mote_fast.errors import ConfigError
from mote_fast.training.config.train_config import (
    OPTIONS,
    ModelSection,
    OptimConfig,
    RunConfig,
    TrainConfig,
    load_config,
    to_dict,
    to_yaml,
)

Write = Callable[..., Path]


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """A folder with the files that every configuration must name."""
    (tmp_path / "train.txt").write_text("a.mp4 0\n")
    (tmp_path / "labels.txt").write_text("archery\n")
    return tmp_path


@pytest.fixture
def write(lists: Path) -> Write:
    """Write a configuration of the given YAML below the two entries that it must have; return its path."""

    def _write(text: str = "", name: str = "run.yaml") -> Path:
        document = yaml.safe_load(text) or {}
        data = {"train_list": str(lists / "train.txt"), "labels": str(lists / "labels.txt")}
        document["data"] = data | (document.get("data") or {})
        path = lists / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(document))
        return path

    return _write


def refusal(path: Path, *overrides: str) -> str:
    """Load a configuration that must be refused; return the message, which must be one line."""
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_defaults_are_the_recipe() -> None:
    """The defaults are the official ViT-B/16 recipe (docs/method.md, Optimisation)."""
    config = TrainConfig()
    assert (config.model.arch, config.model.clip_pretrained, config.model.experts) == ("ViT-B-16", "openai", 4)
    assert (config.data.frames, config.data.size, config.data.batch_size) == (8, None, 64)
    assert (config.optim.lr, config.optim.clip_ratio, config.optim.weight_decay) == (5e-5, 0.07, 0.2)
    assert (config.optim.betas, config.optim.eps) == ((0.9, 0.999), 1e-8)
    assert (config.optim.epochs, config.optim.warmup_epochs, config.optim.schedule) == (30, 5, "cosine")
    assert (config.method.beta, config.method.wmr_weight, config.method.mse_weight) == (0.6, 0.5, 0.1)


def test_file_then_overrides(write: Write) -> None:
    """A file changes defaults, overrides change the file, and the rest stays."""
    path = write("optim: {lr: 5.e-5, epochs: 3, warmup_epochs: 1}\nmodel: {layers: 2}\nrun:\n")
    config = load_config(path, ["optim.lr=1e-4", "optim.betas=[0.8, 0.9]", "model.layers=null", "run.output=out"])
    assert config.optim == OptimConfig(lr=1e-4, epochs=3, warmup_epochs=1.0, betas=(0.8, 0.9))
    assert config.model == ModelSection()
    assert config.run == RunConfig(output="out")
    assert isinstance(config.optim.warmup_epochs, float)


def test_data_paths_stay_as_given(lists: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of data are relative to the working folder, wherever the configuration lies."""
    path = write("data: {train_list: train.txt, labels: labels.txt, train_root: videos}", "configs/run.yaml")
    monkeypatch.chdir(lists)
    config = load_config(path)
    assert (config.data.train_list, config.data.train_root) == ("train.txt", "videos")


def test_unknown_keys_are_refused_with_the_nearest(write: Write) -> None:
    """A misspelt key is never ignored: the message names the file, the key, and the probable key."""
    path = write("optim: {learning_rte: 1}")
    assert refusal(path).startswith(f"{path}: unknown key 'optim.learning_rte'; optim has lr, clip_ratio, ")
    path = write("optim: {weight_decy: 1}")
    assert refusal(path) == f"{path}: unknown key 'optim.weight_decy'; did you mean 'optim.weight_decay'?"
    path = write()
    assert refusal(path, "lr=1") == "command line: unknown key 'lr'; did you mean 'optim.lr'?"
    assert refusal(path, "train.epochs=1") == "command line: unknown key 'train.epochs'; did you mean 'optim.epochs'?"
    assert "the sections are data, model, method, optim, run" in refusal(path, "zzz=1")
    assert "optim is a section; it holds keys, such as optim.lr" in refusal(path, "optim=1")
    assert f"{write('training: {}')}: unknown key 'training'" in refusal(write("training: {}"))


def test_wrong_types_name_file_and_key(write: Write) -> None:
    """The message distinguishes a file's value from the command line's."""
    path = write("optim: {epochs: many}")
    assert refusal(path) == f"{path}: optim.epochs must be an integer, got 'many'"
    assert refusal(path, "optim.epochs=1.5") == "command line: optim.epochs must be an integer, got 1.5"
    assert refusal(write(), "model.header=moe").endswith("model.header must be 'mote', 'plain' or 'mean', got 'moe'")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.frames=0", "command line: data.frames must be at least 1, got 0"),
        ("data.workers=-1", "command line: data.workers must be at least 0, got -1"),
        ("data.time_limit=0", "command line: data.time_limit must be above 0, got 0.0"),
        ("data.views=four", "command line: data.views must be CLIPSxCROPS"),
        ("data.views=4x2", "command line: data.views must be CLIPSxCROPS"),
        ("data.frame_template=img.jpg", "command line: data.frame_template 'img.jpg' has no place"),
        ("data.augmentation=ssv2", "command line: data.augmentation 'ssv2' swaps the labels"),
        ("data.frames=78", "data.frames must be at most 77 with a temporal head, got 78"),
        ("model.layers=0", "command line: model.layers must be at least 1, got 0"),
        ("model.experts=-1", "command line: model.experts must be at least 0, got -1"),
        ("model.arch=ViT-B/17", "command line: model.arch: unknown architecture 'ViT-B/17'"),
        ("method.beta=0", "command line: method.beta must be positive, got 0.0"),
        ("method.mse_weight=-1", "command line: method.mse_weight must not be negative, got -1.0"),
        ("optim.lr=0", "command line: optim.lr must be above 0, got 0.0"),
        ("optim.betas=[0.9, 1.0]", "command line: optim.betas must lie in [0, 1), got [0.9, 1.0]"),
        ("optim.milestones=[10]", "command line: optim.milestones belong to schedule 'multistep'"),
        ("optim.schedule=multistep", "optim.milestones are missing"),
        ("run.resume=''", "command line: run.resume must be 'auto', 'none' or a checkpoint"),
        ("run.output=''", "command line: run.output must name a folder"),
        ("run.seed=9223372036854775808", "command line: run.seed must fit in 64 bits, got 9223372036854775808"),
        ("run.keep_last=0", "command line: run.keep_last must be at least 1, got 0"),
    ],
)
def test_values_out_of_range(write: Write, override: str, message: str) -> None:
    """Each range is checked before loading, and the message names the value."""
    assert message in refusal(write(), override)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{optim: {precision: fp16}, run: {device: cpu}}", "optim.precision 'fp16' needs a GPU"),
        ("{model: {header: mean, train_clip: false}}", "model.train_clip is false and header is 'mean'"),
        ("{optim: {schedule: multistep, milestones: [20, 10]}}", "optim.milestones must ascend, got [20, 10]"),
        ("{optim: {schedule: multistep, milestones: [5]}}", "optim.milestones must come after the warm-up"),
    ],
)
def test_impossible_combinations(write: Write, text: str, message: str) -> None:
    """Options that contradict one another are named together."""
    path = write(text)
    assert refusal(path).startswith(f"{path}: {message}")


def test_possible_combinations(write: Write) -> None:
    """Unusual but valid combinations are allowed: a mean head has no layers and any number of frames."""
    assert load_config(write(), ["model.header=mean", "model.layers=0", "data.frames=100"]).data.frames == 100
    assert load_config(write(), ["optim.epochs=2"]).optim.warmup_epochs == 5.0
    multistep = load_config(write(), ["optim.schedule=multistep", "optim.milestones=[20, 25]"])
    assert multistep.optim.milestones == (20, 25)


@pytest.mark.parametrize("key", ["data.train_list", "data.labels"])
def test_required_keys(lists: Path, key: str) -> None:
    """Without videos or class names there is nothing to train, and the message says which is missing."""
    given_keys = {"data.train_list": "train.txt", "data.labels": "labels.txt"}
    path = lists / "run.yaml"
    path.write_text("")
    overrides = [f"{name}={lists / file}" for name, file in given_keys.items() if name != key]
    assert refusal(path, *overrides).startswith(f"{path}: {key} is missing; it names ")


@pytest.mark.parametrize(
    "key",
    [
        "data.train_list",
        "data.val_list",
        "data.labels",
        "data.flip_labels",
        "model.checkpoint",
        "run.resume",
    ],
)
def test_files_must_exist(write: Write, key: str) -> None:
    """A missing file is reported before the model is built, with the source of its name."""
    path = write()
    assert refusal(path, f"{key}=no/such") == f"command line: {key} names 'no/such', which does not exist"
    section, _, name = key.partition(".")
    path = write(f"{section}: {{{name}: no/such}}")
    assert refusal(path) == f"{path}: {key} names 'no/such', which does not exist"


def test_checkpoints_of_other_places(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of the hub is looked for when it is loaded; a path may begin with the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "best").mkdir()
    for name in ("hf-hub:org/model@v1", "~/best"):
        assert load_config(write(), [f"model.checkpoint={name}"]).model.checkpoint == name


def test_base_is_read_first(write: Write) -> None:
    """A file overrides its base, and a base may have its own base, each path relative to its own file."""
    write("{model: {experts: 3, layers: 2}, optim: {lr: 1.0}}", "recipe.yaml")
    write("{base: ../recipe.yaml, model: {experts: 5}}", "table/first.yaml")
    path = write("{base: first.yaml, optim: {lr: 2.0}}", "table/second.yaml")
    config = load_config(path, ["optim.epochs=7"])
    assert (config.model.experts, config.model.layers, config.optim.lr, config.optim.epochs) == (5, 2, 2.0, 7)


def test_errors_of_a_base_name_its_file(write: Write) -> None:
    """The message names the file at fault, not the loaded one."""
    base = write("{optim: {lr: fast}}", "recipe.yaml")
    assert refusal(write("{base: recipe.yaml}")) == f"{base}: optim.lr must be a number, got 'fast'"


def test_bad_bases(write: Write) -> None:
    """A base that is missing, not a file name, or cyclic is refused."""
    path = write("{base: none.yaml}")
    relative = "base must name a configuration file, relative to this one, or one that comes with mote_fast"
    assert refusal(path) == f"{path}: {relative}, got 'none.yaml'"
    assert "got ['a', 'b']" in refusal(write("{base: [a, b]}"))
    write("{base: b.yaml}", "a.yaml")
    write("{base: c.yaml}", "b.yaml")
    path = write("{base: b.yaml}", "c.yaml")
    assert refusal(path) == f"{path}: base leads back to where it started: c.yaml -> b.yaml -> c.yaml"
    assert "base must name a configuration file" in refusal(write(f"{{base: {'x' * 9999}}}"))
    for number in range(40):
        write(f"{{base: {number + 1}.yaml}}", f"{number}.yaml")
    write("{}", "40.yaml")
    assert "is the base of a base, over 16 times" in refusal(write("{base: 0.yaml}"))


SPECIAL = {
    # Needs a frozen tower and no augmentation.
    "data.features": st.none(),
    "data.views": st.sampled_from(["1x1", "4x3"]),
    "data.frame_template": st.sampled_from(["img_{:05d}.jpg", "{:d}.png"]),
    "data.frames": st.integers(1, 77),
    "model.arch": st.sampled_from(["ViT-test", "ViT-L-14"]),
    "run.resume": st.sampled_from(["auto", "none"]),
    "model.layers": st.none() | st.integers(1, 1024),
    "model.experts": st.integers(1, 2**31 - 1),
    "model.modulation_top_k": st.integers(1, 2**31 - 1),
    "run.output": st.text(min_size=1),
    "run.seed": st.integers(-(2**63), 2**63 - 1),
    "optim.warmup_epochs": st.floats(0, 9),
}
SCHEDULES = st.just({"schedule": "cosine", "milestones": ()}) | st.fixed_dictionaries(
    {
        "schedule": st.just("multistep"),
        "milestones": st.lists(st.integers(10, 99), min_size=1, unique=True).map(lambda steps: tuple(sorted(steps))),
    }
)
FILES = (
    "data.train_list",
    "data.val_list",
    "data.labels",
    "data.templates",
    "data.descriptions",
    "data.flip_labels",
    "model.checkpoint",
)


def any_value(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of an annotation that are in most ranges."""
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if get_origin(annotation) is tuple:
        # The one without a fixed length is drawn with its schedule.
        return st.tuples(*[any_value(part) for part in get_args(annotation) if part is not Ellipsis])
    if get_args(annotation):
        return st.one_of([any_value(part) for part in get_args(annotation)])
    simple: dict[type, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.integers(1, 10**20),
        float: st.floats(1e-30, 0.99),
        str: st.text(),
        type(None): st.none(),
    }
    return simple[annotation]


@pytest.mark.heavy
@given(data=st.data())
def test_round_trip(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The file in a run's folder has every option exactly, for any text."""
    folder = tmp_path_factory.mktemp("round")
    (folder / "list.txt").touch()
    values = {
        key: st.just(str(folder / "list.txt")) if key in FILES else SPECIAL.get(key, any_value(annotation))
        for key, annotation in OPTIONS.items()
    }
    schedule = data.draw(SCHEDULES)
    sections: dict[str, Any] = {}
    try:
        for section, cls in get_type_hints(TrainConfig).items():
            drawn = {each.name: data.draw(values[f"{section}.{each.name}"], each.name) for each in fields(cls)}
            if section == "method" and drawn["loss"] == "bce":
                sections["data"] = replace(sections["data"], flip_labels=None)
            sections[section] = cls(**(drawn | schedule if section == "optim" else drawn))
        config = TrainConfig(**sections)
    except ConfigError:
        assume(False)
        return
    (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert load_config(folder / "config.yaml") == config


@pytest.mark.parametrize(
    "text", ["\x85", "a\u2028b", "\ufeff", " x ", "é文", "null", "1e3", "a: b # c", "\x00\n", "\U0001f600"]
)
def test_round_trip_of_awkward_text(write: Write, text: str) -> None:
    """Text that YAML folds, escapes or reads as something else comes back as it was."""
    path = write()
    config = load_config(path)
    config = replace(config, run=replace(config.run, output=text))
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(path).run.output == text


def test_to_dict_is_plain(write: Write) -> None:
    """The dictionary holds every option, as types of JSON and YAML."""
    values = to_dict(load_config(write()))
    assert {f"{section}.{name}" for section, inner in values.items() for name in inner} == set(OPTIONS)
    assert values["optim"]["betas"] == [0.9, 0.999]
    assert yaml.safe_load(yaml.safe_dump(values)) == values
