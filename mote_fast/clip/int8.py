"""The image tower in int8 on the CPU: SmoothQuant, then ONNX Runtime's dynamic quantisation, exported once per model.

Weights are int8 with a scale per output channel, of 8 bits where the processor has VNNI and of 7 elsewhere; the tokens
entering a matrix product are uint8 with one scale for the whole batch, taken from their range. A feature therefore
depends, in its third or fourth digit, on the other frames of its batch. Attention, normalisation and the patch
convolution stay float32. ``int8_openvino.py`` is the other way to run it.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from mote_fast.clip import int8_openvino
from mote_fast.clip.calibration import Calibration
from mote_fast.clip.fingerprint import WeightsFingerprint, weights_fingerprint
from mote_fast.clip.model_cache import ModelCache
from mote_fast.clip.smooth_quant import smoothed
from mote_fast.clip.towers import ClipTowers
from mote_fast.errors import BackendError, ConfigError
from mote_fast.runtime.environment import instruction_sets, machine
from mote_fast.runtime.forks import HomeProcess
from mote_fast.version import __version__

log = logging.getLogger(__name__)

# What runs the tower.
Int8Backend: TypeAlias = Literal["onnxruntime", "openvino"]
# By the dtype that asks for it.
BACKENDS: Mapping[str, Int8Backend] = {"int8": "onnxruntime", "int8-openvino": "openvino"}

# Part of the cache's key: raise it when the exported graph or its quantisation changes.
RECIPE_VERSION = 2
# The oldest operator set that the export supports, readable by most versions of ONNX Runtime.
OPSET = 18
# Instruction sets that sum the products of 8-bit numbers in 32 bits; others sum pairs of them in 16, which overflow.
VNNI = {"avx512_vnni", "avx_vnni"}
# Bytes; larger than any weight.
_NO_LIMIT = 1 << 62

# Held while a session is made: PyTorch's exporter serves one thread at a time, and the second finds the first's result.
_MAKING = threading.Lock()


class _Made(NamedTuple):
    """The function from pixels to features, and the weights and number of threads that it was made for."""

    run: Callable[[np.ndarray], np.ndarray]
    weights: WeightsFingerprint
    threads: int

    def fits(self, towers: ClipTowers) -> bool:
        """Whether nothing has changed since."""
        return (self.weights, self.threads) == (weights_fingerprint(towers.image_state()), torch.get_num_threads())


class Int8Tower:
    """Runs the image tower of CLIP towers in int8.

    The quantised tower follows the float weights: when they or PyTorch's number of threads change, the next call reads
    it from the cache or exports it again.

    Args:
        towers: the towers; their float weights are not changed.
        cache: cache of exported towers; None takes the user's cache folder.
        calibration: the frames of SmoothQuant, and for OpenVINO of ranges; None takes those of the package.
        backend: what runs it.
    """

    def __init__(
        self,
        towers: ClipTowers,
        cache: ModelCache | None = None,
        calibration: Calibration | None = None,
        backend: Int8Backend = "onnxruntime",
    ) -> None:
        self.towers = towers
        self.backend: Int8Backend = backend
        self.cache = ModelCache() if cache is None else cache
        self.calibration = Calibration() if calibration is None else calibration
        self._made: _Made | None = None
        self._home = HomeProcess()

    @property
    def dtype(self) -> str:
        """What asks for it: "int8" or "int8-openvino"."""
        return next(name for name, backend in BACKENDS.items() if backend == self.backend)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Encode frames as ``ClipTowers.encode_frames`` does.

        Args:
            pixels: float32 [N, 3, S, S] on the CPU, normalised.

        Returns:
            float32 [N, d], without gradients.

        Raises:
            ConfigError: the towers or the pixels are not on the CPU, or not float32.
            BackendError: see ``prepare``.
        """
        if pixels.device.type != "cpu" or pixels.dtype != torch.float32:
            raise ConfigError(f"int8 towers take float32 pixels on the CPU, got {pixels.dtype} on {pixels.device}")
        run = self._ready()
        return torch.from_numpy(run(pixels.detach().contiguous().numpy()))

    def prepare(self) -> None:
        """Prepare the session: from this object, from the cache, or by exporting (10 to 40 s for ViT-B/16).

        Raises:
            ConfigError: the tower is not CLIP's ViT in float32 on the CPU.
            BackendError: a package is missing, or this process was forked from the one whose session has threads.
            VideoError: a video of the calibration cannot be read.
        """
        self._ready()

    def _ready(self) -> Callable[[np.ndarray], np.ndarray]:
        # Threads may call this at once, also when the weights change: each runs a session that fits what it saw.
        made = self._made
        # OpenVINO has threads of its own also where one of them computes.
        if made is not None and (made.threads > 1 or self.backend == "openvino") and self._home.is_left:
            raise BackendError(
                "this process was forked from the one that loaded the int8 model, and the threads that run it do not "
                'live on in a fork; start processes with the method "spawn" or "forkserver"'
            )
        if made is None or not made.fits(self.towers):
            with _MAKING:
                made = self._made
                if made is None or not made.fits(self.towers):
                    made = self._made = self._make()
        return made.run

    def _make(self) -> _Made:
        towers, threads = self.towers, torch.get_num_threads()
        weights = weights_fingerprint(towers.image_state())
        if towers.device.type != "cpu" or towers.dtype != torch.float32:
            raise ConfigError(f"dtype='int8' is for float32 weights on the CPU, not {towers.dtype} on {towers.device}")
        if not towers.is_plain_vision_tower:
            raise ConfigError(f"dtype='int8' serves CLIP's own ViT image towers, which {towers.config.name} is not")
        openvino = _required("openvino", self.dtype) if self.backend == "openvino" else None
        onnxruntime = _required("onnxruntime", self.dtype)
        bits = weight_bits()
        versions = _versions(onnxruntime, openvino)
        origin = towers.image_fingerprint(), self.calibration.fingerprint(), bits, machine(), versions
        key = hashlib.sha256(repr(origin).encode()).hexdigest()
        content = self.cache.read(key)
        if content is None:
            pixels = self.calibration.pixels(towers)
            content = quantized(smoothed(towers, pixels), bits, None if openvino is None else pixels)
            self.cache.write(key, content)
        if openvino is not None:
            return _Made(int8_openvino.runner(content, threads, openvino), weights, threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin between runs would slow down decoding and PyTorch.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # One block of memory, planned for all of a pass, costs twice the memory of its tensors and gains 1%.
        options.enable_mem_pattern = False
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return _Made(lambda pixels: session.run(None, {"pixels": pixels})[0], weights, threads)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the session out of copies: each copy makes its own from the cache."""
        return self.__dict__ | {"_made": None}


def _versions(onnxruntime: Any, openvino: Any) -> tuple[object, ...]:
    own = RECIPE_VERSION, __version__, torch.__version__, onnxruntime.__version__
    return own if openvino is None else (*own, openvino.__version__)


def weight_bits() -> int:
    """Return the bits of an int8 weight, sign included: 8 with VNNI, 7 where sums of two products have 16 bits."""
    return 7 if VNNI.isdisjoint(instruction_sets()) else 8


def quantized(towers: ClipTowers, bits: int, pixels: Tensor | None = None) -> bytes:
    """Export the image tower, quantise its matrix products and return the bytes of an ONNX file.

    Args:
        towers: the towers; outlier channels cost accuracy, see ``smoothed``.
        bits: of a weight, 7 or 8, see ``weight_bits``.
        pixels: float32 [N, 3, S, S]; given, their ranges are those of the tokens, as OpenVINO takes them. Without
            them every batch has its own.

    Raises:
        BackendError: a package is missing.
    """
    optimizer = _required("onnxscript.optimizer")
    quantization, helpers = _required("onnxruntime.quantization"), _required("onnxruntime.quantization.quant_utils")
    log.info("exporting the image tower in int8, once for these weights (10 to 40 s for ViT-B/16) ...")
    start = time.perf_counter()
    size = towers.image_size
    batch = torch.export.Dim("frames", min=1)
    with torch.no_grad():
        program = torch.onnx.export(
            _ImageTower(towers).eval(),
            # Two frames, because with one the exporter treats the batch size as a constant.
            (torch.zeros(2, 3, size, size),),
            input_names=["pixels"],
            output_names=["features"],
            dynamic_shapes={"pixels": {0: batch}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    # The exporter folds only small constants, and a weight that the graph slices would stay float.
    optimizer.fold_constants(program.model, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
    optimizer.remove_unused_nodes(program.model)
    model = program.model_proto
    # The exporter has already done ONNX Runtime's preprocessing; without this mark ONNX Runtime warns.
    helpers.add_pre_process_metadata(model)
    if pixels is not None:
        content = int8_openvino.quantized(model, pixels, bits, quantization)
    else:
        content = _dynamic(model, bits, quantization)
    log.info("exported in %.0f s, %.0f MB", time.perf_counter() - start, len(content) / 1e6)
    return content


def _dynamic(model: Any, bits: int, quantization: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantization.quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul"],
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=bits == 7,
        )
        return path.read_bytes()


class _ImageTower(nn.Module):
    """The image tower alone, as a module for the exporter."""

    def __init__(self, towers: ClipTowers) -> None:
        super().__init__()
        self.towers = towers

    def forward(self, pixels: Tensor) -> Tensor:
        return self.towers.run_vision_tower(pixels)


def _required(name: str, dtype: str = "int8") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        extra = dtype.removeprefix("int8-")
        raise BackendError(f"dtype={dtype!r} needs {package} ({error}); pip install 'mote_fast[{extra}]'") from error
