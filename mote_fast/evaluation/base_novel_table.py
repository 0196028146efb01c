"""The table of the base-to-novel protocol: results of several seeds and data sets, with the harmonic mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mote_fast.errors import ConfigError, quoted
from mote_fast.evaluation.accuracy import MeanStd, mean_and_deviation
from mote_fast.evaluation.combine import harmonic_mean

PROTOCOL = "base2novel"

# What the results of one data set must agree on, so that only their seeds differ.
_COMMON = (
    "tuned_share",
    "views",
    "crops_along",
    "dtype",
    "without_modulation",
    "templates",
    "descriptions",
    "description_weight",
)


@dataclass(frozen=True)
class BaseToNovelRow:
    """One data set; percent top-1.

    Attributes:
        dataset: its name.
        seeds: number of results.
        base: over the seeds, on the base classes.
        novel: over the seeds, on the novel classes.
        harmonic_mean: of the two means, as in the tables of ViFi-CLIP.
    """

    dataset: str
    seeds: int
    base: MeanStd
    novel: MeanStd
    harmonic_mean: float


def collect(results: Mapping[str, Mapping[str, Any]], score: str, videos: str) -> list[BaseToNovelRow]:
    """Collect results of ``mote-fast eval --protocol base2novel``, one for each seed, by data set.

    Args:
        results: documents of ``read_result``, by the names of their files; data sets keep their order.
        score: the accuracy to use, "running" or "full-class".
        videos: the videos that it covers, "readable" or "all".

    Raises:
        ConfigError: a result has another protocol, or is not as ``eval`` wrote it; two results of a data set have one
            checkpoint, or differ in more than the checkpoint. The message names the file.
    """
    groups: dict[str, list[str]] = {}
    for path, document in results.items():
        if document["protocol"] != PROTOCOL:
            raise ConfigError(f"{path}: a result of the protocol {quoted(document['protocol'])}, not of {PROTOCOL}")
        if not isinstance(document["dataset"], str):
            raise ConfigError(f"{path}: dataset is {quoted(document['dataset'])}, {_EDITED}")
        groups.setdefault(document["dataset"], []).append(path)
    return [_row(dataset, {path: results[path] for path in paths}, score, videos) for dataset, paths in groups.items()]


def table_lines(rows: Sequence[BaseToNovelRow]) -> list[str]:
    """Return the rows as aligned lines, with a header."""
    width = max(len("data set"), *(len(row.dataset) for row in rows))
    lines = [f"{'data set':{width}} seeds{'base':>16}{'novel':>16}{'HM':>8}   top-1, %"]
    for row in rows:
        base, novel = (f"{each.mean:.2f} ± {each.deviation:.2f}" for each in (row.base, row.novel))
        lines.append(f"{row.dataset:{width}} {row.seeds:5}{base:>16}{novel:>16}{row.harmonic_mean:8.2f}")
    return lines


_EDITED = "as mote-fast eval never writes it; was the file edited? Evaluate again"


def _row(dataset: str, results: Mapping[str, Mapping[str, Any]], score: str, videos: str) -> BaseToNovelRow:
    pairs: list[tuple[float, float]] = []
    seen: dict[str, str] = {}
    first, reference = next(iter(results.items()))
    for path, document in results.items():
        pairs.append(_accuracies(path, document, score, videos))
        for name in _COMMON:
            if document.get(name) != reference.get(name):
                raise ConfigError(
                    f"{dataset}: {first} and {path} differ in {name}, {quoted(reference.get(name))} and "
                    f"{quoted(document.get(name))}; only their checkpoints may"
                )
        for name in ("classes", "videos"):
            one, other = (
                [_walk(where, result, "splits", half, name) for half in (0, 1)]
                for where, result in ((first, reference), (path, document))
            )
            if one != other:
                raise ConfigError(
                    f"{dataset}: {first} and {path} have other lists; name data sets apart with eval --dataset"
                )
        checkpoint = str(document.get("checkpoint"))
        if checkpoint in seen:
            raise ConfigError(f"{dataset}: {seen[checkpoint]} and {path} are of one checkpoint; give one for each seed")
        seen[checkpoint] = path
    base, novel = (mean_and_deviation(values) for values in zip(*pairs, strict=True))
    return BaseToNovelRow(dataset, len(pairs), base, novel, harmonic_mean([base.mean, novel.mean]))


def _accuracies(path: str, document: Mapping[str, Any], score: str, videos: str) -> tuple[float, float]:
    base, novel = (_percentage(path, document, "splits", half, score, videos, "top1") for half in (0, 1))
    stated = _percentage(path, document, "harmonic_mean", score, videos, "top1")
    if not math.isclose(stated, harmonic_mean([base, novel]), abs_tol=1e-6):
        raise ConfigError(f"{path}: its harmonic mean {stated} is not that of {base} and {novel}, {_EDITED}")
    return base, novel


def _percentage(path: str, document: Mapping[str, Any], *keys: str | int) -> float:
    value = _walk(path, document, *keys)
    if value is None:
        raise ConfigError(f"{path}: {_name(keys)} is null: no video could be read")
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 100:
        raise ConfigError(f"{path}: {_name(keys)} is {quoted(value)}, {_EDITED}")
    return value


def _walk(path: str, document: Any, *keys: str | int) -> Any:
    value = document
    for at, key in enumerate(keys):
        try:
            value = value[key]
        except (TypeError, LookupError):
            raise ConfigError(f"{path}: {_name(keys[: at + 1])} is missing, {_EDITED}") from None
    return value


def _name(keys: Sequence[str | int]) -> str:
    return ".".join(map(str, keys))
