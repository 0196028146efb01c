"""Caches in every state: results are those without a cache, and a warning says what was wrong with it."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mote_fast.clip import ClipTowers, encode_classes, int8, load_towers
from mote_fast.clip.feature_cache import FILE_NAME, FeatureCache
from mote_fast.clip.int8 import Int8Tower, quantized
from mote_fast.clip.model_cache import ModelCache
from mote_fast.clip.prompts import Prompts
from mote_fast.runtime.workers import WorkerLostError, WorkerPool
from tests.attack.conftest import Attack
from tests.full_disk import files_of_at_most
from tests.tolerances import assert_close

pytestmark = pytest.mark.heavy

LABELS = ["archery", "juggling balls", "日本語", "a\nb", "x" * 60]
PROMPTS = Prompts(["a photo of {}.", "{}"])
# Seconds and bytes that a call with a cache of a few kilobytes may take.
HANG, MEMORY = 60.0, 2**30


def damaged(content: bytes, dice: random.Random) -> bytes:
    """Flip bits, cut off, overwrite, exchange pages, or replace everything."""
    data = bytearray(content)
    page = 4096
    match dice.randrange(6):
        case 0:
            for _ in range(dice.choice((1, 1, 2, 30))):
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        case 1:
            del data[dice.randrange(len(data)) :]
        case 2:
            at = dice.randrange(len(data))
            data[at : at + dice.choice((1, 8, 512, page))] = dice.randbytes(dice.choice((1, 8, 512, page)))
        case 3:
            one, other = (dice.randrange(0, len(data), page) for _ in range(2))
            data[one : one + page], data[other : other + page] = data[other : other + page], data[one : one + page]
        case 4:
            at = dice.randrange(0, len(data), page)
            data[at : at + page] = bytes(len(data[at : at + page]))
        case _:
            return dice.choice((b"", bytes(page), dice.randbytes(3 * page), b"this is no database" * 500, content * 2))
    return bytes(data)


class Warned(logging.Handler):
    """Collects the library's warnings in a worker process."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@functools.cache
def towers(seed: int = 0) -> ClipTowers:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return load_towers("ViT-test")


def features(folder: str) -> tuple[list[list[float]], list[str]]:
    """Return the class features by way of the cache in a folder, and the warnings."""
    warned = Warned()
    logger = logging.getLogger("mote_fast")
    logger.addHandler(warned)
    try:
        # Twice: the second call meets what the first left.
        cache = FeatureCache(folder)
        encode_classes(towers(), LABELS[::2], PROMPTS, cache=cache)
        return encode_classes(towers(), LABELS, PROMPTS, cache=cache).tolist(), warned.texts
    finally:
        logger.removeHandler(warned)


@pytest.fixture(scope="module")
def expected() -> Tensor:
    return encode_classes(towers(), LABELS, PROMPTS)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The content of a whole cache, of which other classes fill several pages."""
    folder = tmp_path_factory.mktemp("sound")
    cache = FeatureCache(folder)
    cache.write("other", {str(number): torch.randn(towers().embed_dim) for number in range(40)})
    encode_classes(towers(), LABELS, PROMPTS, cache=cache)
    return (folder / FILE_NAME).read_bytes()


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with contextlib.closing(WorkerPool(features, 1, HANG, memory_limit=MEMORY)) as made:
        yield made


def check(pool: WorkerPool, folder: Path, expected: Tensor) -> list[str]:
    found, warnings = pool.run(str(folder))
    assert_close(torch.tensor(found), expected, "float32")
    return warnings


def test_damaged_class_features(
    attack: Attack, tmp_path: Path, sound: bytes, expected: Tensor, pool: WorkerPool
) -> None:
    """Whatever bytes are in the file or its journal, the features are those without a cache."""
    dice = random.Random(19)
    path = tmp_path / FILE_NAME
    for number in range(attack.size(80, 2000)):
        for old in tmp_path.iterdir():
            old.unlink()
        path.write_bytes(damaged(sound, dice) if dice.random() < 0.9 else sound)
        if dice.random() < 0.2:
            kind = dice.choice(("journal", "wal", "shm"))
            (tmp_path / f"{FILE_NAME}-{kind}").write_bytes(damaged(sound, dice))
        with attack.attempt(number):
            warnings = check(pool, tmp_path, expected)
            assert len(warnings) <= len(LABELS) + 3


def foreign(statements: str) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        path.unlink()
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.executescript(statements)

    return make


def in_place(make: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda path: (path.unlink(), make(path))


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 's' AS space, 'x' AS label, i FROM n"
# What is in place of the file, and a word of the warning; None where the cache simply serves or is begun anew.
STATES: dict[str, tuple[Callable[[Path], object], str | None]] = {
    "sound": (lambda path: None, None),
    "absent": (lambda path: path.unlink(), None),
    "empty": (lambda path: path.write_bytes(b""), None),
    "garbage": (lambda path: path.write_bytes(b"garbage" * 1000), "damaged"),
    "cut": (lambda path: os.truncate(path, 5000), "damaged"),
    "folder": (in_place(Path.mkdir), "going on without it"),
    "pipe": (in_place(os.mkfifo), "going on without it"),
    "link to itself": (in_place(lambda path: path.symlink_to(path)), "going on without it"),
    "link to a device": (in_place(lambda path: path.symlink_to("/dev/zero")), ""),
    "link to nowhere": (in_place(lambda path: path.symlink_to("/nowhere/at/all")), "going on without it"),
    "other program": (foreign("CREATE TABLE visits (url TEXT)"), None),
    "other columns": (foreign("CREATE TABLE features (space TEXT, name TEXT, value BLOB)"), "going on without it"),
    "endless view": (foreign(f"CREATE VIEW features AS {ENDLESS}"), "going on without it"),
    "numbers": (
        foreign(
            "CREATE TABLE features (space, label, feature, used, PRIMARY KEY (space, label)); "
            "INSERT INTO features VALUES (1, 2, 3, 4), (NULL, NULL, NULL, NULL)"
        ),
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("state", STATES)
def test_states_of_the_class_features(
    attack: Attack, tmp_path: Path, sound: bytes, expected: Tensor, pool: WorkerPool, state: str
) -> None:
    """Another program's file and things that are no files cost a warning at most."""
    make, word = STATES[state]
    path = tmp_path / FILE_NAME
    path.write_bytes(sound)
    make(path)
    with attack.attempt(state):
        warnings = check(pool, tmp_path, expected)
        assert (word is None) == (not warnings)
        assert word is None or word in " ".join(warnings)
        assert all(str(path) in warning for warning in warnings)


