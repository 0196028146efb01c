"""One library for a run's float32 products: in all its processes, and after it is resumed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from mote_fast.ops import products
from mote_fast.ops.products import Serving, serving
from mote_fast.runtime.distributed import ProcessGroup
from mote_fast.training import one_library
from mote_fast.training.loop import train
from mote_fast.training.one_library import Library, agree, library_in_use
from mote_fast.training.state import list_checkpoints, read_checkpoint
from tests.ops.test_products import give_to_onednn, needs_onednn
from tests.training.conftest import VideoFolder, assert_same_run, final_weights

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Several(ProcessGroup):
    """Processes played one after the other, in the order of their ranks; each gathers what those before it gave."""

    given: list[list[Any]] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)

    def gather(self, value: Any) -> list[Any]:
        at = len(self.calls)
        self.calls.append(at)
        if at == len(self.given):
            self.given.append([])
        self.given[at].append(value)
        return self.given[at]


def decide(monkeypatch: pytest.MonkeyPatch, by_onednn: bool, problem: str = "") -> None:
    """Let this process measure that, and find that problem."""
    monkeypatch.setattr(products, "_DECIDED", {"float32": Serving(by_onednn, "measured")})
    monkeypatch.setattr(one_library, "onednn_problem", lambda: problem)


@pytest.mark.parametrize("recorded", [None, "oneDNN", "PyTorch"])
@pytest.mark.parametrize("first", [True, False])
def test_processes_that_measure_differently_agree(
    monkeypatch: pytest.MonkeyPatch, first: bool, recorded: Library
) -> None:
    """All take the first process's answer, or the recorded one."""
    given: list[list[Any]] = []
    for rank, own in enumerate((first, not first)):
        decide(monkeypatch, own)
        agree(Several(rank, 2, CPU, given), recorded)
        assert library_in_use(CPU) == (recorded or ("oneDNN" if first else "PyTorch"))


@pytest.mark.parametrize("recorded", [None, "oneDNN"])
def test_without_an_exact_operator_none_uses_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, recorded: Library
) -> None:
    """A resumed run that changes its library says so; PyTorch's is everywhere."""
    decide(monkeypatch, True, "not exact")
    agree(ProcessGroup(0, 1, CPU), recorded)
    assert serving() == Serving(False, "not exact")
    assert ("not bit for bit that of the uninterrupted run (not exact)" in caplog.text) == (recorded is not None)


def test_other_devices_have_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured or recorded for them."""
    monkeypatch.setattr(products, "_DECIDED", {})
    agree(ProcessGroup(0, 1, torch.device("cuda")), "oneDNN")
    assert library_in_use(torch.device("cuda")) is None
    assert not products._DECIDED


@needs_onednn
@pytest.mark.heavy
@pytest.mark.parametrize(("first", "train_clip"), [(True, True), (False, False)])
def test_a_resumed_run_keeps_its_library(
    videos: VideoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool, train_clip: bool
) -> None:
    """Bit for bit the uninterrupted run, though the process that resumes would choose the other library."""
    give_to_onednn(monkeypatch)
    options = {"model__train_clip": train_clip, "run__eval_every": 1}

    def run(by_onednn: bool, output: Path, **more: Any) -> None:
        decide(monkeypatch, by_onednn)
        assert train(videos.config(output, **options, **more))

    straight, parts, other = tmp_path / "straight", tmp_path / "parts", tmp_path / "other"
    run(first, straight)
    run(first, parts, run__max_steps=3)
    _, path = list_checkpoints(parts / "checkpoints")[-1]
    assert read_checkpoint(path)["products"] == ("oneDNN" if first else "PyTorch")
    run(not first, parts)
    assert_same_run(straight, parts)
    # Otherwise the above would show nothing.
    run(not first, other)
    ours, theirs = final_weights(straight), final_weights(other)
    assert any(not torch.equal(value, theirs[name]) for name, value in ours.items())
