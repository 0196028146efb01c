"""Drawing of the similarity between experts (paper Figure 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mote_fast.analysis.plots.canvas import new_figure
from mote_fast.analysis.similarity import Similarity

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_similarity(found: Similarity) -> Figure:
    """Draw both affinity matrices, each with its own colour scale, with the numbers in the cells."""
    count = len(found.variants)
    side = 1.8 + 0.62 * count
    figure = new_figure(2 * side + 1.2, side + 0.2)
    figure.suptitle(f"Mean cosine between video features, {found.videos} videos")
    panels = {"output features, temporal + frame": found.output, "temporal features alone": found.temporal}
    for axes, (title, matrix) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        values = matrix.numpy()
        image = axes.imshow(values, cmap="magma", vmin=values.min(), vmax=values.max())
        middle = (values.min() + values.max()) / 2
        for row in range(count):
            for column in range(count):
                shade = "black" if values[row, column] > middle else "white"
                text = f"{values[row, column]:.2f}"
                axes.text(column, row, text, ha="center", va="center", color=shade, fontsize="small")
        axes.set_xticks(range(count), found.variants, rotation=45, ha="right", fontsize="small")
        axes.set_yticks(range(count), found.variants, fontsize="small")
        axes.set_title(title, fontsize="medium")
        figure.colorbar(image, ax=axes, shrink=0.8)
    return figure
