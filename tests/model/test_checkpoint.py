"""Making and loading models: released files of every form, interpolation, our own folders."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import mote_fast
from mote_fast.data import Preprocessing
from mote_fast.errors import ActivationMismatchError, CheckpointError, ConfigError
from mote_fast.model.checkpoint import released_checkpoint
from mote_fast.model.released import _POSITIONS, head_to_released
from mote_fast.runtime.weights import CONFIG_FILE, WEIGHTS_FILE
from tests.tolerances import assert_close


@pytest.fixture(scope="module")
def tuned_visual(clip_state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A fine-tuned image tower: the original's, moved."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: value + 0.01 * torch.randn(value.shape, generator=generator)
        for name, value in clip_state.items()
        if name.startswith("visual.") or name == "logit_scale"
    }


@pytest.fixture
def released_file(tmp_path: Path, tuned_visual: dict[str, Tensor], released_head: dict[str, Tensor]) -> Any:
    """Write a checkpoint as the official code writes it; options change prefix and precision."""

    def write(prefix: str = "", dtype: torch.dtype = torch.float32) -> Path:
        path = tmp_path / "released.pt"
        content = {
            "epoch": 29,
            "model_state_dict": {prefix + name: value.to(dtype) for name, value in tuned_visual.items()},
            "fusion_model_state_dict": {prefix + name: value.to(dtype) for name, value in released_head.items()},
            "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 5e-5, "params": [0]}]},
        }
        torch.save(content, path)
        return path

    return write


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_released_files_load(
    released_file: Any,
    clip_file: Path,
    tuned_visual: dict[str, Tensor],
    released_head: dict[str, Tensor],
    prefix: str,
    dtype: torch.dtype,
) -> None:
    """With and without prefixes, in both precisions: tower, head and class features arrive, in float32."""
    model = mote_fast.load(released_file(prefix, dtype), clip=clip_file, interpolate=1.0)
    kind = "float32" if dtype == torch.float32 else "float16"
    state = model.clip.model.state_dict()
    for name, value in tuned_visual.items():
        assert_close(state[name], value, kind)
    back = head_to_released(model.head)
    for name, value in released_head.items():
        assert back[name].dtype == torch.float32
        assert_close(back[name], value, kind)
    assert model.config.head.heads == 1
    assert model.head.can_modulate


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_interpolation_with_the_original(
    released_file: Any, clip_file: Path, clip_state: dict[str, Tensor], tuned_visual: dict[str, Tensor], share: float
) -> None:
    """share * tuned + (1 - share) * original, image tower only; the text tower stays, the logit scale is the tuned."""
    model = mote_fast.load(released_file(), clip=clip_file, interpolate=share)
    state = model.clip.model.state_dict()
    for name, value in clip_state.items():
        if name.startswith("visual."):
            assert_close(state[name], share * tuned_visual[name] + (1 - share) * value)
        elif name != "logit_scale":
            assert torch.equal(state[name], value)
    assert_close(state["logit_scale"], tuned_visual["logit_scale"])


def test_default_interpolation_is_the_papers(released_file: Any, clip_file: Path) -> None:
    """Left out, the share is 0.99 (eq. (21))."""
    path = released_file()
    default, explicit = (
        mote_fast.load(path, clip=clip_file),
        mote_fast.load(path, clip=clip_file, interpolate=0.99),
    )
    for name, value in default.state_dict().items():
        assert torch.equal(value, explicit.state_dict()[name])


def test_our_folder_round_trip(tmp_path: Path, released_file: Any, clip_file: Path, moving_video: Path) -> None:
    """save and load keep every bit, the configuration and the predictions."""
    model = mote_fast.load(released_file(), clip=clip_file, frames=4)
    model.save(tmp_path / "ours")
    back = mote_fast.load(tmp_path / "ours")
    assert back.config == model.config
    ours, theirs = model.state_dict(), back.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())
    labels = ["archery", "juggling balls"]
    assert back.classify(moving_video, labels) == model.classify(moving_video, labels)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "options",
    [
        {"header": "plain"},
        {"header": "mean"},
        {"experts": 2, "layers": 3},
        {"frames": 16},
        {"expert_design": "up_down", "expert_init": "same"},
        {"expert_design": "up", "aggregation": "ensemble"},
        {"expert_design": "down", "aggregation": "random"},
        {"modulation": False, "modulation_top_k": 3, "modulation_gamma": 0.07},
    ],
)
def test_every_variant_round_trips(tmp_path: Path, options: dict[str, Any]) -> None:
    """Each header, size and option is reported and rebuilt from its folder; folded models too."""
    model = mote_fast.create_model("ViT-test", **options)
    reported = asdict(model.config.head) | {"frames": model.config.frames}
    assert {name: reported[name] for name in options} == options
    for variant in (model, model.fold()):
        variant.save(tmp_path / "ours")
        back = mote_fast.load(tmp_path / "ours")
        assert back.config == variant.config
        assert all(torch.equal(back.state_dict()[name], value) for name, value in variant.state_dict().items())


def test_settings_made_later_are_saved(tmp_path: Path) -> None:
    """What ``set_inference`` changed is part of the model."""
    model = mote_fast.create_model("ViT-test")
    model.head.set_inference(aggregation="ensemble", modulation_gamma=0.04)
    model.save(tmp_path / "ours")
    head = mote_fast.load(tmp_path / "ours").config.head
    assert (head.aggregation, head.modulation_gamma, head.modulation_top_k) == (
        "ensemble",
        0.04,
        5,
    )


def test_folders_of_the_first_version_load(tmp_path: Path) -> None:
    """They have no head options, and get the paper's, which were the only ones; of preprocessing, the normalisation."""
    folder, model = tmp_path / "ours", mote_fast.create_model("ViT-test")
    model.save(folder)
    config = json.loads((folder / CONFIG_FILE).read_text())
    first = ("embed_dim", "heads", "layers", "experts", "header")
    own = config["clip"].pop("preprocessing")
    clip = config["clip"] | {"mean": own["mean"], "std": own["std"]}
    config |= {"format_version": 1, "clip": clip, "head": {name: config["head"][name] for name in first}}
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    back = mote_fast.load(folder)
    assert back.config == model.config
    assert all(torch.equal(back.state_dict()[name], value) for name, value in model.state_dict().items())


