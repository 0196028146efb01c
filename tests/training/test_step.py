"""One step: the official trajectory, accumulation, frozen towers, recomputation, precision, draws."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import mote_fast
from mote_fast.clip import tower_compiler
from mote_fast.data.loading.batch import Batch
from mote_fast.head.head_config import HeadConfig
from mote_fast.head.video_head import VideoHead
from mote_fast.model.classifier import VideoClassifier
from mote_fast.model.released import head_from_released
from mote_fast.training import step as step_module
from mote_fast.training.build import build_optimizer
from mote_fast.training.config.sections import OptimConfig, Precision
from mote_fast.training.method import Draws, TrainingMethod
from mote_fast.training.optim import head_optimizer
from mote_fast.training.step import Arithmetic, Objective, draws_of_step, train_step
from tests.pretended_cuda import pretended_cuda
from tests.test_golden import HEADS, LOGIT_SCALE, draws
from tests.tolerances import assert_close

CPU = torch.device("cpu")
METHOD = TrainingMethod()


class GivenFeatures(nn.Module):
    """Replaces the towers, because the golden numbers begin with frame features [B, T, d]."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = torch.tensor(LOGIT_SCALE)
        self.device = CPU

    def run_vision_tower(self, features: Tensor) -> Tensor:
        return features


def trainable(seed: int = 0, classes: int = 5, train_clip: bool = True) -> VideoClassifier:
    """The smallest architecture with class features stored, as training sets it up."""
    torch.manual_seed(seed)
    model = mote_fast.create_model("ViT-test", frames=3)
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    if train_clip:
        model.clip.model.visual.requires_grad_(True)
        model.clip.model.logit_scale.requires_grad_(True)
    model.head.set_train_class_features(torch.randn(classes, model.clip.embed_dim))
    return model


def batches(count: int, size: int = 2, seed: int = 1) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Batch(
            torch.randn(size, 3, 3, 64, 64, generator=generator),
            torch.randint(5, (size,), generator=generator),
            torch.arange(size),
        )
        for _ in range(count)
    ]


def routes(model: VideoClassifier, count: int, step: int = 0) -> list[Draws]:
    return draws_of_step(model.head, METHOD, count, seed=0, step=step, rank=0)


def gradients_of(model: VideoClassifier, given: list[Batch], precision: Precision = "fp32", **options: Any) -> Any:
    """The gradients of one step's mean loss, from ``train_step``, by parameter."""
    optimizer = build_optimizer(model, OptimConfig())
    found: dict[str, Tensor] = {}

    def keep(*_: Any) -> None:
        for collector in optimizer.collectors.values():
            collector.densify()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                found[name] = parameter.grad.clone()

    optimizer.register_step_pre_hook(keep)
    objective, arithmetic = Objective(model, METHOD, **options), Arithmetic(precision, CPU)
    while not found:
        # float16's scaler starts high, and skips steps until it has come down.
        result = train_step(objective, optimizer, iter(given), routes(model, len(given)), arithmetic)
    return found, result.losses


def test_golden_trajectory(golden: dict[str, Any], golden_head: dict[str, Tensor], released_head: Any) -> None:
    """Ten training steps from the released head give the official losses."""
    head = head_from_released(released_head, HEADS)
    head.set_train_class_features(golden_head["input.text"])
    features, labels = golden_head["input.video"], golden_head["input.labels"]
    model = nn.Module()
    model.clip, model.head = GivenFeatures(), head
    objective = Objective(model, METHOD)  # pyright: ignore[reportArgumentType]
    optimizer = head_optimizer(head, lr=1e-3)
    losses = []
    for number in range(len(golden["trajectory"]["losses"])):
        result = train_step(
            objective,
            optimizer,
            iter([Batch(features, labels, torch.arange(len(labels)))]),
            [draws(golden, number)],
            Arithmetic("fp32", CPU),
        )
        losses.append(result.losses[0])
    assert_close(torch.stack(losses), torch.tensor(golden["trajectory"]["losses"]), "trajectory")


