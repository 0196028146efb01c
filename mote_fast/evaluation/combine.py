"""HM_ZS and the trade-off score of the paper (its Table 4, eq. (22)), from numbers or from result files."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mote_fast.errors import ConfigError, one_line, quoted
from mote_fast.evaluation.protocol_names import ALL, FULL_CLASS, READABLE, RUNNING
from mote_fast.runtime.json_text import from_json
from mote_fast.runtime.reading import read_small

# Bytes of a result file.
MAX_BYTES = 2**26
CLOSE_SET, ZERO_SHOT = "closeset", "zeroshot"


@dataclass(frozen=True)
class TradeOff:
    """Accuracies of one model on the classes of fine-tuning and on others; percent top-1.

    Attributes:
        close_set: (data set, accuracy) of the close-set result; None if there is none.
        zero_shot: accuracy of each zero-shot data set, by its name.
        hm_zs: harmonic mean of the zero-shot accuracies.
        score: harmonic mean of the close-set accuracy and ``hm_zs``; None without a close-set result.
    """

    close_set: tuple[str, float] | None
    zero_shot: Mapping[str, float]
    hm_zs: float
    score: float | None


def harmonic_mean(values: Sequence[float]) -> float:
    """Return the harmonic mean of percentages; 0 if one of them is 0.

    Raises:
        ConfigError: the list is empty, or a value is negative.
    """
    if not values or min(values) < 0:
        raise ConfigError(f"a harmonic mean needs values, none of them negative; got {list(values)}")
    return statistics.harmonic_mean(values)


def trade_off(close_set: float, zero_shot: Sequence[float]) -> float:
    """Return the harmonic mean of the close-set accuracy and HM_ZS, the harmonic mean of the zero-shot accuracies."""
    return harmonic_mean([close_set, harmonic_mean(zero_shot)])


def read_result(path: str | Path) -> dict[str, Any]:
    """Read a ``result.json`` of ``mote-fast eval``, or the one in a folder.

    Raises:
        ConfigError: the file is missing or not such a result.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "result.json"
    try:
        document = from_json(read_small(file, MAX_BYTES).decode())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: not a result of mote-fast eval ({one_line(error)})") from error
    if (
        not isinstance(document, dict)
        or not {"protocol", "dataset", "mean"} <= document.keys()
        or not (isinstance(document["protocol"], str) and isinstance(document["dataset"], str))
    ):
        raise ConfigError(f"{file}: not a result of mote-fast eval")
    return document


def top1_in(entry: Any, data_set: str, score: str, videos: str) -> float | None:
    """Return a top-1 accuracy of ``mean``, or of one of ``splits``, in a document of ``read_result``.

    Args:
        entry: that part of the document.
        data_set: its name, for errors.
        score: "running" or "full-class".
        videos: "readable" or "all".

    Returns:
        The percentage; None if no video could be read.

    Raises:
        ConfigError: there is no such accuracy, or it is no percentage.
    """
    found = entry
    for key in (score, videos, "top1"):
        if key == "top1" and isinstance(found, Mapping) and "map" in found:
            raise ConfigError(f"{data_set}: its videos have several labels, so there is no accuracy to combine")
        if not isinstance(found, Mapping) or key not in found:
            raise ConfigError(f"{data_set}: the result has no top-1 of the {score} score over {videos} videos")
        found = found[key]
    if isinstance(found, Mapping):
        # The mean over splits, which has a deviation too.
        found = found.get("mean")
    if found is not None and (isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= 100):
        raise ConfigError(f"{data_set}: the result has {quoted(str(found))} as an accuracy, which is no percentage")
    return found


def combine(results: Sequence[Mapping[str, Any]], score: str = RUNNING, videos: str = READABLE) -> TradeOff:
    """Combine the results of one model.

    Args:
        results: documents of ``read_result``: at least one zero-shot data set, and at most one close-set result.
        score: the accuracy to use, "running" or "full-class".
        videos: the videos that it covers, "readable" or "all".

    Raises:
        ConfigError: a result has another protocol or no such accuracy, two have the same data set, there are several
            close-set results or no zero-shot one, or the results have different checkpoints.
    """
    if score not in (RUNNING, FULL_CLASS) or videos not in (READABLE, ALL):
        raise ConfigError(f"no accuracy is named {score!r} over {videos!r} videos")
    checkpoints = sorted({str(result.get("checkpoint")) for result in results})
    if len(checkpoints) > 1:
        raise ConfigError(f"the results are of different checkpoints: {', '.join(checkpoints)}")
    close_set: tuple[str, float] | None = None
    zero_shot: dict[str, float] = {}
    for result in results:
        protocol, dataset = result["protocol"], result["dataset"]
        if protocol not in (CLOSE_SET, ZERO_SHOT):
            raise ConfigError(f"{dataset}: a {protocol} result has no part in the trade-off; give zero-shot ones")
        value = top1_in(result["mean"], dataset, score, videos)
        if value is None:
            raise ConfigError(f"{dataset}: no video could be read, so there is no accuracy to combine")
        if dataset in zero_shot if protocol == ZERO_SHOT else close_set is not None:
            raise ConfigError(f"{dataset}: a second {protocol} result; name data sets apart with eval --dataset")
        if protocol == CLOSE_SET:
            close_set = (dataset, value)
        else:
            zero_shot[dataset] = value
    if not zero_shot:
        raise ConfigError("HM_ZS needs at least one zero-shot result (UCF-101, HMDB-51 and Kinetics-600 in the paper)")
    mean = harmonic_mean(list(zero_shot.values()))
    return TradeOff(close_set, zero_shot, mean, harmonic_mean([close_set[1], mean]) if close_set else None)
