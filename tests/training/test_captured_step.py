"""A head's step in fixed buffers: the ordinary step's numbers, no host in it, and the calls that make a graph of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from mote_fast import VideoHead, head_optimizer, training_loss
from mote_fast.errors import ConfigError
from mote_fast.head.head_config import HeadConfig
from mote_fast.training import captured_step
from mote_fast.training.captured_step import EAGER_STEPS, CapturedStep
from mote_fast.training.method import TrainingMethod
from mote_fast.training.schedule import set_learning_rate
from tests.pretended_cuda import pretended_cuda

CLIPS, FRAMES, WIDTH, CLASSES, SCALE = 3, 4, 16, 5, 10.0
# Exact in float32, which a rate on the device is.
RATES = [2.0**-7, 2.0**-6, 3 * 2.0**-8, 2.0**-9, 2.0**-7]


def make_head() -> VideoHead:
    torch.manual_seed(0)
    return VideoHead(HeadConfig(WIDTH, 2, 2, 4), torch.randn(CLASSES, WIDTH))


def step_inputs(step: int, method: TrainingMethod) -> tuple[Tensor, Tensor, Any]:
    generator = torch.Generator().manual_seed(step)
    features = torch.randn(CLIPS, FRAMES, WIDTH, generator=generator)
    labels = torch.randint(CLASSES, (CLIPS,), generator=generator)
    if method.loss == "bce":
        labels = torch.nn.functional.one_hot(labels, CLASSES).float()
    return features, labels, method.draw(2, 4, generator)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("method", [TrainingMethod(), TrainingMethod(loss="bce")], ids=["paper", "bce"])
def test_five_steps_are_the_ordinary_ones_to_the_bit(method: TrainingMethod, precision: torch.dtype | None) -> None:
    """Other inputs, draws and rates in every step; weights, moments and losses, clipping included."""
    mine = make_head()
    other = copy.deepcopy(mine)
    ours, theirs = head_optimizer(mine, 1.0, capturable=True), head_optimizer(other, 1.0)
    step = CapturedStep(mine, ours, SCALE, CLIPS, FRAMES, method=method, precision=precision, clip_gradient=0.5)
    assert other.train_class_features is not None
    for number, rate in enumerate(RATES):
        features, labels, draws = step_inputs(number, method)
        set_learning_rate(theirs, rate, 1.0)
        with torch.autocast("cpu", precision, enabled=precision is not None):
            loss = training_loss(other, features, other.train_class_features, labels, SCALE, method, draws)
        loss.total.backward()
        theirs.clip_grad_norm_(0.5)
        theirs.step()
        theirs.zero_grad()
        found = step(features, labels, draws, rate)
        assert torch.equal(found, torch.stack([loss.total, loss.routed, loss.merged, loss.mse]).detach())
    for a, b in zip(mine.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    mine_state, other_state = ours.state_dict(), theirs.state_dict()
    assert mine_state["param_groups"] == other_state["param_groups"]
    for at, state in mine_state["state"].items():
        assert all(torch.equal(value, other_state["state"][at][name]) for name, value in state.items())


def test_the_step_reads_and_copies_nothing() -> None:
    """Traced on tensors that Python takes for CUDA's: the buffers are filled before, and nothing moves in the step."""
    pytest.importorskip("triton", reason="on a GPU the step launches Triton kernels, and Triton is not installed")
    from launches import recorded

    head = make_head()
    with pretended_cuda() as moves, recorded() as launches:
        head.to("cuda")
        optimizer = head_optimizer(head, 1e-3, capturable=True)
        step = step_without_streams(head, optimizer, clip_gradient=1.0)
        for number in range(2):
            moves.clear()
            step.load(*step_inputs(number, TrainingMethod()), 1e-3)
            assert not moves.blocking
            moves.clear()
            launches.clear()
            step.run()
            assert moves.operators > 100
            assert not moves.blocking
            assert not moves.started
    # Those of the optimiser, by the numbers on the device; tests/kernels/test_launches.py has the operators' own.
    assert len(launches) == head.layers
    for launch, weight in zip(launches, optimizer.collectors, strict=True):
        for number in (optimizer.state[weight]["step"], optimizer.param_groups[0]["lr"]):
            assert any(argument is number for argument in launch.args)


def step_without_streams(head: VideoHead, optimizer: Any, **options: Any) -> CapturedStep:
    """A step over pretended CUDA tensors, which have no streams."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "Stream", lambda *_: None)
        return CapturedStep(head, optimizer, SCALE, CLIPS, FRAMES, **options)


def test_leaves_of_factored_gradients_are_made_once() -> None:
    """A replay makes no tensor: the second step uses the leaves of the first, and leaves whose pass was dropped die."""
    head = make_head()
    optimizer = head_optimizer(head, 1e-3, capturable=True)
    step = CapturedStep(head, optimizer, SCALE, CLIPS, FRAMES)
    made: list[list[int]] = []
    for number in range(3):
        step(*step_inputs(number, TrainingMethod()), 1e-3)
        made.append([id(leaf.probe) for collector in optimizer.collectors.values() for leaf in collector._free])
    assert made[0] == made[1] == made[2]
    assert len(made[0]) == head.layers


def test_the_graph_is_captured_once_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps run as written, the fourth captures, and every later one only replays; a loaded state begins anew."""
    head = make_head()
    step = CapturedStep(head, head_optimizer(head, 1e-3, capturable=True), SCALE, CLIPS, FRAMES)
    calls: list[str] = []

    class Stream:
        def wait_stream(self, other: Stream) -> None:
            calls.append("wait")

    class Graph:
        def replay(self) -> None:
            calls.append("replay")

    @contextmanager
    def capturing(graph: Graph, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        assert stream is step._stream
        calls.append("capture")
        yield

    monkeypatch.setattr(step, "_stream", Stream())
    monkeypatch.setattr(step, "run", lambda: calls.append("run"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: captured_step.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    for number in range(EAGER_STEPS + 3):
        step(*step_inputs(number, TrainingMethod()), 1e-3)
    eager = ["wait", "run", "wait"] * EAGER_STEPS
    assert calls == [*eager, "capture", "run", "replay", "replay", "replay"]
    calls.clear()
    step.optimizer.load_state_dict(step.optimizer.state_dict())
    for number in range(EAGER_STEPS + 2):
        step(*step_inputs(number, TrainingMethod()), 1e-3)
    assert calls == [*eager, "capture", "run", "replay", "replay"]


def test_what_cannot_be_captured_is_named() -> None:
    """An optimiser that counts on the host, a head without classes, and float16 with its scaler."""
    head = make_head()
    with pytest.raises(ConfigError, match="capturable=True"):
        CapturedStep(head, head_optimizer(head, 1e-3), SCALE, CLIPS, FRAMES)
    optimizer = head_optimizer(head, 1e-3, capturable=True)
    with pytest.raises(ConfigError, match="float16"):
        CapturedStep(head, optimizer, SCALE, CLIPS, FRAMES, precision=torch.float16)
    head.set_train_class_features(None)
    with pytest.raises(ConfigError, match="class features"):
        CapturedStep(head, optimizer, SCALE, CLIPS, FRAMES)
