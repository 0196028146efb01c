"""What users would pick instead for the image tower, on the same frames: transformers' CLIP, and ONNX Runtime."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator

import torch
from setting import Setting
from torch import Tensor

import mote_fast
from mote_fast.errors import BackendError

TRANSFORMERS, ONNX_RUNTIME = "transformers", "ONNX Runtime, float32"


def peers(setting: Setting) -> Iterator[tuple[str, Callable[[Tensor], Tensor], float]]:
    """Name, function from frames to features, and seconds of preparation, of every peer that this machine can have.

    Those that it cannot have are noted in ``setting.left_out``. A quick run does not wait for the export.
    """
    if setting.device.type != "cpu" or setting.dtype != torch.float32:
        return
    makers = {TRANSFORMERS: _transformers} | ({} if setting.quick else {ONNX_RUNTIME: _onnx_runtime})
    for name, make in makers.items():
        if not setting.wants(name):
            continue
        begun = time.perf_counter()
        try:
            encode = make(setting)
        except (ImportError, BackendError) as error:
            setting.left_out[name] = str(error).splitlines()[0]
            continue
        yield name, encode, time.perf_counter() - begun


def _transformers(setting: Setting) -> Callable[[Tensor], Tensor]:
    """Their image tower of the same sizes, with random weights of its own: times do not depend on them."""
    library = importlib.import_module("transformers")
    towers = setting.model.clip
    vision = towers.config.model["vision_cfg"]
    config = library.CLIPVisionConfig(
        hidden_size=vision["width"],
        intermediate_size=4 * vision["width"],
        num_hidden_layers=vision["layers"],
        num_attention_heads=vision["width"] // vision.get("head_width", 64),
        image_size=towers.image_size,
        patch_size=vision["patch_size"],
        projection_dim=towers.embed_dim,
        hidden_act="quick_gelu",
    )
    tower = library.CLIPVisionModelWithProjection(config).eval()
    return lambda pixels: tower(pixel_values=pixels).image_embeds


def _onnx_runtime(setting: Setting) -> Callable[[Tensor], Tensor]:
    """Our own export of the same weights, with as many threads as PyTorch has."""
    runtime = importlib.import_module("onnxruntime")
    folder = setting.folder / "exported"
    mote_fast.export(setting.folded, folder, "onnx", "tower")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # As in our int8 arm: threads that spin between runs would slow down what else is timed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = runtime.InferenceSession(str(folder / "tower.onnx"), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: torch.from_numpy(session.run(None, {name: pixels.numpy()})[0])
