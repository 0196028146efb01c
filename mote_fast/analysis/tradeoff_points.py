"""Models of several depths between close-set and zero-shot accuracy (paper Figure 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mote_fast.analysis.tables import to_csv
from mote_fast.errors import ConfigError
from mote_fast.evaluation.combine import combine
from mote_fast.evaluation.protocol_names import READABLE, RUNNING


@dataclass(frozen=True)
class TradeOffPoint:
    """One model; accuracies are percent top-1.

    Attributes:
        series: name of the model's line in the plot, such as "MoTE" or "plain".
        layers: its temporal layers.
        data_set: name of the close-set data set.
        close_set: accuracy on the close-set data set.
        hm_zs: harmonic mean of the zero-shot accuracies.
        score: harmonic mean of ``close_set`` and ``hm_zs``.
        zero_shot: the zero-shot accuracies, by data set.
    """

    series: str
    layers: int
    data_set: str
    close_set: float
    hm_zs: float
    score: float
    zero_shot: Mapping[str, float]


def trade_off_point(
    series: str, layers: int, results: Sequence[Mapping[str, Any]], score: str = RUNNING, videos: str = READABLE
) -> TradeOffPoint:
    """Combine the results of one model.

    Args:
        series: see ``TradeOffPoint``.
        layers: see ``TradeOffPoint``; results do not record it.
        results: documents of ``read_result``: one close-set result, and at least one zero-shot one.
        score: see ``combine``.
        videos: see ``combine``.

    Raises:
        ConfigError: see ``combine``; or there is no close-set result.
    """
    found = combine(results, score, videos)
    if found.close_set is None or found.score is None:
        raise ConfigError(f"{series}, {layers} layers: a point needs a close-set result beside the zero-shot ones")
    data_set, close_set = found.close_set
    return TradeOffPoint(series, layers, data_set, close_set, found.hm_zs, found.score, found.zero_shot)


def check_comparable(points: Sequence[TradeOffPoint]) -> None:
    """Check that points can share one plot.

    Raises:
        ConfigError: they have different data sets, or two of one series have the same number of layers.
    """
    places = [(point.series, point.layers) for point in points]
    for place in places:
        if places.count(place) > 1:
            raise ConfigError(f"{place[0]}: two models with {place[1]} layers; give them to different series")
    of = {(point.data_set, tuple(sorted(point.zero_shot))) for point in points}
    if len(of) > 1:
        described = "; ".join(f"{close} and {', '.join(zero)}" for close, zero in sorted(of))
        raise ConfigError(f"the models were evaluated on different data sets: {described}")


def trade_off_csv(points: Sequence[TradeOffPoint]) -> str:
    """Return one line for each model; the points are comparable."""
    names = list(points[0].zero_shot)
    header = ["series", "layers", points[0].data_set, *names, "hm_zs", "trade_off"]
    return to_csv(
        header,
        (
            [
                each.series,
                each.layers,
                each.close_set,
                *(each.zero_shot[name] for name in names),
                each.hm_zs,
                each.score,
            ]
            for each in points
        ),
    )
