"""The cache of class features: bounded, shared between processes, and never fatal."""

from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path

import pytest
import torch

from mote_fast.clip.feature_cache import FeatureCache

WIDTH = 8


def vector(seed: int) -> torch.Tensor:
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))


def test_stored_bits_come_back(tmp_path: Path) -> None:
    """What is read equals what was written, per space and label; unknown labels are left out."""
    cache = FeatureCache(tmp_path)
    assert cache.read("s", ["a"], WIDTH) == {}
    cache.write("s", {"a": vector(1), "日本 'quoted\"": vector(2)})
    found = FeatureCache(tmp_path).read("s", ["a", "日本 'quoted\"", "b"], WIDTH)
    assert found.keys() == {"a", "日本 'quoted\""}
    assert torch.equal(found["a"], vector(1))
    assert cache.read("t", ["a"], WIDTH) == {}
    assert cache.read("s", ["a"], WIDTH + 1) == {}


def test_more_labels_than_a_query_takes(tmp_path: Path) -> None:
    """Thousands of labels are read in parts."""
    cache = FeatureCache(tmp_path)
    cache.write("s", {str(number): vector(number) for number in range(2500)})
    assert len(cache.read("s", [str(number) for number in range(2500)], WIDTH)) == 2500


def test_the_oldest_go_when_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound, the least recently used features are dropped."""
    clock = iter(range(100))
    monkeypatch.setattr("mote_fast.clip.feature_cache.time.time", lambda: float(next(clock)))
    entry = 4 * WIDTH + 1
    cache = FeatureCache(tmp_path, max_bytes=3 * entry)
    for label in "abc":
        cache.write("s", {label: vector(ord(label))})
    cache.read("s", ["a"], WIDTH)
    cache.write("s", {"d": vector(4)})
    assert cache.read("s", list("abcd"), WIDTH).keys() == set("acd")
    assert cache.size() <= 3 * entry


def test_a_damaged_file_is_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Garbage in the file costs a warning, then the cache works again."""
    cache = FeatureCache(tmp_path)
    cache.path.write_bytes(b"this is no database" * 100)
    assert cache.read("s", ["a"], WIDTH) == {}
    assert "damaged" in caplog.text
    cache.write("s", {"a": vector(1)})
    assert torch.equal(cache.read("s", ["a"], WIDTH)["a"], vector(1))


def test_an_unusable_folder_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If the folder is not writable, there is no cache and no error."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    cache = FeatureCache(blocked / "cache")
    cache.write("s", {"a": vector(1)})
    assert cache.read("s", ["a"], WIDTH) == {}
    assert "could not be written" in caplog.text


def test_clear_removes_it(tmp_path: Path) -> None:
    """Cleared, or simply deleted, it starts empty."""
    cache = FeatureCache(tmp_path)
    cache.write("s", {"a": vector(1)})
    assert cache.size() > 0
    cache.clear()
    assert (cache.size(), cache.path.exists()) == (0, False)


def hammer(folder: Path, worker: int) -> None:
    cache = FeatureCache(folder)
    for number in range(20):
        cache.write("s", {f"{worker}-{number}": vector(number), "common": vector(0)})
        found = cache.read("s", ["common", f"{worker}-{number}"], WIDTH)
        assert torch.equal(found["common"], vector(0))
        assert torch.equal(found[f"{worker}-{number}"], vector(number))


@pytest.mark.heavy
def test_concurrent_processes(tmp_path: Path) -> None:
    """Concurrent writers and readers lose no feature and do not fail."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=hammer, args=(tmp_path, worker)) for worker in range(2)]
    for process in workers:
        process.start()
    for process in workers:
        process.join()
    assert [process.exitcode for process in workers] == [0, 0]
    labels = [f"{worker}-{number}" for worker in range(2) for number in range(20)]
    assert len(FeatureCache(tmp_path).read("s", labels, WIDTH)) == 40
    with sqlite3.connect(FeatureCache(tmp_path).path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
