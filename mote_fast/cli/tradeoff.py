"""``mote-fast tradeoff``: HM_ZS and trade-off score from results of ``eval``, of one model or several with a plot."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from mote_fast.analysis.plots.draw_tradeoff import draw_trade_off
from mote_fast.analysis.tradeoff_points import TradeOffPoint, check_comparable, trade_off_csv, trade_off_point
from mote_fast.cli import outputs
from mote_fast.errors import ConfigError
from mote_fast.evaluation.combine import combine, read_result


def run(arguments: argparse.Namespace) -> int:
    """Combine the results of one model, or compare several models; print the scores. Returns 0."""
    if arguments.models:
        return _compare(arguments)
    if arguments.output is not None:
        raise ConfigError("--output draws several models; give each with --model SERIES LAYERS RESULT RESULT ...")
    found = combine([read_result(path) for path in arguments.results], arguments.score, arguments.videos)
    lines = [f"{found.close_set[1]:6.2f}  {found.close_set[0]}, close-set"] if found.close_set is not None else []
    lines += [f"{value:6.2f}  {dataset}, zero-shot" for dataset, value in found.zero_shot.items()]
    lines += [f"{found.hm_zs:6.2f}  HM_ZS, harmonic mean of the zero-shot accuracies"]
    if found.score is not None:
        lines += [f"{found.score:6.2f}  trade-off, harmonic mean of close-set accuracy and HM_ZS"]
    outputs.show(arguments, asdict(found), lines)
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    points = [_point(model, arguments.score, arguments.videos) for model in arguments.models]
    check_comparable(points)
    lines = [f"{points[0].data_set:>9} {'HM_ZS':>8}{'trade-off':>11}  layers"]
    lines += [f"{p.close_set:9.2f}{p.hm_zs:9.2f}{p.score:11.2f}{p.layers:8}  {p.series}" for p in points]
    files: list[str] = []
    if arguments.output is not None:
        outputs.prepare_drawing(arguments, "tradeoff")
        files = outputs.write_drawing(arguments, "tradeoff", draw_trade_off(points), trade_off_csv(points))
        lines += [f"wrote {' and '.join(files)}"]
    outputs.show(arguments, {"models": [asdict(point) for point in points], "files": files}, lines)
    return 0


def _point(model: Sequence[str], score: str, videos: str) -> TradeOffPoint:
    if len(model) < 3:
        raise ConfigError(f"--model {' '.join(model)}: give SERIES LAYERS RESULT RESULT ...")
    series, layers, *results = model
    if not layers.isdecimal():
        raise ConfigError(f"--model {series}: the number of temporal layers comes second, got {layers!r}")
    return trade_off_point(series, int(layers), [read_result(path) for path in results], score, videos)
