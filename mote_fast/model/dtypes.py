"""The dtype of a model that was asked for by what is allowed ("auto") and not by name, and a warning of slow ones."""

from __future__ import annotations

import logging
from typing import Literal, TypeAlias, TypeGuard

import torch

from mote_fast.clip.int8 import BACKENDS, weight_bits
from mote_fast.errors import ConfigError
from mote_fast.ops.products import CLEARLY, bfloat16_gain

log = logging.getLogger(__name__)

Int8: TypeAlias = Literal["int8", "int8-openvino"]
# Type of the parameters; "auto" picks float32 or bfloat16, "int8" is float32 with a quantised image tower.
Dtype: TypeAlias = torch.dtype | Literal["float32", "float16", "bfloat16", "auto"] | Int8

FLOATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def resolve_dtype(dtype: Dtype, device: str | torch.device) -> torch.dtype | Int8:
    """Return the dtype for a device; "auto" is bfloat16 where products in it are clearly faster, else float32.

    The first call for a device measures, for a few milliseconds. Explicit bfloat16 that is slower than float32, as
    where a processor emulates it, is logged as a warning, and so is OpenVINO's int8 without VNNI. int8 is never picked:
    it has to be exported, and its error depends on the weights.

    Raises:
        ConfigError: ``dtype`` is something else, or int8 is asked for on another device than a CPU.
    """
    device = torch.device(device)
    if _is_int8(dtype):
        if device.type != "cpu":
            raise ConfigError(f"dtype={dtype!r} runs on the CPU, not on {device}; there, use torch.float16")
        if dtype == "int8-openvino" and weight_bits() == 7:
            log.warning(
                "this processor has no VNNI, and where that was measured OpenVINO's int8 took 1.35 times as long as "
                "float32, and dtype='int8' 0.63 times; see docs/int8.md"
            )
        return dtype
    if dtype == "auto":
        return torch.bfloat16 if bfloat16_gain(device) >= CLEARLY else torch.float32
    if isinstance(dtype, str):
        dtype = FLOATS.get(dtype, dtype)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        names = ", ".join(map(repr, (*FLOATS, "auto", *BACKENDS)))
        raise ConfigError(f"dtype must be {names} or a floating torch.dtype, got {dtype!r}")
    if dtype == torch.bfloat16 and device.type == "cpu" and 0 < (gain := bfloat16_gain(device)) < 1:
        log.warning(
            "this processor emulates bfloat16: its products take %.1f times as long as those in float32; "
            "use torch.float32, or 'auto', which picks the faster",
            1 / gain,
        )
    return dtype


def _is_int8(dtype: object) -> TypeGuard[Int8]:
    return isinstance(dtype, str) and dtype in BACKENDS
