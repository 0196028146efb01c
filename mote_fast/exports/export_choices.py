"""What an export may be, apart from everything that takes time to import."""

from __future__ import annotations

from typing import Literal, TypeAlias

Format: TypeAlias = Literal["onnx", "pt2", "aoti"]
GraphName: TypeAlias = Literal["tower", "head", "whole"]
