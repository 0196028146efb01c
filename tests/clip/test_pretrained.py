"""Loading towers: every kind of file, and protection against the QuickGELU trap."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mote_fast.clip import load_towers
from mote_fast.clip.clip_config import config_of_name, config_of_state_dict
from mote_fast.data import Preprocessing
from mote_fast.errors import ActivationMismatchError, CheckpointError, ConfigError
from tests.tolerances import assert_close


class Archive(nn.Module):
    """A module with given tensors at given dotted names, to be scripted as OpenAI's archives were."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for name, value in state.items():
            *path, leaf = name.split(".")
            module: nn.Module = self
            for part in path:
                if part not in module._modules:
                    module.add_module(part, Node())
                module = module._modules[part]  # pyright: ignore[reportAssignmentType]
            module.register_buffer(leaf, value)

    def forward(self, x: Tensor) -> Tensor:
        return x


class Node(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def save_archive(state: dict[str, Tensor], path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.script(Archive(state)), path)


def frame_features(towers: Any, golden_clip: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return towers.encode_frames(golden_clip["image.input"]).unflatten(0, (2, 8))


@pytest.mark.parametrize("kind", ["archive", "state dict", "half", "wrapped", "safetensors"])
def test_every_kind_of_file(
    kind: str,
    clip_state: dict[str, Tensor],
    openai_marks: dict[str, Tensor],
    golden_clip: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    """OpenAI's archive, its state dict, half precision, a training checkpoint and safetensors give golden features."""
    path = tmp_path / ("clip.safetensors" if kind == "safetensors" else "clip.pt")
    if kind == "archive":
        save_archive(clip_state | openai_marks, path)
    elif kind == "state dict":
        torch.save(clip_state | openai_marks, path)
    elif kind == "half":
        torch.save({name: value.half() for name, value in clip_state.items()} | openai_marks, path)
    elif kind == "wrapped":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in clip_state.items()}}, path)
    else:
        save_file(clip_state, path)
    # Only OpenAI's own marks show the origin; for other files the caller must name the activation.
    activation = None if kind in ("archive", "state dict", "half") else "quick_gelu"
    towers = load_towers(None, path, activation=activation)
    assert towers.config.activation == "quick_gelu"
    assert towers.dtype == torch.float32
    found = frame_features(towers, golden_clip)
    assert_close(found, golden_clip["image.frame_features"], "float16" if kind == "half" else "float32")


def test_shapes_tell_the_architecture(clip_state: dict[str, Tensor]) -> None:
    """The state dict's shapes give towers beyond the presets, as in the official loader."""
    config = config_of_state_dict(clip_state)
    assert config.model["vision_cfg"] == {"image_size": 32, "layers": 2, "width": 128, "patch_size": 16}
    assert config.model["text_cfg"]["layers"] == 2
    assert (config.embed_dim, config.text_heads, config.name) == (64, 1, None)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16", "ViT-L-14", "RN50"])
def test_shapes_of_the_presets_are_recognised(name: str) -> None:
    """A state dict of a named architecture gives its name and exactly its configuration."""
    with torch.device("meta"):
        state = open_clip.CLIP(**config_of_name(name).model).state_dict()
    config = config_of_state_dict(state)
    assert config.name == name
    assert config.model == config_of_name(name).model


def test_openai_weights_refuse_gelu(clip_file: Path) -> None:
    """The trap itself: OpenAI weights would load into a GELU tower without an error, so the request raises."""
    with pytest.raises(ActivationMismatchError, match="quick_gelu"):
        load_towers(None, clip_file, activation="gelu")


def test_unknown_origin_must_be_declared(
    clip_state: dict[str, Tensor], golden_clip: dict[str, Tensor], tmp_path: Path
) -> None:
    """The activation of a file of unknown origin is never guessed; a wrong one gives clearly different features."""
    path = tmp_path / "clip.pt"
    torch.save(clip_state, path)
    with pytest.raises(ActivationMismatchError, match="pass activation="):
        load_towers(None, path)
    wrong = frame_features(load_towers(None, path, activation="gelu"), golden_clip)
    assert (wrong - golden_clip["image.frame_features"]).norm() > 1e-3 * golden_clip["image.frame_features"].norm()


@pytest.fixture
def tagged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A tiny architecture registered with open_clip, two tags of it, and a download that finds a local file."""
    small = {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small", small)
    tags = {"quick": {"url": "x", "quick_gelu": True, "mean": (0.5, 0.5, 0.5)}, "plain": {"url": "x"}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Small", tags)
    path = tmp_path / "small.safetensors"
    save_file({name: value.clone() for name, value in open_clip.CLIP(**small).state_dict().items()}, path)
    monkeypatch.setattr("mote_fast.clip.pretrained.download_pretrained", lambda config: str(path))
    return path


def test_a_tag_decides_the_activation(tagged: Path) -> None:
    """Each tag determines its activation; the architecture's default is ignored."""
    quick = load_towers("Small", "quick")
    assert quick.config.activation == "quick_gelu"
    assert type(quick.model.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert quick.config.preprocessing.mean == (0.5, 0.5, 0.5)
    assert load_towers("Small", "plain").config.activation == "gelu"
    with pytest.raises(ActivationMismatchError, match="plain"):
        load_towers("Small", "plain", activation="quick_gelu")
    with pytest.raises(ActivationMismatchError, match="gelu"):
        load_towers("Small-quickgelu", "plain")


SIGLIP = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "resize_mode": "squash", "interpolation": "bilinear"}