@pytest.mark.parametrize("lock", ["DEFERRED", "IMMEDIATE", "EXCLUSIVE"])
@pytest.mark.parametrize("labels", ["stored", "new"])
def test_a_locked_file(
    attack: Attack, tmp_path: Path, sound: bytes, expected: Tensor, pool: WorkerPool, lock: str, labels: str
) -> None:
    """A process that reads, writes or holds the file costs one warning at most, and a short wait."""
    path = tmp_path / FILE_NAME
    if labels == "stored":
        path.write_bytes(sound)
    else:
        FeatureCache(tmp_path).write("other", {"a": torch.zeros(8)})
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute(f"BEGIN {lock}")
        holder.execute("SELECT COUNT(*) FROM features").fetchone()
        with attack.attempt(f"{lock} {labels}"):
            warnings = check(pool, tmp_path, expected)
            waits = lock == "EXCLUSIVE" or labels == "new"
            assert [("locked" in warning) for warning in warnings] == [True] * waits


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own are private."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def without_rights(folder: str) -> tuple[list[list[float]], list[str]]:
    """Return the features as a user who may read the cache's folder and not write to it."""
    if os.geteuid() == 0:
        towers()
        os.setuid(65534)
    return features(folder)


@pytest.mark.parametrize("labels", ["stored", "new", "none"])
def test_a_folder_that_is_read_only(attack: Attack, public: Path, sound: bytes, expected: Tensor, labels: str) -> None:
    """What is there is read; what cannot be kept costs one warning."""
    folder = public / "cache"
    folder.mkdir()
    if labels == "stored":
        (folder / FILE_NAME).write_bytes(sound)
    elif labels == "new":
        FeatureCache(folder).write("other", {"a": torch.zeros(8)})
    for each in (*folder.iterdir(), folder):
        each.chmod(0o555 if each.is_dir() else 0o444)
    with (
        attack.attempt(labels),
        contextlib.closing(WorkerPool(without_rights, 1, HANG, memory_limit=MEMORY)) as pool,
    ):
        warnings = check(pool, folder, expected)
        assert [("could not be written" in warning) for warning in warnings] == [True] * (labels != "stored")
    folder.chmod(0o755)


