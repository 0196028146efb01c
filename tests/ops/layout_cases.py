"""Every operator with every tensor argument in every layout, for each implementation: none is read by the wrong stride.

Values and gradients are compared with the float64 reference, run on the same values laid out plainly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from mote_fast.kernels import reference
from mote_fast.ops import activation, operators
from mote_fast.ops.implementations import Implementation, implemented_by, launchers
from tests.tolerances import assert_close

WIDTH, EXPERTS, TOKENS, CLIPS = 16, 3, 5, 4
SIZE = reference.expert_size(WIDTH)


def every_other(x: Tensor) -> Tensor:
    """Lay ``x`` out with a gap after each element of its last dimension; a scalar lies in the middle of a vector."""
    return torch.stack((x, torch.full_like(x, 77)), -1)[..., 0]


def transposed(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT if x.ndim > 1 else every_other(x)


def expanded(x: Tensor) -> Tensor:
    """The first row (of a vector, the first value) for all."""
    return x[:1].expand(x.shape) if x.ndim else x


def behind(x: Tensor, elements: int) -> Tensor:
    """So many elements behind the start of the storage."""
    return torch.cat((torch.full((elements,), 77).to(x.dtype), x.flatten()))[elements:].view(x.shape)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "strided": every_other,
    "transposed": transposed,
    "expanded": expanded,
    # Where no 128-bit access is aligned, and where all are.
    "misaligned": lambda x: behind(x, 1),
    "offset": lambda x: behind(x, 64),
}
layouts = st.sampled_from(sorted(LAYOUTS))


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


STACK, WEIGHTS = 0.2 * normal(EXPERTS, SIZE, seed=0), normal(EXPERTS, seed=1).softmax(0)
CHOSEN, INDEX = torch.tensor(1), torch.tensor([2, 0, 2, 1])
PAIR = {
    "x_routed": normal(TOKENS, WIDTH, seed=3),
    "x_merged": normal(TOKENS, WIDTH, seed=4),
    "experts": STACK,
    "weights": WEIGHTS,
    "index": CHOSEN,
}

# Arguments, then the gradient of each output.
ARGUMENTS: dict[str, tuple[dict[str, Tensor], tuple[Tensor, ...]]] = {
    "merge_experts": ({"experts": STACK, "weights": WEIGHTS}, (normal(SIZE, seed=2),)),
    "expert_pair_ffn": (PAIR, (normal(TOKENS, WIDTH, seed=5), normal(TOKENS, WIDTH, seed=6))),
    # The experts' gradient is left in the probe, as its two rows.
    "factored": (
        {**PAIR, "probe": torch.zeros(2, SIZE)},
        (normal(TOKENS, WIDTH, seed=5), normal(TOKENS, WIDTH, seed=6)),
    ),
    "routed_ffn": (
        {"x": normal(CLIPS, 2, WIDTH, seed=7), "experts": STACK, "index": INDEX},
        (normal(CLIPS, 2, WIDTH, seed=8),),
    ),
    "quick_gelu": ({"x": normal(CLIPS, 2, WIDTH, seed=9)}, (normal(CLIPS, 2, WIDTH, seed=10),)),
}
# Of each operator, the places of its arguments and of its outputs' gradients.
PLACES = {name: (*arguments, *map(str, range(len(dy)))) for name, (arguments, dy) in ARGUMENTS.items()}


def operator(name: str) -> Callable[..., Any]:
    return (
        operators.expert_pair_ffn
        if name == "factored"
        else getattr({"quick_gelu": activation}.get(name, operators), name)
    )


def truth(name: str) -> Callable[..., Any]:
    """The reference; a probe's rows are added to the routed and to the merged expert."""

    def factored(probe: Tensor, experts: Tensor, weights: Tensor, index: Tensor, **x: Tensor) -> tuple[Tensor, Tensor]:
        rows = experts.detach()[index] + probe[0], reference.merge_experts(experts.detach(), weights) + probe[1]
        return reference.expert_ffn(x["x_routed"], rows[0]), reference.expert_ffn(x["x_merged"], rows[1])

    return factored if name == "factored" else getattr(reference, name)


def values_and_gradients(
    run: Callable[..., Any], arguments: Mapping[str, Tensor], dy: tuple[Tensor, ...]
) -> list[Tensor | None]:
    """Return the outputs, then the gradients of the floating arguments."""
    leaves = {name: x.detach().requires_grad_(x.is_floating_point()) for name, x in arguments.items()}
    out = run(**leaves)
    outs = (out,) if isinstance(out, Tensor) else out
    wanted = [x for x in leaves.values() if x.is_floating_point()]
    return [*outs, *torch.autograd.grad(outs, wanted, dy, allow_unused=True)]


def assert_any_layout(name: str, implementation: Implementation, chosen: Mapping[str, str]) -> None:
    """Run one operator, with the layouts ``chosen`` for some of its places, and compare with the reference."""
    arguments, dy = ARGUMENTS[name]
    lay = {place: LAYOUTS[chosen.get(place, "contiguous")] for place in PLACES[name]}
    laid = {key: lay[key](x) for key, x in arguments.items()}
    given = tuple(lay[str(i)](x) for i, x in enumerate(dy))
    exact = {key: (x.double() if x.is_floating_point() else x).contiguous() for key, x in laid.items()}
    expected = values_and_gradients(truth(name), exact, tuple(x.double().contiguous() for x in given))
    with implemented_by(implementation):
        found = values_and_gradients(operator(name), laid, given)
    for mine, wanted in zip(found, expected, strict=True):
        assert (mine is None) == (wanted is None)
        if mine is not None and wanted is not None:
            assert_close(mine, wanted, "dot product")


@st.composite
def choices(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
    """An operator and a layout for each of its places."""
    name = draw(st.sampled_from(sorted(ARGUMENTS)))
    return name, {place: draw(layouts) for place in PLACES[name]}


# Those that update in place take moments and parameters anywhere in their storage, but without gaps.
STATES, FACTOR = ("param", "exp_avg", "exp_avg_sq"), ("merged", "routed", "weights", "index")
states_and_factors = st.fixed_dictionaries(
    {place: st.sampled_from(("contiguous", "misaligned", "offset")) for place in STATES}
    | dict.fromkeys(FACTOR, layouts)
)


def assert_any_layout_of_adamw(implementation: Implementation, chosen: Mapping[str, str]) -> None:
    """Update once by one implementation, and compare with the reference; the expansion reads the same factors."""
    values = (STACK, normal(EXPERTS, SIZE, seed=11), normal(EXPERTS, SIZE, seed=12).abs())
    factor = (normal(SIZE, seed=13), normal(SIZE, seed=14), WEIGHTS, CHOSEN)
    states = [LAYOUTS[chosen[place]](x.clone()) for place, x in zip(STATES, values, strict=True)]
    laid = tuple(LAYOUTS[chosen[place]](x) for place, x in zip(FACTOR, factor, strict=True))
    plain = tuple(x.contiguous() for x in laid)
    adamw_of(implementation).adamw_factored(*states, [laid], 2, 1e-2, (0.9, 0.999), 1e-8, 0.2)
    expected = reference.adamw_factored_step(*values, [plain], 2, 1e-2)
    expand = launchers("expert_ffn", implementation).expand_expert_gradient
    pairs = [*zip(states, expected, strict=True), (expand(*laid), reference.expand_expert_gradient(*plain))]
    for mine, wanted in pairs:
        assert_close(mine, wanted)


def adamw_of(implementation: Implementation) -> ModuleType:
    return launchers("factored_adamw", implementation)
