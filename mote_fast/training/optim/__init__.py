"""Optimisation of the head: factored expert gradients, and the AdamW that uses them."""

from mote_fast.training.optim.adamw import HeadAdamW, head_optimizer

__all__ = ["HeadAdamW", "head_optimizer"]
