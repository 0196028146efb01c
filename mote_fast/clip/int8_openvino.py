"""The image tower in int8 through OpenVINO: static quantisation, one scale for each product's tokens, from calibration.

In place of ranges that every batch has anew (``int8.py``), so that a feature does not depend on its batch. The class
token alone passes the last block's queries, its MLP and the projection: a few frames show too few of its values for a
range, and these products are too small to matter, so they stay float. So do attention, normalisation and the patch
convolution, in bfloat16 where the processor has it (OpenVINO's default).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mote_fast.errors import BackendError, one_line

# Frames per pass of the calibration; bounds memory.
_FRAMES_AT_ONCE = 4
# Frames of noise beside those of the calibration: stronger contrasts than drawn videos have, so that ranges hold for
# frames that are unlike them.
_NOISE = 4
# Products with a stored matrix from the last block's queries on, keys and values included, and the projection.
_LAST = 6


def quantized(model: Any, pixels: Tensor, bits: int, quantization: Any) -> bytes:
    """Quantise the products of an exported tower and return the bytes of an ONNX file, with QDQ pairs.

    Args:
        model: the ONNX model of a tower, as ``mote_fast.clip.int8`` exports it.
        pixels: float32 [N, 3, S, S], normalised; frames that show how large the tokens become.
        bits: of a weight, 7 or 8.
        quantization: the module ``onnxruntime.quantization``.
    """
    noise = torch.randn(_NOISE, *pixels.shape[1:], generator=torch.Generator().manual_seed(0))
    frames = iter(torch.cat((pixels, noise)).split(_FRAMES_AT_ONCE))

    class Frames(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({"pixels": each.contiguous().numpy()} for each in frames), None)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            model,
            path,
            Frames(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=list(_of_class_tokens(model)),
            per_channel=True,
            reduce_range=bits == 7,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )
        return path.read_bytes()


def _of_class_tokens(model: Any) -> Iterator[str]:
    """Names of the products that class tokens alone pass."""
    sizes = {each.name: tuple(each.dims) for each in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in sizes]
    for node in products[-_LAST:]:
        rows, columns = sizes[node.input[1]]
        # Keys and values, of all tokens, are one matrix.
        if columns != 2 * rows:
            yield node.name


def runner(content: bytes, threads: int, openvino: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from pixels [N, 3, S, S] to features [N, d]; threads may call it at once.

    Args:
        content: bytes of the ONNX file.
        threads: processors that it takes.
        openvino: the package.

    Raises:
        BackendError: OpenVINO cannot run it here.
    """
    # Pinned threads would keep to the processors that decoding and PyTorch use.
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
    try:
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(content), "CPU", options)
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot run the image tower here ({one_line(error)}); use dtype='int8'") from error
    # A request serves one thread at a time, and costs nothing to make.
    return lambda pixels: compiled.create_infer_request().infer({0: pixels})[0]
