"""Modules are built without drawing numbers, and what no file holds is there all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from torch import Tensor, nn

import mote_fast
from mote_fast.clip import load_towers
from mote_fast.runtime.skip_init import skip_init
from tests.clip.test_architectures import FAMILIES, shrunk
from tests.tolerances import assert_close

INITIALIZATIONS = [
    Tensor.normal_,
    Tensor.uniform_,
    nn.init.normal_,
    nn.init.uniform_,
    nn.init.trunc_normal_,
    nn.init.kaiming_normal_,
    nn.init.kaiming_uniform_,
    nn.init.xavier_normal_,
    nn.init.xavier_uniform_,
]


@pytest.fixture
def unset_memory() -> Iterator[None]:
    """New memory holds NaN, so that whatever is neither computed nor loaded shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("draw", INITIALIZATIONS, ids=lambda draw: f"{getattr(draw, '__qualname__', draw)}")
def test_nothing_is_drawn(draw: Callable[..., Tensor]) -> None:
    """The generator stays as it is, inside the context alone, and the tensor holds zeros, or what follows from them."""
    tensor, state = torch.full((4, 4), 7.0), torch.get_rng_state()
    with skip_init():
        assert draw(tensor) is tensor
    assert (tensor == 0).all()
    assert torch.equal(torch.get_rng_state(), state)
    draw(tensor)
    assert not torch.equal(torch.get_rng_state(), state)


def test_constants_are_set() -> None:
    """What an initialisation does not draw has its value; a tensor may be given by name."""
    with skip_init():
        norm, linear = nn.LayerNorm(5), nn.Linear(3, 2)
        nn.init.constant_(linear.weight, 2.0)
        nn.init.normal_(tensor=linear.bias)
    assert (norm.weight == 1).all()
    assert (linear.weight == 2).all()
    assert (linear.bias == 0).all()


def test_other_threads_draw() -> None:
    """A model that is built beside one that is loaded has its random numbers."""
    found: list[Tensor] = []
    with skip_init():
        thread = threading.Thread(target=lambda: found.append(torch.full((9,), 7.0).normal_()))
        thread.start()
        thread.join()
    assert (found[0] != 7).all()


@pytest.mark.heavy
@torch.no_grad()
@pytest.mark.usefixtures("unset_memory")
@pytest.mark.parametrize("name", FAMILIES.values())
def test_towers_are_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each family of open_clip's architectures, with the weights of a model that was built as ever."""
    model = shrunk(name)
    assert model is not None
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Shrunk", model)
    drawn = load_towers("Shrunk", activation="gelu")
    with skip_init():
        found = load_towers("Shrunk", activation="gelu")
    found.model.load_state_dict(drawn.model.state_dict())
    pixels = torch.randn(2, 3, found.image_size, found.image_size)
    assert_close(found.encode_frames(pixels), drawn.encode_frames(pixels))
    tokens = found.tokenizer(["archery", "playing the cello"])
    assert_close(found.encode_tokens(tokens), drawn.encode_tokens(tokens))


@torch.no_grad()
@pytest.mark.usefixtures("unset_memory")
@pytest.mark.parametrize(
    "name",
    ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "convnext_atto", "resnet10t", "vit_relpos_small_patch16_224"],
)
def test_towers_of_timm_are_whole(name: str) -> None:
    """Positions that are rotated or relative, and running means, are no draws."""
    drawn = timm.create_model(name).eval()
    with skip_init():
        found = timm.create_model(name).eval()
    found.load_state_dict(drawn.state_dict())
    size = drawn.default_cfg["input_size"][-1]
    pixels = torch.randn(1, 3, size, size)
    assert_close(found(pixels), drawn(pixels))


@torch.no_grad()
@pytest.mark.usefixtures("unset_memory")
@pytest.mark.parametrize("kind", ["BertModel", "RobertaModel", "XLMRobertaModel", "T5EncoderModel"])
def test_text_towers_of_transformers_are_whole(kind: str) -> None:
    """Positions that are numbers of a buffer are no draws."""
    transformers = pytest.importorskip("transformers")
    values: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    values |= {"intermediate_size": 16, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    build = getattr(transformers, kind)
    config = build.config_class(**values)
    drawn = build(config).eval()
    with skip_init():
        found = build(config).eval()
    found.load_state_dict(drawn.state_dict())
    tokens = torch.tensor([[5, 6, 7]])
    assert_close(found(tokens).last_hidden_state, drawn(tokens).last_hidden_state)


@pytest.mark.usefixtures("unset_memory")
@pytest.mark.parametrize(
    "options",
    [{}, {"header": "mean"}, {"expert_design": "up_down"}],
    ids=["experts", "mean", "projections"],
)
def test_a_loaded_folder_is_whole(tmp_path: Path, options: dict[str, Any]) -> None:
    """Every tensor is the saved one's."""
    saved = mote_fast.create_model("ViT-test", layers=1, experts=2, heads=1, **options)
    saved.save(tmp_path / "model")
    found = mote_fast.load(tmp_path / "model")
    for one, other in zip(
        (*saved.parameters(), *saved.buffers()), (*found.parameters(), *found.buffers()), strict=True
    ):
        assert torch.equal(one, other)
