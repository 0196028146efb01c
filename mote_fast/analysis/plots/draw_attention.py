"""Drawing of attention maps over frames (paper Figure 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

from mote_fast.analysis.attention_maps import AttentionMaps
from mote_fast.analysis.plots.canvas import check_plots, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Side of one frame, inches.
_SIDE = 1.35

# Opacity of the map over the frame.
_OPACITY = 0.55

_COLOURS = "turbo"


def draw_attention(found: AttentionMaps, title: str) -> Figure:
    """Draw the frames, and below them each variant's maps overlaid on the frames.

    The colour scale of a row spans its smallest to its largest cosine, which its label gives: the variants differ in
    the regions of high cosine, while their cosines are at different levels.
    """
    check_plots()
    from matplotlib.cm import ScalarMappable

    frames = found.frames.permute(0, 2, 3, 1).numpy()
    size = frames.shape[1:3]
    figure = new_figure(_SIDE * len(frames) + 1.3, _SIDE * (1 + len(found.maps)) + 0.7)
    figure.suptitle(title, fontsize="medium")
    grid = figure.subplots(1 + len(found.maps), len(frames), squeeze=False)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_frame_on(False)
    for number, (axes, frame) in enumerate(zip(grid[0], frames, strict=True)):
        axes.imshow(frame)
        axes.set_title(f"frame {number}", fontsize="small")
    for row, (variant, maps) in zip(grid[1:], found.maps.items(), strict=True):
        low, high = maps.min().item(), maps.max().item()
        smooth = F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0].numpy()
        for axes, frame, heat in zip(row, frames, smooth, strict=True):
            axes.imshow(frame)
            axes.imshow(heat, cmap=_COLOURS, vmin=low, vmax=high, alpha=_OPACITY)
        label = f"{variant}\n{low:.2f} to {high:.2f}"
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize="small", labelpad=8)
    bar = figure.colorbar(ScalarMappable(cmap=_COLOURS), ax=grid, shrink=0.4, aspect=25, pad=0.01)
    bar.set_ticks([0.0, 1.0], labels=["least", "most"], fontsize="small")
    return figure
