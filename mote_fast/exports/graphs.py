"""The graphs of an export, as modules of plain operators: the image tower, the folded head, and both as one."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mote_fast.clip.towers import ClipTowers
from mote_fast.exports.export_choices import GraphName
from mote_fast.exports.record import Shapes, graph_shapes
from mote_fast.head.video_head import MAX_FRAMES, VideoHead
from mote_fast.model.classifier import VideoClassifier

# The most that a free dimension may be; the others have no limit.
_LIMITS = {"frames": MAX_FRAMES}


class Graph(NamedTuple):
    """A module, and what an exporter has to know of it.

    Attributes:
        module: takes the inputs in order and returns one tensor.
        inputs: shapes of the inputs, in order.
        outputs: shape of the output.
    """

    module: nn.Module
    inputs: Shapes
    outputs: Shapes

    def samples(self, sizes: Mapping[str, int], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw inputs, float32, with these sizes of the free dimensions."""
        shapes = ([sizes[size] if isinstance(size, str) else size for size in shape] for shape in self.inputs.values())
        return tuple(torch.randn(shape, generator=generator) for shape in shapes)

    def dynamic_shapes(self) -> dict[str, Any]:
        """The free dimensions, as ``torch.export`` wants them."""
        return {
            name: {at: _dimension(size) for at, size in enumerate(shape) if isinstance(size, str)}
            for name, shape in self.inputs.items()
        }


class TowerGraph(nn.Module):
    """The image tower: ``pixels [N, 3, S, S] -> features [N, d]``. It does not hold the text tower."""

    def __init__(self, towers: ClipTowers) -> None:
        super().__init__()
        self.towers = _without_text(towers)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode normalised frames."""
        return self.towers.run_vision_tower(pixels)


class HeadGraph(nn.Module):
    """The head and the scores: ``features [V, T, d], classes [C, d] -> scores [C]``, the V views being one video's."""

    def __init__(self, head: VideoHead, logit_scale: float) -> None:
        super().__init__()
        self.head = head
        self.logit_scale = logit_scale

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        """Score the views of one video against class features."""
        return probabilities(self.head(features, classes), self.logit_scale)


class WholeGraph(nn.Module):
    """Both: ``pixels [V, T, 3, S, S], classes [C, d] -> scores [C]``."""

    def __init__(self, tower: TowerGraph, head: HeadGraph) -> None:
        super().__init__()
        self.tower = tower
        self.head = head

    def forward(self, pixels: Tensor, classes: Tensor) -> Tensor:
        """Score the views of one video against class features."""
        return self.head(self.tower(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2]), classes)


def probabilities(cosines: Tensor, logit_scale: float) -> Tensor:
    """Compute ``mote_fast.head.scores.view_probabilities`` of one video in float32, for runtimes without float64.

    The mean over views of the softmax of cosines enters as a logarithm less the same number for every class. So the
    logit scale magnifies the rounding of numbers near 1, and not that of log C.

    Args:
        cosines: [V, C].
        logit_scale: the factor itself.

    Returns:
        [C], summing to 1.
    """
    totals = cosines.logsumexp(-1, keepdim=True)
    return (logit_scale * (cosines - (totals - totals.amin(0, keepdim=True))).logsumexp(0)).softmax(-1)


def graphs_of(model: VideoClassifier, names: Iterable[GraphName]) -> dict[GraphName, Graph]:
    """Return the graphs of a model by name; its head is folded."""
    tower, head = TowerGraph(model.clip), HeadGraph(model.head.fold(), model.clip.logit_scale.item())
    modules = {"tower": tower, "head": head, "whole": WholeGraph(tower, head)}
    size, dim = model.clip.image_size, model.head.embed_dim
    return {name: Graph(modules[name].eval(), *graph_shapes(name, size, dim)) for name in names}


def _dimension(name: str) -> Any:
    if name == "classes":
        # Modulation takes the best min(K, C) of C classes, and the exporter cannot prove that these are at most C, as
        # it must for a named dimension.
        return torch.export.Dim.DYNAMIC
    return torch.export.Dim(name, min=1, max=_LIMITS.get(name))


def _without_text(towers: ClipTowers) -> ClipTowers:
    """Return the towers without their text tower; the image tower is shared."""
    model = copy.copy(towers.model)
    model.__dict__.update(_modules={"visual": towers.model.visual}, _parameters={}, _buffers={})
    bare = copy.copy(towers)
    bare.__dict__["_modules"] = {"model": model}
    return bare
