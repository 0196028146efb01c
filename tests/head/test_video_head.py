"""The video head: against nn.MultiheadAttention and the equations, its variants, and its errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from mote_fast import VideoHead
from mote_fast.errors import ConfigError
from mote_fast.head.head_config import HeadConfig
from mote_fast.head.modulation import modulation_factor
from mote_fast.head.temporal_block import TemporalAttention
from mote_fast.head.video_head import cosine_logits
from mote_fast.model.released import head_from_released, head_to_released
from tests.tolerances import assert_close

WIDTH, HEADS, CLASSES = 32, 4, 6


def make_head(train_class_features: Tensor | None = None, **options: Any) -> VideoHead:
    torch.manual_seed(0)
    sizes = {"embed_dim": WIDTH, "heads": HEADS, "layers": 2, "experts": 3, "header": "mote"} | options
    head = VideoHead(HeadConfig(**sizes), train_class_features)
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
@pytest.mark.parametrize("design", ["ffn", "up_down", "up", "down"])
@pytest.mark.parametrize("header", ["mote", "plain", "mean"])
def test_fold_changes_nothing(header: str, design: str) -> None:
    """A folded head gives the same features and logits, with modulation and fusion weights, in every variant."""
    head = make_head(header=header, expert_design=design, train_class_features=torch.randn(7, WIDTH))
    for block in head.blocks if header == "mote" else ():
        block.mlp.fusion.normal_()
    frames, classes = inputs()
    folded = head.fold()
    assert folded.config.header == ("mean" if header == "mean" else "plain")
    assert_close(folded(frames, classes), head(frames, classes), "equivalent")
    assert_close(folded.features(frames, classes), head.features(frames, classes), "equivalent")


def every_expert(head: VideoHead, frames: Tensor, classes: Tensor) -> Tensor:
    """Cosine logits [E, B, C] of each expert used throughout, layer by layer as eq. (3) to eq. (7) write it."""
    logits, weights = [], torch.full((head.experts,), 1 / head.experts)
    for expert in range(head.experts):
        x = frames + head.frame_positions[: frames.shape[1]]
        for block in head.temporal_blocks():
            x = block.attend(x)
            x = x + block.mlp.pair(block.ln_2(x), block.ln_2(x), expert, weights)[0]
        logits.append(torch.cosine_similarity((x + frames).mean(1)[:, None], classes[None], dim=-1))
    return torch.stack(logits)


@torch.no_grad()
@pytest.mark.parametrize("design", ["ffn", "up_down", "up", "down"])
def test_ensemble_averages_the_experts_logits(design: str) -> None:
    """Table 2c: one pass for each expert, mean of the logits; one expert alone is its share of that."""
    head = make_head(expert_design=design, aggregation="ensemble")
    frames, classes = inputs()
    alone = every_expert(head, frames, classes)
    assert_close(head(frames, classes), alone.mean(0))
    for expert in range(3):
        assert_close(cosine_logits(head.features(frames, expert=expert), classes), alone[expert])


@torch.no_grad()
def test_ensemble_features_rank_as_its_logits() -> None:
    """Classifying by the features of an ensemble gives its logits up to one factor per video."""
    head = make_head(aggregation="ensemble", train_class_features=torch.randn(4, WIDTH))
    frames, classes = inputs()
    logits, cosines = head(frames, classes), cosine_logits(head.features(frames, classes), classes)
    factors = logits / cosines
    assert_close(factors, factors[:, :1].expand_as(factors))
    assert (factors > 0).all()


@torch.no_grad()
@pytest.mark.parametrize("design", ["ffn", "up_down", "up", "down"])
def test_random_routing_draws_from_the_generator(design: str) -> None:
    """Table 2c: each video draws its own expert in each layer; the generator's state alone decides."""
    head = make_head(expert_design=design, aggregation="random", experts=2, layers=1)
    frame, classes = inputs(batch=1)
    # The same video many times: one result per expert choice in the layer, all about equally often.
    frames = frame.expand(200, -1, -1)
    first, again, other = (head(frames, classes, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    answers, counts = (first * 1e4).round().unique(dim=0, return_counts=True)
    ways = 4 if design == "up_down" else 2
    assert len(answers) == ways
    assert counts.min() > 200 / ways / 2
    if design != "up_down":
        expected = (every_expert(head, frame, classes)[:, 0] * 1e4).round().unique(dim=0)
        assert_close(answers, expected, "float32")


@torch.no_grad()
@pytest.mark.parametrize("aggregation", ["ensemble", "random"])
def test_what_does_not_merge_is_not_folded(aggregation: str) -> None:
    """``fold`` returns such a head itself; with one FFN per layer it still folds."""
    head = make_head(aggregation=aggregation)
    assert head.fold() is head
    assert head.fold()(*inputs(), generator=torch.Generator().manual_seed(0)).shape == (3, CLASSES)
    single = make_head(aggregation=aggregation, experts=1)
    assert single.fold().config.header == "plain"
    assert_close(single.fold()(*inputs()), single(*inputs()), "equivalent")


@torch.no_grad()
@pytest.mark.parametrize("aggregation", ["merge", "ensemble", "random"])
@pytest.mark.parametrize("options", [{"header": "plain"}, {"header": "mean"}, {"experts": 1}, {"experts": 0}])
def test_with_one_ffn_every_aggregation_is_the_same(aggregation: str, options: dict[str, Any]) -> None:
    """With one FFN nothing changes, and no random number is drawn."""
    state = torch.get_rng_state()
    head, merging = (make_head(aggregation=way, **options) for way in (aggregation, "merge"))
    torch.set_rng_state(state)
    assert torch.equal(head(*inputs()), merging(*inputs()))
    assert_close(head.features(inputs()[0], expert=0), merging.features(inputs()[0]))
    assert torch.equal(torch.get_rng_state(), state)


@torch.no_grad()
def test_modulation_options_reach_the_factor() -> None:
    """Tables 2f and 7b: K and gamma change the temporal part as the factor says; off leaves it whole; folding keeps."""
    tuned = torch.randn(9, WIDTH)
    frames, classes = inputs()
    head = make_head(train_class_features=tuned, modulation_top_k=2, modulation_gamma=0.7)
    temporal = head.features(frames) - frames
    factor = modulation_factor(frames, F.normalize(classes, dim=-1), F.normalize(tuned, dim=-1), top_k=2, gamma=0.7)
    expected = factor[:, None, None] * temporal + frames
    assert_close(head.features(frames, classes), expected)
    assert_close(head.fold().features(frames, classes), expected)
    head.set_inference(modulation=False)
    assert torch.equal(head.features(frames, classes), head.features(frames))
    assert torch.equal(head.fold().features(frames, classes), head.fold().features(frames))


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
        for name, value in head_to_released(one).items()
        if not name.endswith("fusion_weight")
    }
    plain = head_from_released(released, HEADS)
    assert plain.config.header == "plain"
    assert_close(plain(*inputs()), one(*inputs()), "equivalent")
    assert make_head(experts=0).config.header == "plain"


@torch.no_grad()
def test_modulation_needs_fine_tuning_classes() -> None:
    """Without class features, or with the official all-zero placeholder, modulation does not change the features."""
    frames, classes = inputs()
    for stored in (None, torch.zeros(4, WIDTH)):
        head = make_head(train_class_features=stored)
        assert torch.equal(head.features(frames, classes), head.features(frames))
    modulated = make_head(train_class_features=torch.randn(4, WIDTH))
    assert not torch.equal(modulated.features(frames, classes), modulated.features(frames))
    assert torch.equal(modulated(frames, classes, modulate=False), head(frames, classes))


def test_half_precision_head_stays_close() -> None:
    """A bfloat16 head gives float32 logits near those of a float32 one."""
    head = make_head(train_class_features=torch.randn(7, WIDTH))
    frames, classes = inputs()
    with torch.no_grad():
        expected = head(frames, classes)
        found = head.bfloat16()(frames.bfloat16(), classes.bfloat16())
    assert found.dtype == torch.float32
    assert_close(found.float(), expected, "bfloat16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"header": "other"}, "header"),
        ({"layers": 0}, "layers"),
        ({"heads": 5}, "heads"),
        ({"expert_init": "other"}, "expert_init"),
        ({"expert_design": "other"}, "expert_design"),
        ({"header": "plain", "expert_design": "other"}, "expert_design"),
        ({"aggregation": "other"}, "aggregation"),
        ({"modulation_top_k": 0}, "modulation_top_k"),
        ({"modulation_gamma": 0.0}, "modulation_gamma"),
        ({"modulation_gamma": float("nan")}, "modulation_gamma"),
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
    for expert in (-1, 3):
        with pytest.raises(ConfigError, match=r"expert must lie in 0\.\.2"):
            head.features(frames, expert=expert)


def test_a_refused_setting_changes_nothing() -> None:
    """``set_inference`` checks all before it sets any."""
    head = make_head()
    with pytest.raises(ConfigError, match="modulation_gamma"):
        head.set_inference(aggregation="ensemble", modulation_gamma=-1.0)
    assert (head.config.aggregation, head.config.modulation_gamma) == ("merge", 0.05)


def test_cosines_keep_float32_under_autocast() -> None:
    """Scaled by 100, bfloat16's eight bits would move logits by half a unit."""
    torch.manual_seed(0)
    features, classes = torch.randn(3, 4, 64), torch.randn(5, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = cosine_logits(features, classes)
    assert_close(found, cosine_logits(features, classes), "exact")


def test_classes_stay_exact_beside_a_rounded_head() -> None:
    """The cosines of a bfloat16 head are float32, and take float32 classes as they are, modulated or not."""
    torch.manual_seed(0)
    head = VideoHead(HeadConfig(16, 2, 1, 2), torch.randn(3, 16)).bfloat16()
    frames, classes = torch.randn(2, 4, 16).bfloat16(), torch.randn(5, 16)
    cosines = head(frames, classes)
    assert cosines.dtype == torch.float32
    features = head.features(frames, classes)
    assert_close(cosines, cosine_logits(features.float(), classes), "exact")
    assert not torch.equal(cosines, head(frames, classes.bfloat16()))
