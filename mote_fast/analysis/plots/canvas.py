"""Helpers of all plots: an empty figure, the PNG file, and the colour of each variant."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mote_fast.analysis.variants import CLIP_MEAN, MERGED, TOWER
from mote_fast.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150

# A colour map of evenly rising lightness, so that experts remain distinguishable in grey print.
_EXPERT_COLOURS = "viridis"
_FIXED_COLOURS = {MERGED: "#d62728", CLIP_MEAN: "#7f7f7f", TOWER: "#b0b0b0"}
_FIXED_MARKERS = {MERGED: "D", CLIP_MEAN: "s", TOWER: "^"}


def check_plots() -> None:
    """Check that matplotlib is installed.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ConfigError('plots need matplotlib: pip install "mote_fast[train]"') from error


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of ``width`` x ``height`` inches.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    check_plots()
    # A plain figure instead of pyplot's: it needs no display and leaves no figure open.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def to_png(figure: Figure) -> bytes:
    """Return the figure as the content of a PNG file; a dollar sign in a name is a dollar sign, not a formula."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()


def colors_of(variants: Sequence[str]) -> dict[str, str]:
    """Return a colour for each variant: red when merged, greys without layers, a scale for the experts."""
    check_plots()
    import matplotlib
    from matplotlib.colors import to_hex

    experts = [name for name in variants if name not in _FIXED_COLOURS]
    scale = matplotlib.colormaps[_EXPERT_COLOURS]
    # The last tenth of the scale is a yellow that is too light on white.
    shades = {name: to_hex(scale(0.9 * at / max(1, len(experts) - 1))) for at, name in enumerate(experts)}
    return {name: _FIXED_COLOURS.get(name) or shades[name] for name in variants}


def marker_of(variant: str) -> str:
    """Return the marker of a variant, so that variants differ not only in colour."""
    return _FIXED_MARKERS.get(variant, "o")