@pytest.fixture
def publish(tagged: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace the tags of the tiny architecture."""

    def replace(**tags: dict[str, Any]) -> None:
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Small", {k: {"url": "x", **v} for k, v in tags.items()})

    return replace


def test_a_file_takes_what_all_published_weights_share(tagged: Path, publish: Callable[..., None]) -> None:
    """A file of an architecture with its own normalisation is not given OpenAI's, nor is a model without weights."""
    publish(one=SIGLIP, two=SIGLIP)
    wanted = Preprocessing(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "squash", "bilinear")
    assert load_towers("Small", tagged, activation="gelu").config.preprocessing == wanted
    assert load_towers("Small", "one").config.preprocessing == wanted
    assert load_towers("Small").config.preprocessing == wanted
    # No published weights have this activation; that is no reason for OpenAI's preprocessing.
    assert load_towers("Small", tagged, activation="quick_gelu").config.preprocessing == wanted


def test_a_file_of_an_architecture_with_several_is_asked_about(tagged: Path, publish: Callable[..., None]) -> None:
    """The message names the argument and the choices, which are a tag or the values; the activation may decide."""
    publish(first=SIGLIP, second={}, quick={"quick_gelu": True})
    with pytest.raises(ConfigError, match=r"pass preprocessing=.*'first'.*'second'"):
        load_towers("Small", tagged, activation="gelu")
    plain = Preprocessing(32)
    assert load_towers("Small", tagged, activation="quick_gelu").config.preprocessing == plain
    assert load_towers("Small", tagged, activation="gelu", preprocessing="second").config.preprocessing == plain
    own = Preprocessing(32, interpolation="bilinear")
    assert load_towers("Small", tagged, activation="gelu", preprocessing=own).config.preprocessing == own
    assert load_towers("Small", preprocessing=own).config.preprocessing == own
    with pytest.raises(ConfigError, match="first, second, quick"):
        load_towers("Small", tagged, activation="gelu", preprocessing="third")
    with pytest.raises(ConfigError, match="takes 32"):
        load_towers("Small", tagged, activation="gelu", preprocessing=Preprocessing(224))


def test_preprocessing_of_known_weights_is_not_changed(
    tagged: Path, publish: Callable[..., None], clip_file: Path
) -> None:
    """A tag and OpenAI's own files determine it; a contradiction raises, agreement does not."""
    publish(one=SIGLIP)
    assert load_towers("Small", "one", preprocessing="one").config.preprocessing.resize_mode == "squash"
    with pytest.raises(ConfigError, match="preprocessing contradicts Small, tag 'one'"):
        load_towers("Small", "one", preprocessing=Preprocessing(32))
    assert load_towers(None, clip_file).config.preprocessing == Preprocessing(32)
    with pytest.raises(ConfigError, match=r"preprocessing contradicts .*clip\.pt"):
        load_towers(None, clip_file, preprocessing=Preprocessing(32, resize_mode="squash"))


def test_unsupported_preprocessing_is_refused(publish: Callable[..., None]) -> None:
    """Padding to the long side is not supported, and not replaced by something else."""
    publish(one={"resize_mode": "longest"})
    with pytest.raises(ConfigError, match=r"Small, tag 'one'.*longest"):
        load_towers("Small", "one")


def test_a_checkpoint_in_an_earlier_layout_fits(tagged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file loads as a tag does: towers with a separate text module take the older flat names."""
    model = open_clip.get_model_config("Small") | {"custom_text": True}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small", model)
    flat = load_file(tagged)
    towers = load_towers("Small", tagged, activation="gelu")
    assert_close(towers.text.token_embedding.weight, flat["token_embedding.weight"], "exact")


def test_unreadable_weights_of_a_tag_are_named(tagged: Path) -> None:
    """A download that was cut off raises a typed error that names the file."""
    tagged.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"small\.safetensors"):
        load_towers("Small", "plain")


def test_a_failed_download_is_explained(tagged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, the error names the model and the tag."""

    def fail(config: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr("mote_fast.clip.pretrained.download_pretrained", fail)
    with pytest.raises(CheckpointError, match=r"Small, tag 'quick'.*no route"):
        load_towers("Small", "quick")


def test_open_clips_own_tags_carry_the_activation() -> None:
    """The library relies on open_clip to mark OpenAI's tags as QuickGELU, and LAION's as not."""
    assert open_clip.get_pretrained_cfg("ViT-B-16", "openai")["quick_gelu"]
    assert not open_clip.get_pretrained_cfg("ViT-B-16", "laion2b_s34b_b88k").get("quick_gelu", False)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None, None), ConfigError, "architecture"),
        (("NoSuchModel", None), ConfigError, "NoSuchModel"),
        (("ViT-B-16", "nosuchtag"), CheckpointError, "openai"),
        (("ViT-test", "missing.pt"), CheckpointError, "missing.pt"),
        (("hf-hub:some/model", "openai"), ConfigError, "brings its own"),
    ],
)
def test_bad_requests_are_named(arguments: tuple[Any, Any], error: type[Exception], message: str) -> None:
    """Unknown names, tags and files raise typed errors that help."""
    with pytest.raises(error, match=message):
        load_towers(*arguments)


def test_weights_that_do_not_fit_are_refused(clip_file: Path) -> None:
    """A file of another shape than the named architecture is refused, naming the file."""
    with pytest.raises(CheckpointError, match=r"clip\.pt"):
        load_towers("ViT-test", clip_file)
