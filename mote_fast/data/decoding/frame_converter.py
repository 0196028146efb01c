"""Converts decoded frames through FFmpeg's filters, with the repairs that their colours need."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame

from mote_fast.data.decoding.colors import Colors, repairs, why_not_converted
from mote_fast.errors import UndecodableVideoError


class FrameConverter:
    """Converts frames of a video by a filter graph, which is built again when the kind of frame changes.

    ``VideoFrame.reformat`` places the chroma samples of high-bit-depth video differently, some grey levels off.

    Args:
        label: the video, for errors.
        time_base: of the frames, seconds.
        filters: FFmpeg's filters in order, by name and arguments ("" for none).
        num_threads: of the graph.
    """

    def __init__(
        self, label: str, time_base: Fraction, filters: Sequence[tuple[str, str]], num_threads: int = 1
    ) -> None:
        self._label = label
        self._time_base = time_base
        self._filters = filters
        self._num_threads = num_threads
        self._kind: tuple[object, ...] | None = None

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        """Return the converted frame.

        Raises:
            UndecodableVideoError: the frame has a colour matrix that FFmpeg does not convert.
        """
        kind = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)
        if kind != self._kind:
            self._build(frame)
            self._kind = kind
        self._source.push(frame)
        converted = self._sink.pull()
        assert isinstance(converted, VideoFrame)
        return converted

    def _build(self, frame: VideoFrame) -> None:
        colors = Colors.of(frame)
        if reason := why_not_converted(colors):
            raise UndecodableVideoError(self._label, reason)
        graph = Graph()
        # PyAV before version 18 lacks this setting; FFmpeg then chooses.
        if hasattr(graph, "threads"):
            graph.threads = self._num_threads
        self._source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=self._time_base
        )
        last = self._source
        for name, arguments in (*repairs(colors), *self._filters):
            step = graph.add(name, arguments) if arguments else graph.add(name)
            last.link_to(step)
            last = step
        self._sink = graph.add("buffersink")
        last.link_to(self._sink)
        graph.configure()
        self._graph = graph


def rgb_pixels(frame: VideoFrame) -> np.ndarray:
    """Return the pixels of a frame in the format rgb24, uint8 ``[H, W, 3]``, a view that keeps its memory alive."""
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)
    return rows[:, : frame.width * 3].reshape(frame.height, frame.width, 3)
