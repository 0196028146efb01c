"""The progress callback of long operations."""

from __future__ import annotations

from collections.abc import Callable

# Called with the number of items done since the last call, like ``tqdm.update``.
Progress = Callable[[int], object]
