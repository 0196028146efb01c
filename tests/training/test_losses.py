"""The objective for every method and head: the default to the bit, the ablations against their formulas."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mote_fast import VideoHead, head_optimizer
from mote_fast.errors import ConfigError, ShapeError
from mote_fast.head.head_config import HeadConfig
from mote_fast.head.video_head import cosine_logits
from mote_fast.training.losses import Loss, training_loss
from mote_fast.training.method import Draws, TrainingMethod
from mote_fast.training.streams import stream_features
from tests.streams import stream_logits
from tests.tolerances import assert_close

WIDTH, HEADS, LAYERS, CLASSES = 16, 2, 2, 6
DRAWS = Draws([0, 2], [-0.6, 2.4], [1, 1])
SCALE = 10.0


def make_head(train_class_features: Tensor | None = None, **options: Any) -> VideoHead:
    torch.manual_seed(0)
    sizes = {"embed_dim": WIDTH, "heads": HEADS, "layers": LAYERS, "experts": 3} | options
    head = VideoHead(HeadConfig(**sizes), train_class_features)
    for name, parameter in head.named_parameters():
        # Equal experts stay equal; the other parameters are scaled up so that errors show.
        if parameter.ndim > 1 and not (".mlp." in name and options.get("expert_init") == "same"):
            nn.init.normal_(parameter, std=0.3)
    return head


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    frames = torch.randn(4, 5, WIDTH, generator=generator)
    return frames, torch.randn(CLASSES, WIDTH, generator=generator), torch.tensor([0, 3, 5, 3])


INPUTS = inputs()


def loss_of(head: VideoHead, method: TrainingMethod, draws: Draws = DRAWS) -> Loss:
    return training_loss(head, *INPUTS, SCALE, method, draws)


def gradients(head: VideoHead, loss: Loss) -> dict[str, Tensor]:
    names, parameters = zip(*head.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss.total, parameters), strict=True))


def plain_twin(head: VideoHead) -> VideoHead:
    """A plain head with the parameters of the folded ``head``: those of its first expert if all are equal."""
    return head.fold().train()


class OperatorCounter(TorchDispatchMode):
    """Counts every operator that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def test_the_default_is_the_papers_objective() -> None:
    """Eq. (12): CE of both streams and the mean squared distance of features; one fused operator a layer."""
    head, (frames, classes, labels) = make_head(), INPUTS
    with OperatorCounter() as counter:
        loss = loss_of(head, TrainingMethod())
    assert counter.counts["mote_fast.expert_pair_ffn.default"] == LAYERS
    routed, merged = stream_logits(head, frames, classes, DRAWS)
    assert torch.equal(loss.routed, F.cross_entropy(SCALE * routed, labels))
    assert torch.equal(loss.merged, F.cross_entropy(SCALE * merged, labels))
    features = stream_features(head, frames, DRAWS.experts, DRAWS.temperatures)[1]
    assert torch.equal(loss.mse, F.mse_loss(features, frames))
    assert torch.equal(loss.total, loss.routed + 0.5 * loss.merged + 0.1 * loss.mse)


def test_a_scale_given_as_a_tensor_is_trained() -> None:
    """CLIP's logit scale is trained."""
    scale = torch.tensor(10.0, requires_grad=True)
    training_loss(make_head(), *INPUTS, scale, draws=DRAWS).total.backward()
    assert scale.grad is not None
    assert scale.grad != 0


def test_draws_come_from_the_generator() -> None:
    """Without draws the objective draws by its method: equal states give equal losses, other states other losses."""
    head, method = make_head(expert_design="up_down"), TrainingMethod()
    first, again, other = (
        training_loss(head, *INPUTS, SCALE, generator=torch.Generator().manual_seed(seed)).total for seed in (3, 3, 4)
    )
    drawn = method.draw(head.layers, head.experts, torch.Generator().manual_seed(3))
    assert torch.equal(first, again)
    assert torch.equal(first, loss_of(head, method, drawn).total)
    assert not torch.equal(first, other)


