"""SmoothQuant: the same float32 features, and activations that 8 bits can hold."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mote_fast.clip import ClipTowers, load_towers
from mote_fast.clip.clip_config import TEST_MODEL, ClipConfig
from mote_fast.clip.pretrained import build_towers
from mote_fast.clip.smooth_quant import smoothed
from tests.clip.outliers import with_outliers
from tests.tolerances import assert_close


@pytest.fixture(scope="module")
def towers() -> ClipTowers:
    torch.manual_seed(0)
    return load_towers("ViT-test")


def frames_for(towers: ClipTowers, count: int = 3) -> Tensor:
    size = towers.image_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


@torch.no_grad()
@given(factor=st.sampled_from([0.0, -1.0, 1e-30, 40.0, 1e6]), seed=st.integers(0, 3))
def test_the_function_stays(towers: ClipTowers, factor: float, seed: int) -> None:
    """Channels that are dead, negative, tiny or huge: the features of other frames are equal."""
    twin = with_outliers(towers, factor, seed=seed)
    pixels = frames_for(towers)
    assert_close(smoothed(twin, frames_for(towers, 9)).run_vision_tower(pixels), twin.run_vision_tower(pixels))


@torch.no_grad()
def test_outliers_are_moved(towers: ClipTowers) -> None:
    """Channels forty times larger are brought near the others, in every LayerNorm before a matrix product."""
    twin, pixels = with_outliers(towers, 40.0), frames_for(towers)

    def spread(towers: ClipTowers) -> list[float]:
        """The largest channel over the median one, of each LayerNorm."""
        visual = towers.model.visual
        norms = [norm for block in visual.transformer.resblocks for norm in (block.ln_1, block.ln_2)]
        largest: list[Tensor] = []
        hooks = [
            norm.register_forward_hook(lambda *found: largest.append(found[2].abs().flatten(0, -2).amax(0)))
            for norm in (*norms, visual.ln_post)
        ]
        towers.run_vision_tower(pixels)
        for hook in hooks:
            hook.remove()
        return [(channels.max() / channels.median()).item() for channels in largest]

    assert min(spread(twin)) > 20
    assert max(spread(smoothed(twin, pixels))) < 8


@torch.no_grad()
def test_the_twin_is_the_same_function(towers: ClipTowers) -> None:
    """The towers with outliers, on which int8 is tested, are the original in float32."""
    pixels = frames_for(towers)
    assert_close(with_outliers(towers, 40.0).run_vision_tower(pixels), towers.run_vision_tower(pixels))


def test_the_towers_are_not_changed(towers: ClipTowers) -> None:
    """Smoothing works on a copy of the image tower, and copies no text tower."""
    before = copy.deepcopy(towers.model.state_dict())
    result = smoothed(towers, frames_for(towers))
    assert all(torch.equal(before[name], value) for name, value in towers.model.state_dict().items())
    assert not towers.model.visual.ln_post._forward_hooks
    assert not result.model.visual.ln_post._forward_hooks
    for name, value in result.model.named_parameters():
        original = towers.model.get_parameter(name)
        assert (value is original) != name.startswith("visual.")


@torch.no_grad()
def test_norms_without_weights() -> None:
    """A LayerNorm that has no weight or no bias to divide is left out, or divided where it can be."""
    for options in ({"elementwise_affine": False}, {"bias": False}):
        values = {**TEST_MODEL, "vision_cfg": {**TEST_MODEL["vision_cfg"], "norm_kwargs": options}}
        torch.manual_seed(0)
        plain = build_towers(ClipConfig.of_clip(values, "Other"))
        pixels = frames_for(plain)
        assert_close(smoothed(plain, pixels).run_vision_tower(pixels), plain.run_vision_tower(pixels))
