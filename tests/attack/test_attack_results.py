"""Results of evaluations that others hand over: whatever is in them, one typed error or percentages."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mote_fast.errors import MoteError
from mote_fast.evaluation.combine import combine, read_result
from mote_fast.evaluation.reproduction import compare, record_of, rows_of, runs_of
from tests.attack.conftest import Attack
from tests.attack.test_attack_annotations import VALUES

VIDEOS = {"vallist_split1": 4, "vallist_split2": 4}
OTHER = {"protocol": "closeset", "dataset": "K400", "mean": {"running": {"readable": {"top1": {"mean": 50.0}}}}}


def valid() -> dict[str, Any]:
    """A result of two splits."""
    top = {of: {"top1": 25.0, "top5": 75.0} for of in ("readable", "all")}
    spread = {of: {"top1": {"mean": 25.0, "deviation": 0.0}} for of in ("readable", "all")}
    splits = [{"name": name, "classes": 3, "videos": 4, "running": top, "full-class": top} for name in VIDEOS]
    return {
        "dataset": "UCF-101",
        "checkpoint": "model",
        "views": "3x1",
        "protocol": "zeroshot",
        "splits": splits,
        "mean": {"running": spread, "full-class": spread},
        "failures": [],
    }


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a document."""
    yield path
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(each, (*path, key))


def changed(path: tuple[Any, ...], value: Any, drop: bool) -> Any:
    """A valid result with one place replaced or removed."""
    document: Any = copy.deepcopy(valid())
    if not path:
        return value
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    if drop:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return document


def read_everything(folder: Path) -> None:
    """Read a result as the commands do; what is not refused is in range."""
    with suppress(MoteError):
        result = read_result(folder)
        found = combine([result, {**OTHER, "checkpoint": result.get("checkpoint")}])
        assert 0 <= found.hm_zs <= 100
        assert found.score is not None
        assert 0 <= found.score <= 100
    with suppress(MoteError):
        record = record_of(folder, {"protocol": "zeroshot", "views": "3x1"}, VIDEOS)
        assert record is not None
        rows = rows_of(["1", "3", "4"])
        for each in compare(rows, dict.fromkeys(runs_of(rows), record), "running"):
            assert each.ours is None or 0 <= each.ours <= 100


def test_changed_results(attack: Attack, tmp_path: Path) -> None:
    """Every place of a result missing, or holding a value of another kind."""
    every = [(path, value) for path in places(valid()) for value in [*VALUES, None]]
    cases = [(path, value, at % 19 == 0) for at, (path, value) in enumerate(every)]
    for path, value, drop in random.Random(0).sample(cases, attack.size(300, len(cases))):
        (tmp_path / "result.json").write_text(json.dumps(changed(path, value, drop)))
        with attack.attempt((path, value, drop)):
            read_everything(tmp_path)


def test_damaged_results(attack: Attack, tmp_path: Path) -> None:
    """Bytes changed, cut off and repeated; nested too deep; too large; and no file at all."""
    whole = json.dumps(valid()).encode()
    generator = random.Random(0)
    for number in range(attack.size(200, 20000)):
        content = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            content[generator.randrange(len(content))] = generator.randrange(256)
        if number % 3 == 0:
            content = content[: generator.randrange(len(content))]
        (tmp_path / "result.json").write_bytes(content)
        with attack.attempt(number):
            read_everything(tmp_path)
    for name, content in {"deep": b"[" * 100_000, "numbers": b'{"protocol": ' + b"9" * 10_000 + b"}"}.items():
        (tmp_path / "result.json").write_bytes(content)
        with attack.attempt(name):
            read_everything(tmp_path)
    (tmp_path / "result.json").unlink()
    os.mkfifo(tmp_path / "result.json")
    with attack.attempt("fifo"):
        read_everything(tmp_path)
    (tmp_path / "result.json").unlink()
    with (tmp_path / "result.json").open("wb") as file:
        file.truncate(2**30)
    with attack.attempt("large"):
        read_everything(tmp_path)
