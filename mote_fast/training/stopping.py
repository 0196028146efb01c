"""Requests to stop: a signal sets a flag, and the loop checks it between steps."""

from __future__ import annotations

import logging
import signal
from types import FrameType, TracebackType
from typing import Any

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """While entered, SIGTERM and SIGINT set ``asked`` instead of ending the process: a step can finish and be saved.

    Further signals change nothing: torchrun forwards signals that the terminal has already sent.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        first, self.asked = not self.asked, True
        # The flag is already set, even if this log line interrupts another one and fails.
        if first:
            log.warning("%s: finishing this step, then saving and stopping", signal.Signals(number).name)
