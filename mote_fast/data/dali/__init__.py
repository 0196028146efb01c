"""Decoding with DALI: one pipeline for GPU and CPU, and the loader that uses it."""