def test_folders_of_the_second_version_keep_their_normalisation(tmp_path: Path) -> None:
    """Their mean and deviation are read; resize mode and interpolation were always OpenAI's, the size the tower's."""
    folder = tmp_path / "ours"
    mote_fast.create_model("ViT-test", layers=1).save(folder)
    config = json.loads((folder / CONFIG_FILE).read_text())
    del config["clip"]["preprocessing"]
    config |= {"format_version": 2, "clip": config["clip"] | {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}}
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    wanted = Preprocessing(64, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert mote_fast.load(folder).clip.config.preprocessing == wanted


def test_a_folder_keeps_its_preprocessing(tmp_path: Path) -> None:
    """All five values return, and with them the same features."""
    own = Preprocessing(64, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "squash", "bilinear")
    model = mote_fast.create_model("ViT-test", layers=1, preprocessing=own)
    model.save(tmp_path / "ours")
    back = mote_fast.load(tmp_path / "ours")
    assert back.config == model.config
    video = torch.randint(256, (9, 40, 90, 3), dtype=torch.uint8)
    assert torch.equal(back.embed(video), model.embed(video))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 32}, "image tower takes 64"),
        ({"size": "64"}, "model configuration"),
        ({"resize_mode": "longest"}, "resize_mode"),
        ({"mean": 0.5}, "model configuration"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_impossible_preprocessing_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """Values of a folder's preprocessing that cannot be raise a CheckpointError that names the folder."""
    folder = tmp_path / "ours"
    mote_fast.create_model("ViT-test", layers=1).save(folder)
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["clip"]["preprocessing"] |= change
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        mote_fast.load(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 4}, "heads=4"),
        ({"preprocessing": Preprocessing(64, resize_mode="squash")}, "preprocessing"),
    ],
)
def test_what_the_released_layout_cannot_express_is_refused(options: dict[str, Any], message: str) -> None:
    """The official code, and ``load``, would read such a file as another model."""
    with pytest.raises(CheckpointError, match=message):
        released_checkpoint(mote_fast.create_model("ViT-test", layers=1, **options))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "surprise"),
        ({"expert_design": "whole"}, "expert_design"),
        ({"aggregation": 3}, "aggregation"),
        ({"modulation_gamma": "small"}, "head"),
        ({"heads": 3}, "heads"),
    ],
)
def test_a_head_that_cannot_be_built_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """Unknown fields and values in a folder's configuration raise a CheckpointError that names the folder."""
    folder = tmp_path / "ours"
    mote_fast.create_model("ViT-test", layers=1).save(folder)
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["head"] |= change
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message) as caught:
        mote_fast.load(folder)
    assert str(folder) in str(caught.value)