def test_weights_are_the_methods() -> None:
    """The total weights its parts with the method's weights."""
    loss = loss_of(make_head(), TrainingMethod(wmr_weight=0.25, mse_weight=2.0))
    assert_close(loss.total, loss.routed + 0.25 * loss.merged + 2.0 * loss.mse, "equivalent")


def test_without_regulariser_there_is_the_routed_stream_alone() -> None:
    """Table 1, "+ experts": cross-entropy of the routed stream, without merged stream and hence without MSE."""
    head = make_head()
    alone, both = loss_of(head, TrainingMethod(regulariser="none")), loss_of(head, TrainingMethod())
    assert_close(alone.total, both.routed)
    assert not alone.merged
    assert not alone.mse
    grads = gradients(head, alone)
    # The first layer is routed to expert 0, the last to expert 2; the others get nothing.
    for layer, used in enumerate([0, 2]):
        touched = grads[f"blocks.{layer}.mlp.weight"].abs().amax(1) > 0
        assert touched.tolist() == [expert == used for expert in range(3)]


def test_point_is_the_region_at_infinity() -> None:
    """Table 2e: the plain average is what infinite temperatures merge."""
    method = TrainingMethod(regulariser="point")
    head = make_head()
    drawn = method.draw(LAYERS, 3, torch.Generator().manual_seed(0))
    same = Draws(drawn.experts, [math.inf] * LAYERS, drawn.down_experts)
    assert torch.equal(loss_of(head, method, drawn).total, loss_of(head, TrainingMethod(), same).total)


def test_kl_pulls_the_merged_stream_to_the_routed_logits() -> None:
    """Table 7c: KL(routed || merged), mean over videos; the routed stream learns from the labels alone."""
    head, (frames, classes, labels) = make_head(), inputs()
    loss = loss_of(head, TrainingMethod(regulariser_loss="kl", mse_weight=0.0))
    routed, merged = stream_logits(head, frames, classes, DRAWS)
    p, q = ((SCALE * logits).softmax(-1) for logits in (routed, merged))
    assert_close(loss.merged, (p * (p / q).log()).sum(-1).mean())
    assert_close(loss.routed, F.cross_entropy(SCALE * routed, labels))


def test_mse_pulls_the_merged_stream_to_the_routed_features() -> None:
    """Table 7c: the mean squared distance of the two streams' features."""
    head = make_head()
    loss = loss_of(head, TrainingMethod(regulariser_loss="mse"))
    routed, merged = stream_features(head, inputs()[0], DRAWS.experts, DRAWS.temperatures)
    assert_close(loss.merged, (routed - merged).square().mean())
    assert_close(loss.total, loss.routed + 0.5 * loss.merged + 0.1 * loss.mse, "equivalent")


@pytest.mark.parametrize("regulariser_loss", ["kl", "mse"])
@pytest.mark.parametrize("expert_data", ["routed", "all"])
def test_the_routed_stream_is_a_teacher_that_is_not_taught(regulariser_loss: Any, expert_data: Any) -> None:
    """The regulariser's gradient reaches experts through the merge alone: equal to their merge weights' shares."""
    head = make_head(layers=1)
    method = TrainingMethod(regulariser_loss=regulariser_loss, expert_data=expert_data)
    loss = loss_of(head, method, Draws([0], [2.4], [0]))
    (grad,) = torch.autograd.grad(loss.merged, [head.blocks[0].mlp.weight])
    weights = (torch.arange(1, 4) / 2.4).softmax(-1)
    for expert in range(3):
        assert_close(grad[expert] / weights[expert], grad[0] / weights[0])


