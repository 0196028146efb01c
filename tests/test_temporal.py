"""The video head: against nn.MultiheadAttention and the spec's formulas, its variants, and its complaints."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mote_fast import ConfigError, VideoHead, mote_loss
from mote_fast.temporal import TemporalAttention
from tests.tolerances import assert_close

WIDTH, HEADS, CLASSES = 32, 4, 6


def make_head(**options: Any) -> VideoHead:
    torch.manual_seed(0)
    sizes = {"embed_dim": WIDTH, "heads": HEADS, "layers": 2, "experts": 3, "header": "mote"} | options
    head = VideoHead(**sizes)
    # The initial 0.02 leaves the temporal path too faint for errors in it to show.
    for parameter in head.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return head


def inputs(batch: int = 3, frames: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(batch, frames, WIDTH, generator=generator), torch.randn(CLASSES, WIDTH, generator=generator)


@given(batch=st.integers(1, 4), frames=st.integers(1, 20))
def test_attention_matches_multihead_attention(batch: int, frames: int) -> None:
    """Ours and PyTorch's own module give the same for the same parameters."""
    ours, theirs = TemporalAttention(WIDTH, HEADS), nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(batch, frames, WIDTH)
    assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


@torch.no_grad()
@pytest.mark.parametrize("header", ["mote", "plain", "mean"])
def test_fold_changes_nothing(header: str) -> None:
    """A folded head gives the same features and logits, with modulation and fusion weights, in every variant."""
    head = make_head(header=header, train_class_features=torch.randn(7, WIDTH))
    for block in head.blocks if header == "mote" else ():
        block.mlp.fusion.normal_()
    frames, classes = inputs()
    folded = head.fold()
    assert folded.header == ("mean" if header == "mean" else "plain")
    assert_close(folded(frames, classes), head(frames, classes), "equivalent")
    assert_close(folded.features(frames, classes), head.features(frames, classes), "equivalent")


@torch.no_grad()
def test_mean_header_is_mean_pooling() -> None:
    """CLIP-Mean: the cosine of the mean frame feature, no parameters."""
    head = make_head(header="mean")
    frames, classes = inputs()
    assert not list(head.parameters())
    assert torch.equal(head.features(frames), frames)
    assert_close(head(frames, classes), torch.cosine_similarity(frames.mean(1)[:, None], classes[None], dim=-1))


@torch.no_grad()
def test_one_expert_equals_a_plain_ffn() -> None:
    """A mixture of one and the plain header are the same function of the same weights."""
    one, plain = make_head(experts=1), make_head(header="plain")
    released = {
        name.replace("mlp.fc_up.0", "mlp.c_fc").replace("mlp.fc_dn.0", "mlp.c_proj"): value
        for name, value in one.released_state_dict().items()
        if not name.endswith("fusion_weight")
    }
    plain = VideoHead.from_released(released, HEADS)
    assert plain.header == "plain"
    assert_close(plain(*inputs()), one(*inputs()), "equivalent")
    assert make_head(experts=0).header == "plain"


@torch.no_grad()
def test_modulation_needs_fine_tuning_classes() -> None:
    """Without class features, or with the released all-zero placeholder, modulation leaves the features alone."""
    frames, classes = inputs()
    for stored in (None, torch.zeros(4, WIDTH)):
        head = make_head(train_class_features=stored)
        assert torch.equal(head.features(frames, classes), head.features(frames))
    modulated = make_head(train_class_features=torch.randn(4, WIDTH))
    assert not torch.equal(modulated.features(frames, classes), modulated.features(frames))
    assert torch.equal(modulated(frames, classes, modulate=False), head(frames, classes))


def test_streams_draw_from_the_generator() -> None:
    """Left to draw, the same generator state gives the same streams, and another state others."""
    head = make_head()
    frames, classes = inputs()
    first, again, other = (
        head.streams(frames, classes, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first.routed_logits, again.routed_logits)
    assert torch.equal(first.merged_logits, again.merged_logits)
    assert not torch.equal(first.merged_logits, other.merged_logits)


def test_streams_equal_two_separate_passes() -> None:
    """Sharing the first attention and batching the others changes no value: each stream alone gives the same."""
    head = make_head(layers=3)
    frames, classes = inputs()
    experts, temperatures = [0, 2, 1], [-0.6, 2.4, float("inf")]
    streams = head.streams(frames, classes, experts, temperatures)
    routed = merged = frames + head.frame_positions[: frames.shape[1]]
    for block, expert, temperature in zip(head.blocks, experts, temperatures, strict=True):
        routed, merged = block.attend(routed), block.attend(merged)
        routed = routed + block.mlp.pair(block.ln_2(routed), block.ln_2(routed), expert, temperature)[0]
        merged = merged + block.mlp.pair(block.ln_2(merged), block.ln_2(merged), expert, temperature)[1]

    def cosines(features: Tensor) -> Tensor:
        return torch.cosine_similarity((features + frames).mean(1)[:, None], classes[None], dim=-1)

    assert_close(streams.routed_logits, cosines(routed))
    assert_close(streams.merged_logits, cosines(merged))
    assert_close(streams.mse, merged.square().mean())


def test_loss_weights() -> None:
    """The total is CE + 0.5 CE + 0.1 MSE unless told otherwise, and a tensor scale is trained through."""
    head = make_head()
    frames, classes = inputs()
    streams = head.streams(frames, classes, [0, 1], [1.2, 1.2])
    scale = torch.tensor(10.0, requires_grad=True)
    loss = mote_loss(streams, torch.tensor([0, 1, 2]), scale)
    assert_close(loss.total, loss.routed + 0.5 * loss.merged + 0.1 * loss.mse, "equivalent")
    loss.total.backward()
    assert scale.grad is not None
    assert scale.grad != 0
    alone = mote_loss(streams, torch.tensor([0, 1, 2]), 10.0, wmr_weight=0.0, mse_weight=0.0)
    assert torch.equal(alone.total, alone.routed)


def test_half_precision_head_stays_close() -> None:
    """A bfloat16 head gives bfloat16 logits near the float32 ones."""
    head = make_head(train_class_features=torch.randn(7, WIDTH))
    frames, classes = inputs()
    with torch.no_grad():
        expected = head(frames, classes)
        found = head.bfloat16()(frames.bfloat16(), classes.bfloat16())
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), expected, "bfloat16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"header": "other"}, "header"),
        ({"layers": 0}, "layers"),
        ({"heads": 5}, "heads"),
        ({"train_class_features": torch.ones(3, WIDTH + 1)}, "train_class_features"),
    ],
)
def test_bad_sizes_are_named(options: dict[str, Any], message: str) -> None:
    """Each contradiction raises a ConfigError that names the argument."""
    with pytest.raises(ConfigError, match=message):
        make_head(**options)


def test_bad_inputs_are_named() -> None:
    """Wrong shapes and draws raise before anything is computed."""
    head = make_head()
    frames, classes = inputs()
    for wrong in (frames[0], frames[..., 1:], frames[:, :0], torch.zeros(1, 78, WIDTH)):
        with pytest.raises(ConfigError, match="frames"):
            head(wrong, classes)
    with pytest.raises(ConfigError, match="one entry for each"):
        head.streams(frames, classes, [0], [1.2, 1.2])
    with pytest.raises(ConfigError, match=r"0\.\.2"):
        head.streams(frames, classes, [0, 3], [1.2, 1.2])
    with pytest.raises(ConfigError, match="train"):
        make_head(header="mean").streams(frames, classes)
