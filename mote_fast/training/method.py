"""The training method of the head: the paper's and its ablations as one frozen configuration, and a step's draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mote_fast.errors import ConfigError
from mote_fast.runtime.checks import check_choice
from mote_fast.runtime.device_copy import to_device

LabelLoss = Literal["ce", "bce"]
Routing = Literal["multinomial", "random", "fixed"]
ExpertData = Literal["routed", "all"]
Regulariser = Literal["none", "point", "region"]
RegulariserLoss = Literal["ce", "kl", "mse"]
Temperature = Literal["discrete", "normal", "uniform"]

# The discrete temperatures are infinity and beta times these values (eq. (10)).
TEMPERATURE_STEPS = (-16.0, -8.0, -4.0, -2.0, -1.0, 1.0, 2.0, 4.0, 8.0, 16.0)

# The smallest magnitude of continuous temperatures. Below it the merge weights are one-hot in float32 anyway, and
# nearer to zero their quotients overflow.
SMALLEST_TEMPERATURE = 1e-3


@dataclass(frozen=True)
class Draws:
    """The random choices of one training step, one entry per layer.

    Attributes:
        experts: the routed expert; with ``expert_design="up_down"``, that of the up projection.
        temperatures: tau of the merged stream; infinity without a merged stream or for the plain average.
        down_experts: the routed expert of the down projection, which only ``expert_design="up_down"`` reads; None takes
            ``experts``.
    """

    experts: Sequence[int] | Tensor
    temperatures: Sequence[float] | Tensor
    down_experts: Sequence[int] | Tensor | None = None

    def to(self, device: str | torch.device) -> Draws:
        """Return the draws as tensors [L], which a compiled or captured step reads without recompiling."""
        return draws_on([self], torch.device(device))[0]


@dataclass(frozen=True)
class TrainingMethod:
    """The training method; the defaults are the paper's (eq. (8) to eq. (12)), the other values its ablations.

    Attributes:
        loss: what the labels teach. "ce": cross-entropy over the classes, one label for each video; "bce": binary
            cross-entropy of each class, for videos with several labels (not part of the paper).
        bce_threshold: cosine at which "bce" takes a class to be as likely as not.
        routing: how each layer's expert is drawn. "multinomial": with probabilities ``softmax([1..E])``; "random": with
            equal probabilities; "fixed": not at all, always the last expert, which multinomial routing favours
            (Table 2d).
        expert_data: "routed": a batch trains the experts it is routed to; "all": every expert trains on every batch,
            each as its own stream, the routed loss is the mean over them, and there is no routing (Table 2a).
        regulariser: weight merging regularisation. "none": no merged stream, and hence no MSE term; "point": the merge
            is always the plain average; "region": at a drawn temperature (Tables 1 and 2e).
        beta: unit of the discrete temperatures (Table 2e).
        regulariser_loss: what the merged stream learns from. "ce": the labels, by ``loss``; "kl": the routed stream's
            logits; "mse": the routed stream's features (Table 7c).
        temperature: how "region" draws. "discrete": from ``temperatures()``; "normal": from the standard normal
            distribution; "uniform": from the range of the discrete ones, [-16 beta, 16 beta] (Table 7f).
        wmr_weight: weight of the merged stream's loss.
        mse_weight: weight of the distance between the merged stream's features and the frame features.

    A head with one FFN per layer, or none, has nothing to route or merge and is trained by cross-entropy alone.

    Raises:
        ConfigError: a value is unknown or out of range.
    """

    loss: LabelLoss = "ce"
    bce_threshold: float = 0.25
    routing: Routing = "multinomial"
    expert_data: ExpertData = "routed"
    regulariser: Regulariser = "region"
    beta: float = 0.6
    regulariser_loss: RegulariserLoss = "ce"
    temperature: Temperature = "discrete"
    wmr_weight: float = 0.5
    mse_weight: float = 0.1

    def __post_init__(self) -> None:
        check_choice("loss", self.loss, LabelLoss)
        check_choice("routing", self.routing, Routing)
        check_choice("expert_data", self.expert_data, ExpertData)
        check_choice("regulariser", self.regulariser, Regulariser)
        check_choice("regulariser_loss", self.regulariser_loss, RegulariserLoss)
        check_choice("temperature", self.temperature, Temperature)
        if self.loss == "bce" and self.regulariser_loss == "kl":
            raise ConfigError("regulariser_loss 'kl' compares distributions over the classes, which loss 'bce' has not")
        if not -1 <= self.bce_threshold <= 1:
            raise ConfigError(f"bce_threshold is a cosine, in [-1, 1], got {self.bce_threshold}")
        if not 0 < self.beta < math.inf:
            raise ConfigError(f"beta must be positive, got {self.beta}")
        for name, weight in (("wmr_weight", self.wmr_weight), ("mse_weight", self.mse_weight)):
            if not 0 <= weight < math.inf:
                raise ConfigError(f"{name} must not be negative, got {weight}")

    def temperatures(self) -> tuple[float, ...]:
        """Return the discrete temperatures: beta times +-1, +-2, +-4, +-8, +-16, and infinity."""
        return *(self.beta * step for step in TEMPERATURE_STEPS), math.inf

    def draw(self, layers: int, experts: int, generator: torch.Generator | None = None) -> Draws:
        """Draw for one step, as a function of the generator's state alone: one draw serves the whole local batch.

        Args:
            layers: L; 0 (CLIP-Mean) gives empty draws.
            experts: E, experts per layer.
            generator: source of the draws; None uses PyTorch's global one.

        Raises:
            ConfigError: ``layers`` is negative, or ``experts`` is below 1 and there are layers.
        """
        if layers < 0:
            raise ConfigError(f"layers must not be negative, got {layers}")
        if layers == 0:
            return Draws((), (), ())
        if experts < 1:
            raise ConfigError(f"experts must be at least 1, got {experts}")
        routed = self._draw_experts(layers, experts, generator)
        temperatures = self._draw_temperatures(layers, generator)
        # Last, so that the draws before it are the same for every expert design.
        return Draws(routed, temperatures, self._draw_experts(layers, experts, generator))

    def _draw_experts(self, layers: int, experts: int, generator: torch.Generator | None) -> list[int]:
        if self.routing == "fixed":
            return [experts - 1] * layers
        if self.routing == "random":
            return torch.randint(experts, (layers,), generator=generator).tolist()
        drawn = torch.multinomial(routing_probabilities(experts), layers, replacement=True, generator=generator)
        return drawn.tolist()

    def _draw_temperatures(self, layers: int, generator: torch.Generator | None) -> list[float]:
        if self.regulariser != "region":
            return [math.inf] * layers
        if self.temperature == "discrete":
            choices = self.temperatures()
            return [choices[at] for at in torch.randint(len(choices), (layers,), generator=generator).tolist()]
        if self.temperature == "normal":
            drawn = torch.randn(layers, generator=generator)
        else:
            drawn = (2 * torch.rand(layers, generator=generator) - 1) * TEMPERATURE_STEPS[-1] * self.beta
        return torch.copysign(drawn.abs().clamp_min(SMALLEST_TEMPERATURE), drawn).tolist()


def draws_on(draws: Sequence[Draws], device: torch.device) -> list[Draws]:
    """Return the draws of a step as tensors [L] on a device, all sent in one copy, for which the host does not wait."""
    rows = [(each.experts, each.experts if each.down_experts is None else each.down_experts) for each in draws]
    experts = torch.stack([torch.stack([torch.as_tensor(part, dtype=torch.int64) for part in row]) for row in rows])
    temperatures = torch.stack([torch.as_tensor(each.temperatures, dtype=torch.float32) for each in draws])
    # The bits of the temperatures go as integers: float32 takes half of an int64.
    room = torch.zeros_like(experts[:, :1])
    room.view(torch.float32)[..., : temperatures.shape[-1]] = temperatures[:, None]
    sent = to_device(torch.cat((experts, room), dim=1), device)
    kept = sent[:, 2].view(torch.float32)[:, : temperatures.shape[-1]]
    return [
        Draws(row[0], temperature, None if each.down_experts is None else row[1])
        for each, row, temperature in zip(draws, sent, kept, strict=True)
    ]


def routing_probabilities(experts: int) -> Tensor:
    """Return p [E], ``softmax([1..E])``: the routing probability of each expert (eq. (8))."""
    return torch.arange(1, experts + 1, dtype=torch.float32).softmax(-1)
