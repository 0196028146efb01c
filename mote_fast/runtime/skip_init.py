"""Builds modules without drawing their random numbers, where a file gives every tensor next.

Drawing takes ten times as long as reading: 3.7 of the 4.4 s in which a folder of ViT-B/16 was loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# What initialisations of PyTorch, open_clip, timm and transformers end in; and the functions of ``nn.init`` that a mode
# sees in place of what they call.
_DRAWS = frozenset({Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_})


class _SkipDraws(TorchFunctionMode):
    """Writes zeros where numbers would be drawn.

    The memory as it was could hold anything: NaN there would pass for a mask's infinity (``check_numbers``).
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _DRAWS:
            with torch.no_grad():
                return (args[0] if args else (kwargs or {})["tensor"]).zero_()
        return func(*args, **(kwargs or {}))


@contextmanager
def skip_init() -> Iterator[None]:
    """Build modules with zeros in place of random numbers; every parameter has to be loaded, with ``strict=True``.

    What an initialisation sets to a constant or computes, such as causal masks, is there. It holds for this thread
    alone.
    """
    with _SkipDraws():
        yield
