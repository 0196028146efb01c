"""The factored AdamW kernel against torch.optim.AdamW in float64, under the interpreter."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mote_fast.kernels import reference
from mote_fast.kernels.factored_adamw import adamw_factored
from mote_fast.kernels.tiles import VectorTile
from tests.kernels.interpreted.cases import NARROW, Experts, lowest, normal, stacked_experts, vector_tiles
from tests.tolerances import assert_close


@given(
    stacked_experts(largest=6, widths=NARROW),
    st.integers(1, 3),
    st.sampled_from((1, 2, 10, 1000)),
    st.sampled_from(((0.9, 0.999), (0.0, 0.99), (0.95, 0.9999))),
    st.sampled_from((1.0, 3.0, 1024.0)),
    st.booleans(),
    vector_tiles,
    st.integers(0, 2**31),
)
def test_step(
    experts: Experts,
    micro_batches: int,
    step: int,
    betas: tuple[float, float],
    grad_scale: float,
    on_device: bool,
    tile: VectorTile,
    seed: int,
) -> None:
    """Parameters and both moments are updated as AdamW updates them, numbers passed by value or on the device."""
    count, size = experts.rows.shape
    param = experts.rows
    exp_avg = normal(param.shape, seed, param.dtype)
    exp_avg_sq = normal(param.shape, seed + 1, param.dtype).abs()
    factors = []
    for f in range(micro_batches):
        grad_merged, g = normal((2, size), seed + 2 + f, param.dtype)
        index = (experts.index + f) % count
        factors.append((grad_merged, g, experts.weights, index))
    numbers: dict[str, float | torch.Tensor] = {"step": step, "lr": 1e-2, "grad_scale": grad_scale}
    # As the kernel sees it: a learning rate on the device is float32.
    numbers = {k: torch.tensor(v, dtype=torch.float32) for k, v in numbers.items()} if on_device else numbers
    wide = [(a.double(), b.double(), w, k) for a, b, w, k in factors]
    expected = reference.adamw_factored_step(
        param.double(), exp_avg.double(), exp_avg_sq.double(), wide, step, 1e-2, betas, grad_scale=grad_scale
    )
    adamw_factored(param, exp_avg, exp_avg_sq, factors, **numbers, betas=betas, tile=tile)
    for actual, wanted in zip((param, exp_avg, exp_avg_sq), expected, strict=True):
        assert_close(actual, wanted, lowest(param))


@given(stacked_experts(largest=6, widths=NARROW), vector_tiles, st.integers(0, 2**31))
def test_an_overflow_on_the_device_updates_nothing(experts: Experts, tile: VectorTile, seed: int) -> None:
    """As a GradScaler tells it, with a count of steps that may still be zero; no overflow changes nothing."""
    grad_merged, g = normal((2, experts.rows.shape[1]), seed, experts.rows.dtype)
    factors = [(grad_merged, g, experts.weights, experts.index)]
    for overflow in (0.0, 1.0):
        given_state = [experts.rows.clone(), torch.zeros_like(experts.rows), torch.zeros_like(experts.rows)]
        expected = [each.clone() for each in given_state]
        if not overflow:
            adamw_factored(*expected, factors, step=1, lr=1e-2, tile=tile)
        step, verdict = torch.tensor(1.0 - overflow), torch.tensor(overflow)
        adamw_factored(*given_state, factors, step=step, lr=1e-2, found_inf=verdict, tile=tile)
        for mine, truth in zip(given_state, expected, strict=True):
            assert_close(mine, truth, lowest(experts.rows) if not overflow else "exact")
