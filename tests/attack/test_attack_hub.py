"""Attacks of strangers' repositories: files are refused or load, one line says which, and nothing else is written."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import mote_fast
from mote_fast.errors import CheckpointError, ConfigError
from mote_fast.model.hub import LIMITS
from mote_fast.runtime.weights import CONFIG_FILE, WEIGHTS_FILE
from tests.attack.conftest import Attack
from tests.hub_server import Repository, serve_hub

NAME = "hf-hub:org/model"
# Names that lead out of a folder, are read by other libraries, or run.
EVIL = (
    *("../evil", "../../evil", "/tmp/evil", "text/../../evil", "config.json/evil", "a\\..\\evil", "CON", "\u202egnp"),
    *("pytorch_model.bin", "model.pkl", "modeling.py", "text/tokenization.py", "setup.py", ".git/config", "~"),
    *("text/evil.json", "text/additional_chat_templates/x.jinja", "model-00001-of-00002.safetensors", "x" * 200),
)
# Strings in the place of a name.
NAMES = [
    f"hf-hub:{name}"
    for name in (
        *("", "a", "a/b/c", "../..", "./.", "a/..", "/etc/passwd", "@", "a/b@", "a/b@../..", "a/b@--help", "a/b@/etc"),
        *("a b/c", "a/b\nc/d", "https://evil/x", "a/b?x=1", "a/b#x", "a%2fb/c", "\u202ea/b", "a/" + "b" * 500),
    )
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small model."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "saved"
    mote_fast.create_model("ViT-test", layers=1, experts=2).save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def spoiled(rng: random.Random, files: dict[str, bytes]) -> dict[str, bytes]:
    """A repository with evil names, and with one of the model's own files damaged, replaced or of a lying content."""
    found = dict(files)
    for name in rng.sample(EVIL, rng.randint(0, 4)):
        found[name] = b"import os\nos.abort()\n"
    target = rng.choice((CONFIG_FILE, WEIGHTS_FILE))
    content = found[target]
    kind = rng.choice(("cut", "flip", "pickle", "text", "empty", "none", "value", "sound"))
    if kind == "cut":
        found[target] = content[: rng.randrange(len(content))]
    elif kind == "flip":
        at = rng.randrange(min(len(content), 4000))
        found[target] = content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
    elif kind in ("pickle", "text", "empty"):
        found[target] = {"pickle": b"cos\nsystem\n(S'touch evil'\ntR.", "text": b"[]", "empty": b""}[kind]
    elif kind == "none":
        del found[target]
    elif kind == "value":
        found[CONFIG_FILE] = json.dumps(changed(rng, json.loads(found[CONFIG_FILE]))).encode()
    return found


def changed(rng: random.Random, values: Any) -> Any:
    """A document with one value replaced, at any depth."""
    if isinstance(values, dict) and values and rng.random() < 0.8:
        key = rng.choice(list(values))
        return {**values, key: changed(rng, values[key])}
    if isinstance(values, list) and values and rng.random() < 0.8:
        at = rng.randrange(len(values))
        return [*values[:at], changed(rng, values[at]), *values[at + 1 :]]
    return rng.choice((None, -1, 0, 2**70, 1e300, "", "../evil", "hf-hub:org/evil", [], {}, True, ["x"] * 3))


def refusal(name: str) -> str:
    """What loading says; nothing if it works."""
    try:
        mote_fast.load(name)
    except (CheckpointError, ConfigError) as error:
        return str(error)
    return ""


def outside(folder: Path, cache: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.is_relative_to(cache)}


def test_repositories_of_strangers(
    attack: Attack, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each loads, or is refused on one line; only files of the list come, into the cache alone."""
    rng, cache = random.Random(5), tmp_path / "hub_cache"
    monkeypatch.chdir(tmp_path)
    with serve_hub(monkeypatch, cache) as hub:
        before = outside(tmp_path, cache)
        for number in range(attack.size(25, 300)):
            with attack.attempt(number):
                hub.repositories = {"org/model": Repository()}
                commit = hub.repositories["org/model"].commit(spoiled(rng, files))
                hub.requests.clear()
                assert "\n" not in refusal(f"{NAME}@{commit}")
                asked = {each.partition(commit + "/")[2] for each in hub.requests if "/resolve/" in each}
                assert asked <= set(LIMITS)
                assert outside(tmp_path, cache) == before


def test_names_of_repositories(attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no name is refused before the hub is asked for it, and a name leads nowhere else."""
    with serve_hub(monkeypatch, tmp_path / "hub_cache") as hub:
        for name in NAMES:
            with attack.attempt(name):
                found = refusal(name)
                assert found
                assert "\n" not in found
        assert {each for each in hub.requests if ".." in each or "etc" in each} == set()
