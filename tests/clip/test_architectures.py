"""Every architecture of open_clip: its own towers, tokenizer and preprocessing, and heads that fit, or a typed error.

The list is open_clip's, so that an architecture of a new release is tested too.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import open_clip
import pytest
import timm
import torch
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

import mote_fast
from mote_fast.clip import load_towers
from mote_fast.clip.clip_config import config_of_name
from mote_fast.clip.published import preprocessing_of
from mote_fast.clip.text_files import needs_transformers, tokenizer_of
from mote_fast.errors import BackendError, ConfigError
from mote_fast.head.video_head import VideoHead
from tests.tolerances import assert_close

NAMES = open_clip.list_models()
TAGS = open_clip.list_pretrained()
NEED_TRANSFORMERS = [name for name in NAMES if needs_transformers(config_of_name(name))]


def shrunk(name: str) -> dict[str, Any] | None:
    """An architecture's options at the smallest sizes; None if timm or transformers gives its sizes."""
    model = config_of_name(name).model
    vision, text = model["vision_cfg"], model["text_cfg"]
    if "timm_model_name" in vision or name in NEED_TRANSFORMERS:
        return None
    model |= {"embed_dim": 64, "text_cfg": text | {"width": 64, "layers": 2, "heads": 1, "vocab_size": 49408}}
    if isinstance(vision["layers"], list):
        model["vision_cfg"] = vision | {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}
    else:
        small = {"image_size": 32, "patch_size": 16, "layers": 2, "width": 64, "head_width": 32}
        model["vision_cfg"] = vision | small
    if "multimodal_cfg" in model:
        model["multimodal_cfg"] = model["multimodal_cfg"] | {"width": 64, "layers": 1, "heads": 1}
    return model


# One name for each set of options: most architectures differ in size alone.
FAMILIES = {repr(small): name for name in NAMES if (small := shrunk(name)) is not None}


def of_open_clip(values: dict[str, Any], size: int) -> tuple[Any, ...]:
    """What open_clip's own transform would be built with."""
    merged = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), {**values, "size": size}))
    return merged.size, merged.mean, merged.std, merged.resize_mode, merged.interpolation


def of_ours(config: Any) -> tuple[Any, ...]:
    return config.size, config.mean, config.std, config.resize_mode, config.interpolation


@pytest.mark.parametrize("name", NAMES)
def test_preprocessing_is_what_all_published_weights_share(name: str) -> None:
    """Without weights: what open_clip documents for every tag of the architecture; its default if tags differ."""
    config = config_of_name(name)
    size = config.model["vision_cfg"]["image_size"]
    tags = open_clip.list_pretrained_tags_by_model(name.removesuffix("-quickgelu"))
    base = name.removesuffix("-quickgelu")
    documented = {of_open_clip(open_clip.get_pretrained_cfg(base, tag), size) for tag in tags}
    wanted = documented.pop() if len(documented) == 1 else of_open_clip({}, size)
    assert of_ours(config.preprocessing) == wanted


@pytest.mark.parametrize(("name", "tag"), TAGS)
def test_preprocessing_of_tags_is_open_clips(name: str, tag: str) -> None:
    """Every tag has a resize mode, interpolation and normalisation that are supported."""
    values = open_clip.get_pretrained_cfg(name, tag)
    assert of_ours(preprocessing_of(values, 224, name)) == of_open_clip(values, 224)


class Recorder:
    """Stands for a tokenizer class, and records what it was called with."""

    vocab_size = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.call = (arguments, {name: value for name, value in options.items() if value is not None})


