"""AdamW for a head with temporal experts: their gradients stay factored from backward to update."""

from __future__ import annotations

import math
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim.adamw import adamw

from mote_fast.errors import BackendError, ConfigError
from mote_fast.head.experts import TemporalExperts
from mote_fast.ops import cpu_memory
from mote_fast.ops.implementations import launchers_for
from mote_fast.runtime.device_copy import to_device
from mote_fast.training.optim.factors import Collector, Factor, square_norm
from mote_fast.training.optim.reduce import Averages, densify_where_routes_differ


def head_optimizer(
    head: nn.Module,
    lr: float,
    weight_decay: float = 0.2,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    extra_groups: Sequence[dict[str, Any]] = (),
    *,
    capturable: bool = False,
) -> HeadAdamW:
    """Return an AdamW for ``head`` that keeps expert gradients factored; the mathematics is ``torch.optim.AdamW``'s.

    While the optimiser lives, backward passes leave ``TemporalExperts.weight.grad`` empty and give the optimiser the
    two rows that determine it. Use the optimiser's own ``zero_grad``, ``clip_grad_norm_`` and ``all_reduce_gradients``,
    which handle factored gradients; ``torch.amp.GradScaler`` and learning-rate schedulers work unchanged. State dicts
    are interchangeable with those of ``torch.optim.AdamW([{"params": head.parameters()}, *extra_groups])``. Under
    ``torch.compile`` gradients are dense, and the optimiser accepts them too.

    Args:
        head: a ``VideoHead``, or any module with ``TemporalExperts`` inside; all its parameters are optimised.
        lr: learning rate.
        weight_decay: decoupled weight decay, on every parameter (docs/method.md, Optimisation).
        betas: decay rates of the two moments.
        eps: added to the root of the second moment.
        extra_groups: further parameter groups, such as CLIP's with its own learning rate.
        capturable: keep learning rates and the number of steps on the device of the parameters, and use the same leaves
            for the factored gradients of every step, so that a CUDA graph can hold ``step``: a replay counts its step,
            and takes the rate that ``training.schedule.set_learning_rate`` or a scheduler wrote in place. Not part of
            the state; after ``load_state_dict`` a step must be captured anew, as ``CapturedStep`` does by itself.

    Raises:
        ConfigError: a value is out of range.
        BackendError: the head is sharded by FSDP, which is not supported.
    """
    if lr < 0 or weight_decay < 0 or eps < 0:
        raise ConfigError(f"lr, weight_decay and eps must not be negative, got {lr}, {weight_decay}, {eps}")
    # FSDP's kind of tensor, whose import takes long.
    if any(hasattr(parameter, "device_mesh") for parameter in head.parameters()):
        raise BackendError(
            "the head's parameters are sharded, as FSDP shards them, and factored gradients are of whole experts: "
            "train it with DistributedDataParallel, or all_reduce_gradients (docs/training.md)"
        )
    if not all(0 <= beta < 1 for beta in betas):
        raise ConfigError(f"betas must lie in [0, 1), got {betas}")
    optimizer = HeadAdamW(
        [{"params": list(head.parameters())}, *extra_groups],
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        capturable=capturable,
    )
    for module in head.modules():
        if isinstance(module, TemporalExperts):
            optimizer.factor(module)
    return optimizer


