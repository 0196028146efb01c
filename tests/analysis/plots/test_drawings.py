"""Plots show the given values."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from mote_fast.analysis.attention_maps import AttentionMaps
from mote_fast.analysis.class_accuracy import ClassAccuracy
from mote_fast.analysis.expert_accuracy import ExpertAccuracy
from mote_fast.analysis.interpolation import SharePoint
from mote_fast.analysis.plots.canvas import DOTS_PER_INCH, colors_of, new_figure, to_png
from mote_fast.analysis.plots.draw_attention import draw_attention
from mote_fast.analysis.plots.draw_classes import draw_classes
from mote_fast.analysis.plots.draw_experts import draw_experts
from mote_fast.analysis.plots.draw_interpolation import draw_interpolation
from mote_fast.analysis.plots.draw_similarity import draw_similarity
from mote_fast.analysis.plots.draw_tradeoff import draw_trade_off
from mote_fast.analysis.similarity import Similarity
from mote_fast.analysis.tradeoff_points import TradeOffPoint
from mote_fast.errors import ConfigError
from mote_fast.evaluation.protocols import Accuracy

NAMES = ["merged", "expert 0", "expert 1"]


def point(series: str, layers: int, close_set: float, hm_zs: float) -> TradeOffPoint:
    return TradeOffPoint(series, layers, "K400", close_set, hm_zs, 2 / (1 / close_set + 1 / hm_zs), {"UCF": hm_zs})


def accuracy(variant: str, close_set: float, zero_shot: float) -> ExpertAccuracy:
    return ExpertAccuracy(variant, Accuracy(close_set, 100.0), Accuracy(zero_shot, 100.0))


ROWS = [accuracy("merged", 80.0, 70.0), accuracy("expert 0", 79.0, 60.0), accuracy("CLIP-Mean", 50.0, 65.0)]
CLASSES = [
    ClassAccuracy(3, "a" * 60, 5, dict(zip(NAMES, (60.0, 20.0, 80.0), strict=True))),
    ClassAccuracy(1, "diving", 4, dict(zip(NAMES, (75.0, 50.0, 75.0), strict=True))),
]
MATRIX = torch.tensor([[1.0, 0.5, 0.25], [0.5, 1.0, -0.125], [0.25, -0.125, 1.0]], dtype=torch.float64)
SIMILARITY = Similarity(NAMES, MATRIX, MATRIX.square(), 9, [])
MAPS = AttentionMaps(
    torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
    {"merged": torch.linspace(-0.5, 0.5, 8).reshape(2, 2, 2), "expert 0": torch.linspace(0, 0.1, 8).reshape(2, 2, 2)},
)
POINTS = [point("plain", 6, 86.7, 66.6), point("plain", 1, 85.3, 70.2), point("MoTE", 4, 86.5, 74.4)]


def share(value: float, close_set: float, zero_shot: float) -> SharePoint:
    return SharePoint(value, Accuracy(close_set, 100.0), Accuracy(zero_shot, 100.0))


SHARES = [share(0.0, 60.0, 71.0), share(0.5, 75.0, 73.0), share(1.0, 80.0, 65.0)]

DRAWINGS: dict[str, Callable[[], Figure]] = {
    "experts": lambda: draw_experts(ROWS, "k400", "ucf"),
    "classes": lambda: draw_classes(CLASSES, "title"),
    "similarity": lambda: draw_similarity(SIMILARITY),
    "attention": lambda: draw_attention(MAPS, "title"),
    "tradeoff": lambda: draw_trade_off(POINTS),
    "one model": lambda: draw_trade_off(POINTS[:1]),
    "interpolation": lambda: draw_interpolation(SHARES, "k400", "ucf"),
    "equal shares": lambda: draw_interpolation([share(0.0, 0.0, 0.0), share(1.0, 0.0, 0.0)], "k400", "ucf"),
    "no share": lambda: draw_interpolation([share(0.0, 50.0, math.nan), share(1.0, 50.0, math.nan)], "k400", "ucf"),
    "no accuracy": lambda: draw_experts([accuracy("merged", math.nan, math.nan)], "k400", "ucf"),
}


@pytest.mark.heavy
@pytest.mark.parametrize("name", DRAWINGS)
def test_png(name: str) -> None:
    """Every plot renders to a PNG file of its figure's size, even with little to draw."""
    figure = DRAWINGS[name]()
    content = to_png(figure)
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    inches = figure.get_size_inches()
    assert struct.unpack(">II", content[16:24]) == pytest.approx(inches * DOTS_PER_INCH, abs=1)


@pytest.mark.parametrize("name", DRAWINGS)
def test_without_matplotlib(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"mote_fast\[train\]"):
        DRAWINGS[name]()