@pytest.mark.heavy
def test_accumulated_batches_give_the_mean_gradient() -> None:
    """A step over two batches has the mean of their gradients and losses, each batch with its own draws."""
    given = batches(2)
    together, losses = gradients_of(trainable(), given)
    apart = []
    for number, batch in enumerate(given):
        model = trainable()
        optimizer = build_optimizer(model, OptimConfig())
        loss = Objective(model, METHOD)(batch.pixels, batch.labels, routes(model, 2)[number])
        loss.total.backward()
        for collector in optimizer.collectors.values():
            collector.densify()
        apart.append(
            (loss.total.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        )
    assert together.keys() == apart[0][1].keys()
    for name, gradient in together.items():
        assert_close(gradient, (apart[0][1][name] + apart[1][1][name]) / 2)
    assert_close(losses[0], (apart[0][0] + apart[1][0]) / 2)


def test_a_step_takes_as_many_batches_as_it_has_draws_and_leaves_no_gradients() -> None:
    """The rest of the iterator is the next step's, and the memory is free between steps."""
    model = trainable()
    given: Iterator[Batch] = iter(batches(3))
    optimizer = build_optimizer(model, OptimConfig())
    train_step(Objective(model, METHOD), optimizer, given, routes(model, 2), Arithmetic("fp32", CPU))
    assert len(list(given)) == 1
    assert all(parameter.grad is None for parameter in model.parameters())


def test_recomputation_changes_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradient checkpointing over pieces that do not divide the frames does not change the gradients."""
    monkeypatch.setattr(step_module, "FRAMES_PER_RECOMPUTATION", 4)
    plain, _ = gradients_of(trainable(), batches(1))
    again, _ = gradients_of(trainable(), batches(1), grad_checkpointing=True)
    for name, gradient in plain.items():
        assert_close(again[name], gradient)


@pytest.mark.heavy
def test_compiled_tower_gives_the_same_step_and_keeps_expert_gradients_factored() -> None:
    """torch.compile takes the image tower alone."""
    plain, _ = gradients_of(trainable(), batches(1))
    model = trainable()
    objective = Objective(model, METHOD)
    objective.compiler.compile(backend="aot_eager", fullgraph=True)
    optimizer = build_optimizer(model, OptimConfig())
    (batch,) = batches(1)
    objective(batch.pixels, batch.labels, routes(model, 1)[0]).total.backward()
    assert all(collector.factors for collector in optimizer.collectors.values())
    assert_close(model.clip.model.visual.conv1.weight.grad, plain["clip.model.visual.conv1.weight"])


@pytest.mark.slow
def test_a_compiled_tower_is_recomputed_by_the_graph_that_ran_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph serves all parts of the frames, also a last one that is shorter."""
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(step_module, "FRAMES_PER_RECOMPUTATION", 4)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    torch._dynamo.reset()
    plain, _ = gradients_of(trainable(), batches(1))
    again, _ = gradients_of(trainable(), batches(1), grad_checkpointing=True, compile=True)
    assert counter.frame_count == 1
    for name, gradient in plain.items():
        assert_close(again[name], gradient)


def test_auto_compiles_on_a_gpu_alone_and_says_why_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a CPU compiling gains little; a missing compiler costs a warning and no more; features need no tower."""
    monkeypatch.setattr("mote_fast.clip.towers.resolve_backend", lambda *_: "sdpa")
    model = trainable()
    assert Objective(model, METHOD, compile="auto").compiler.state == "eager"
    assert Objective(model, METHOD, compile=True).compiler.state == "compiled"
    with pretended_cuda():
        model.to("cuda")
        monkeypatch.setattr(tower_compiler, "compiler_problem", lambda device: "Triton is not installed")
        assert Objective(model, METHOD, compile="auto", cached=True).compiler.state == "eager"
        assert not caplog.records
        assert Objective(model, METHOD, compile="auto").compiler.state == "eager: Triton is not installed"
        assert "without torch.compile: Triton is not installed" in caplog.text
        monkeypatch.setattr(tower_compiler, "compiler_problem", lambda device: None)
        assert Objective(model, METHOD, compile=False).compiler.state == "eager"
        assert Objective(model, METHOD, compile="auto").compiler.state == "compiled"


def test_frozen_towers_stay() -> None:
    """Without train_clip only the head moves, and no gradient reaches the image tower."""
    model = trainable(train_clip=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients, _ = gradients_of(model, batches(1), train_clip=False)
    assert all(name.startswith("head.") for name in gradients)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("head.") for name in moved)


def test_groups_and_rates() -> None:
    """The head's group comes first; the image tower and the logit scale have clip_ratio of its rate; all decay."""
    model = trainable()
    optimizer = build_optimizer(model, OptimConfig(lr=1e-3, clip_ratio=0.07, weight_decay=0.2))
    head, clip = optimizer.param_groups
    assert [head["lr"], clip["lr"]] == pytest.approx([1e-3, 7e-5])
    assert head["weight_decay"] == clip["weight_decay"] == 0.2
    visual = [*model.clip.model.visual.parameters(), model.clip.model.logit_scale]
    assert {id(parameter) for parameter in clip["params"]} == {id(parameter) for parameter in visual}
    assert {id(parameter) for parameter in head["params"]} == {id(parameter) for parameter in model.head.parameters()}


@pytest.mark.heavy
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_stays_near_float32(precision: Precision) -> None:
    """Gradients come unscaled, in float32, and close to the exact ones."""
    exact, exact_losses = gradients_of(trainable(), batches(1))
    rough, losses = gradients_of(trainable(), batches(1), precision)
    assert all(gradient.dtype == torch.float32 for gradient in rough.values())
    assert_close(losses, exact_losses, "bfloat16")
    name = "head.blocks.0.attn.out_proj.weight"
    cosine = torch.nn.functional.cosine_similarity(rough[name].flatten(), exact[name].flatten(), dim=0)
    assert cosine > 0.98
    assert 0.9 < float(rough[name].norm() / exact[name].norm()) < 1.1


def test_an_overflow_skips_the_step_and_lowers_the_scale() -> None:
    """float16's scaler works in ``train_step``, including the experts' factors."""
    model = trainable()
    optimizer, arithmetic = build_optimizer(model, OptimConfig()), Arithmetic("fp16", CPU)
    (batch,) = batches(1)
    before = [parameter.clone() for parameter in model.parameters()]
    scale = arithmetic.scaler.get_scale()
    poisoned = Batch(batch.pixels * float("inf"), batch.labels, batch.indices)
    train_step(Objective(model, METHOD), optimizer, iter([poisoned]), routes(model, 1), arithmetic)
    assert arithmetic.scaler.get_scale() == scale / 2
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_clipping_reports_the_norm_before_it() -> None:
    """The norm spans head and towers, and the step sees gradients of the allowed norm."""
    gradients, _ = gradients_of(trainable(), batches(1))
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    model = trainable()
    optimizer = build_optimizer(model, OptimConfig())
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(optimizer.gradient_norm()))
    result = train_step(
        Objective(model, METHOD),
        optimizer,
        iter(batches(1)),
        routes(model, 1),
        Arithmetic("fp32", CPU),
        clip_gradient=0.01,
    )
    assert result.gradient_norm is not None
    assert_close(result.gradient_norm, norm)
    assert_close(seen[0], torch.tensor(0.01), "float16")


def test_draws_are_functions_of_seed_step_and_rank() -> None:
    """Equal integers give equal draws, others do not; without a rank every process draws the same."""
    head = VideoHead(HeadConfig(16, 2, 8, 4))

    def drawn(**changes: Any) -> list[Draws]:
        return draws_of_step(head, METHOD, 3, **({"seed": 1, "step": 2, "rank": 0} | changes))

    assert drawn() == drawn()
    others = [drawn(seed=2), drawn(step=3), drawn(rank=1), drawn(rank=None)]
    assert all(other != drawn() for other in others)
    assert len({tuple(one.experts) for one in drawn()}) > 1
