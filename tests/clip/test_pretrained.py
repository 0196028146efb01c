"""Loading towers: every kind of file, and protection against the QuickGELU trap."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mote_fast.clip import load_towers
from mote_fast.clip.clip_config import config_of_name, config_of_state_dict
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
    monkeypatch.setattr("mote_fast.clip.pretrained.open_clip.get_tokenizer", lambda name: open_clip.SimpleTokenizer())
    return path


def test_a_tag_decides_the_activation(tagged: Path) -> None:
    """Each tag determines its activation; the architecture's default is ignored."""
    quick = load_towers("Small", "quick")
    assert quick.config.activation == "quick_gelu"
    assert type(quick.model.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert quick.config.mean == (0.5, 0.5, 0.5)
    assert load_towers("Small", "plain").config.activation == "gelu"
    with pytest.raises(ActivationMismatchError, match="plain"):
        load_towers("Small", "plain", activation="quick_gelu")
    with pytest.raises(ActivationMismatchError, match="gelu"):
        load_towers("Small-quickgelu", "plain")


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
        (("tiny", "missing.pt"), CheckpointError, "missing.pt"),
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
        load_towers("tiny", clip_file)
