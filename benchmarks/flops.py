"""Floating-point operations of the model's parts, matrix products only; a multiplication and an addition are two."""

from __future__ import annotations

# Hidden width of a feed-forward network over its width, in CLIP and in the head.
EXPANSION = 4


def block(tokens: int, width: int, queries: int | None = None, past: int = 0) -> float:
    """One transformer block over a sequence of ``tokens``.

    Queries, keys and values are made for all tokens; only ``queries`` of them (all by default) attend and go on.
    ``past`` tokens are attended to as well, their keys and values made before.
    """
    on = tokens if queries is None else queries
    projections = 2 * tokens * width * 3 * width + 2 * on * width * width
    attention = 4 * on * (tokens + past) * width
    return projections + attention + 4 * on * width * EXPANSION * width


def image_tower(frames: int, size: int, patch: int, width: int, layers: int, embed_dim: int, *, trimmed: bool) -> float:
    """CLIP's image tower; ``trimmed`` runs the last block for the class token alone."""
    patches = (size // patch) ** 2
    tokens = patches + 1
    stem = 2 * patches * 3 * patch * patch * width
    last = block(tokens, width, 1 if trimmed else None)
    return frames * (stem + (layers - 1) * block(tokens, width) + last + 2 * width * embed_dim)


def text_tower(prompts: int, tokens: int, width: int, layers: int, embed_dim: int) -> float:
    """CLIP's text tower at ``tokens`` positions a prompt, untrimmed."""
    return prompts * (layers * block(tokens, width) + 2 * width * embed_dim)


def head(views: int, frames: int, width: int, layers: int, classes: int) -> float:
    """One pass of the video head with its experts merged, cosines included."""
    return views * (layers * block(frames, width) + 2 * width * classes)


def merge(width: int, layers: int, experts: int) -> float:
    """Merging the experts of every layer."""
    return layers * experts * 2 * (2 * EXPANSION * width * width + (EXPANSION + 1) * width)