@pytest.mark.parametrize("regulariser_loss", ["ce", "kl", "mse"])
def test_all_data_is_the_mean_over_every_experts_own_stream(regulariser_loss: Any) -> None:
    """Table 2a: the routed loss, and the teacher's part of the regulariser, average over experts used throughout."""
    head = make_head()
    loss = loss_of(head, TrainingMethod(expert_data="all", regulariser_loss=regulariser_loss))
    method = TrainingMethod(regulariser_loss=regulariser_loss)
    single = [loss_of(head, method, Draws([e, e], DRAWS.temperatures, [e, e])) for e in range(3)]
    for part in ("routed", "merged", "mse", "total"):
        assert_close(getattr(loss, part), torch.stack([getattr(one, part) for one in single]).mean())


@pytest.mark.parametrize("design", ["ffn", "up_down", "up", "down"])
def test_same_start_and_all_data_is_the_plain_transformer(design: Any) -> None:
    """Table 2a's first row: losses, outputs and shared weights follow the plain head through ten AdamW steps.

    Each expert has 1/E of the plain FFN's gradient; AdamW is invariant to this factor.
    """
    head = make_head(expert_init="same", expert_design=design)
    plain = plain_twin(head)
    method = TrainingMethod(expert_data="all", regulariser="none")
    frames, classes, _ = inputs()
    losses: list[list[Tensor]] = [[], []]
    for model, found in zip((head, plain), losses, strict=True):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-20, weight_decay=0.2)
        for _ in range(10):
            loss = loss_of(model, method).total
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.detach())
    assert_close(torch.stack(losses[0]), torch.stack(losses[1]), "trajectory")
    assert losses[0][-1] < losses[0][0]
    with torch.no_grad():
        assert_close(head(frames, classes), plain(frames, classes), "trajectory")
        assert_close(head.features(frames, expert=1), plain.features(frames), "trajectory")


def test_same_start_and_routed_data_is_not_the_plain_transformer() -> None:
    """The identity above needs all data: with routed data only one expert is updated, and the merge changes less."""
    head = make_head(expert_init="same")
    grads = gradients(head, loss_of(head, TrainingMethod(regulariser="none")))["blocks.0.mlp.weight"]
    assert grads[0].any()
    assert not grads[1:].any()


@pytest.mark.parametrize("options", [{"header": "plain"}, {"experts": 0}, {"experts": 1}, {"header": "mean"}])
@pytest.mark.parametrize(
    "method",
    [
        TrainingMethod(),
        TrainingMethod(expert_data="all", regulariser_loss="kl"),
        TrainingMethod(routing="fixed", regulariser="point", regulariser_loss="mse"),
        TrainingMethod(regulariser="none"),
    ],
)
def test_baselines_train_by_cross_entropy_alone(options: dict[str, Any], method: TrainingMethod) -> None:
    """One FFN per layer or none is no mixture: with any method, the loss is the plain head's cross-entropy."""
    head = make_head(**options)
    frames, classes, labels = inputs()
    frames.requires_grad_()
    drawn = method.draw(head.layers, head.experts, torch.Generator().manual_seed(0))
    scale = torch.tensor(SCALE, requires_grad=True)
    loss = training_loss(head, frames, classes, labels, scale, method, drawn)
    expected = F.cross_entropy(SCALE * cosine_logits(head.features(frames), classes), labels)
    assert_close(loss.total, expected, "equivalent")
    assert torch.equal(loss.total, loss.routed)
    assert not loss.merged
    assert not loss.mse
    # What is left to train moves: every parameter of the head, the logit scale, and the image tower behind the frames.
    loss.total.backward()
    assert frames.grad is not None
    assert frames.grad.any()
    assert scale.grad
    assert all(parameter.grad is not None for parameter in head.parameters())