def test_experts() -> None:
    """A point for each variant at its two accuracies, and two bars of those heights."""
    points, bars = draw_experts(ROWS, "k400", "ucf").axes
    places = [each.get_offsets()[0].tolist() for each in points.collections]
    assert places == [[80.0, 70.0], [79.0, 60.0], [50.0, 65.0]]
    heights = [[bar.get_height() for bar in group] for group in bars.containers]
    assert heights == places
    assert [text.get_text() for text in bars.get_xticklabels()] == ["close-set\nk400", "zero-shot\nucf"]


def test_classes() -> None:
    """The classes from the top down, each variant's accuracies beside them, over a line from least to most."""
    (axes,) = draw_classes(CLASSES, "title").axes
    line, *variants = axes.collections
    drawn: Any = line
    assert [segment[:, 0].tolist() for segment in drawn.get_segments()] == [[20.0, 80.0], [50.0, 75.0]]
    for collection, name in zip(variants, NAMES, strict=True):
        offsets = np.asarray(collection.get_offsets())
        assert offsets[:, 0].tolist() == [row.top1[name] for row in CLASSES]
        assert np.abs(offsets[:, 1] - [0, 1]).max() < 0.5
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["a" * 35 + "… (5)", "diving (4)"]
    bottom, top = axes.get_ylim()
    assert bottom > top


def test_similarity() -> None:
    """Both matrices as images, and each number written on its own cell."""
    output, temporal, *_ = draw_similarity(SIMILARITY).axes
    for axes, matrix in ((output, MATRIX), (temporal, MATRIX.square())):
        assert np.array_equal(axes.images[0].get_array(), matrix.numpy())
        written = {text.get_position(): text.get_text() for text in axes.texts}
        assert written[(2, 1)] == f"{matrix[1, 2]:.2f}"
        assert len(written) == 9


def test_attention() -> None:
    """The frames in the first row; below, each variant's maps over them, on the row's own scale."""
    axes = draw_attention(MAPS, "title").axes[:6]
    for number in range(2):
        frame = MAPS.frames[number].permute(1, 2, 0).numpy()
        assert np.array_equal(axes[number].images[0].get_array(), frame)
        for row, maps in enumerate(MAPS.maps.values(), 1):
            below, heat = axes[2 * row + number].images
            assert np.array_equal(below.get_array(), frame)
            assert heat.get_clim() == pytest.approx((maps.min().item(), maps.max().item()))
            # A corner of the enlarged map is the corner of the map.
            assert heat.get_array()[0, 0] == pytest.approx(maps[number, 0, 0].item())
            assert heat.get_array()[-1, -1] == pytest.approx(maps[number, 1, 1].item())
    assert axes[2].get_ylabel() == "merged\n-0.50 to 0.50"


def test_trade_off() -> None:
    """A line for each series in the order of its layers, in all three panels."""
    scatter, zero_shot, close_set = draw_trade_off(POINTS).axes
    lines = [[line.get_xydata().tolist() for line in axes.lines] for axes in (scatter, zero_shot, close_set)]
    assert lines[0] == [[[85.3, 70.2], [86.7, 66.6]], [[86.5, 74.4]]]
    assert lines[1] == [[[1, 70.2], [6, 66.6]], [[4, 74.4]]]
    assert lines[2] == [[[1, 85.3], [6, 86.7]], [[4, 86.5]]]
    assert [text.get_text() for text in scatter.get_legend().get_texts()] == ["plain", "MoTE"]
    assert [text.get_text() for text in scatter.texts if text.get_text() in "146"] == ["1", "6", "4"]


def test_colours() -> None:
    """Each variant has its own colour, with or without the baseline."""
    names = ["merged", *(f"expert {each}" for each in range(16)), "CLIP-Mean", "tower alone"]
    colors = colors_of(names)
    assert len(set(colors.values())) == len(names)
    assert colors_of(names[:-1]) == {name: colors[name] for name in names[:-1]}
    assert new_figure(2, 1).get_size_inches().tolist() == [2.0, 1.0]


def test_interpolation_shows_every_share() -> None:
    """Both plots have one point for each share, at its accuracies."""
    scatter, curves = draw_interpolation(SHARES, "k400", "ucf").axes
    x, y = scatter.lines[0].get_data()
    assert (list(x), list(y)) == ([60.0, 75.0, 80.0], [71.0, 73.0, 65.0])
    assert [text.get_text() for text in scatter.texts[:3]] == ["0", "0.5", "1"]
    assert [list(line.get_ydata()) for line in curves.lines[:2]] == [[60.0, 75.0, 80.0], [71.0, 73.0, 65.0]]
    assert scatter.get_xlabel().startswith("k400")
    assert scatter.get_ylabel().startswith("ucf")
