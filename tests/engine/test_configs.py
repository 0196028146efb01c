"""The files in configs/: each loads, says what its name says, and no row of the paper's tables is forgotten."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mote_fast.engine.config import OptimConfig, TrainConfig, load_config, to_dict

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml"))

# What several rows have in common, and name no row themselves.
SHARED = {"table5/hmdb51.yaml", "table5/ucf101.yaml", "table5/ssv2.yaml"}
EXAMPLES = {
    "folder.yaml",
    "k400_vit_b_16.yaml",
    "k400_vit_l_14.yaml",
    "released_k400_vit_b_16.yaml",
    "smoke.yaml",
    "tiny_world.yaml",
}

L14 = {
    "model.arch": "ViT-L-14",
    "model.layers": 6,
    "optim.clip_ratio": 0.06,
    "optim.epochs": 20,
    "data.batch_size": 48,
}
# The paper's method at ViT-L/14 as Tables 2 and 7 vary it; modulation is left out there unless said.
PLAIN_TEST = L14 | {"model.modulation": False}
FEW_SHOT = L14 | {"model.checkpoint": "runs/table4/vit_l_14/model"}

# Every row of the paper's tables that is a training run: its file, and how it differs from the library's defaults.
ROWS: dict[str, dict[str, Any]] = {
    "table1/plain.yaml": PLAIN_TEST | {"model.header": "plain"},
    "table1/experts.yaml": PLAIN_TEST | {"method.regulariser": "none"},
    "table1/wmr.yaml": PLAIN_TEST | {"method.mse_weight": 0.0},
    "table1/mse.yaml": PLAIN_TEST,
    "table1/modulation.yaml": L14,
    "table2/a_same_all.yaml": PLAIN_TEST
    | {"model.expert_init": "same", "method.expert_data": "all", "method.regulariser": "none"},
    "table2/a_same_routed.yaml": PLAIN_TEST | {"model.expert_init": "same"},
    "table2/a_different_all.yaml": PLAIN_TEST | {"method.expert_data": "all"},
    "table2/a_different_routed.yaml": PLAIN_TEST,
    "table2/b_experts_3.yaml": PLAIN_TEST | {"model.experts": 3},
    "table2/b_experts_4.yaml": PLAIN_TEST,
    "table2/b_experts_5.yaml": PLAIN_TEST | {"model.experts": 5},
    "table2/b_experts_6.yaml": PLAIN_TEST | {"model.experts": 6},
    "table2/c_aggregation_random.yaml": PLAIN_TEST | {"model.aggregation": "random"},
    "table2/c_aggregation_ensemble.yaml": PLAIN_TEST | {"model.aggregation": "ensemble"},
    "table2/c_aggregation_merge.yaml": PLAIN_TEST,
    "table2/d_routing_fixed.yaml": PLAIN_TEST | {"method.routing": "fixed", "model.experts": 1},
    "table2/d_routing_random.yaml": PLAIN_TEST | {"method.routing": "random"},
    "table2/d_routing_multinomial.yaml": PLAIN_TEST,
    "table2/e_wmr_point.yaml": PLAIN_TEST | {"method.regulariser": "point"},
    "table2/e_wmr_region_beta_0.6.yaml": PLAIN_TEST,
    "table2/e_wmr_region_beta_0.8.yaml": PLAIN_TEST | {"method.beta": 0.8},
    "table2/e_wmr_region_beta_1.0.yaml": PLAIN_TEST | {"method.beta": 1.0},
    "table2/f_gamma_0.04.yaml": L14 | {"model.modulation_gamma": 0.04},
    "table2/f_gamma_0.05.yaml": L14,
    "table2/f_gamma_0.06.yaml": L14 | {"model.modulation_gamma": 0.06},
    "table2/f_gamma_0.07.yaml": L14 | {"model.modulation_gamma": 0.07},
    "table4/vit_b_16.yaml": {},
    "table4/vit_l_14.yaml": L14,
    "table4/vit_l_14_f16.yaml": L14 | {"data.frames": 16},
    **{
        f"table5/{name}_k{shots}.yaml": FEW_SHOT | {"optim.epochs": 10, "optim.warmup_epochs": 2.5}
        for name in ("hmdb51", "ucf101")
        for shots in (2, 4, 8, 16)
    },
    **{
        f"table5/ssv2_k{shots}.yaml": FEW_SHOT
        | {"optim.epochs": 2, "optim.warmup_epochs": 0.5, "data.augmentation": "ssv2"}
        for shots in (2, 4, 8, 16)
    },
    "table7/a_design_ffn.yaml": PLAIN_TEST,
    "table7/a_design_up_down.yaml": PLAIN_TEST | {"model.expert_design": "up_down"},
    "table7/a_design_up.yaml": PLAIN_TEST | {"model.expert_design": "up"},
    "table7/a_design_down.yaml": PLAIN_TEST | {"model.expert_design": "down"},
    "table7/b_top_k_1.yaml": L14 | {"model.modulation_top_k": 1},
    "table7/b_top_k_5.yaml": L14,
    "table7/b_top_k_10.yaml": L14 | {"model.modulation_top_k": 10},
    "table7/c_supervision_ce.yaml": PLAIN_TEST,
    "table7/c_supervision_kl.yaml": PLAIN_TEST | {"method.regulariser_loss": "kl"},
    "table7/c_supervision_mse.yaml": PLAIN_TEST | {"method.regulariser_loss": "mse"},
    "table7/e_ucf101_plain.yaml": PLAIN_TEST | {"model.header": "plain"},
    "table7/e_ucf101_mote.yaml": L14,
    "table7/f_temperature_discrete.yaml": PLAIN_TEST,
    "table7/f_temperature_normal.yaml": PLAIN_TEST | {"method.temperature": "normal"},
    "table7/f_temperature_uniform.yaml": PLAIN_TEST | {"method.temperature": "uniform"},
}

# Where the data are, and the sizes that the layout of a machine decides.
PATHS = ("data.train_list", "data.val_list", "data.labels", "data.flip_labels", "data.train_root", "data.val_root")


def load(name: str, folder: Path) -> TrainConfig:
    """Load a file with every path that it names pointing to one that exists."""
    existing = folder / "exists"
    existing.touch()
    keys = ["data.train_list", "data.val_list", "data.labels"]
    keys += ["data.flip_labels"] * name.startswith("table5/ssv2")
    keys += ["model.checkpoint"] * name.startswith("table5/")
    return load_config(CONFIGS / name, [f"{key}={existing}" for key in keys])


def flat(config: TrainConfig) -> dict[str, Any]:
    return {f"{section}.{name}": value for section, values in to_dict(config).items() for name, value in values.items()}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_row_is_its_difference_from_the_recipe(name: str, tmp_path: Path) -> None:
    """A file says what its name says and nothing else: an ablation that varies two things shows neither."""
    found, defaults = flat(load(name, tmp_path)), flat(TrainConfig())
    ignored = {*PATHS, "run.output", "model.checkpoint"}
    different = {key: value for key, value in found.items() if value != defaults[key] and key not in ignored}
    # The B/16 defaults have no number of layers: the architecture gives it.
    expected = {key: value for key, value in ROWS[name].items() if key not in ignored and value != defaults[key]}
    assert different == expected
    assert found["run.output"] == f"runs/{name.removesuffix('.yaml')}"


@pytest.mark.parametrize("name", FILES)
def test_paths_of_one_data_set(name: str) -> None:
    """Lists, videos and class names of a file belong together, and to the data set that its name says."""
    text = (CONFIGS / name).read_text()
    known = re.search(r"hmdb51|ucf101|ssv2|k400|mine", name if name != "folder.yaml" else "mine")
    folders = set(re.findall(r"(?:lists|videos)/(\w+)", text))
    assert len(folders) <= 1
    if known and folders:
        assert folders == {known[0]}


def test_every_row_has_a_file_and_every_file_a_row() -> None:
    """No row is forgotten, and no file is left that says nothing of any."""
    assert set(FILES) == set(ROWS) | SHARED | EXAMPLES


def test_few_shot_lists_say_their_shots() -> None:
    """The list that a file names has as many shots as the file's name."""
    for name in FILES:
        shots = re.search(r"table5/(\w+)_k(\d+)\.yaml", name)
        if shots:
            assert f"lists/{shots[1]}/fewshot_K{shots[2]}_seed0.txt" in (CONFIGS / name).read_text()


