"""The DALI graph: chosen frames decoded, scaled, cropped, mirrored, greyed, normalised and laid out as views.

Nothing in it is random: every clip comes with its plan (``mote_fast.data.plan``), the same one that the CPU loader
carries out. Samples that DALI should not decode enter as frames, and the rest of the graph is the same for all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch

from mote_fast.data.plan import ClipRecipe
from mote_fast.errors import one_line

if TYPE_CHECKING:
    from nvidia.dali.pipeline import Pipeline

Device = Literal["cpu", "gpu"]

# Batches that DALI works on while the caller has one.
PREFETCH = 2

# As what DALI passes the exceptions of its C++ on.
DALI_ERRORS = (RuntimeError, ValueError, IndexError, TypeError, MemoryError)

_INSTALL = "pip install nvidia-dali-cuda130"


@functools.cache
def why_unavailable(device: Device = "cpu") -> str | None:
    """Why DALI cannot serve on this machine, with what to install, or None if it can.

    The first call imports DALI, which takes a second; the answer is remembered.
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
    """One video as it enters the graph; U frames that its views share, V views of T frames.

    Either ``encoded`` holds the file and ``frames`` one pixel, or ``frames`` the decoded frames and ``encoded`` one
    byte, as DALI takes no empty arrays.
    """

    is_encoded: np.ndarray  # bool []
    encoded: np.ndarray  # uint8 [bytes], the whole file
    indices: np.ndarray  # int32 [U], of the frames to decode
    frames: np.ndarray  # uint8 [U, H, W, 3]
    scaled: np.ndarray  # float32 [2], (height, width) that the frames are scaled to
    boxes: np.ndarray  # int32 [crops, 4], (top, left, height, width) in the scaled frame
    colors: np.ndarray  # float32 [3, 4], an affine map of RGB in grey levels
    mirrored: np.ndarray  # int32 [], 0 or 1
    order: np.ndarray  # int32 [V * T], where each frame of the views stands among the crops, crop * U + frame


# What the source of a pipeline returns: for each field of ``ClipInput`` the arrays of the batch.
Columns = tuple[list[np.ndarray], ...]
Source = Callable[[], Columns] | Iterator[Columns]


def columns(inputs: list[ClipInput]) -> Columns:
    """Lay out the inputs of a batch as DALI's external source wants them."""
    return tuple(list(column) for column in zip(*inputs, strict=True))


def build_pipeline(
    source: Source,
    recipe: ClipRecipe,
    *,
    batch_size: int,
    device: Device,
    device_id: int | None = None,
    dtype: torch.dtype = torch.float32,
    threads: int = 1,
    prefetch: int = PREFETCH,
) -> Pipeline:
    """Build the pipeline; its outputs are pixels [B, V * T, 3, S, S], normalised, and int32 [B, 4], (U, H, W, 3).

    Args:
        source: returns the next batch's ``columns``, of at most ``batch_size`` videos, and raises ``StopIteration``
            at the end.
        recipe: gives the number and size of the crops, and the mean and deviation.
        batch_size: the largest batch.
        device: "gpu" decodes with NVDEC and keeps everything after it there; "cpu" needs no GPU.
        device_id: of the GPU; None on the CPU.
        dtype: of the pixels, float32 or float16.
        threads: of DALI.
        prefetch: batches that DALI works on ahead.
    """
    from nvidia.dali import fn as operators
    from nvidia.dali.pipeline import pipeline_def
    from nvidia.dali.types import DALIDataType, DALIInterpType

    # DALI's own types do not know what indexing and transferring a node gives.
    fn: Any = operators
    nodes_of_clip: Any = ClipInput
    integer, byte, real = DALIDataType.INT32, DALIDataType.UINT8, DALIDataType.FLOAT
    fields = {
        "is_encoded": (DALIDataType.BOOL, 0),
        "encoded": (byte, 1),
        "indices": (integer, 1),
        "frames": (byte, 4),
        "scaled": (real, 1),
        "boxes": (integer, 2),
        "colors": (real, 2),
        "mirrored": (integer, 0),
        "order": (integer, 1),
    }
    types, dims = zip(*(fields[name] for name in ClipInput._fields), strict=True)
    layouts = ["FHWC" if name == "frames" else "" for name in ClipInput._fields]
    # Evaluation cuts its crops at their final size.
    resizes_crops = recipe.augmentation != "none"
    size = [recipe.size, recipe.size]
    decoder = "mixed" if device == "gpu" else "cpu"
    mean, std = ([255.0 * value for value in values] for values in (recipe.mean, recipe.std))
    output = {torch.float32: real, torch.float16: DALIDataType.FLOAT16}[dtype]

    # DALI compiles this function anew, so that a condition on a node splits the batch and joins it again in order; its
    # compiler does not take annotated variables.
    @pipeline_def(enable_conditionals=True)
    def graph():
        item = nodes_of_clip(
            *fn.external_source(
                source=source,
                num_outputs=len(fields),
                batch=True,
                dtype=list(types),
                ndim=list(dims),
                layout=layouts,
            )
        )
        if item.is_encoded:
            frames = fn.decoders.video(item.encoded, frames=item.indices, device=decoder)
        else:
            frames = item.frames.gpu() if device == "gpu" else item.frames
        scaled = fn.resize(frames, size=item.scaled, interp_type=DALIInterpType.INTERP_CUBIC, antialias=True)
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
        pixels = fn.crop_mirror_normalize(
            pixels, mirror=item.mirrored, mean=mean, std=std, output_layout="FCHW", dtype=output
        )
        return pixels, frames.shape(dtype=integer)

    return graph(
        batch_size=batch_size,
        num_threads=threads,
        device_id=device_id,
        prefetch_queue_depth=prefetch,
        # Outputs then live as long as they are held, and not only until the next run.
        exec_dynamic=True,
    )
