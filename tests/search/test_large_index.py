"""A large index is mapped: a search takes the memory of one block, not of a float32 copy of all rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mote_fast.search.index_folder import IndexFolder
from mote_fast.search.index_record import Embedding, IndexRecord
from mote_fast.search.video_index import Index

# Megabytes of memory of its own, not of mapped files, after the start, after opening and after two searches.
MEASURE = """
import json, sys, torch
from mote_fast.search.video_index import Index
def own():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024
torch.mv(torch.ones(64, 64), torch.ones(64))
found = [own()]
index = Index(sys.argv[1])
found.append(own())
for _ in range(2):
    hits = index.search(torch.ones(512), topk=10)
found.append(own())
print(json.dumps([found, len(index), len(hits)]))
"""


def fill(folder: Path, rows: int) -> None:
    IndexFolder.create(folder, IndexRecord("m", "0" * 64, 512, Embedding("temporal", "1x1", 8, "ignore", "width")))
    index = Index(folder)
    for start in range(0, rows, 50_000):
        count = min(50_000, rows - start)
        names = [f"video-{start + at}" for at in range(count)]
        index.add(names, torch.randn(count, 512, generator=torch.Generator().manual_seed(start)))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
@pytest.mark.parametrize(
    "rows", [pytest.param(100_000, marks=pytest.mark.heavy), pytest.param(1_000_000, marks=pytest.mark.slow)]
)
def test_memory_of_a_search(tmp_path: Path, rows: int) -> None:
    """Opening reads no vectors, and a search adds 16 MB for its block; the rows in float32 would be 200 MB and more."""
    fill(tmp_path / "index", rows)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "index")]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (start, opened, searched), count, hits = json.loads(text)
    assert (count, hits) == (rows, 10)
    assert opened - start < 20
    assert searched - opened < 60
