"""Class features: equal to the plain recipe for any label set, including unusual ones."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mote_fast.clip import TEMPLATES, ClipTowers, FeatureCache, Prompts, class_features, encode_classes, load_towers
from mote_fast.errors import LabelError
from tests.tolerances import assert_close

VISIBLE = st.text(min_size=1, max_size=25).filter(lambda text: text.strip())


@pytest.fixture(scope="module")
def towers() -> ClipTowers:
    torch.manual_seed(0)
    return load_towers("ViT-test")


@torch.no_grad()
def plain_recipe(towers: ClipTowers, labels: list[str]) -> Tensor:
    """Eq. (16) word for word: every prompt at 77 positions through open_clip's own encoder."""
    rows = []
    for label in labels:
        prompts = towers.model.encode_text(towers.tokenizer([template.format(label) for template in TEMPLATES]))
        rows.append(F.normalize(F.normalize(prompts, dim=-1).mean(0), dim=0))
    return torch.stack(rows)


@pytest.mark.heavy
@settings(max_examples=15)
@given(labels=st.lists(VISIBLE, min_size=1, max_size=5))
def test_any_labels_match_the_plain_recipe(towers: ClipTowers, labels: list[str]) -> None:
    """Any language, punctuation, length and duplicates: exact, in the order given."""
    assert_close(encode_classes(towers, labels), plain_recipe(towers, labels))


def test_batching_changes_nothing(towers: ClipTowers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks and batches give what one large one gives."""
    labels = [
        f"{verb} the {noun}" for verb in ("playing", "throwing away", "fixing") for noun in ("ball", "cello", "old car")
    ]
    whole = encode_classes(towers, labels)
    monkeypatch.setattr(class_features, "LABELS_PER_CHUNK", 2)
    monkeypatch.setattr(class_features, "TOKENS_PER_BATCH", 1)
    assert_close(encode_classes(towers, labels), whole, "equivalent")


def test_order_and_duplicates(towers: ClipTowers) -> None:
    """Rows follow the list; equal labels have equal rows, each encoded once."""
    counted: list[int] = []
    found = encode_classes(towers, ["b", "a", "b"], progress=counted.append)
    assert sum(counted) == 2 * len(TEMPLATES)
    assert torch.equal(found[0], found[2])
    assert_close(found[:2], encode_classes(towers, ["b", "a"]), "equivalent")
    assert_close(found.norm(dim=-1), torch.ones(3), "equivalent")


@pytest.mark.heavy
def test_ten_thousand_labels(towers: ClipTowers) -> None:
    """A label set of any size works; sampled rows match the plain recipe."""
    labels = [f"activity {number}" for number in range(10_000)]
    found = encode_classes(towers, labels, Prompts(TEMPLATES[:1]))
    assert found.shape == (10_000, towers.embed_dim)
    picked = [0, 4321, 9999]
    expected = encode_classes(towers, [labels[i] for i in picked], Prompts(TEMPLATES[:1]))
    assert_close(found[picked], expected)


def test_long_labels_are_cut_with_a_warning(towers: ClipTowers, caplog: pytest.LogCaptureFixture) -> None:
    """Labels over 77 tokens are truncated as in open_clip, with a warning that names them; short ones are not."""
    long = "very " * 90 + "long"
    with caplog.at_level(logging.WARNING):
        found = encode_classes(towers, ["short", long])
    assert_close(found, plain_recipe(towers, ["short", long]))
    assert [record.args[0] for record in caplog.records if isinstance(record.args, tuple)] == [long]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "no labels"),
        ("archery", "list"),
        (["a", ""], r"labels\[1\] is blank"),
        (["  "], "blank"),
        ([1], "int"),
        (["a" * 2001], "2001 characters"),
    ],
)
def test_what_is_no_label_set(towers: ClipTowers, labels: list[str], message: str) -> None:
    """Empty lists, bare strings, blank and foreign entries raise by position."""
    with pytest.raises(LabelError, match=message):
        encode_classes(towers, labels)


def test_cache_is_used_and_keyed(towers: ClipTowers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call encodes nothing; other templates, other weights and other labels are encoded."""
    cache = FeatureCache(tmp_path)
    calls: list[int] = []
    encode = class_features._encode_chunk
    monkeypatch.setattr(
        class_features, "_encode_chunk", lambda *arguments: calls.append(len(arguments[1])) or encode(*arguments)
    )
    first = encode_classes(towers, ["a", "b"], cache=cache)
    assert torch.equal(encode_classes(towers, ["b", "a"], cache=cache), first.flip(0))
    assert calls == [2]
    encode_classes(towers, ["a", "c"], cache=cache)
    assert calls == [2, 1]
    encode_classes(towers, ["a"], Prompts(TEMPLATES[:3]), cache=cache)
    torch.manual_seed(1)
    encode_classes(load_towers("ViT-test"), ["a"], cache=cache)
    assert calls == [2, 1, 1, 1]


def test_a_label_that_is_not_utf8_is_named(towers: ClipTowers, tmp_path: Path) -> None:
    """A byte of a Latin-1 terminal arrives as a lone surrogate, which no tokenizer and no cache takes."""
    for cache in (None, FeatureCache(tmp_path)):
        with pytest.raises(LabelError, match=r"labels\[1\].*UTF-8"):
            encode_classes(towers, ["a", "pi\udcf1"], cache=cache)


def test_descriptions_enter_by_their_weight(towers: ClipTowers, caplog: pytest.LogCaptureFixture) -> None:
    """The formula of ``Prompts``, word for word; a class without descriptions keeps its templates, and is counted."""
    told = {"juggling": ["balls fly in a circle", "two hands catch"], "unused": ["x"]}
    labels, counted = ["cello", "juggling", "cello"], list[int]()
    prompts = Prompts(["a {}."], told, weight=0.3)
    found = encode_classes(towers, labels, prompts, progress=counted.append)
    assert sum(counted) == prompts.count(labels) == 4
    by_name = encode_classes(towers, labels, Prompts(["a {}."]))
    about = F.normalize(encode_classes(towers, told["juggling"], Prompts(["{}"])).mean(0), dim=0)
    assert_close(found[1], F.normalize(0.7 * by_name[1] + 0.3 * about, dim=0))
    assert torch.equal(found[[0, 2]], by_name[[0, 2]])
    assert "1 of 2 classes have no description, such as 'cello'" in caplog.text
    assert torch.equal(encode_classes(towers, labels, Prompts(["a {}."], told, weight=0)), by_name)
    with pytest.raises(LabelError, match="none of the 1 classes"):
        encode_classes(towers, ["Juggling"], prompts)


def test_descriptions_are_cached_one_by_one(
    towers: ClipTowers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed description is encoded alone, and another weight encodes nothing: no stale feature is returned."""
    cache, calls = FeatureCache(tmp_path), list[list[str]]()
    encode = class_features._encode_chunk
    monkeypatch.setattr(
        class_features, "_encode_chunk", lambda *arguments: calls.append(list(arguments[1])) or encode(*arguments)
    )
    first = encode_classes(towers, ["a"], Prompts(descriptions={"a": ["x", "y"]}), cache=cache)
    other = encode_classes(towers, ["a"], Prompts(descriptions={"a": ["x", "z"]}), cache=cache)
    encode_classes(towers, ["a"], Prompts(descriptions={"a": ["x", "z"]}, weight=1), cache=cache)
    assert calls == [["a"], ["x", "y"], ["z"]]
    assert not torch.equal(first, other)
    assert torch.equal(first, encode_classes(towers, ["a"], Prompts(descriptions={"a": ["x", "y"]})))
