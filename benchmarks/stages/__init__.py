"""The stages of benchmarks/throughput.py: name -> the workloads that it measures."""

from __future__ import annotations

from collections.abc import Callable

from stages.end2end import end2end
from stages.head import head, train
from stages.loading import decode, transform
from stages.setting import Setting
from stages.text import text
from stages.tower import clip
from stages.workload import Workload

STAGES: dict[str, Callable[[Setting], list[Workload]]] = {
    "decode": decode,
    "transform": transform,
    "clip": clip,
    "head": head,
    "text": text,
    "end2end": end2end,
    "train": train,
}


def workloads_of(setting: Setting, names: list[str]) -> list[Workload]:
    """The workloads of the stages named, each once, though stages share some."""
    found: dict[tuple[str, str], Workload] = {}
    for name in names:
        for workload in STAGES[name](setting):
            found.setdefault((workload.stage, workload.name), workload)
    return list(found.values())