@torch.no_grad()
def test_a_single_expert_that_is_always_routed_to_is_the_plain_transformer() -> None:
    """Table 2d, "fixed (one expert)": the plain head's loss and outputs, and so its figures."""
    head = make_head(experts=1)
    plain, method = plain_twin(head), TrainingMethod(routing="fixed")
    drawn = method.draw(LAYERS, 1)
    assert_close(loss_of(head, method, drawn).total, loss_of(plain, method, drawn).total, "equivalent")
    frames, classes, _ = inputs()
    assert_close(head(frames, classes), plain(frames, classes), "equivalent")


def test_fixed_routing_trains_one_of_several_experts_as_the_plain_transformer() -> None:
    """Without regulariser the fixed expert gets exactly a plain FFN's gradient, and the others none."""
    head, method = make_head(), TrainingMethod(routing="fixed", regulariser="none")
    for block in head.temporal_blocks():
        block.mlp.fusion.copy_(torch.tensor([-math.inf, -math.inf, 0.0]))
    plain = plain_twin(head)
    drawn = method.draw(LAYERS, 3)
    mine, theirs = gradients(head, loss_of(head, method, drawn)), gradients(plain, loss_of(plain, method, drawn))
    for layer in range(LAYERS):
        grad = mine.pop(f"blocks.{layer}.mlp.weight")
        parts = [
            theirs.pop(f"blocks.{layer}.mlp.{name}") for name in ("up.weight", "up.bias", "down.weight", "down.bias")
        ]
        assert_close(grad[2], torch.cat([part.flatten() for part in parts]))
        assert not grad[:2].any()
    for name, grad in mine.items():
        assert_close(grad, theirs[name])


@pytest.mark.parametrize("design", ["ffn", "up_down", "up", "down"])
@pytest.mark.parametrize("expert_data", ["routed", "all"])
@pytest.mark.parametrize("regulariser", ["none", "region"])
@pytest.mark.parametrize("experts", [1, 2, 16])
def test_every_combination_trains(design: Any, expert_data: Any, regulariser: Any, experts: int) -> None:
    """Any design, data, regulariser and number of experts lowers the loss under the library's own optimiser."""
    head = make_head(expert_design=design, experts=experts)
    method = TrainingMethod(expert_data=expert_data, regulariser=regulariser)
    optimizer = head_optimizer(head, lr=3e-3)
    drawn = method.draw(LAYERS, experts, torch.Generator().manual_seed(1))
    before = loss_of(head, method, drawn).total
    for _ in range(5):
        optimizer.zero_grad()
        loss_of(head, method, drawn).total.backward()
        optimizer.step()
    assert loss_of(head, method, drawn).total < before


@pytest.mark.parametrize("design", ["ffn", "up_down", "up", "down"])
def test_draws_on_the_device_give_the_same(design: Any) -> None:
    """Draws as tensors, for compiled steps, give what lists give, down projections included."""
    head = make_head(expert_design=design)
    for method in (TrainingMethod(), TrainingMethod(regulariser="none"), TrainingMethod(expert_data="all")):
        assert_close(loss_of(head, method, DRAWS.to("cpu")).total, loss_of(head, method).total, "equivalent")


@pytest.mark.heavy
def test_a_step_compiles_whole() -> None:
    """Draws as tensors feed one graph with new experts and temperatures."""
    head, method = make_head(), TrainingMethod()

    def total(draws: tuple[Tensor, Tensor]) -> Tensor:
        return loss_of(head, method, Draws(*draws, draws[0])).total

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    for experts, temperatures in (([1, 2], [-0.6, math.inf]), ([0, 2], [9.6, 1.2])):
        draws = torch.tensor(experts), torch.tensor(temperatures)
        assert_close(compiled(draws), total(draws))


def test_down_projections_follow_their_own_draw() -> None:
    """Table 7a, "up_down": another down draw is another loss there, and the same loss in every other design."""
    other = Draws(DRAWS.experts, DRAWS.temperatures, [2, 0])
    for design in ("ffn", "up_down", "up", "down"):
        for method in (TrainingMethod(), TrainingMethod(regulariser="none")):
            head = make_head(expert_design=design)
            same = torch.equal(loss_of(head, method).total, loss_of(head, method, other).total)
            assert same == (design != "up_down")


