"""The moments of videos: parts of some seconds, each with a row of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

from mote_fast.errors import VideoError
from mote_fast.model.results import VideoEmbedding, WindowEmbeddings
from mote_fast.model.timelines import TimelineModel
from mote_fast.search.rows import IndexRow


def add_moments(
    model: TimelineModel,
    paths: Iterable[str],
    seconds: float,
    add: Callable[[str, list[IndexRow], Tensor], object],
    progress: Callable[[VideoEmbedding], object] | None,
) -> list[VideoEmbedding]:
    """Embed the moments of videos, one video after another, and hand on those of each when it is done.

    Args:
        model: the model.
        paths: of the videos.
        seconds: of a moment.
        add: called with the path of a video, its rows and their vectors [N, d].
        progress: called with each video's result.

    Returns:
        The results that have an error.

    Raises:
        MoteError: the model fails, or ``add`` does.
    """
    failed = []
    for number, path in enumerate(paths):
        try:
            found = model.embed_windows(path, window=seconds)
        except VideoError as error:
            result = VideoEmbedding(number, path, None, error)
            failed.append(result)
        else:
            add(path, moment_rows(path, found), found.embeddings)
            result = VideoEmbedding(number, path, found.embeddings, replaced_frames=found.replaced_frames)
        if progress is not None:
            progress(result)
    return failed


def moment_rows(path: str, found: WindowEmbeddings) -> list[IndexRow]:
    """Return the rows of a video's moments; their ids are media fragments, as "video.mp4#t=2,4.5"."""
    # Microseconds tell moments apart, which have at least 0.01 s and at most 4096 frames.
    return [IndexRow(f"{path}#t={_number(start)},{_number(end)}", path, start, end) for start, end in found.spans]


def _number(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
