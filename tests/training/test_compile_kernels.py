"""What is compiled before the first step is what the steps launch; nothing is launched for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="the kernels are Triton's, and Triton is not installed")

from launches import Launch, Shape, launches_of, recorded
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

from mote_fast import VideoHead
from mote_fast.head.experts import TemporalExperts
from mote_fast.head.head_config import HeadConfig
from mote_fast.kernels import warm_up
from mote_fast.kernels.launch import compiling, launch
from mote_fast.kernels.reference import expert_size
from mote_fast.kernels.warm_up import compile_step
from mote_fast.training.compile_kernels import compile_kernels
from mote_fast.training.method import TrainingMethod
from tests.pretended_cuda import pretended_cuda

CLIPS, FRAMES, WIDTH = 3, 4, 16


def variants(launches: list[Launch]) -> set[tuple[str, str]]:
    """Kernels, and what Triton's own binder tells their launches apart by."""
    backend = make_backend(GPUTarget("cuda", 90, 32))
    found = set()
    for each in launches:
        bind = create_function_from_signature(each.kernel.signature, each.kernel.params, backend)
        found.add((each.kernel.__name__, str(bind(*each.args)[1]) + str((each.warps, each.stages))))
    return found


@pytest.mark.parametrize("factors", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_of_a_step_are_compiled_before_it(dtype: torch.dtype, factors: int) -> None:
    """Those that the operators launch: forward, backward, and the update or the dense gradient."""
    shape = Shape(WIDTH, CLIPS, FRAMES, 4)
    with recorded() as launches:
        experts = torch.empty(4, expert_size(WIDTH), device="meta")
        compile_step(experts, WIDTH, shape.tokens, dtype, factors)
        compiled = variants(launches)
    pair = launches_of("pair", shape, dtype, torch.float32)
    name, operator = [("expand", "merge"), ("one", "adamw"), ("two", "adamw")][factors]
    last = launches_of(operator, shape, torch.float32, torch.float32)[name]
    if name == "two":
        # Of which the other has its scale on the device.
        assert len(compiled) == len(variants([*pair.values(), last]))
        compiled -= {each for each in compiled if each[0] == last.kernel.__name__}
        assert compiled == variants(list(pair.values()))
    else:
        assert compiled == variants([*pair.values(), last])


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_a_run_compiles_for_its_own_step(passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With four experts three passes make gradients dense."""
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(warm_up, "compile_step", lambda *arguments: asked.append(arguments))
    head = VideoHead(HeadConfig(WIDTH, 2, 2, 4))
    with pretended_cuda():
        head.to("cuda")
        compile_kernels(head, TrainingMethod(), CLIPS * FRAMES, torch.bfloat16, passes)
    weight = next(module.weight for module in head.modules() if isinstance(module, TemporalExperts))
    ((given, *rest),) = asked
    assert given is weight
    assert rest == [WIDTH, CLIPS * FRAMES, torch.bfloat16, passes if passes < 3 else 0]


@pytest.mark.parametrize("changes", [{"expert_data": "all"}, {"regulariser": "none"}])
def test_methods_of_other_kernels_compile_theirs_in_the_first_step(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also heads on a CPU, which has no kernels to compile."""
    head = VideoHead(HeadConfig(WIDTH, 2, 2, 4))
    asked: list[object] = []
    monkeypatch.setattr(warm_up, "compile_step", lambda *_: asked.append(1))
    compile_kernels(head, TrainingMethod(), CLIPS * FRAMES, torch.float32, 1)
    with pretended_cuda():
        head.to("cuda")
        compile_kernels(head, TrainingMethod(**changes), CLIPS * FRAMES, torch.float32, 1)
    assert not asked


def test_a_launch_only_compiles_where_it_was_asked_to() -> None:
    """With the launch's own options; afterwards launches run again."""
    calls: list[tuple[str, Any]] = []

    class Kernel:
        def warmup(self, *args: Any, grid: tuple[int, ...], **options: int) -> None:
            calls.append(("compile", options))

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda *args, **options: calls.append(("run", options))

    x = torch.zeros(1)
    options = {"num_warps": 2, "num_stages": 3}
    with compiling(2):
        launch(Kernel(), (4,), x, warps=2, stages=3)
    launch(Kernel(), (4,), x, warps=2, stages=3)
    assert calls == [("compile", options), ("run", options)]
