"""The torchcodec backend: decoding in C++, checked against the packet index.

torchcodec returns the first frame at or after the requested timestamp, so it silently replaces a frame that the decoder
drops by its neighbour. The timestamps that it reports are therefore compared with the index. It does not report
concealed damage, so bit errors that the decoder conceals go unnoticed here.
"""

from __future__ import annotations

import functools
import importlib.metadata
import io
import re
from bisect import bisect_left
from collections.abc import Sequence

import av
import torch

from mote_fast.data.decoding.video_info import VideoInfo, as_input
from mote_fast.errors import UndecodableVideoError, one_line

# torchcodec's errors begin with the function and source file that raised them.
_LOCATION = re.compile(r"^.*\.cpp:\d+, ")
# The dynamic linker's messages in the tracebacks that torchcodec's error quotes.
_LINKER = re.compile(r"^OSError: (.+)$", re.MULTILINE)
_FFMPEG_LIBRARY = re.compile(r"lib(?:av|sw)[a-z]+(?:\.so\.\d+|\.\d+\.dylib)")


@functools.cache
def why_unavailable() -> str | None:
    """Why torchcodec is not available on this machine, and what to install; None if it is.

    The first call decodes two frames, because torchcodec imports without FFmpeg's libraries and loads them only when it
    decodes. The result is cached, because the check is slow.
    """
    try:
        from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportPrivateImportUsage]

        VideoDecoder(_two_pictures(), device="cpu").get_frames_at([1])
    except ModuleNotFoundError:
        return "torchcodec is not installed; pip install torchcodec"
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        return _explain(error)
    return None


def _explain(error: Exception) -> str:
    """Say in one line what torchcodec needs; its own error quotes the linker's messages for each FFmpeg version."""
    said = [line for line in _LINKER.findall(str(error)) if not line.startswith("Could not load this library")]
    missing = sorted({name for line in said for name in _FFMPEG_LIBRARY.findall(line)})
    others = [line for line in said if not _FFMPEG_LIBRARY.search(line)]
    if missing and not others:
        return (
            "torchcodec needs the shared libraries of one FFmpeg version and finds no version complete "
            f"({', '.join(missing)} do not load); install them: apt-get install ffmpeg, brew install ffmpeg, or "
            "conda install -c conda-forge ffmpeg"
        )
    reason = others[0] if others else one_line(error)
    return (
        f"torchcodec {importlib.metadata.version('torchcodec')} does not work with torch {torch.__version__}; "
        f"install the release made for it: pip install --upgrade torch torchcodec ({reason})"
    )


def _two_pictures() -> bytes:
    """A video file of two small frames."""
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(stream.encode(None))
    return file.getvalue()


def read(source: str | bytes, info: VideoInfo, indices: Sequence[int], num_threads: int) -> torch.Tensor:
    """Decode the frames at ascending distinct ``indices`` of an indexed video: uint8 ``[len(indices), H, W, 3]``.

    Raises ``UndecodableVideoError`` if torchcodec cannot read the file, or returns other frames than requested.
    """
    from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportPrivateImportUsage]

    timeline = info.timeline
    if not timeline.by_pts or not timeline.packet_pts:
        raise UndecodableVideoError(info.path, "its timestamps do not let torchcodec find a frame; use PyAV")
    wanted = [pts for index in indices if (pts := timeline.pts[index]) is not None]
    ranks = [bisect_left(timeline.packet_pts, pts) for pts in wanted]
    with as_input(source) as file:
        try:
            decoder = VideoDecoder(
                file,  # pyright: ignore[reportArgumentType]
                stream_index=timeline.stream_index,
                dimension_order="NHWC",
                num_ffmpeg_threads=num_threads,
                device="cpu",
                seek_mode="exact",
            )
            if decoder.metadata.num_frames != len(timeline.packet_pts):
                raise UndecodableVideoError(
                    info.path,
                    f"it counts {decoder.metadata.num_frames} packets where there are "
                    f"{len(timeline.packet_pts)}; use PyAV",
                )
            batch = decoder.get_frames_at(ranks)
        except (RuntimeError, ValueError, IndexError) as error:
            if isinstance(error, UndecodableVideoError):
                raise
            raise UndecodableVideoError(info.path, _LOCATION.sub("", one_line(error))) from error
    expected = torch.tensor([float(pts * timeline.time_base) for pts in wanted], dtype=torch.float64)
    # Timestamps closer than half a tick are equal.
    if (batch.pts_seconds - expected).abs().max() > float(timeline.time_base) / 2:
        raise UndecodableVideoError(info.path, "it gave other frames than those asked for; use PyAV")
    return batch.data
