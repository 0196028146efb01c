"""torch.compile where it can serve, and functions that go on without it."""

from __future__ import annotations

import copy
import importlib.util
import logging
import pickle
import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mote_fast.errors import BackendError, ConfigError
from mote_fast.runtime.compiling import Compiled, check_compile, compiler_problem

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


def test_a_failing_compiler_is_left_after_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The call that failed is made again without it, and so are later ones."""
    asked: list[int] = []

    def backend(*_: object) -> None:
        asked.append(1)
        raise OSError("no disk for the compiler's files")

    run = Compiled(torch.neg, "the image tower", required=False, backend=backend)
    with caplog.at_level(logging.WARNING):
        results = [run(torch.ones(2)) for _ in range(3)]
    assert all(torch.equal(result, -torch.ones(2)) for result in results)
    assert len(asked) == 1
    (message,) = [record.getMessage() for record in caplog.records if "torch.compile" in record.getMessage()]
    assert message.startswith("the image tower runs without torch.compile, which fails:")
    assert "no disk" in message
    assert "no disk" in (run.problem or "")


def test_a_failing_compiler_that_was_asked_for_is_an_error() -> None:
    """Whoever says True wants the compiled code, and learns at once that there is none."""

    def backend(*_: object) -> None:
        raise OSError("no disk for the compiler's files")

    with pytest.raises(BackendError, match=r"torch\.compile of the image tower fails, leave it out: .*no disk"):
        Compiled(torch.neg, "the image tower", required=True, backend=backend)(torch.ones(2))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))])
def test_copies_compile_for_themselves(copied: Callable[[Compiled], Compiled]) -> None:
    """Compiled code cannot be pickled; a copy makes it anew."""
    run = Compiled(torch.neg, "it", required=True, backend="eager")
    x = torch.ones(2)
    assert torch.equal(run(x), -x)
    assert torch.equal(copied(run)(x), -x)


@pytest.mark.parametrize("choice", ["always", "true", 1, None])
def test_choices_are_three(choice: object) -> None:
    """A word that looks like one is none."""
    with pytest.raises(ConfigError, match="compile must be True, False or 'auto'"):
        check_compile(choice)


def test_errors_of_the_function_itself_are_raised() -> None:
    """They are no failures of the compiler."""

    def wrong(x: Tensor) -> Tensor:
        if x.ndim != 2:
            raise ValueError("two axes are needed")
        return x

    with pytest.raises(ValueError, match="two axes"):
        Compiled(wrong, "it", required=False, backend="eager")(torch.ones(2))
