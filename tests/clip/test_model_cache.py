"""The cache of exported towers: bounded, shared between processes, and never fatal."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from mote_fast.clip.model_cache import ModelCache
from mote_fast.runtime.parts import new_part


def only_file(cache: ModelCache) -> Path:
    (path,) = cache.folder.iterdir()
    return path


def test_stored_bytes_come_back(tmp_path: Path) -> None:
    """What is read equals what was written, per key."""
    cache = ModelCache(tmp_path / "new")
    assert cache.read("aa") is None
    cache.write("aa", b"tower")
    assert ModelCache(tmp_path / "new").read("aa") == b"tower"
    assert cache.read("a") is None
    assert cache.size() == 5
    cache.clear()
    assert (cache.size(), cache.read("aa")) == (0, None)


@pytest.mark.parametrize("content", [b"", b"towex", b"tower and more"])
def test_a_damaged_file_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    """A truncated, changed or longer file is recognised by its digest, logged and removed; its key is usable again."""
    cache = ModelCache(tmp_path)
    cache.write("aa", b"tower")
    damaged = only_file(cache)
    damaged.write_bytes(content)
    assert cache.read("aa") is None
    assert damaged.name in caplog.text
    assert not damaged.exists()
    cache.write("aa", b"tower")
    assert cache.read("aa") == b"tower"


def test_a_file_of_another_key_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A sound file under the name of another model's is not that model."""
    cache = ModelCache(tmp_path)
    cache.write("aa", b"tower")
    path = only_file(cache)
    path.rename(path.with_name(path.name.replace("aa-", "bb-", 1)))
    assert cache.read("bb") is None
    assert "made for another model or machine" in caplog.text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["pipe", "folder", "too large", "circle"])
def test_other_things_in_place_of_a_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """None is waited for or read, one warning says which, and a sound file beside it serves."""
    cache = ModelCache(tmp_path)
    cache.write("aa", b"tower")
    odd = tmp_path / f"aa-{'0' * 64}.onnx"
    if kind == "pipe":
        os.mkfifo(odd)
    elif kind == "folder":
        odd.mkdir()
    elif kind == "circle":
        odd.symlink_to(odd)
    else:
        monkeypatch.setattr("mote_fast.clip.model_cache.MAX_FILE_BYTES", 5)
        odd.write_bytes(b"larger")
    assert cache.read("aa") == b"tower"
    assert caplog.text.count("cannot be read") == 1
    assert odd.name in caplog.text


def test_the_oldest_go_when_it_is_full(tmp_path: Path) -> None:
    """Beyond the bound, the least recently used files are removed; a single file over the bound stays."""
    cache = ModelCache(tmp_path, max_bytes=3)
    for age, key in enumerate(("aa", "bb", "cc")):
        cache.write(key, b"1")
        for path in tmp_path.glob(f"{key}-*"):
            os.utime(path, (1000 + age, 1000 + age))
    assert cache.read("aa") == b"1"
    cache.write("dd", b"2")
    assert [key for key in ("aa", "bb", "cc", "dd") if cache.read(key) is not None] == ["aa", "cc", "dd"]
    cache.write("ee", b"12345")
    assert cache.read("ee") == b"12345"
    assert cache.size() == 5


def test_abandoned_parts_are_taken_away(tmp_path: Path) -> None:
    """The unfinished file of a killed process is removed, and that of one that is writing is kept."""
    killed = tmp_path / ".aa-0.onnx.12345678.part"
    killed.mkdir()
    with new_part(tmp_path / "aa-1.onnx") as part:
        part.write_bytes(b"half")
        ModelCache(tmp_path).write("aa", b"tower")
        assert (killed.exists(), part.exists()) == (False, True)


def test_an_unusable_folder_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If the folder is not writable, there is no cache and no error."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    cache = ModelCache(blocked / "cache")
    cache.write("aa", b"tower")
    assert cache.read("aa") is None
    assert "could not be written" in caplog.text


def hammer(folder: Path, worker: int) -> None:
    cache = ModelCache(folder, max_bytes=3000)
    for number in range(10):
        cache.write("aa", bytes([number]) * 1000)
        cache.write(f"b{worker}", bytes([number]) * 1000)
        found = cache.read("aa")
        assert found is None or found == found[:1] * 1000


@pytest.mark.heavy
def test_concurrent_processes(tmp_path: Path) -> None:
    """Concurrent writers and readers see complete files only, and leave no partial files."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=hammer, args=(tmp_path, worker)) for worker in range(2)]
    for process in workers:
        process.start()
    for process in workers:
        process.join()
    assert [process.exitcode for process in workers] == [0, 0]
    assert not list(tmp_path.glob(".*"))
    assert 0 < ModelCache(tmp_path).size() <= 4000
