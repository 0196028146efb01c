"""The files in configs/: each loads, and matches its name and configs/README.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mote_fast.evaluation.paper_rows import ROWS as PAPER_ROWS
from mote_fast.evaluation.paper_rows import PaperRow
from mote_fast.model.zoo import list_models
from mote_fast.prepare.base_to_novel import BASE_LABELS, train_list_of
from mote_fast.prepare.prepare_settings import BASE_VAL, SEEDS
from mote_fast.training.config.train_config import OptimConfig, TrainConfig, load_config, to_dict

CONFIGS = Path(__file__).parents[3] / "configs"
FILES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml"))

# Shared bases of several rows, which are no rows themselves.
SHARED = {"table5/hmdb51.yaml", "table5/ucf101.yaml", "table5/ssv2.yaml"}
SHARED |= {f"base2novel/{data_set}.yaml" for data_set in ("k400", "hmdb51", "ucf101", "ssv2")}
EXAMPLES = {
    "few_videos.yaml",
    "folder.yaml",
    "k400_vit_b_16.yaml",
    "k400_vit_l_14.yaml",
    "released_k400_vit_b_16.yaml",
    "smoke.yaml",
    "tiny_world.yaml",
}
# A protocol that the paper does not have.
BASE_TO_NOVEL = sorted(name for name in FILES if re.fullmatch(r"base2novel/\w+_s\d\.yaml", name))
ROWS = sorted(set(FILES) - SHARED - EXAMPLES - set(BASE_TO_NOVEL))

# The training that the paper's ablations vary.
DEFAULT = "table1/mse.yaml"
CONFIGURED = [row for row in PAPER_ROWS if row.config is not None]
# Options that act at test alone: rows that differ only in these share a checkpoint.
AT_TEST = {"model.aggregation", "model.modulation", "model.modulation_gamma", "model.modulation_top_k"}

# Paths of the data, and sizes that depend on the machine.
PATHS = ("data.train_list", "data.val_list", "data.labels", "data.flip_labels", "data.train_root", "data.val_root")


def load(name: str, folder: Path) -> TrainConfig:
    """Load a file with every path that it names pointing to one that exists."""
    existing = folder / "exists"
    existing.touch()
    keys = ["data.train_list", "data.val_list", "data.labels"]
    keys += ["data.flip_labels"] * name.startswith(("table5/ssv2", "base2novel/ssv2", "folder", "few_videos", "smoke"))
    return load_config(CONFIGS / name, [f"{key}={existing}" for key in keys])


def flat(config: TrainConfig) -> dict[str, Any]:
    return {f"{section}.{name}": value for section, values in to_dict(config).items() for name, value in values.items()}


def differences(name: str, other: str, folder: Path) -> set[str]:
    """The options in which two files differ, except paths."""
    one, two = flat(load(name, folder)), flat(load(other, folder))
    return {key for key in one if one[key] != two[key]} - {*PATHS, "run.output"}


def marked(mark: str) -> set[str]:
    """The files with this mark in configs/README.md."""
    rows = re.findall(r"^\| \[[^]]+\]\(([\w./]+)\) \| (.*?) \|", (CONFIGS / "README.md").read_text(), re.MULTILINE)
    return {name for name, said in rows if said.endswith(f" {mark}")}


@pytest.mark.parametrize("row", CONFIGURED, ids=lambda row: f"{row.table}-{row.config}-{row.views}")
def test_a_configuration_is_the_row_that_it_names(row: PaperRow, tmp_path: Path) -> None:
    """It has the row's options, and otherwise those of the training that the row varies."""
    config = flat(load(f"{row.config}.yaml", tmp_path))
    assert {key: config[key] for key in row.options} == row.options
    assert differences(f"{row.config}.yaml", f"{row.base}.yaml", tmp_path) <= row.options.keys()


def test_rows_and_configurations_are_the_same() -> None:
    """Every file of a table or figure has its row; rows of one table differ; README has the same figures."""
    assert {f"{row.config}.yaml" for row in CONFIGURED} == set(ROWS)
    for table in {row.table for row in CONFIGURED}:
        options = [(row.base, row.views, *row.options.items()) for row in CONFIGURED if row.table == table]
        # The few-shot lists, which are paths, differ too.
        assert table == "5" or len(set(options)) == len(options)
    cells = re.findall(
        r"^\| \[[^]]+\]\(([\w./]+)\)((?: \|[^|]*)+)\|$", (CONFIGS / "README.md").read_text(), re.MULTILINE
    )
    written = {name: rest.split("|")[2:] for name, rest in cells}
    for name in ROWS:
        figures = [
            f"{value:.1f}" for row in CONFIGURED if f"{row.config}.yaml" == name for value in row.figures.values()
        ]
        assert re.findall(r"\d+\.\d", "".join(written[name])) == figures, name


def test_released_models_have_the_figures_of_their_rows() -> None:
    """``mote-fast models`` shows those of Table 4."""
    for row in PAPER_ROWS:
        if row.table == "4" and row.model is not None and row.views == "4x3":
            assert list(list_models()[row.model].figures.values()) == list(row.figures.values())


def test_rows_of_one_training_share_a_checkpoint(tmp_path: Path) -> None:
    """README's marks: * is the default method, + differs from it at test alone."""
    assert len(marked("*")) > 5
    assert len(marked("+")) > 5
    for name in marked("*"):
        assert not differences(name, DEFAULT, tmp_path), name
    for name in marked("+"):
        assert differences(name, DEFAULT, tmp_path) <= AT_TEST, name


