"""What may be given as a video: a file by its path, its bytes or an open file; or decoded frames in many forms."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal, Protocol, TypeAlias
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mote_fast.data.decoding.video_info import MAX_READ_BYTES
from mote_fast.data.loading.addresses import Address, fetch
from mote_fast.data.loading.view_frames import ViewFrames, ViewRequest, read_view_frames
from mote_fast.data.views import plan_views
from mote_fast.errors import ConfigError, MissingVideoError, MoteError, UndecodableVideoError, one_line
from mote_fast.runtime.checks import check_choice


class FrameDecoder(Protocol):
    """What decodes frames by index, as ``torchcodec.decoders.VideoDecoder``."""

    def __len__(self) -> int:
        """Return the number of frames."""
        ...

    def get_frames_at(self, indices: list[int]) -> Any:
        """Return an object whose ``data`` are frames, uint8 [N, 3, H, W] or [N, H, W, 3]."""
        ...


# One video; docs/inputs.md says what each form means. A list of arrays of three axes is one too.
Video: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | Tensor
    | np.ndarray
    | Image.Image
    | Sequence[Image.Image]
    | FrameDecoder
)
# Several: a list, a generator, ...
Videos: TypeAlias = Iterable[Video]
# The axes of decoded frames: time, height, width, colors.
Layout: TypeAlias = Literal["THWC", "TCHW", "CTHW"]

# Bytes that are read of an open file, which has to fit into the memory.
MAX_BYTES = 1 << 30

# Rounding of a resize may leave the range of float frames by so much.
_SLACK = 1e-3

_FORMS = (
    "a video is a path, a file's bytes, an open binary file, or decoded frames: uint8 [N, H, W, 3] or floats in [0, 1] "
    "as a tensor or a NumPy array, a list of images, or a torchcodec VideoDecoder"
)


@dataclass(frozen=True)
class Frames:
    """Decoded frames of a video: their number, and what returns those at int64 indices as uint8 [N, H, W, 3]."""

    count: int
    take: Callable[[Tensor], Tensor]

    def of_views(self, request: ViewRequest) -> ViewFrames:
        """Return what ``read_view_frames`` does of a file; the frames lie where they were given."""
        plan = plan_views(self.count, request.frames, request.views)
        frames = self.take(plan.frame_indices)
        return ViewFrames(frames, plan, self.count, (frames.shape[1], frames.shape[2]), "<frames>", {})


def sort_out(given: Any) -> tuple[bool, Any]:
    """Tell several videos from one.

    Images, or arrays of three axes, one after another are the frames of one video.

    Returns:
        Whether there are several; and the video or an iterable of them, as iterators can be read once.

    Raises:
        ConfigError: ``given`` is a dictionary.
    """
    if isinstance(given, Mapping):
        raise ConfigError(f"videos must be a list, not a {type(given).__name__}; give list(...values()) or its keys")
    if isinstance(given, np.ndarray) and given.ndim == 1 and given.dtype.kind in "UO":
        return True, given.tolist()
    if _is_one(given) or not isinstance(given, Iterable):
        return False, given
    if isinstance(given, Sequence):
        return not (len(given) and _is_frame(given[0])), given
    source = iter(given)
    first = list(itertools.islice(source, 1))
    return not (first and _is_frame(first[0])), itertools.chain(first, source)


def check_several(videos: Any) -> None:
    """Check that an argument holds several videos.

    Raises:
        ConfigError: it is one video.
    """
    if _is_one(videos) or not isinstance(videos, Iterable) or isinstance(videos, Mapping):
        raise ConfigError(
            f"videos must be a list or another iterable, not one {type(videos).__name__}; put it into [ ]"
        )


def name_of(video: Any) -> str:
    """Return what a video is called in messages."""
    if isinstance(video, str | os.PathLike):
        return str(os.fsdecode(video))
    if isinstance(video, Address):
        return video.url
    return "<bytes>" if isinstance(video, bytes | bytearray | memoryview) or hasattr(video, "read") else "<frames>"


def source_of(video: Any, layout: Layout | None = None) -> str | bytes | Address | Frames:
    """Return the path, the address or the bytes of a file, or frames.

    Args:
        video: see ``Video``.
        layout: the axes of decoded frames; None takes that which has three colors.

    Raises:
        ConfigError: it is something else, or the layout is ambiguous or does not fit.
        VideoError: an open file or an image cannot be read, or a URL names another machine.
    """
    if layout is not None:
        check_choice("layout", layout, Layout)
    if isinstance(video, Address):
        return video
    if isinstance(video, str | os.PathLike):
        return _path(str(os.fsdecode(video)))
    if isinstance(video, bytes | bytearray | memoryview):
        return bytes(video)
    if isinstance(video, Image.Image):
        return _listed([video], layout)
    if isinstance(video, Tensor | np.ndarray):
        return _stacked(video, layout)
    if hasattr(video, "get_frames_at"):
        return _decoded(video, layout)
    if hasattr(video, "read"):
        return _read_all(video)
    if isinstance(video, Iterable) and not isinstance(video, Mapping):
        return _listed(video, layout)
    advice = "; cameras are not opened, give their frames" if isinstance(video, int) else ""
    raise ConfigError(f"{_FORMS}; not {type(video).__name__}{advice}")


def read_views(source: str | bytes | Address | Frames, request: ViewRequest, time_limit: float | None) -> ViewFrames:
    """Read the frames that the views of a video need; see ``read_view_frames``."""
    if isinstance(source, Address):
        source = fetch(source)
    return source.of_views(request) if isinstance(source, Frames) else read_view_frames(source, request, time_limit)


def _is_one(video: Any) -> bool:
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, Tensor, np.ndarray, Image.Image, io.IOBase)
    return isinstance(video, kinds) or hasattr(video, "read") or hasattr(video, "get_frames_at")


def _is_frame(item: Any) -> bool:
    return isinstance(item, Image.Image) or (isinstance(item, Tensor | np.ndarray) and item.ndim in (2, 3))


def _path(name: str) -> str:
    if not name:
        raise ConfigError("the path of the video is empty")
    if name.startswith("file:"):
        from urllib.request import url2pathname

        parts = urlsplit(name)
        if parts.netloc not in ("", "localhost"):
            raise MissingVideoError(name, f"a file of another machine, {parts.netloc}; fetch it, and give its path")
        return url2pathname(parts.path)
    return os.path.expanduser(name)


def _read_all(file: Any) -> bytes:
    if isinstance(file, io.TextIOBase):
        raise ConfigError("a file must be opened in binary mode, 'rb'")
    parts: list[bytes] = []
    size = at = 0
    try:
        # One call may give less than there is, as of a pipe.
        while part := file.read(MAX_BYTES + 1 - size):
            if not isinstance(part, bytes | bytearray | memoryview):
                raise ConfigError(
                    f"a file must be opened in binary mode, 'rb'; its read() gave a {type(part).__name__}"
                )
            parts.append(bytes(part))
            size += len(part)
            if size > MAX_BYTES:
                raise UndecodableVideoError("<bytes>", f"an open file of over {MAX_BYTES >> 20} MiB; give its path")
        if not parts and hasattr(file, "tell"):
            at = file.tell()
    except MoteError:
        raise
    except (OSError, ValueError, TypeError) as error:
        raise UndecodableVideoError("<bytes>", f"the open file cannot be read ({one_line(error)})") from error
    if at:
        raise UndecodableVideoError("<bytes>", "the open file was read to its end before; call seek(0)")
    return b"".join(parts)


def _stacked(frames: Tensor | np.ndarray, layout: Layout | None) -> Frames:
    shape = list(frames.shape)
    kind = f"{str(frames.dtype).removeprefix('torch.')} {shape}"
    if frames.ndim == 5:
        raise ConfigError(f"a video has 4 axes, got {kind}: for a batch of videos give list(batch)")
    if frames.ndim != 4:
        raise ConfigError(f"decoded frames must be uint8 [N, H, W, 3] or floats in [0, 1], got {kind}: {_ADVICE}")
    if layout is None:
        fitting: list[Layout] = [name for name in ("THWC", "TCHW") if shape[name.index("C")] == 3]
        if len(fitting) != 1:
            hint = "give layout='THWC' or 'TCHW'" if fitting else "give layout='CTHW'" if shape[0] == 3 else _ADVICE
            raise ConfigError(f"decoded frames must be uint8 [N, H, W, 3] or floats in [0, 1], got {kind}: {hint}")
        layout = fitting[0]
    if shape[layout.index("C")] != 3 or 0 in shape:
        raise ConfigError(
            f"decoded frames must be uint8 [N, H, W, 3] or floats in [0, 1]; as {layout} these are {kind}"
        )
    axes = [layout.index(axis) for axis in "THWC"]
    ordered = frames.permute(axes) if isinstance(frames, Tensor) else frames.transpose(axes)
    _check_dtype(frames)
    return Frames(len(ordered), lambda indices: _as_bytes(_rows(ordered, indices)))


_ADVICE = (
    "one frame alone is frame[None], gray frames are repeated for three colors, and an alpha channel is cut off, as in "
    "frames[..., :3]"
)


def _listed(frames: Iterable[Any], layout: Layout | None) -> Frames:
    kept: list[Any] = []
    size = 0
    for frame in frames:
        if not _is_frame(frame):
            raise ConfigError(f"{_FORMS}; the frames hold a {type(frame).__name__}")
        kept.append(frame)
        size += frame.size[0] * frame.size[1] * 3 if isinstance(frame, Image.Image) else frame.nbytes
        # A list lies in memory anyway.
        if size > MAX_READ_BYTES and not isinstance(frames, Sequence):
            raise ConfigError(f"the frames take over {MAX_READ_BYTES >> 20} MiB; give fewer, or write them to a file")
    if not kept:
        raise ConfigError("a video has no frames: give at least one")
    own = None if layout is None else layout.replace("T", "")
    if own == "CHW" and layout == "CTHW":
        raise ConfigError("layout='CTHW' is for one array; frames in a list are 'THWC' or 'TCHW'")
    shapes = {(frame.size[::-1] if isinstance(frame, Image.Image) else tuple(frame.shape)) for frame in kept}
    if len(shapes) != 1:
        raise ConfigError(f"frames of one video must have one size, got {' and '.join(map(str, sorted(shapes)[:3]))}")

    def take(indices: Tensor) -> Tensor:
        rows = [_one(kept[index], layout) for index in indices.tolist()]
        return torch.cat(rows)

    _one(kept[0], layout)
    return Frames(len(kept), take)


def _one(frame: Any, layout: Layout | None) -> Tensor:
    """Return a frame as uint8 [1, H, W, 3]."""
    if isinstance(frame, Image.Image):
        try:
            frame, layout = np.array(frame.convert("RGB")), "THWC"
        except (OSError, SyntaxError, ValueError) as error:
            raise UndecodableVideoError("<frames>", f"an image cannot be read ({one_line(error)})") from error
    return _stacked(frame[None], layout).take(torch.zeros(1, dtype=torch.int64))


def _decoded(decoder: Any, layout: Layout | None) -> Frames:
    """Frames of a ``torchcodec.decoders.VideoDecoder``, which decodes those alone that are needed."""
    count = len(decoder)

    def take(indices: Tensor) -> Tensor:
        try:
            data = decoder.get_frames_at(indices.tolist()).data
        except (RuntimeError, ValueError, IndexError) as error:
            raise UndecodableVideoError("<frames>", f"the decoder fails ({one_line(error)})") from error
        return _stacked(data, layout).take(torch.arange(len(indices)))

    return Frames(count, take)


def _check_dtype(frames: Tensor | np.ndarray) -> None:
    name = str(frames.dtype).removeprefix("torch.")
    if name != "uint8" and not name.startswith(("float", "bfloat")):
        raise ConfigError(
            f"decoded frames must be uint8 [N, H, W, 3] or floats in [0, 1], got {name} {list(frames.shape)}: convert "
            "values of 0 to 255 to uint8"
        )


def _rows(frames: Tensor | np.ndarray, indices: Tensor) -> Tensor:
    if isinstance(frames, Tensor):
        return frames[indices.to(frames.device)]
    # PyTorch takes no negative strides, such as those of reversed colors.
    return torch.from_numpy(np.ascontiguousarray(frames[indices.numpy()]))


def _as_bytes(frames: Tensor) -> Tensor:
    if frames.dtype == torch.uint8:
        return frames
    values = frames.detach().float()
    low, high = float(values.min()), float(values.max())
    # Not NaN either.
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        raise ConfigError(
            f"float frames must lie in [0, 1], got {low:g} to {high:g}: divide by 255, undo a normalisation, or give "
            "uint8"
        )
    return values.mul(255).round_().clamp_(0, 255).to(torch.uint8)
