"""Exports: a model's graphs in a folder of ONNX or PyTorch files that runs without CLIP's code, and what reads it."""