class HeadAdamW(torch.optim.AdamW):
    """``torch.optim.AdamW`` that also takes factored gradients of its experts; see ``head_optimizer``."""

    # ``torch.amp.GradScaler`` sets ``grad_scale`` and ``found_inf`` before a step, and leaves the skipping to it: the
    # host does not wait for the answer.
    _step_supports_amp_scaling = True

    def __init__(self, params: Iterable[dict[str, Any]], **options: Any) -> None:
        super().__init__(params, **options)
        self.collectors: dict[Tensor, Collector] = {}
        # The same: the hash of a tensor is a call of Python.
        self._by_id: dict[int, Collector] = {}
        self._shown: list[Tensor] = []
        self._averages: Averages | None = None
        # Whether a GradScaler's verdict decides on the device: steps are counted there then.
        self._scaled = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # A copy takes dense gradients until ``factor`` is called.
        self.__dict__.setdefault("collectors", {})
        self.__dict__.setdefault("_by_id", {})
        self.__dict__.setdefault("_shown", [])
        self.__dict__.setdefault("_averages", None)
        self.__dict__.setdefault("_scaled", False)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters to optimise; the rate of a capturable group is a tensor beside them from then on."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group["capturable"]:
            rate, device = float(group["lr"]), group["params"][0].device
            group["lr"] = torch.full((), rate, dtype=torch.float32, device=device)

    def factor(self, experts: TemporalExperts) -> None:
        """Receive the gradient of ``experts`` in factored form from the next forward pass on."""
        if not any(experts.weight is param for group in self.param_groups for param in group["params"]):
            raise ConfigError("the experts' weight is not among this optimiser's parameters; add it to a group first")
        me = weakref.ref(self)

        number = len(self.collectors)

        def changed(collector: Collector) -> None:
            if (optimizer := me()) is not None:
                if optimizer._averages is not None:
                    optimizer._averages.begin_experts(collector, number)
                optimizer._show_last(collector)

        capturable = self.defaults["capturable"]
        self.collectors[experts.weight] = Collector(experts.weight, changed, keep_leaves=capturable)
        self._by_id[id(experts.weight)] = self.collectors[experts.weight]
        experts.collect_with(self.collectors[experts.weight])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients, factored ones included."""
        for collector in self.collectors.values():
            collector.clear()
        self._show_probes()
        if not set_to_none:
            super().zero_grad(set_to_none)
        for group in self.param_groups if set_to_none else ():
            for param in group["params"]:
                param.grad = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient, dense or factored; none if a ``GradScaler`` found an infinity."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        overflow: Tensor | None = getattr(self, "found_inf", None)
        if overflow is not None and overflow.device.type == "cpu":
            if overflow:
                return loss
            overflow = None
        self._scaled |= overflow is not None
        scale: Tensor | None = getattr(self, "grad_scale", None)
        if scale is not None:
            self._multiply_gradients(scale.double().reciprocal().float())
        for group, params in self._parameters():
            if group["amsgrad"] or group["maximize"]:
                raise ConfigError("amsgrad and maximize are not available here; use torch.optim.AdamW")
            dense: defaultdict[tuple[object, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for param in params:
                experts = id(param) in self._by_id
                if experts and (factors := self._factors(param)):
                    self._step_factored(group, param, factors, overflow)
                elif (grad := param.grad) is not None:
                    # Experts may have their counts elsewhere.
                    dense[param.device, param.dtype, experts].append((param, grad))
            for same_kind in dense.values():
                self._step_dense(group, same_kind, overflow)
        return loss

    @torch.no_grad()
    def gradient_norm(self) -> Tensor:
        """The joint 2-norm of all gradients, float32 scalar; factored gradients contribute by dot products."""
        squares: list[Tensor] = []
        grads: list[Tensor] = []
        for param in (param for _, params in self._parameters() for param in params):
            if factors := self._factors(param):
                squares.append(square_norm(factors).reshape(1))
            elif param.grad is not None:
                grads.append(param.grad)
        for alike in _by_device(grads):
            # One operator for all: one for each would cost the host more than the sums cost a GPU.
            norms = torch._foreach_norm(alike, 2, dtype=torch.float32)  # pyright: ignore[reportPrivateImportUsage]
            squares.append(torch.stack(norms).square())
        if not squares:
            return torch.zeros(())
        return torch.cat([square.to(squares[0].device) for square in squares]).sum().sqrt()

    @torch.no_grad()
    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Scale all gradients so that their joint 2-norm is at most ``max_norm``; return the norm before.

        Same rule as ``torch.nn.utils.clip_grad_norm_``, which cannot see factored gradients.
        """
        if math.isnan(max_norm) or max_norm <= 0:
            raise ConfigError(f"max_norm must be positive, got {max_norm}")
        norm = self.gradient_norm()
        self._multiply_gradients((max_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def _multiply_gradients(self, factor: Tensor) -> None:
        # The probes in the groups hold the factored gradients.
        held = [param.grad for group in self.param_groups for param in group["params"] if param.grad is not None]
        for alike in _by_device(held):
            torch._foreach_mul_(alike, factor.to(alike[0].device))  # pyright: ignore[reportPrivateImportUsage]

    @property
    def expert_weights(self) -> list[Tensor]:
        """The experts' parameters [E, P], whose gradients may be factored: DistributedDataParallel must ignore them."""
        return list(self.collectors)

    def average_in_backward(self, agreed: Sequence[bool], group: dist.ProcessGroup | None = None) -> None:
        """Begin to average each layer's expert gradients as soon as the next backward pass, the step's last, has them.

        ``all_reduce_gradients`` waits for them afterwards, and compares no routes.

        Args:
            agreed: for each layer, whether all processes have the same routes in all passes of the step:
                ``reduce.same_routes``. Their rows are averaged then, and dense gradients elsewhere.
            group: the processes; None takes all.

        Raises:
            ConfigError: there are not as many entries as layers with experts.
        """
        if len(agreed) != len(self.collectors):
            raise ConfigError(f"agreed needs one entry for each of {len(self.collectors)} layers, got {len(agreed)}")
        self._averages = Averages(group, agreed)

    @torch.no_grad()
    def all_reduce_gradients(self, group: dist.ProcessGroup | None = None, *, experts_only: bool = False) -> None:
        """Average gradients over the processes of ``group``; call it between backward and ``step``.

        Layers whose processes drew the same expert and temperature (the same ``generator`` seed on every process, or
        the draws passed to ``streams``) carry two rows for any number of experts; others become dense first.
        Every process must have gradients for the same parameters.

        Args:
            group: the processes; None takes all.
            experts_only: average those of ``expert_weights`` alone: DistributedDataParallel averages the others.
        """
        collectors, averages = list(self.collectors.values()), self._averages
        if averages is None:
            averages = Averages(group)
            for collector in collectors:
                collector.settle()
            densify_where_routes_differ(collectors, group)
            self._show_probes()
            averages.begin(self._gradients(of_experts=True))
        for number, collector in enumerate(collectors if self._averages is not None else ()):
            # Those that the backward pass did not reach.
            averages.begin_experts(collector, number)
        self._averages = None
        self._show_probes()
        if not experts_only:
            averages.begin(self._gradients(of_experts=False))
        averages.finish()

    def _gradients(self, of_experts: bool) -> list[Tensor]:
        """The gradients of the experts, dense or in probes, or those of all other parameters."""
        shown = {id(probe) for probe in self._shown}
        params = [param for group in self.param_groups for param in group["params"] if param.grad is not None]
        return [
            param.grad
            for param in params
            if param.grad is not None and of_experts == (id(param) in self._by_id or id(param) in shown)
        ]

    def state_dict(self) -> dict[str, Any]:
        """The state in the format of ``torch.optim.AdamW``; gradients are not part of it, nor is ``capturable``."""
        with self._probes_hidden():
            found = super().state_dict()
        for group in found["param_groups"]:
            group.update(lr=float(group["lr"]), capturable=False)
        # Steps are counted where other AdamWs look for them, on the CPU.
        found["state"] = {at: {**state, "step": state["step"].cpu()} for at, state in found["state"].items()}
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state saved here or by ``torch.optim.AdamW`` over the same parameters."""
        mine = [(group["capturable"], group["lr"]) for group in self.param_groups]
        with self._probes_hidden():
            super().load_state_dict(state_dict)
        for (capturable, rate), (group, params) in zip(mine, self._parameters(), strict=True):
            group["capturable"] = capturable
            if capturable:
                group["lr"] = rate.fill_(float(group["lr"]))
            for param in params:
                if param in self.state:
                    step = self.state[param]["step"]
                    self.state[param]["step"] = step.to(self._counts_on(param, capturable), torch.float32)

    def _step_dense(self, group: dict[str, Any], alike: list[tuple[Tensor, Tensor]], overflow: Tensor | None) -> None:
        """Update parameters of one kind, given with their gradients."""
        params = [param for param, _ in alike]
        states = [self._state(param, group["capturable"]) for param in params]
        # Experts whose factors became dense have their counts on the CPU, where the fused CUDA kernel cannot read them.
        fused = states[0]["step"].device == params[0].device
        adamw(
            params,
            [grad for _, grad in alike],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=fused,
            foreach=not fused,
            found_inf=overflow,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _step_factored(
        self, group: dict[str, Any], weight: Tensor, factors: list[Factor], overflow: Tensor | None
    ) -> None:
        by_value = not group["capturable"]
        state = self._state(weight, group["capturable"])
        state["step"] += 1 if overflow is None else 1 - overflow
        launchers_for("factored_adamw", weight).adamw_factored(
            weight,
            state["exp_avg"],
            state["exp_avg_sq"],
            [(factor.rows[1], factor.rows[0], factor.weights, factor.index) for factor in factors],
            step=float(state["step"]) if by_value and overflow is None else state["step"],
            lr=float(group["lr"]) if by_value else group["lr"],
            betas=group["betas"],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            found_inf=overflow,
        )

    def _state(self, param: Tensor, capturable: bool) -> dict[str, Tensor]:
        state = self.state[param]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=self._counts_on(param, capturable))
            state["exp_avg"] = _zeros_like(param)
            state["exp_avg_sq"] = _zeros_like(param)
        elif self._scaled and state["step"].device != param.device:
            # Counted before a GradScaler was used.
            state["step"] = to_device(state["step"], param.device)
        return state

    def _counts_on(self, param: Tensor, capturable: bool) -> torch.device:
        """The device of a parameter's count of steps: its own, unless the update of experts takes it as a number."""
        by_value = id(param) in self._by_id and not (capturable or self._scaled)
        return torch.device("cpu") if by_value else param.device

    def _factors(self, param: Tensor) -> list[Factor]:
        """The factored gradient of ``param``; empty if its gradient is dense or absent."""
        collector = self._by_id.get(id(param))
        if collector is None:
            return []
        collector.settle()
        return collector.factors

    def _parameters(self) -> Iterator[tuple[dict[str, Any], list[Tensor]]]:
        """Each group with its parameters, without the probes."""
        shown = {id(probe) for probe in self._shown}
        for group in self.param_groups:
            yield group, [param for param in group["params"] if id(param) not in shown] if shown else group["params"]

    def _show_probes(self, visible: bool = True) -> None:
        """List the leaves with factored gradients beside their parameters, so that a GradScaler unscales them."""
        own = list(self._parameters())
        self._shown.clear()
        for group, params in own:
            experts = [param for param in params if id(param) in self._by_id] if visible else []
            probes = [factor.probe for param in experts for factor in self._factors(param)]
            group["params"] = [*params, *probes]
            self._shown += probes

    def _show_last(self, collector: Collector) -> None:
        """The same after one layer's backward pass, which adds one leaf, or makes its gradient dense."""
        if not collector.factors:
            return self._show_probes()
        probe = collector.factors[-1].probe
        # A second backward pass through a retained graph uses the leaf again.
        if all(probe is not other for other in self._shown):
            groups = (group["params"] for group in self.param_groups)
            next(params for params in groups if any(param is collector.weight for param in params)).append(probe)
            self._shown.append(probe)
        return None

    @contextmanager
    def _probes_hidden(self) -> Iterator[None]:
        self._show_probes(visible=False)
        yield
        self._show_probes()


def _by_device(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    parts: defaultdict[torch.device, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        parts[tensor.device].append(tensor)
    return list(parts.values())


def _zeros_like(param: Tensor) -> Tensor:
    if param.device.type != "cpu" or not param.is_contiguous():
        return torch.zeros_like(param, memory_format=torch.preserve_format)
    # Large blocks of this memory use huge pages if the system offers them: an update is bound by bandwidth.
    return cpu_memory.empty_like(param).zero_()
