"""Times that counts predict for an H100, which nobody measured; docs/kernels.md and section 8's last column.

Floors: bytes and flops at rates that are assumed, without launches. What the count of instructions says is larger for
the products of ViT-B/16, and stands in ``COUNTED``.
"""

from __future__ import annotations

# Assumed of an H100 SXM: TFLOP/s of 16-bit products, and GB/s.
PRODUCT_RATE, COPY_RATE = 650.0, 2900.0

# Microseconds of the launches of one layer at ViT-B/16, mixed, from instructions at 1.755 GHz.
COUNTED = {
    "pair: up": 2.3,
    "pair: down": 4.7,
    "pair: dpre": 2.3,
    "pair: dw_down": 2.3,
    "pair: dw_up": 2.3,
    "pair: dx": 4.7,
}

# Milliseconds of an eager training step, by architecture and clips per GPU: the tower's products, and what else it
# moves, its QuickGELU by the fused operator.
STEPS = {("ViT-B-16", 64): 74.0 + 73.0 - 49.0 + 12.0, ("ViT-L-14", 48): 265.0 + 198.0 - 135.0 + 32.0}


def predicted_us(shape: str, work: str, nbytes: float, flops: float) -> float:
    """Return the microseconds of a piece of work."""
    floor = max(nbytes / COPY_RATE / 1e3, flops / PRODUCT_RATE / 1e6)
    return max(floor, COUNTED.get(work, 0.0)) if shape == "B/16" else floor


def predicted_step_ms(architecture: str, clips: int) -> float | None:
    """Return the milliseconds of an eager training step, None of a batch that nobody counted."""
    return STEPS.get((architecture, clips))
