"""HM_ZS and the trade-off score of the paper (its Table 4, eq. (22)), from numbers or from result files."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mote_fast.errors import ConfigError
from mote_fast.evaluation.accuracy import FULL_CLASS, RUNNING
from mote_fast.evaluation.report import ALL, READABLE
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
        raise ConfigError(f"{file}: not a result of mote-fast eval ({error})") from error
    if not isinstance(document, dict) or not {"protocol", "dataset", "mean"} <= document.keys():
        raise ConfigError(f"{file}: not a result of mote-fast eval")
    return document


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
        if "top1" not in result["mean"][score][videos]:
            raise ConfigError(f"{dataset}: its videos have several labels, so there is no accuracy to combine")
        value = result["mean"][score][videos]["top1"]["mean"]
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