def test_a_run_has_a_folder_of_its_own() -> None:
    """Two rows with one folder would resume each other."""
    for name in ROWS + BASE_TO_NOVEL:
        assert f"output: runs/{name.removesuffix('.yaml')}\n" in (CONFIGS / name).read_text()


@pytest.mark.parametrize("name", FILES)
def test_paths_of_one_data_set(name: str) -> None:
    """Lists, videos and class names of a file belong together, and to the data set that its name says."""
    text = (CONFIGS / name).read_text()
    known = re.search(r"hmdb51|ucf101|ssv2|k400|mine", name if name != "folder.yaml" else "mine")
    folders = set(re.findall(r"(?:lists|videos)/(\w+)", text))
    assert len(folders) <= 1
    if known and folders:
        assert folders == {known[0]}


def test_few_shot_lists_say_their_shots() -> None:
    """The list that a file names has as many shots as the file's name."""
    for name in FILES:
        shots = re.search(r"table5/(\w+)_k(\d+)\.yaml", name)
        if shots:
            assert f"lists/{shots[1]}/fewshot_K{shots[2]}_seed0.txt" in (CONFIGS / name).read_text()


@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("table5/")])
def test_few_shot_runs_start_from_clip(name: str, tmp_path: Path) -> None:
    """Table 5 fine-tunes CLIP itself, ViT-B/16, by the recipe of Kinetics-400 but for its length."""
    config, recipe = load(name, tmp_path), load("k400_vit_b_16.yaml", tmp_path)
    assert (config.model.arch, config.model.clip_pretrained) == ("ViT-B-16", "openai")
    assert config.model.checkpoint is None
    ssv2 = name.startswith("table5/ssv2")
    assert config.optim.epochs == (2 if ssv2 else 10)
    share = recipe.optim.warmup_epochs / recipe.optim.epochs
    assert config.optim.warmup_epochs == pytest.approx(share * config.optim.epochs, rel=1e-2)
    varied = {"optim.epochs", "optim.warmup_epochs"} | ({"data.augmentation"} if ssv2 else set())
    assert differences(name, "k400_vit_b_16.yaml", tmp_path) == varied


@pytest.mark.parametrize("name", BASE_TO_NOVEL)
def test_base_to_novel_runs(name: str, tmp_path: Path) -> None:
    """Each data set has three seeds, which name the list and the run; the recipe is that of Kinetics-400, shorter."""
    data_set, seed = re.findall(r"/(\w+)_s(\d)", name)[0]
    assert {f"base2novel/{data_set}_s{other}.yaml" for other in SEEDS} <= set(BASE_TO_NOVEL)
    assert len(BASE_TO_NOVEL) == 4 * len(SEEDS)
    config = load(name, tmp_path)
    assert config.run.seed == int(seed)
    text = (CONFIGS / name).read_text() + (CONFIGS / "base2novel" / f"{data_set}.yaml").read_text()
    for file in (train_list_of(int(seed)), BASE_VAL, BASE_LABELS):
        assert f"lists/{data_set}/base2novel/{file}\n" in text
    varied = {"optim.epochs", "optim.warmup_epochs", "run.seed"}
    varied |= {"data.augmentation"} if data_set == "ssv2" else set()
    assert differences(name, "k400_vit_b_16.yaml", tmp_path) == varied


@pytest.mark.parametrize("name", sorted(SHARED))
def test_what_rows_share_does_not_run(name: str, tmp_path: Path) -> None:
    """A file without its list cannot be started by mistake with the videos of another data set."""
    with pytest.raises(ValueError, match=r"data\.train_list is missing"):
        load_config(CONFIGS / name, [f"{key}={tmp_path}" for key in PATHS[1:4]])


def test_released_example_is_the_recipe(tmp_path: Path) -> None:
    """The official schema and ours describe the same ViT-B/16 training."""
    released, ours = load("released_k400_vit_b_16.yaml", tmp_path), load("k400_vit_b_16.yaml", tmp_path)
    differences = {key for key, value in flat(released).items() if value != flat(ours)[key]}
    # Four layers and 224 pixels are what null means for this architecture.
    assert differences == {"run.output", "model.layers", "data.size"}
    assert (released.model.layers, released.data.size) == (4, 224)


def test_smoke_needs_no_gpu_and_no_weights(tmp_path: Path) -> None:
    """The smoke run works on any machine."""
    config = load("smoke.yaml", tmp_path)
    assert (config.model.arch, config.model.clip_pretrained, config.run.device) == ("ViT-test", None, "cpu")
    assert (config.optim.precision, config.data.size) == ("fp32", None)


def test_few_videos_train_the_head_alone(tmp_path: Path) -> None:
    """On what can be computed once, and in enough steps: 40 videos take 5 an epoch."""
    config = load("few_videos.yaml", tmp_path)
    assert (config.model.train_clip, config.data.augmentation) == (False, "none")
    assert (config.data.batch_size, config.optim.accumulation, config.optim.epochs) == (8, 1, 30)


def test_folder_starts_from_trained_towers(tmp_path: Path) -> None:
    """Custom data sets are small: the towers are CLIP's, and the effective batch is the recipe's."""
    config = load("folder.yaml", tmp_path)
    assert (config.model.arch, config.model.clip_pretrained) == ("ViT-B-16", "openai")
    assert config.data.batch_size * config.optim.accumulation == TrainConfig().data.batch_size
    assert config.optim.lr == OptimConfig().lr


def test_readme_lists_every_row() -> None:
    """README links every row's file, and no other."""
    linked = set(re.findall(r"\]\(([\w./]+\.yaml)\)", (CONFIGS / "README.md").read_text()))
    assert linked == set(FILES) - SHARED