def test_bad_head_options_are_named() -> None:
    """``create_model`` passes its options to the head, which names bad ones."""
    with pytest.raises(ConfigError, match="expert_design"):
        mote_fast.create_model("ViT-test", expert_design="whole")
    with pytest.raises(TypeError, match="surprise"):
        mote_fast.create_model("ViT-test", surprise=1)


def test_back_to_a_released_file(tmp_path: Path, released_file: Any, clip_file: Path) -> None:
    """Ours -> released -> ours loses nothing when nothing is interpolated."""
    model = mote_fast.load(released_file(), clip=clip_file, interpolate=1.0)
    torch.save(released_checkpoint(model), tmp_path / "again.pt")
    back = mote_fast.load(tmp_path / "again.pt", clip=clip_file, interpolate=1.0)
    assert all(torch.equal(back.state_dict()[name], value) for name, value in model.state_dict().items())


@pytest.mark.heavy
def test_presets_have_the_papers_sizes() -> None:
    """Layers, heads and frames of the paper's models; arguments override them."""
    with torch.device("meta"):
        base, large = (
            mote_fast.create_model("ViT-B-16", device="meta"),
            mote_fast.create_model("ViT-L-14", device="meta"),
        )
    assert (base.head.layers, base.head.config.heads, base.head.experts, base.frames, base.clip.embed_dim) == (
        4,
        8,
        4,
        8,
        512,
    )
    assert (large.head.layers, large.head.config.heads, large.clip.embed_dim) == (6, 12, 768)
    assert base.clip.config.activation == "quick_gelu"
    small = mote_fast.create_model("ViT-test", experts=2, layers=1, frames=4, dtype=torch.bfloat16)
    assert (small.head.experts, small.head.layers, small.frames, small.clip.dtype) == (2, 1, 4, torch.bfloat16)


def test_a_gelu_clip_is_refused_for_released_weights(
    released_file: Any, clip_state: dict[str, Tensor], tmp_path: Path
) -> None:
    """Released weights are QuickGELU by origin: no argument changes that."""
    path = tmp_path / "other.pt"
    torch.save(clip_state, path)
    with pytest.raises(ActivationMismatchError, match="quick_gelu"):
        mote_fast.load(released_file(), clip=path, activation="gelu")
    with pytest.raises(ActivationMismatchError, match="pass activation="):
        mote_fast.load(released_file(), clip=path)
    assert mote_fast.load(released_file(), clip=path, activation="quick_gelu").clip.config.activation == "quick_gelu"


def test_the_original_clip_is_asked_for(released_file: Any) -> None:
    """A tower that open_clip has no name for needs clip=, and the message says so."""
    with pytest.raises(CheckpointError, match="pass clip="):
        mote_fast.load(released_file())


