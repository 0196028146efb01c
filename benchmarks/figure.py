"""Line panels as a PNG, drawn with Pillow: the library's dependencies bring it, and a plotting package would not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Series = Mapping[str, Sequence[tuple[float, float]]]

COLOURS = ("#1f6fb4", "#d1603d", "#3a8f5c", "#7b5aa6")
PANEL, MARGIN, HEADER = (360, 260), 56, 60


def save_panels(path: Path, title: str, x_label: str, panels: Mapping[str, Series]) -> None:
    """Draw one panel per entry of ``panels``, each from zero up: panel title -> line name -> points.

    All panels share the positions of the first line's x values, evenly spaced.
    """
    image = Image.new("RGB", (PANEL[0] * len(panels), PANEL[1] + HEADER), "white")
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, 8), title, "black", ImageFont.load_default(16))
    for i, name in enumerate(next(iter(panels.values()))):
        draw.line([(MARGIN + 130 * i, 41), (MARGIN + 130 * i + 16, 41)], COLOURS[i], width=3)
        draw.text((MARGIN + 130 * i + 22, 32), name, COLOURS[i], ImageFont.load_default(14))
    for i, (name, series) in enumerate(panels.items()):
        _panel(draw, i * PANEL[0], name, x_label, series)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _panel(draw: ImageDraw.ImageDraw, left: int, title: str, x_label: str, series: Series) -> None:
    font = ImageFont.load_default(12)
    top, bottom, right = HEADER + 24, HEADER + PANEL[1] - 44, left + PANEL[0] - 16
    left += MARGIN
    positions = [x for x, _ in next(iter(series.values()))]
    highest = 1.1 * max(y for points in series.values() for _, y in points)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (positions.index(x) + 0.5) / len(positions)
        return left + across * (right - left), bottom - y / highest * (bottom - top)

    draw.text((left, HEADER + 2), title, "black", ImageFont.load_default(14))
    draw.line([(left, top), (left, bottom), (right, bottom)], "black")
    for quarter in range(5):
        y = highest * quarter / 4
        draw.text((left - 6, at(positions[0], y)[1]), f"{y:.3g}", "black", font, anchor="rm")
    for x in positions:
        draw.text((at(x, 0)[0], bottom + 4), f"{x:g}", "black", font, anchor="ma")
    draw.text(((left + right) / 2, bottom + 20), x_label, "black", font, anchor="ma")
    for colour, points in zip(COLOURS, series.values(), strict=False):
        places = [at(x, y) for x, y in points]
        draw.line(places, colour, width=2)
        for x, y in places:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