@pytest.mark.parametrize("name", NAMES)
def test_tokenizers_are_open_clips(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The class, the repository, the context length and the options equal those that open_clip would use.

    Ours never let a repository's code run, and follow from the configuration alone, not from the name.
    """
    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers"))
    for kind in ("HFTokenizer", "SimpleTokenizer", "SigLipTokenizer"):
        recorder = type(kind, (Recorder,), {})
        monkeypatch.setattr(open_clip.factory, kind, recorder)
        monkeypatch.setattr(open_clip, kind, recorder, raising=False)
        monkeypatch.setattr(f"mote_fast.clip.text_files.{kind}", recorder, raising=False)
    theirs: Any = open_clip.get_tokenizer(name)
    ours: Any = tokenizer_of(config_of_name(name))
    assert type(ours) is type(theirs)
    arguments, options = ours.call
    if type(ours).__name__ == "HFTokenizer":
        assert options.pop("trust_remote_code") is False
        assert options.pop("local_files_only") is False
    assert (arguments, options) == theirs.call


@pytest.mark.parametrize("name", NEED_TRANSFORMERS)
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without transformers, towers and tokenizers of it raise before anything is built, and name the extra."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BackendError, match=r"pip install 'mote_fast\[text\]'"):
        mote_fast.create_model(name)


@pytest.mark.parametrize("name", NAMES)
def test_heads_follow_the_text_width_or_are_asked_for(name: str) -> None:
    """Each architecture has temporal heads that fit its features, or the error names an argument that would do."""
    config = config_of_name(name)
    text = config.model["text_cfg"]
    try:
        heads = config.text_heads
    except ConfigError as error:
        asked = str(error).rpartition("such as heads=")[2]
        assert config.embed_dim % int(asked) == 0
        assert "width" not in text or config.embed_dim % (text["width"] // 64)
        return
    assert heads == max(1, text["width"] // 64)
    assert config.embed_dim % heads == 0


@pytest.mark.parametrize("name", ["EVA01-g-14", "coca_base"])
def test_heads_can_be_given(name: str) -> None:
    """Where the text width gives no number of heads, the argument does, and a head of that size is built."""
    # On the CPU: the error comes before the towers take their memory.
    with pytest.raises(ConfigError, match="pass heads="):
        mote_fast.create_model(name, layers=1, experts=2)
    with torch.device("meta"):
        model = mote_fast.create_model(name, layers=1, experts=2, heads=8, device="meta")
    assert isinstance(model.head, VideoHead)
    assert model.head.config.heads == 8


@pytest.mark.parametrize("name", NAMES)
def test_image_towers_of_timm_are_known(name: str) -> None:
    """The installed timm has each image tower that open_clip takes from it."""
    tower = config_of_name(name).model["vision_cfg"].get("timm_model_name")
    assert tower is None or timm.is_model(tower)


@pytest.mark.heavy
@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES.values())
def test_features_are_open_clips(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each family's options (activation, pooling, normalisation, ...) give the features of open_clip's own model."""
    torch.manual_seed(0)
    model = shrunk(name)
    assert model is not None
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Shrunk", model)
    theirs: Any = open_clip.create_model("Shrunk").eval()
    ours = load_towers("Shrunk", activation="quick_gelu" if model.get("quick_gelu", False) else "gelu")
    ours.model.load_state_dict(theirs.state_dict())
    pixels = torch.randn(2, 3, ours.image_size, ours.image_size)
    assert_close(ours.encode_frames(pixels), theirs.encode_image(pixels, normalize=False))
    tokens = ours.tokenizer(["archery", "playing the cello"])
    assert_close(ours.encode_tokens(tokens), theirs.encode_text(tokens, normalize=False))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in NEED_TRANSFORMERS])
def test_architectures_are_built_whole(name: str) -> None:
    """At full size, without memory: towers, and a head on them."""
    with torch.device("meta"):
        model = mote_fast.create_model(name, layers=1, experts=2, heads=1, device="meta")
    size = model.clip.model.visual.image_size
    assert model.clip.image_size == (size if isinstance(size, int) else size[0])


@pytest.mark.parametrize(
    ("name", "meant"), [("ViT-B/16", "did you mean 'ViT-B-16'"), ("vit-l-14", "'ViT-L-14'"), ("pi", "'pi'; open_clip")]
)
def test_a_misspelt_architecture(name: str, meant: str) -> None:
    """OpenAI writes a slash, timm small letters."""
    with pytest.raises(ConfigError, match=meant):
        config_of_name(name)
