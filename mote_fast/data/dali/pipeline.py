"""The DALI graph: decodes chosen frames, then scales, crops, mirrors, greys and lays them out as views.

The graph has no randomness: every clip comes with its plan (``mote_fast.data.plan``), the same as in the CPU loader.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from mote_fast.data.gpu.decode_server import PREFETCH, Device
from mote_fast.data.plan import ClipRecipe
from mote_fast.errors import one_line

if TYPE_CHECKING:
    from nvidia.dali.pipeline import Pipeline

# Exception types that DALI raises for C++ errors.
DALI_ERRORS = (RuntimeError, ValueError, IndexError, TypeError, MemoryError)

_INSTALL = "pip install nvidia-dali-cuda130"


@functools.cache
def why_unavailable(device: Device = "cpu") -> str | None:
    """Why DALI is not available on this machine, and what to install; None if it is.

    The first call imports DALI, which takes a second; the result is cached.
    """
    try:
        import nvidia.dali  # noqa: F401
    except ModuleNotFoundError:
        return f"DALI is not installed; {_INSTALL}"
    except (ImportError, OSError, RuntimeError) as error:
        return f"DALI does not load; install it again, {_INSTALL} ({one_line(error)})"
    if device == "gpu" and not torch.cuda.is_available():
        return "PyTorch sees no CUDA device; use device='cpu', or install the driver and a CUDA build of PyTorch"
    return None


class ClipInput(NamedTuple):
    """Input of the graph for one video: U distinct frames, V views of T frames."""

    encoded: np.ndarray  # uint8 [bytes], the whole file
    indices: np.ndarray  # int32 [U], of the frames to decode
    scaled: np.ndarray  # float32 [2], (height, width) that the frames are scaled to
    boxes: np.ndarray  # int32 [crops, 4], (top, left, height, width) in the scaled frame
    colors: np.ndarray  # float32 [3, 4], an affine map of RGB in grey levels
    mirrored: np.ndarray  # int32 [], 0 or 1
    order: np.ndarray  # int32 [V * T], index of each frame of the views among the crops, crop * U + frame


# A pipeline's source returns, for each field of ``ClipInput``, the arrays of the batch.
Columns = tuple[list[np.ndarray], ...]
Source = Callable[[], Columns] | Iterator[Columns]


def columns(inputs: list[ClipInput]) -> Columns:
    """Arrange the inputs of a batch as DALI's external source expects them."""
    return tuple(list(column) for column in zip(*inputs, strict=True))


def build_pipeline(
    source: Source,
    recipe: ClipRecipe,
    *,
    batch_size: int,
    device: Device,
    device_id: int | None = None,
    threads: int = 1,
    prefetch: int = PREFETCH,
) -> Pipeline:
    """Build the pipeline; its outputs are uint8 pixels [B, V * T, 3, S, S] and int32 [B, 4], (U, H, W, 3).

    Args:
        source: returns the next batch's ``columns``, of at most ``batch_size`` videos, and raises ``StopIteration``
            at the end.
        recipe: gives the number of crops and the model's preprocessing.
        batch_size: the largest batch.
        device: "gpu" decodes with NVDEC and keeps all later steps on the GPU; "cpu" needs no GPU.
        device_id: index of the GPU; None on the CPU.
        threads: DALI's CPU threads.
        prefetch: batches that DALI prepares in advance.
    """
    from nvidia.dali import fn as operators
    from nvidia.dali.pipeline import pipeline_def
    from nvidia.dali.types import DALIDataType, DALIInterpType

    # DALI's type hints do not cover indexing a node or moving it to the GPU.
    fn: Any = operators
    nodes_of_clip: Any = ClipInput
    integer, byte, real = DALIDataType.INT32, DALIDataType.UINT8, DALIDataType.FLOAT
    fields = {
        "encoded": (byte, 1),
        "indices": (integer, 1),
        "scaled": (real, 1),
        "boxes": (integer, 2),
        "colors": (real, 2),
        "mirrored": (integer, 0),
        "order": (integer, 1),
    }
    types, dims = zip(*(fields[name] for name in ClipInput._fields), strict=True)
    # Evaluation crops have their final size already.
    resizes_crops = recipe.augmentation != "none"
    size = [recipe.size, recipe.size]
    decoder = "mixed" if device == "gpu" else "cpu"
    bilinear = recipe.preprocessing.interpolation == "bilinear"
    interpolation = DALIInterpType.INTERP_LINEAR if bilinear else DALIInterpType.INTERP_CUBIC

    @pipeline_def
    def graph():
        item = nodes_of_clip(
            *fn.external_source(
                source=source,
                num_outputs=len(fields),
                batch=True,
                dtype=list(types),
                ndim=list(dims),
            )
        )
        # The processes of all GPUs of a machine would pin their threads to the same few cores.
        frames = fn.decoders.video(item.encoded, frames=item.indices, device=decoder, affine=False)
        scaled = fn.resize(frames, size=item.scaled, interp_type=interpolation, antialias=True)
        crops = []
        for number in range(recipe.views.crops):
            box = item.boxes[number]
            crop = fn.slice(scaled, start=box[0:2], shape=box[2:4], axis_names="HW")
            if resizes_crops:
                crop = fn.resize(crop, size=size, interp_type=DALIInterpType.INTERP_LINEAR, antialias=True)
            crops.append(crop)
        pixels = fn.cat(*crops, axis=0)
        pixels = fn.coord_transform(pixels, MT=item.colors, dtype=byte)
        pixels = fn.sequence_rearrange(pixels, new_order=item.order)
        pixels = fn.crop_mirror_normalize(pixels, mirror=item.mirrored, output_layout="FCHW", dtype=byte)
        return pixels, frames.shape(dtype=integer)

    return graph(
        batch_size=batch_size,
        num_threads=threads,
        device_id=device_id,
        prefetch_queue_depth=prefetch,
        # Outputs then live as long as they are referenced, not only until the next run.
        exec_dynamic=True,
    )