def test_bad_requests_are_named(tmp_path: Path, released_file: Any, clip_file: Path) -> None:
    """Shares out of range, a clip for a folder, foreign folders and files, newer formats."""
    with pytest.raises(ConfigError, match="interpolate"):
        mote_fast.load(released_file(), clip=clip_file, interpolate=1.5)
    with pytest.raises(CheckpointError, match="no such file"):
        mote_fast.load(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="clip_pretrained"):
        mote_fast.load(clip_file)
    with pytest.raises(CheckpointError, match=CONFIG_FILE):
        mote_fast.load(tmp_path)
    folder = tmp_path / "ours"
    model = mote_fast.create_model("ViT-test")
    model.save(folder)
    with pytest.raises(ConfigError, match="do not apply"):
        mote_fast.load(folder, clip=clip_file)
    config = json.loads((folder / CONFIG_FILE).read_text())
    for change, message in (({"format_version": 99}, "99"), ({"surprise": 1}, "surprise"), ({"frames": 0}, "frames")):
        (folder / CONFIG_FILE).write_text(json.dumps(config | change))
        with pytest.raises(CheckpointError, match=message):
            mote_fast.load(folder)
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    (folder / WEIGHTS_FILE).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=WEIGHTS_FILE):
        mote_fast.load(folder)


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(
    tmp_path: Path, released_file: Any, clip_file: Path, clip_state: dict[str, Tensor], odd: float
) -> None:
    """In our folder, a released file's tower and head, and the original CLIP: the tensor is named."""
    model = mote_fast.create_model("ViT-test")
    with torch.no_grad():
        model.head.frame_positions[0, 0] = odd
    model.save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="frame_positions holds NaN or infinity"):
        mote_fast.load(tmp_path / "model")
    content = torch.load(released_file(), weights_only=True)
    for part, name in (("model_state_dict", "visual.proj"), ("fusion_model_state_dict", _POSITIONS)):
        lost = content[part] | {name: torch.full_like(content[part][name], odd)}
        torch.save(content | {part: lost}, tmp_path / "lost.pt")
        with pytest.raises(CheckpointError, match=rf"lost\.pt: {name} holds NaN or infinity"):
            mote_fast.load(tmp_path / "lost.pt", clip=clip_file)
    torch.save(clip_state | {"text_projection": clip_state["text_projection"] * odd}, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match=r"clip\.pt: text_projection holds NaN or infinity"):
        mote_fast.load(released_file(), clip=tmp_path / "clip.pt", activation="quick_gelu")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_floating_point_weights_of_any_width_load(tmp_path: Path, dtype: torch.dtype) -> None:
    """They are converted to the model's type, with the values that they have."""
    model = mote_fast.create_model("ViT-test")
    model.save(tmp_path / "model")
    stored = {name: value.to(dtype) for name, value in load_file(tmp_path / "model" / WEIGHTS_FILE).items()}
    save_file(stored, tmp_path / "model" / WEIGHTS_FILE)
    loaded = mote_fast.load(tmp_path / "model")
    for name, value in loaded.clip.model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, stored[f"clip.{name}"].float())


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.uint8], ids=str)
def test_other_weights_are_refused(tmp_path: Path, released_file: Any, clip_file: Path, dtype: torch.dtype) -> None:
    """Integers would be taken for weights, truncated, without an error."""
    mote_fast.create_model("ViT-test").save(tmp_path / "model")
    stored = {name: value.to(dtype) for name, value in load_file(tmp_path / "model" / WEIGHTS_FILE).items()}
    save_file(stored, tmp_path / "model" / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match=rf"model: .* holds {dtype}"):
        mote_fast.load(tmp_path / "model")
    with pytest.raises(CheckpointError, match=rf"released\.pt: .* holds {dtype}"):
        mote_fast.load(released_file(dtype=dtype), clip=clip_file)