def test_a_full_disk(attack: Attack, tmp_path: Path, sound: bytes, expected: Tensor) -> None:
    """What does not fit is not kept; the features are the same, and the file stays whole."""
    path = tmp_path / FILE_NAME
    for size in range(0, len(sound) + 1, len(sound) // attack.size(4, 60)):
        for old in tmp_path.iterdir():
            old.unlink()
        with attack.attempt(size), files_of_at_most(size):
            assert_close(encode_classes(towers(), LABELS, PROMPTS, cache=FeatureCache(tmp_path)), expected, "float32")
            if path.exists():
                assert_close(
                    encode_classes(towers(), LABELS, PROMPTS, cache=FeatureCache(tmp_path)), expected, "float32"
                )


def write_for_ever(folder: str) -> None:
    """Store and read in both caches until the process is killed."""
    number = 0
    features_, models = FeatureCache(folder), ModelCache(Path(folder) / "int8")
    while True:
        number += 1
        features_.write("s", {f"{number % 50}-{part}": torch.full((64,), float(number)) for part in range(20)})
        models.write(f"{number % 3:02x}", number.to_bytes(4, "big") * 5000)


def end_of(writers: WorkerPool, folder: str) -> bool:
    try:
        writers.run(folder)
    except WorkerLostError as lost:
        return lost.timed_out
    return False


def test_killed_writers(attack: Attack, tmp_path: Path, expected: Tensor, pool: WorkerPool) -> None:
    """Two processes write; they are killed at any instant, and what they leave is whole or not there."""
    cache, models = FeatureCache(tmp_path), ModelCache(tmp_path / "int8")
    for number in range(attack.size(2, 60)):
        writers = WorkerPool(write_for_ever, 2, 0.2 + 0.01 * (number % 30))
        with attack.attempt(number), contextlib.closing(writers):
            with ThreadPoolExecutor(2) as threads:
                lost = list(threads.map(end_of, [writers] * 2, [str(tmp_path)] * 2))
            assert lost == [True, True]
            check(pool, tmp_path, expected)
            labels = [f"{at}-{part}" for at in range(50) for part in range(20)]
            assert all((each == each[0]).all() for each in cache.read("s", labels, 64).values())
            for key in ("00", "01", "02"):
                content = models.read(key)
                assert content is None or content == content[:4] * 5000


def test_damaged_towers(attack: Attack, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file of the cache is the content of its key, or nothing and a warning; exchanged files are seen."""
    dice = random.Random(20)
    contents = {key: dice.randbytes(3 * 4096) for key in ("aa", "bb")}
    for number in range(attack.size(200, 5000)):
        cache = ModelCache(tmp_path / "cache")
        for key, content in contents.items():
            cache.write(key, content)
        paths = dict(zip(contents, sorted((tmp_path / "cache").iterdir()), strict=True))
        caplog.clear()
        kind = dice.randrange(3)
        if kind == 0:
            paths["aa"].write_bytes(damaged(contents["aa"], dice))
        elif kind == 1:
            # The content of one, in the other's place.
            paths["bb"].replace(paths["aa"])
        else:
            # One under the other's key, with its own digest.
            paths["bb"].replace(paths["bb"].with_name(paths["bb"].name.replace("bb-", "aa-", 1)))
            paths["aa"].unlink()
        with attack.attempt(f"{number} {kind}"):
            unchanged = paths["aa"].exists() and paths["aa"].read_bytes() == contents["aa"]
            found = cache.read("aa")
            assert found == (contents["aa"] if unchanged else None)
            assert unchanged == (not caplog.text)
            assert (cache.read("bb") == contents["bb"]) == (kind == 0)
        shutil.rmtree(tmp_path / "cache")


def test_exchanged_towers_give_the_features_of_their_weights(
    attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models with one cache: damaged, exchanged or unwritable, each encodes as it does without a cache."""
    dice = random.Random(21)
    models = [towers(seed) for seed in (0, 1)]
    exports = {id(model): quantized(model, 8) for model in models}
    monkeypatch.setattr(int8, "smoothed", lambda model, _: model)
    monkeypatch.setattr(int8, "quantized", lambda model, *_: exports[id(model)])
    size = models[0].image_size
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    alone = [Int8Tower(model, ModelCache(tmp_path / "none" / str(at)))(pixels) for at, model in enumerate(models)]
    assert not torch.equal(*alone)
    folder = tmp_path / "cache"
    for number in range(attack.size(8, 200)):
        cache = ModelCache(folder)
        for model in models:
            Int8Tower(model, cache).prepare()
        first, second = dice.sample(sorted(folder.iterdir()), 2)
        match number % 4:
            case 0:
                second.replace(first)
            case 1:
                first.write_bytes(damaged(first.read_bytes(), dice))
            case 2:
                key, digest = first.name.split("-")[0], second.name.split("-")[1]
                second.replace(folder / f"{key}-{digest}")
                first.unlink()
            case _:
                first.unlink()
                first.mkdir()
        with attack.attempt(number), files_of_at_most(1000) if number % 3 == 0 else contextlib.nullcontext():
            for model, features_ in zip(models, alone, strict=True):
                assert torch.equal(Int8Tower(model, cache)(pixels), features_)
        shutil.rmtree(folder)
