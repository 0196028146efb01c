"""Counts and times of the server, in the text format of Prometheus."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator

from mote_fast.version import __version__

_SUMS = {
    "request": "Requests from their first byte to the answer",
    "decode": "Videos that were decoded, scaled and cropped",
    "model": "Passes of the model over the videos that waited",
}


class Metrics:
    """Numbers that threads add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: Counter[tuple[str, int]] = Counter()
        self._times: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._totals: Counter[str] = Counter()

    def answer(self, route: str, status: int) -> None:
        """Count an answer of a route."""
        with self._lock:
            self._answers[route, status] += 1

    def time(self, what: str, seconds: float) -> None:
        """Add a duration of "request", "decode" or "model"."""
        with self._lock:
            self._times[what] += 1
            self._seconds[what] += seconds

    def add(self, what: str, amount: int) -> None:
        """Add to the total of uploaded "bytes" or of classified "videos"."""
        with self._lock:
            self._totals[what] += amount

    def mean_seconds(self, what: str) -> float:
        """Return the mean of the durations so far; 0 if there are none."""
        with self._lock:
            return self._seconds[what] / max(1, self._times[what])

    def text(self, running: int, capacity: int) -> str:
        """Return all numbers.

        Args:
            running: requests that are uploaded, wait or run.
            capacity: how many may be.
        """
        with self._lock:
            lines = [*self._lines(running, capacity)]
        return "\n".join(lines) + "\n"

    def _lines(self, running: int, capacity: int) -> Iterator[str]:
        yield from _head("mote_fast_info", "gauge", "The version")
        yield f'mote_fast_info{{version="{__version__}"}} 1'
        yield from _head("mote_fast_requests_total", "counter", "Answers by route and status")
        for (route, status), count in sorted(self._answers.items()):
            yield f'mote_fast_requests_total{{route="{route}",status="{status}"}} {count}'
        for name, value, purpose in (
            ("running", running, "Requests that are uploaded, wait or run"),
            ("capacity", capacity, "Requests that may be; more get the status 503"),
        ):
            yield from _head(f"mote_fast_requests_{name}", "gauge", purpose)
            yield f"mote_fast_requests_{name} {value}"
        for what, purpose in _SUMS.items():
            name = f"mote_fast_{what}_seconds"
            yield from _head(name, "summary", purpose)
            yield f"{name}_sum {self._seconds[what]:.6f}"
            yield f"{name}_count {self._times[what]}"
        for what, purpose in (("videos", "Videos that the model encoded"), ("bytes", "Bytes of uploaded videos")):
            name = f"mote_fast_{what}_total"
            yield from _head(name, "counter", purpose)
            yield f"{name} {self._totals[what]}"


def _head(name: str, kind: str, purpose: str) -> tuple[str, str]:
    return f"# HELP {name} {purpose}.", f"# TYPE {name} {kind}"
