"""The torchcodec backend: decoding in C++, guided by the packet index and checked against it.

torchcodec returns the first frame at or after the requested timestamp, so it silently replaces a frame that the decoder
drops by its neighbour. The timestamps that it reports are therefore compared with the index. It does not report
concealed damage, so bit errors that the decoder conceals go unnoticed here.
"""

from __future__ import annotations

import functools
import importlib.metadata
import io
import re
from collections.abc import Sequence

import av
import torch

from mote_fast.data.decoding.colors import CONVERTED, IDENTITY, Colors
from mote_fast.data.decoding.video_info import VideoInfo, as_input
from mote_fast.errors import UndecodableVideoError, one_line

# torchcodec's errors begin with the function and source file that raised them.
_LOCATION = re.compile(r"^.*\.cpp:\d+, ")
# The dynamic linker's messages in the tracebacks that torchcodec's error quotes.
_LINKER = re.compile(r"^OSError: (.+)$", re.MULTILINE)
_FFMPEG_LIBRARY = re.compile(r"lib(?:av|sw)[a-z]+(?:\.so\.\d+|\.\d+\.dylib)")

# Pixel formats whose colours were compared with the definition and with PyAV's; beginnings of names, and names. Of the
# others, some came out black, or with exchanged channels.
_PLANAR = ("yuv", "nv", "gbr", "gray")
_PACKED = frozenset({"rgb24", "bgr24", "rgba", "bgra", "argb", "abgr", "rgb0", "bgr0", "0rgb", "0bgr"})


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


def _keeps_colors(colors: Colors) -> bool:
    """Whether FFmpeg's own conversion, which torchcodec uses, is right in every version."""
    if colors.has_matrix and colors.matrix not in CONVERTED - {IDENTITY}:
        return False
    known = colors.pixel_format.startswith(_PLANAR) or colors.pixel_format in _PACKED
    return known and not colors.is_limited_gray


def read(source: str | bytes, info: VideoInfo, indices: Sequence[int], num_threads: int) -> torch.Tensor:
    """Decode the frames at ascending distinct ``indices`` of an indexed video: uint8 ``[len(indices), H, W, 3]``.

    Raises ``UndecodableVideoError`` if torchcodec cannot read the file, or returns other frames than requested.
    """
    from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportPrivateImportUsage]

    timeline = info.timeline
    if timeline.pyav_only:
        raise UndecodableVideoError(info.path, f"{timeline.pyav_only}; use PyAV")
    if not _keeps_colors(info.colors):
        raise UndecodableVideoError(
            info.path,
            f"its colours are not among those that torchcodec converts right ({info.colors.pixel_format}, matrix "
            f"{info.colors.matrix}, range {info.colors.range}); use PyAV",
        )
    # torchcodec's own index is right where the packets are the frames; it is used for stills as well, because
    # torchcodec 0.17 refuses any other for a picture without duration.
    needs_index = timeline.packet_pts != timeline.pts and info.num_frames > 1
    with as_input(source) as file:
        try:
            decoder = VideoDecoder(
                file,  # pyright: ignore[reportArgumentType]
                stream_index=timeline.stream_index,
                dimension_order="NHWC",
                num_ffmpeg_threads=num_threads,
                device="cpu",
                custom_frame_mappings=_mapping(info) if needs_index else None,
            )
            batch = decoder.get_frames_at(list(indices))
        except (RuntimeError, ValueError, IndexError) as error:
            raise UndecodableVideoError(info.path, _LOCATION.sub("", one_line(error))) from error
    seconds = [float(pts * timeline.time_base) for index in indices if (pts := timeline.pts[index]) is not None]
    # Timestamps closer than half a tick are equal.
    if (batch.pts_seconds - torch.tensor(seconds, dtype=torch.float64)).abs().max() > float(timeline.time_base) / 2:
        raise UndecodableVideoError(info.path, "it gave other frames than those asked for; use PyAV")
    return _orient(batch.data, info, decoder.metadata.rotation)


def _mapping(info: VideoInfo) -> str:
    """The index in torchcodec's form. Its own would believe the container's marks of key frames."""
    pts = [stamp for stamp in info.timeline.pts if stamp is not None]
    keys = {0, *info.key_frames}
    # The duration of the last frame is not used here.
    ends = [*pts[1:], pts[-1] + 1]
    frames = ",".join(
        f'{{"pts":{start},"duration":{end - start},"key_frame":{int(at in keys)}}}'
        for at, (start, end) in enumerate(zip(pts, ends, strict=True))
    )
    return f'{{"frames":[{frames}]}}'


def _orient(frames: torch.Tensor, info: VideoInfo, turned: float | None) -> torch.Tensor:
    """Orient frames ``[N, H, W, 3]`` that torchcodec has turned by ``turned`` degrees counter-clockwise.

    It does not mirror, and its FFmpeg may be older than PyAV's and read fewer of the messages that state a rotation.
    """
    done, wanted = round(-(turned or 0) / 90) % 4, info.rotation // 90
    if not info.mirrored and done == wanted:
        return frames
    stored = torch.rot90(frames, done, (1, 2))
    if info.mirrored:
        stored = stored.flip(2)
    return torch.rot90(stored, -wanted, (1, 2)).contiguous()
