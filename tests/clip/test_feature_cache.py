"""The cache of class features: bounded, shared between processes, and never fatal."""

from __future__ import annotations

import multiprocessing
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from mote_fast.clip import feature_cache
from mote_fast.clip.feature_cache import FILE_NAME, FeatureCache
from mote_fast.clip.model_cache import ModelCache
from tests.full_disk import files_of_at_most

WIDTH = 8
# The fixtures of every test replace the function.
DEFAULT_CACHE_FOLDER = feature_cache.default_cache_folder


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
    # Values, checksum and label.
    entry = 4 * WIDTH + 8 + 1
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
    (tmp_path / FILE_NAME).write_bytes(b"this is no database" * 100)
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
    assert (cache.size(), (tmp_path / FILE_NAME).exists()) == (0, False)


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


def test_a_bit_error_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged feature counts as missing, the others come back; written again, it is whole."""
    cache = FeatureCache(tmp_path)
    cache.write("s", {"a": vector(1), "b": vector(2)})
    path = tmp_path / FILE_NAME
    content = bytearray(path.read_bytes())
    content[content.find(vector(1).numpy().tobytes()) + 3] ^= 4
    path.write_bytes(content)
    assert FeatureCache(tmp_path).read("s", ["a", "b"], WIDTH).keys() == {"b"}
    assert "'a' is damaged" in caplog.text
    cache.write("s", {"a": vector(1)})
    assert torch.equal(cache.read("s", ["a"], WIDTH)["a"], vector(1))


def test_features_without_a_checksum_are_replaced(tmp_path: Path) -> None:
    """A row that an earlier version wrote is no hit."""
    cache = FeatureCache(tmp_path)
    cache.write("s", {"a": vector(1)})
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database, database:
        database.execute("UPDATE features SET feature = ?", (vector(2).numpy().tobytes(),))
    assert cache.read("s", ["a"], WIDTH) == {}


@pytest.mark.parametrize("lock", ["EXCLUSIVE", "IMMEDIATE"])
def test_a_file_that_another_process_holds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    """A writer's lock never delays reading, and beyond a short wait there is one warning and no further wait."""
    monkeypatch.setattr("mote_fast.clip.feature_cache._BUSY_TIMEOUT", 0.0)
    FeatureCache(tmp_path).write("s", {"a": vector(1)})
    cache = FeatureCache(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as holder:
        holder.execute(f"BEGIN {lock}")
        found = cache.read("s", ["a"], WIDTH)
        assert found.keys() == ({"a"} if lock == "IMMEDIATE" else set())
        cache.write("s", {"b": vector(2)})
        cache.write("s", {"c": vector(3)})
        assert cache.read("s", ["a"], WIDTH) == {}
        holder.execute("ROLLBACK")
    assert caplog.text.count("locked") == caplog.text.count("going on without it") == 1
    assert FeatureCache(tmp_path).read("s", ["a", "b"], WIDTH).keys() == {"a"}


def test_a_read_only_file_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SQLite opens it for reading; that the time of use cannot be stored is no problem."""
    cache = FeatureCache(tmp_path)
    cache.write("s", {"a": vector(1)})
    opened = sqlite3.connect

    def read_only(name: str, **options: Any) -> sqlite3.Connection:
        return opened(name.replace("mode=rw", "mode=ro"), **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mote_fast.clip.feature_cache.sqlite3.connect", read_only)
        assert cache.read("s", ["a"], WIDTH).keys() == {"a"}
    assert caplog.text == ""


@pytest.mark.parametrize("kind", ["empty", "folder", "unlinkable"])
def test_other_things_in_place_of_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """An empty file, as a full disk leaves it, is filled; a folder, or garbage that stays, is one warning."""
    path = tmp_path / FILE_NAME
    if kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"" if kind == "empty" else b"this is no database" * 100)
    if kind == "unlinkable":
        monkeypatch.setattr("pathlib.Path.unlink", lambda self, missing_ok=False: self.rmdir())
    cache = FeatureCache(tmp_path)
    assert cache.read("s", ["a"], WIDTH) == {}
    assert cache.size() == 0
    cache.write("s", {"a": vector(1)})
    found = cache.read("s", ["a"], WIDTH)
    assert found.keys() == ({"a"} if kind == "empty" else set())
    assert caplog.text.count("going on without it") == (0 if kind == "empty" else 1)


def test_a_full_disk_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What does not fit is not kept; what was there stays."""
    FeatureCache(tmp_path).write("s", {"a": vector(1)})
    with files_of_at_most((tmp_path / FILE_NAME).stat().st_size):
        FeatureCache(tmp_path).write("s", {str(number): vector(number) for number in range(999)})
    assert "could not be written" in caplog.text
    assert FeatureCache(tmp_path).read("s", ["a", "7"], WIDTH).keys() == {"a"}


@pytest.mark.parametrize("answer", [RuntimeError("no home"), KeyError("uid"), Path("~/.cache/mote_fast")])
def test_a_user_without_a_home(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answer: Exception | Path
) -> None:
    """There is no folder for caches: one warning when something would be kept, and the features."""

    def folder(name: str) -> Path:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("platformdirs.user_cache_path", folder)
    monkeypatch.setattr("mote_fast.clip.feature_cache.default_cache_folder", DEFAULT_CACHE_FOLDER)
    cache = FeatureCache()
    assert cache.path is None
    assert cache.size() == 0
    cache.write("s", {"a": vector(1)})
    assert cache.read("s", ["a"], WIDTH) == {}
    cache.clear()
    assert caplog.text.count("no home folder") == 1
    towers = ModelCache()
    towers.write("aa", b"tower")
    assert (towers.read("aa"), towers.size()) == (None, 0)
    towers.clear()
    assert "no cache of int8 towers" in caplog.text
