"""How far the answers of an exported graph are from the library's, measured when the graph is written."""

from __future__ import annotations

import torch
from torch import Tensor

from mote_fast.errors import BackendError
from mote_fast.exports.export_choices import GraphName
from mote_fast.exports.graphs import Graph
from mote_fast.exports.runners import Runner
from mote_fast.head.scores import view_probabilities
from mote_fast.model.classifier import VideoClassifier

# The largest difference with which a graph is written.
LIMIT = 1e-5

# Sizes of the free dimensions that are compared: one of everything, fewer classes than modulation takes, and many.
_SIZES = (
    {"images": 1, "views": 1, "frames": 1, "classes": 1},
    {"images": 3, "views": 3, "frames": 2, "classes": 4},
    {"images": 5, "views": 1, "frames": 8, "classes": 400},
)


def measure(model: VideoClassifier, name: GraphName, graph: Graph, run: Runner) -> float:
    """Return the largest difference between a graph and the model, over random inputs of several sizes.

    Raises:
        BackendError: it exceeds ``LIMIT``, so that the graph would give other answers than the model.
    """
    generator = torch.Generator().manual_seed(0)
    found = 0.0
    for sizes in _SIZES:
        inputs = graph.samples(sizes, generator)
        found = max(found, difference(name, run(*inputs), expected(model, name, *inputs)))
    # NaN is no small difference.
    if not found <= LIMIT:
        raise BackendError(
            f"the exported {name} differs from the model by {found:.1e}, more than {LIMIT:.0e}; nothing was written"
        )
    return found


def difference(name: GraphName, actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference of two outputs: of scores as it is, of features relative to the largest."""
    if actual.shape != expected.shape:
        return float("inf")
    worst = (actual.double() - expected.double()).abs().max()
    return float(worst / expected.abs().max() if name == "tower" else worst)


@torch.no_grad()
def expected(model: VideoClassifier, name: GraphName, *inputs: Tensor) -> Tensor:
    """Compute what a graph computes, with the model's own functions.

    Args:
        model: the model.
        name: of the graph.
        inputs: the graph's.
    """
    if name == "tower":
        return model.encode_frames(*inputs)
    first, classes = inputs
    features = first if name == "head" else model.encode_frames(first.flatten(0, 1)).unflatten(0, first.shape[:2])
    return view_probabilities(model.head(features, classes), len(first), model.clip.logit_scale.double()).squeeze(0)
