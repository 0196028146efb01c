"""torch.compile where it can serve, and functions that go on without it."""

from __future__ import annotations

import importlib.util
import logging
import shutil
from functools import partial

import pytest
import torch
from torch import Tensor

from mote_fast.runtime.compiling import compiled_or_eager, compiler_problem

CUDA = torch.device("cuda", 0)


def test_what_the_compiler_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton, a C compiler, or a GPU that Triton knows."""
    found = {"triton": True, "gcc": True}
    capability = [(9, 0)]
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found.get(name))
    monkeypatch.setattr(shutil, "which", found.get)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability[0])
    assert compiler_problem(CUDA) is None
    capability[0] = (6, 1)
    assert "6.1" in (compiler_problem(CUDA) or "")
    del found["gcc"]
    assert "C compiler" in (compiler_problem(CUDA) or "")
    del found["triton"]
    assert "Triton is not installed" in (compiler_problem(CUDA) or "")


def test_a_failing_compiler_is_left_after_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The call that failed is made again without it, and so are later ones."""
    asked: list[int] = []

    def backend(*_: object) -> None:
        asked.append(1)
        raise OSError("no disk for the compiler's files")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    run = compiled_or_eager(torch.neg, "the image tower")
    with caplog.at_level(logging.WARNING):
        results = [run(torch.ones(2)) for _ in range(3)]
    assert all(torch.equal(result, -torch.ones(2)) for result in results)
    assert len(asked) == 1
    (message,) = [record.getMessage() for record in caplog.records if "torch.compile" in record.getMessage()]
    assert message.startswith("the image tower runs without torch.compile, which fails:")
    assert "no disk" in message


def test_errors_of_the_function_itself_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are no failures of the compiler."""

    def wrong(x: Tensor) -> Tensor:
        if x.ndim != 2:
            raise ValueError("two axes are needed")
        return x

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    with pytest.raises(ValueError, match="two axes"):
        compiled_or_eager(wrong, "it")(torch.ones(2))