def test_what_inference_does_is_no_part_of_training() -> None:
    """Aggregation and modulation are inference options: the loss does not depend on them."""
    head = make_head(train_class_features=torch.randn(4, WIDTH))
    expected = loss_of(head, TrainingMethod()).total
    other = copy.deepcopy(head)
    other.set_inference(aggregation="ensemble", modulation=False, modulation_top_k=1, modulation_gamma=1.0)
    assert torch.equal(loss_of(other, TrainingMethod()).total, expected)


@pytest.mark.parametrize(
    ("method", "draws", "message"),
    [
        (TrainingMethod(), Draws([0], [1.2, 1.2], [0, 0]), "experts needs one entry"),
        (TrainingMethod(), Draws([0, 1], [1.2], [0, 0]), "temperatures needs one entry"),
        (TrainingMethod(expert_data="all"), Draws([0, 1], [1.2], [0, 0]), "temperatures needs one entry"),
        (TrainingMethod(regulariser="none"), Draws([0, 3], [1.2, 1.2], [0, 0]), r"experts must lie in 0\.\.2"),
        (TrainingMethod(), Draws([0, 1], [1.2, 1.2], [0, -1]), r"down_experts must lie in 0\.\.2"),
        (TrainingMethod(), Draws([0, 1], [1.2, 0.0], [0, 0]), "temperature"),
    ],
)
def test_bad_draws_are_named(method: TrainingMethod, draws: Draws, message: str) -> None:
    """Draws that do not fit the head raise a ConfigError that says which."""
    with pytest.raises(ConfigError, match=message):
        loss_of(make_head(expert_design="up_down"), method, draws)


@pytest.mark.parametrize("expert_data", ["routed", "all"])
def test_binary_cross_entropy(expert_data: Any) -> None:
    """Each class of each stream is judged on its own, against the threshold; labels may be bool."""
    frames, classes, labels = INPUTS
    targets = F.one_hot(labels, CLASSES).float()
    targets[0, 4] = 1
    head, method = make_head(), TrainingMethod(loss="bce", bce_threshold=0.1, expert_data=expert_data)
    found = training_loss(head, frames, classes, targets, SCALE, method, DRAWS)
    assert torch.equal(training_loss(head, frames, classes, targets.bool(), SCALE, method, DRAWS).total, found.total)

    def plainly(features: Tensor) -> Tensor:
        chances = (SCALE * (cosine_logits(features, classes) - 0.1)).sigmoid()
        wanted = targets.repeat(len(features) // len(targets), 1)
        return -(wanted * chances.log() + (1 - wanted) * (1 - chances).log()).mean()

    if expert_data == "routed":
        routed, merged = stream_features(head, frames, DRAWS.experts, DRAWS.temperatures, DRAWS.down_experts)
        assert_close(found.routed, plainly(routed))
        assert_close(found.merged, plainly(merged))
    assert_close(found.total, found.routed + 0.5 * found.merged + 0.1 * found.mse)
    found.total.backward()


@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        ("ce", torch.zeros(4, CLASSES)),
        ("ce", torch.zeros(3, dtype=torch.int64)),
        ("ce", torch.zeros(4)),
        ("bce", torch.zeros(4, dtype=torch.int64)),
        ("bce", torch.zeros(4, CLASSES, dtype=torch.int64)),
        ("bce", torch.zeros(4, CLASSES - 1)),
    ],
)
def test_labels_of_another_loss_are_refused(loss: Any, labels: Tensor) -> None:
    """PyTorch would broadcast some of them, or take counts for probabilities."""
    frames, classes, _ = INPUTS
    with pytest.raises(ShapeError, match=f"loss '{loss}' needs labels"):
        training_loss(make_head(), frames, classes, labels, SCALE, TrainingMethod(loss=loss), DRAWS)