@pytest.mark.parametrize("name", sorted(SHARED))
def test_what_rows_share_does_not_run(name: str, tmp_path: Path) -> None:
    """A file without its list cannot be started by mistake with the videos of another data set."""
    with pytest.raises(ValueError, match=r"data\.train_list is missing"):
        load_config(CONFIGS / name, [f"{key}={tmp_path}" for key in (*PATHS[1:4], "model.checkpoint")])


def test_released_example_is_the_recipe(tmp_path: Path) -> None:
    """The released schema and ours describe the same ViT-B/16 training."""
    released, ours = load("released_k400_vit_b_16.yaml", tmp_path), load("k400_vit_b_16.yaml", tmp_path)
    differences = {key for key, value in flat(released).items() if value != flat(ours)[key]}
    # Four layers are what null means for this architecture.
    assert differences == {"run.output", "model.layers"}
    assert released.model.layers == 4


def test_smoke_needs_no_gpu_and_no_weights(tmp_path: Path) -> None:
    """It is for seeing a run anywhere."""
    config = load("smoke.yaml", tmp_path)
    assert (config.model.arch, config.model.clip_pretrained, config.run.device) == ("tiny", None, "cpu")
    assert (config.optim.precision, config.data.size) == ("fp32", 64)


def test_folder_starts_from_trained_towers(tmp_path: Path) -> None:
    """One's own videos are few: the towers are CLIP's, and the effective batch is the recipe's."""
    config = load("folder.yaml", tmp_path)
    assert (config.model.arch, config.model.clip_pretrained) == ("ViT-B-16", "openai")
    assert config.data.batch_size * config.optim.accumulation == TrainConfig().data.batch_size
    assert config.optim.lr == OptimConfig().lr


def test_readme_lists_every_row() -> None:
    """Whoever looks for a row finds its file, and whoever finds a file learns its row."""
    linked = set(re.findall(r"\]\(([\w./]+\.yaml)\)", (CONFIGS / "README.md").read_text()))
    assert linked == set(ROWS) | EXAMPLES
